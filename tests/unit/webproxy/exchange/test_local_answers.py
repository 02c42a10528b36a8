"""LocalResponses: what ends at the proxy itself, before anybody looks for a target."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.http_sockets import http_connection
from tests.support.http_values import NOW, request
from tests.support.tcp import connected
from webproxy.exchange.context import RequestContext
from webproxy.exchange.local_answers import LocalResponses
from webproxy.exchange.response_heads import CLOSES, STAYS, Connection, ResponseHeads
from webproxy.http.errors import HttpError
from webproxy.http.messages import RequestHead
from webproxy.origin.via import Via
from webproxy.transport import sockets
from webproxy.transport.job import KEEP_ALIVE

OWN = LocalResponses(ResponseHeads(b"us"), Via(b"us", b"0123"))


def answered(asked: RequestHead, said: Connection = STAYS) -> tuple[str, bool, bytes]:
    """How an OPTIONS ended, whether its connection goes on, and what its client got."""
    with connected() as (fd, client):
        connection = http_connection(fd)
        context = RequestContext(connection, asked, said, NOW)
        outcome = OWN.options(context)
        sockets.close(fd)
        return context.result, outcome is KEEP_ALIVE, b"".join(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize(("said", "stays"), [(STAYS, True), (CLOSES, False)])
def test_options_of_the_server_as_such(said: Connection, stays: bool) -> None:
    result, goes_on, sent = answered(replace(request(method=b"OPTIONS"), target=b"*"), said)
    assert (result, goes_on) == ("answered", stays)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\nContent-Length: 0\r\n\r\n")
    assert b"\r\nAllow: GET, HEAD, " in sent
    assert (b"\r\nConnection: close\r\n" in sent) is not stays


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"POST", b"PURGE"])
def test_what_goes_its_way(method: bytes) -> None:
    OWN.check(request(b"Via: 1.1 us (4567)", method=method))


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(method=b"TRACE"), 501),
        (request(method=b"CONNECT"), 501),
        (request(b"Via: 1.1 us (0123)"), 508),
        (request(b"Via: 1.1 us (0123)", method=b"POST"), 508),
    ],
)
def test_what_is_refused(asked: RequestHead, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        OWN.check(asked)
    assert refused.value.status == status
