"""HttpRequestHandler without a cache and an origin: what is refused, and how; the rest is in tests/http."""

from __future__ import annotations

from typing import cast

import pytest

from tests.support.http_sockets import http_connection
from tests.support.http_values import request, stored_response
from tests.support.small_proxy import http_handler, small_proxy
from tests.support.streams import source_of
from tests.support.tcp import connected
from tests.support.waiting import wait_until
from webproxy.errors import ClientGone, OriginError, OriginRefused, OriginTimeout, OriginUnreachable, Overloaded
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.exchange.context import PausedHit
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.plan import FetchMeans
from webproxy.fetch.table import FetchTable, Opened
from webproxy.origin.driver import OriginDriver
from webproxy.origin.routing import OriginRule, OriginTable
from webproxy.store.lookup import KEY_BYTES_MAX
from webproxy.store.store import NoStore
from webproxy.store.updates import CacheUpdater
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.job import KEEP_ALIVE, AnyOf, Done, WaitsFor


class FailingFetches(HttpFetches):
    """No fetch begins."""

    def __init__(self, error: Exception) -> None:
        super().__init__(FetchTable(threads=1, spool_directory=None), cast("FetchMeans", None))
        self._error = error

    def open(self, wanted: FetchRequest, missed_at: float, *, bypass: bool = False) -> Opened | None:
        raise self._error


def exchange(
    origins: OriginTable,
    fetches: HttpFetches | None = None,
    *,
    updates: CacheUpdater | None = None,
    purge_from: str = "10.0.0.0/8",
) -> HttpRequestHandler:
    driver, table = OriginDriver(), FetchTable(threads=1, spool_directory=None)
    driver.close()  # nothing here asks an origin
    return http_handler(driver, table, origins, Shutdown(), fetches=fetches, updates=updates, purge_from=purge_from)


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


# -- health -----------------------------------------------------------------------------------------------------------
HEALTH = b"/.gfcache/health"


def health(line: bytes, *, draining: bool = False, path: bytes | None = HEALTH) -> tuple[HttpRequestHandler, bytes]:
    driver, shutdown = OriginDriver(), Shutdown()
    driver.close()  # nothing here asks an origin
    shutdown.draining = draining
    table = FetchTable(threads=1, spool_directory=None)
    made = http_handler(driver, table, OriginTable(), shutdown, health_path=path)
    return made, answer(made, line + b" HTTP/1.1\r\nHost: us\r\n\r\n")[1]


def test_health_is_told_without_cache_and_origin() -> None:
    made, sent = health(b"GET " + HEALTH)
    assert (sent[:17], sent[-7:]) == (b"HTTP/1.1 200 OK\r\n", b"\r\n\r\nok\n")
    assert b"\r\nCache-Control: no-store\r\n" in sent
    assert made.outcomes.totals() == {"answered": 1}
    _, sent = health(b"HEAD " + HEALTH)
    assert sent.startswith(b"HTTP/1.1 200 ")
    assert sent.endswith(b"\r\nContent-Length: 3\r\n\r\n")


def test_a_process_that_drains_says_so_and_ends_the_connection() -> None:
    made, sent = health(b"GET " + HEALTH, draining=True)
    assert sent.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nConnection: close\r\n" in sent
    assert sent.endswith(b"\r\n\r\ndraining\n")
    assert made.outcomes.totals() == {"answered": 1}


@pytest.mark.parametrize("line", [b"POST " + HEALTH, b"PURGE " + HEALTH, b"DELETE " + HEALTH])
def test_health_can_only_be_read(line: bytes) -> None:
    _, sent = health(line)
    assert sent.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD\r\n" in sent


@pytest.mark.parametrize("target", [HEALTH + b"?x", HEALTH + b"/", b"http://us" + HEALTH])
def test_only_the_very_path_is_meant(target: bytes) -> None:
    _, sent = health(b"GET " + target)
    assert not sent.startswith(b"HTTP/1.1 200 ")


def test_without_the_setting_the_path_is_the_origin_s() -> None:
    _, sent = health(b"GET " + HEALTH, path=None)
    assert not sent.startswith(b"HTTP/1.1 200 ")


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


# -- bodies that nobody has read --------------------------------------------------------------------------------------
UNREAD = b"OPTIONS * HTTP/1.1\r\nHost: us\r\nContent-Length: 5\r\n\r\n"


def test_a_body_that_nobody_wants_is_waited_for_without_a_worker() -> None:
    with small_proxy(workers=1) as proxy:
        slow = proxy.client(UNREAD + b"hel")
        assert b"\r\nAllow: " in slow.until()
        proxy.waits()
        other = proxy.client(UNREAD + b"hello" + UNREAD)
        assert [b"\r\nAllow: " in other.until() for _ in range(2)] == [True] * 2
        slow.send(b"lo" + UNREAD)
        assert b"\r\nAllow: " in slow.until()
        assert other.rest() == slow.rest() == b"", "the rest does not come in time"
        assert proxy.counted(4) == {"answered": 4}


