"""Purges: access and answers; the removal itself is CacheUpdater's business."""

from __future__ import annotations

import ipaddress
from typing import cast

import pytest

from tests.support.http_sockets import http_connection
from tests.support.http_values import NOW, fields, request
from tests.support.tcp import connected
from webproxy.exchange.context import RequestContext
from webproxy.exchange.purge import Networks, Purges
from webproxy.exchange.response_heads import CLOSES, STAYS, Connection, ResponseHeads
from webproxy.http.messages import ResponseHead
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule, Target
from webproxy.store.lookup import KEY_BYTES_MAX
from webproxy.store.updates import CacheUpdater
from webproxy.transport import sockets
from webproxy.transport.job import KEEP_ALIVE, RequestOutcome

HERE = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


class Writer:
    """Notes what is to be purged."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.purged: list[tuple[bytes, bool]] = []
        self.invalidated: list[tuple[bytes, bytes, int, bytes | None]] = []

    def purge(self, key: bytes, *, soft: bool = False) -> int:
        self.purged.append((key, soft))
        return 3

    def invalidate(self, target: Target, method: bytes, response: ResponseHead, authority: bytes | None) -> None:
        self.invalidated.append((target.key, method, response.status, authority))


def serve(
    writer: Writer, *fields: bytes, key: bytes = b"/x", networks: Networks = HERE, said: Connection = STAYS
) -> tuple[RequestOutcome | None, bytes]:
    """The outcome of a PURGE from this machine, allowed or not, and the answer its client got."""
    purges = Purges(cast("CacheUpdater", writer), ResponseHeads(b"us"), networks)
    with connected() as (fd, client):
        connection = http_connection(fd)
        target = Target(key, OriginRule(url="http://o"), "http://o", key, key)
        context = RequestContext(connection, request(*fields, method=b"PURGE"), said, NOW, target)
        outcome = purges.serve(context) if purges.may_purge(context) else None
        assert (context.result == "purged") == (outcome is not None)
        sockets.close(fd)
        return outcome, b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize(
    ("fields", "soft", "text"),
    [((), False, b"3 objects removed"), ((b"X-Purge: Soft",), True, b"3 objects marked stale")],
)
@pytest.mark.parametrize("said", [STAYS, CLOSES])
def test_what_goes_and_what_is_said(fields: tuple[bytes, ...], soft: bool, text: bytes, said: Connection) -> None:
    writer = Writer()
    outcome, told = serve(writer, *fields, said=said)
    assert (outcome is KEEP_ALIVE) is not said.closes
    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.endswith(text + b"\n")
    assert writer.purged == [(b"/x", soft)]


def test_what_an_answer_makes_invalid_is_the_updaters_business() -> None:
    writer = Writer()
    purges = Purges(cast("CacheUpdater", writer), ResponseHeads(b"us"), ())
    target = Target(b"/x", OriginRule(url="http://o"), "http://o", b"/x", b"/x")
    with connected(closing=True) as (fd, _):
        connection = http_connection(fd)
        context = RequestContext(connection, request(b"Host: us", method=b"POST"), STAYS, NOW, target)
        purges.invalidate(context, OriginResponse(status=201, fields=fields(), length=0))
    assert writer.invalidated == [(b"/x", b"POST", 201, b"us")]


@pytest.mark.parametrize("networks", [(), (ipaddress.ip_network("10.0.0.0/8"),)])
def test_from_an_address_that_may_not(networks: Networks) -> None:
    writer = Writer()
    assert serve(writer, networks=networks) == (None, b"")
    assert writer.purged == []


def test_without_a_cache() -> None:
    assert serve(Writer(keeps=False)) == (None, b"")


def test_a_key_that_no_object_can_have() -> None:
    writer = Writer()
    outcome, told = serve(writer, key=b"/" * (KEY_BYTES_MAX + 1))
    assert outcome is KEEP_ALIVE
    assert told.endswith(b"0 objects removed\n")
    assert writer.purged == []
