"""HttpRequestHandler without a cache and an origin: what is refused, and how; the rest is in tests/http."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import cast

import pytest

from tests.support.fetching import NO_UPDATES, fetch_means, http_fetches
from tests.support.http_sockets import http_connection
from tests.support.sinks import origin_client
from tests.support.streams import source_of
from tests.support.tcp import connected
from tests.support.waiting import WATCHDOG_S
from webproxy.caching.options import DEFAULT_OPTIONS
from webproxy.errors import ClientGone, OriginError, OriginRefused, OriginTimeout, OriginUnreachable, Overloaded
from webproxy.exchange.deliver_stored import StoredDelivery
from webproxy.exchange.fast_path import FastPath
from webproxy.exchange.http_request import Answers, HttpRequestHandler, Policy
from webproxy.exchange.pass_through import PassThrough
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.table import FetchTable, Opened
from webproxy.origin.routing import OriginRule, OriginTable
from webproxy.origin.via import Via
from webproxy.store.cache_client import NoStore
from webproxy.store.lookup import KEY_BYTES_MAX, ObjectLookup
from webproxy.store.updates import CacheUpdater
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.job import KEEP_ALIVE, Done

VIA = Via(b"us", b"0123")
Ask = Callable[..., tuple[bool, bytes]]


class FailingFetches(HttpFetches):
    """No fetch begins."""

    def __init__(self, error: Exception) -> None:
        super().__init__(FetchTable(threads=1, spool_directory=None), fetch_means())
        self._error = error

    def open(self, wanted: FetchRequest, missed_at: float, *, bypass: bool = False) -> Opened | None:
        raise self._error


def exchange(
    origins: OriginTable,
    fetches: HttpFetches | None = None,
    *,
    updates: CacheUpdater = NO_UPDATES,
    purge_from: str = "10.0.0.0/8",
) -> HttpRequestHandler:
    heads = ResponseHeads(b"us")
    store = NoStore()
    source = source_of(store)
    shutdown = Shutdown()
    answers = Answers(
        FastPath(source, origins, heads, shutdown),
        StoredDelivery(source),
        PassThrough(origin_client(), VIA, updates, body_timeout_s=1.0),
    )
    fetches = fetches or http_fetches(FetchTable(threads=1, spool_directory=None))
    policy = Policy(DEFAULT_OPTIONS, WATCHDOG_S, 2.0, (ipaddress.ip_network(purge_from),))
    return HttpRequestHandler(heads, ObjectLookup(store), updates, origins, fetches, answers, policy, shutdown)


def answer(made: HttpRequestHandler, data: bytes) -> tuple[bool, bytes]:
    """Whether the connection stays open, and the bytes the client got."""
    with connected() as (fd, client):
        connection = http_connection(fd)
        request = connection.feed(data)
        assert request is not None
        outcome = made.serve(connection, request)
        assert outcome in (KEEP_ALIVE, Done(connection))
        sockets.close(fd)
        return outcome is KEEP_ALIVE, b"".join(iter(lambda: client.recv(65_536), b""))


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
    assert made.outcomes.totals() == {"error" if status >= 500 else "refused": 1}


def test_a_client_that_is_gone() -> None:
    made = exchange(OriginTable([OriginRule(url="http://o")]), FailingFetches(ClientGone("x")))
    assert answer(made, b"GET /x HTTP/1.1\r\nHost: us\r\n\r\n") == (False, b"")
    assert made.outcomes.totals() == {"client gone": 1}


def test_only_if_cached() -> None:
    made = exchange(OriginTable([OriginRule(url="http://o")]))
    _, sent = answer(made, b"GET /x HTTP/1.1\r\nHost: us\r\nCache-Control: only-if-cached\r\n\r\n")
    assert sent.startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize(("lines", "stays"), [(b"", True), (b"Connection: close\r\n", False)], ids=["stays", "closes"])
def test_options_of_the_server_as_such(lines: bytes, stays: bool) -> None:
    made = exchange(OriginTable())
    result, sent = answer(made, b"OPTIONS * HTTP/1.1\r\nHost: us\r\n%s\r\n" % lines)
    assert (made.outcomes.totals(), result) == ({"answered": 1}, stays)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\nContent-Length: 0\r\n\r\n")
    assert b"\r\nAllow: GET, HEAD, " in sent
    assert (b"\r\nConnection: close\r\n" in sent) is not stays


@pytest.mark.parametrize(
    ("line", "via", "status"),
    [
        (b"TRACE /x", b"1.1 us (4567)", 501),
        (b"CONNECT us:80", b"1.1 us (4567)", 501),
        (b"GET /x", b"1.1 us (0123)", 508),
        (b"POST /x", b"1.1 us (0123)", 508),
        (b"OPTIONS *", b"1.1 us (0123)", 508),
        (b"GET /x", b"1.1 us (4567)", 404),
        (b"POST /x", b"1.1 us (4567)", 405),
        (b"PURGE /x", b"1.1 us (4567)", 405),
        (b"OPTIONS *", b"1.1 us (4567)", 200),
    ],
)
def test_methods_that_are_not_passed_and_requests_that_have_looped(line: bytes, via: bytes, status: int) -> None:
    _, sent = answer(exchange(OriginTable()), line + b" HTTP/1.1\r\nHost: us\r\nVia: %s\r\n\r\n" % via)
    assert sent.startswith(b"HTTP/1.1 %d " % status)


# -- PURGE ------------------------------------------------------------------------------------------------------------
class Writer:
    """As CacheUpdater: notes what is to be purged."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.purged: list[tuple[bytes, bool]] = []

    def purge(self, key: bytes, *, soft: bool = False) -> int:
        self.purged.append((key, soft))
        return 3


