"""Purges: who may purge, and what is said; what goes is ObjectWriter's business."""

from __future__ import annotations

import ipaddress
from typing import cast

import pytest

from tests.support.http_values import NOW, request
from tests.support.tcp import connected
from webproxy import sockets
from webproxy.client_stream import ClientStream, RateLimit
from webproxy.http_connection import HttpConnection
from webproxy.lookup import KEY_BYTES_MAX
from webproxy.object_writer import ObjectWriter
from webproxy.origins import OriginRule, Target
from webproxy.purges import Networks, Purges
from webproxy.replies import CLOSES, STAYS, Connection, Replies
from webproxy.visit import Visit

HERE = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


class Writer:
    """Notes what is to be purged."""

    def __init__(self) -> None:
        self.purged: list[tuple[bytes, bool]] = []

    def purge(self, key: bytes, *, soft: bool = False) -> int:
        self.purged.append((key, soft))
        return 3


def serve(
    writer: Writer | None, *fields: bytes, key: bytes = b"/x", networks: Networks = HERE, said: Connection = STAYS
) -> tuple[tuple[str, bool] | None, bytes]:
    """The result of a PURGE from this machine, and what its client was told."""
    purges = Purges(cast("ObjectWriter | None", writer), Replies(b"us"), networks)
    with connected() as (fd, client):
        connection = HttpConnection(ClientStream(fd, RateLimit(0, 1.0), lambda: False), head_bytes_max=8192)
        target = Target(key, OriginRule(url="http://o"), "http://o", key, key)
        result = purges.serve(Visit(connection, request(*fields, method=b"PURGE"), target, said, NOW))
        sockets.close(fd)
        return result, b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize(
    ("fields", "soft", "text"),
    [((), False, b"3 objects removed"), ((b"X-Purge: Soft",), True, b"3 objects marked stale")],
)
@pytest.mark.parametrize("said", [STAYS, CLOSES])
def test_what_goes_and_what_is_said(fields: tuple[bytes, ...], soft: bool, text: bytes, said: Connection) -> None:
    writer = Writer()
    result, told = serve(writer, *fields, said=said)
    assert result == ("purged", not said.closes)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.endswith(text + b"\n")
    assert writer.purged == [(b"/x", soft)]


@pytest.mark.parametrize("networks", [(), (ipaddress.ip_network("10.0.0.0/8"),)])
def test_from_an_address_that_may_not(networks: Networks) -> None:
    writer = Writer()
    assert serve(writer, networks=networks) == (None, b"")
    assert writer.purged == []


def test_without_a_cache() -> None:
    assert serve(None) == (None, b"")


def test_a_key_that_no_object_can_have() -> None:
    writer = Writer()
    result, told = serve(writer, key=b"/" * (KEY_BYTES_MAX + 1))
    assert result == ("purged", True)
    assert told.endswith(b"0 objects removed\n")
    assert writer.purged == []