@pytest.mark.parametrize("leave", ["leave", "reset"])
def test_a_client_that_leaves_when_it_has_its_response_is_counted_once(leave: str) -> None:
    with small_proxy() as proxy:
        client = proxy.client(UNREAD + b"hel")
        client.until()
        proxy.waits()
        getattr(client, leave)()
        assert proxy.counted() == {"answered": 1}


@pytest.mark.parametrize("at_once", [True, False])
def test_an_unwanted_body_that_is_invalid_is_the_last_of_its_connection(at_once: bool) -> None:
    head = b"OPTIONS * HTTP/1.1\r\nHost: us\r\nTransfer-Encoding: chunked\r\n\r\n"
    with small_proxy() as proxy:
        client = proxy.client(head + (b"0x5\r\n" if at_once else b""))
        assert b"\r\nAllow: " in client.until()
        if not at_once:
            proxy.waits()
            client.send(b"0x5\r\n")
        assert client.rest().startswith(b"HTTP/1.1 400 ")
        assert proxy.counted() == {"answered": 1}


def test_the_body_of_a_request_is_no_request_when_its_answer_has_paused() -> None:
    """Whoever can put bytes into a body must not be able to put a request of its own before another client's."""
    made = exchange(OriginTable())
    with connected(closing=True) as (fd, client):
        connection = http_connection(fd)
        connection.feed(b"GET /x HTTP/1.1\r\nHost: us\r\nContent-Length: 5\r\n\r\nhel")
        body = BodyTransfer(connection.stream, b"/x", 0, 1, source_of(NoStore()))
        outcome = made.resume(connection, PausedHit(body, request(), stored_response()))
        assert isinstance(outcome, WaitsFor)
        assert isinstance(outcome.event, AnyOf)
        assert outcome.event.is_readable
        client.sendall(b"lo")
        wait_until(lambda: sockets.has_arrived(fd))
        assert connection.paused is not None
        assert made.resume(connection, connection.paused) is KEEP_ALIVE
        assert made.outcomes.totals() == {"hit": 1}


# -- answers that wait ------------------------------------------------------------------------------------------------
GET = b"GET /x HTTP/1.1\r\nHost: us\r\n\r\n"


def test_readers_of_one_fetch_wait_without_a_worker_and_all_get_it() -> None:
    with small_proxy(workers=1) as proxy:
        clients = [proxy.client(GET) for _ in range(12)]
        origin = proxy.asked()
        proxy.waits(12)
        assert b"\r\nAllow: " in proxy.client(UNREAD + b"hello").until()
        origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nabc")
        for client in clients:
            client.until()
            assert client.exactly(3) == b"abc"
        proxy.waits(12)
        origin.send(b"def")
        for client in clients:
            assert client.exactly(3) == b"def"
        assert proxy.counted(13) == {"answered": 1, "fetched": 12}
        assert not proxy.is_asked()


@pytest.mark.parametrize("lines", [b"", b"Range: bytes=4-5\r\n"])
def test_a_client_that_leaves_in_the_middle_of_a_fetch(lines: bytes) -> None:
    with small_proxy() as proxy:
        client = proxy.client(GET[:-2] + lines + b"\r\n")
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nabc")
        if not lines:
            client.until(b"abc")
        proxy.waits()
        client.leave()
        assert proxy.counted() == {"client gone": 1}
        origin.rest()  # nobody needs it: the transfer ends


def test_interim_responses_of_a_fetch_come_before_its_answer() -> None:
    with small_proxy() as proxy:
        client = proxy.client(GET)
        origin = proxy.asked()
        origin.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        assert client.until().startswith(b"HTTP/1.1 103 ")
        origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.until(b"ok").startswith(b"HTTP/1.1 200 ")


def test_a_fetch_that_fails_after_a_wait_is_told() -> None:
    with small_proxy() as proxy:
        client = proxy.client(GET)
        origin = proxy.asked()
        proxy.waits()
        origin.until()
        origin.reset()
        assert client.until().startswith(b"HTTP/1.1 502 ")
        assert proxy.counted() == {"error": 1}
        assert proxy.handler.failures.totals() == {"OriginUnreachable": 1}


def test_steps_that_break_end_their_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A defect of ours must not leave a client waiting for ever."""
    with small_proxy() as proxy:
        client = proxy.client(UNREAD + b"hel")
        client.until()
        proxy.waits()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("webproxy.http.parser.RequestParser.body", broken)
            client.send(b"lo")
            assert client.rest() == b""
        assert "job failed" in [record.msg for record in caplog.records]


def broken(*_: object) -> bytes:
    raise RuntimeError("broken")