def purge(writer: Writer, *lines: bytes, path: bytes = b"/x", purge_from: str = "127.0.0.0/8") -> tuple[bool, bytes]:
    """As answer(), for a PURGE from this machine."""
    made = exchange(OriginTable(), updates=cast("CacheUpdater", writer), purge_from=purge_from)
    kept, sent = answer(made, b"\r\n".join((b"PURGE %s HTTP/1.1" % path, b"Host: us", *lines, b"", b"")))
    assert made.outcomes.totals() == {"purged" if sent.startswith(b"HTTP/1.1 200 ") else "refused": 1}
    return kept, sent


@pytest.mark.parametrize(
    ("lines", "soft", "text"),
    [((), False, b"3 objects removed"), ((b"X-Purge: Soft",), True, b"3 objects marked stale")],
)
@pytest.mark.parametrize("stays", [True, False])
def test_a_purge_and_what_its_client_is_told(lines: tuple[bytes, ...], soft: bool, text: bytes, stays: bool) -> None:
    writer = Writer()
    kept, sent = purge(writer, *lines, *(() if stays else (b"Connection: close",)))
    assert kept is stays
    assert sent.startswith(b"HTTP/1.1 200 ")
    assert sent.endswith(text + b"\n")
    assert writer.purged == [(b"/x", soft)]


def test_a_purge_from_an_address_that_may_not() -> None:
    writer = Writer()
    _, sent = purge(writer, purge_from="10.0.0.0/8")
    assert sent.startswith(b"HTTP/1.1 405 ")
    assert sent.endswith(b"\r\n\r\nPURGE not allowed from here\n")
    assert writer.purged == []


def test_a_purge_without_a_cache_is_told_so() -> None:
    writer = Writer(keeps=False)
    _, sent = purge(writer)
    assert sent.startswith(b"HTTP/1.1 405 ")
    assert sent.endswith(b"\r\n\r\nnothing to purge: this proxy has no cache\n")
    assert writer.purged == []


def test_a_purge_of_a_key_that_no_object_can_have() -> None:
    writer = Writer()
    kept, sent = purge(writer, path=b"/" + b"x" * KEY_BYTES_MAX)
    assert kept
    assert sent.endswith(b"0 objects removed\n")
    assert writer.purged == []
