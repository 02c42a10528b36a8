"""HttpRequestHandler without a cache and an origin: what is refused, with which status."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest

from tests.support.sinks import origin_client
from tests.support.tcp import connected
from webproxy.caching.options import DEFAULT_OPTIONS
from webproxy.errors import ClientGone, OriginError, OriginRefused, OriginTimeout, OriginUnreachable, Overloaded
from webproxy.exchange.http_request import HttpRequestHandler, HttpSettings
from webproxy.exchange.pass_through import PassThrough
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.partial_store import PartialStore
from webproxy.fetch.spool import SpoolReader
from webproxy.fetch.table import FetchTable
from webproxy.origin.forwarded_request import FetchSettings, ForwardedRequest
from webproxy.origin.routing import OriginRule, OriginTable
from webproxy.origin.via import Via
from webproxy.store.lookup import ObjectLookup
from webproxy.store.store import NoStore
from webproxy.store.updates import CacheUpdater
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit
from webproxy.transport.http1_connection import HttpConnection

VIA = Via(b"us", b"0123")
SETTINGS = HttpSettings(
    cache_wait_s=1.0,
    queue_wait_s=1.0,
    options=DEFAULT_OPTIONS,
    purge_networks=(ipaddress.ip_network("10.0.0.0/8"),),
    via=VIA,
)
FETCH_SETTINGS = FetchSettings(
    window_bytes=1, go_on_share=0.5, redirects=3, object_bytes_max=1, via=VIA, options=DEFAULT_OPTIONS
)
Ask = Callable[..., tuple[bool, bytes]]


class FailingFetches(HttpFetches):
    """No fetch begins."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def open(self, order: FetchRequest, missed_at: float, *, alone: bool = False) -> tuple[SpoolReader, bool] | None:
        raise self._error


def exchange(origins: OriginTable, fetches: HttpFetches | None = None) -> HttpRequestHandler:
    asker, replies = ForwardedRequest(origin_client(), FETCH_SETTINGS), ResponseHeads(b"us")
    table = FetchTable(threads=1, spool_directory=None)
    store = NoStore()
    lookup = ObjectLookup(store)
    updates = CacheUpdater(store, lookup)
    return HttpRequestHandler(
        store,
        lookup,
        updates,
        origins,
        fetches or HttpFetches(table, asker, FETCH_SETTINGS, updates, PartialStore(store, lookup, updates)),
        PassThrough(asker, replies, body_timeout_s=1.0),
        replies,
        SETTINGS,
        stopping=lambda: False,
        others_wait=lambda: False,
    )


def answer(made: HttpRequestHandler, data: bytes) -> tuple[object, bytes]:
    """What serve() says of the connection, and what the client got."""
    with connected() as (fd, client):
        connection = HttpConnection(ClientStream(fd, RateLimit(0, 1.0), lambda: False), head_bytes_max=8192)
        request = connection.feed(data)
        assert request is not None
        result = made.serve(connection, request)
        sockets.close(fd)
        return result, b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize(
    ("line", "status", "stays"),
    [
        pytest.param(b"GET /x", 404, True, id="nothing-there"),
        pytest.param(b"HEAD /x", 404, True, id="head"),
        pytest.param(b"POST /x", 405, True, id="no-origin-for-it"),
        pytest.param(b"TRACE /x", 501, False, id="not-served"),
        pytest.param(b"GET http://elsewhere/x", 403, True, id="no-forward-proxy"),
        pytest.param(b"GET https://elsewhere/x", 403, True, id="no-https"),
        pytest.param(b"PURGE /x", 405, True, id="no-cache-to-purge"),
    ],
)
def test_without_an_origin(line: bytes, status: int, stays: bool) -> None:
    result, sent = answer(exchange(OriginTable()), line + b" HTTP/1.1\r\nHost: us\r\n\r\n")
    assert (result, sent[:13]) == (stays, b"HTTP/1.1 %d " % status)
    assert sent.endswith(b"\r\n\r\n") is line.startswith(b"HEAD")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OriginUnreachable("x"), 502),
        (OriginTimeout("x"), 504),
        (OriginRefused("x"), 403),
        (OriginError("x"), 502),
        (Overloaded("x"), 503),
    ],
)
def test_what_no_fetch_can_do(error: Exception, status: int) -> None:
    made = exchange(OriginTable([OriginRule(url="http://o")]), FailingFetches(error))
    result, sent = answer(made, b"GET /x HTTP/1.1\r\nHost: us\r\n\r\n")
    assert (result, sent[:13]) == (True, b"HTTP/1.1 %d " % status)
    assert made.outcomes() == {"error" if status >= 500 else "refused": 1}


def test_a_client_that_is_gone() -> None:
    made = exchange(OriginTable([OriginRule(url="http://o")]), FailingFetches(ClientGone("x")))
    assert answer(made, b"GET /x HTTP/1.1\r\nHost: us\r\n\r\n") == (False, b"")
    assert made.outcomes() == {"client gone": 1}


def test_only_if_cached() -> None:
    made = exchange(OriginTable([OriginRule(url="http://o")]))
    _, sent = answer(made, b"GET /x HTTP/1.1\r\nHost: us\r\nCache-Control: only-if-cached\r\n\r\n")
    assert sent.startswith(b"HTTP/1.1 504 ")
