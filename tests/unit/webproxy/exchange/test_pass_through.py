"""PassThrough: requests and responses on their way between one client and the origin, and who waits for whom."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from tests.support.small_proxy import Peer, SmallProxy, small_proxy
from tests.support.streams import NO_LIMIT
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.http.messages import CONTINUE
from webproxy.origin.request import OriginLimits
from webproxy.transport.client_rate import RateLimit, UploadLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = os.urandom(200_000)
MANY = os.urandom(16 << 20)
"""More than the kernel's buffers take for a client that does not read."""


def head(method: bytes = b"POST", *lines: bytes, path: bytes = b"/x", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, path, version), b"Host: us", *lines, b"", b""])


def with_length(body: bytes, *lines: bytes) -> bytes:
    return head(b"POST", b"Content-Length: %d" % len(body), *lines) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"


def unchunked(origin: Peer, count: int) -> bytes:
    """So many bytes of a chunked body."""
    body = b""
    while len(body) < count:
        size = int(origin.until(b"\r\n"), 16)
        body += origin.exactly(size)
        assert origin.exactly(2) == b"\r\n"
    return body


def answered(client: Peer, status: int = 200) -> bytes:
    """The head of the response."""
    found = client.until()
    assert found.startswith(b"HTTP/1.1 %d " % status), found
    return found


def spools(directory: Path) -> int:
    """How many spool files this process has open; they have no name."""
    open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum(str(directory) in name for name in open_files)


# -- there and back -------------------------------------------------------------------------------------------------
def test_one_request_after_the_other_on_both_connections() -> None:
    with small_proxy() as proxy:
        client = proxy.client(with_length(b"hello"))
        origin = proxy.asked()
        for _ in range(2):
            assert b"\r\nContent-Length: 5\r\n" in origin.until()
            assert origin.exactly(5) == b"hello"
            origin.send(OK)
            assert b"Connection: close" not in answered(client)
            assert client.exactly(2) == b"ok"
            client.send(with_length(b"hello"))
            origin = proxy.asked()  # what may be sent only once is not risked on a kept connection
        origin.send(OK)
        assert client.until(b"ok").endswith(b"ok")
        assert proxy.counted(3) == {"passed": 3}


def test_requests_that_came_behind_one_that_waits_follow_in_their_order() -> None:
    with small_proxy() as proxy:
        client = proxy.client(with_length(b"1") + with_length(b"2") + head(b"OPTIONS", path=b"*"))
        for body in (b"1", b"2"):
            origin = proxy.asked()
            origin.until()
            assert origin.exactly(1) == body
            origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)
            answered(client)
            assert client.exactly(1) == body
        assert b"\r\nAllow: " in answered(client)
        assert proxy.counted(3) == {"passed": 2, "answered": 1}


@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"DELETE", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_responses_without_a_body_are_complete_with_their_head(method: bytes, response: bytes) -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(method))
        for _ in range(2):
            origin = proxy.asked()
            origin.until()
            origin.send(response)
            answered(client, int(response[9:12]))
            origin.leave()
            client.send(head(method))
        proxy.asked().send(response)
        client.until()


@pytest.mark.parametrize(("line", "status"), [(b'If-None-Match: "1"', 304), (b"X: 1", 502)])
def test_only_a_condition_can_be_answered_by_304(line: bytes, status: int) -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"HEAD", line))
        proxy.asked().send(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
        answered(client, status)


def test_trailers_of_the_origin_are_left_out() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head())
        proxy.asked().send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
            + chunk(b"abc")
            + b"0\r\nX: 1\r\n\r\n"
        )
        assert b"Transfer-Encoding: chunked" in answered(client)
        assert client.until(LAST) == chunk(b"abc") + LAST


def test_interim_responses_come_before_the_answer() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head())
        origin = proxy.asked()
        origin.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        assert client.until() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        origin.send(OK)
        answered(client)


@pytest.mark.parametrize("is_whole", [True, False])
def test_for_an_old_client_a_body_of_unknown_length_ends_with_the_connection(is_whole: bool) -> None:
    """One that breaks off must not look complete."""
    with small_proxy() as proxy:
        client = proxy.client(head(b"DELETE", version=b"1.0"))
        origin = proxy.asked()
        origin.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc") + (LAST if is_whole else b"")
        )
        assert b"Connection: close" in answered(client)
        assert client.exactly(3) == b"abc"
        origin.leave()
        if is_whole:
            assert client.socket.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                client.socket.recv(1)
        assert proxy.counted() == {"passed" if is_whole else "cut short": 1}


def test_a_response_that_breaks_off_ends_short() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"DELETE"))
        origin = proxy.asked()
        origin.send(OK[:-1])
        origin.leave()
        answered(client)
        assert client.rest() == b"o"
        assert proxy.counted() == {"cut short": 1}


def test_no_response_is_told_and_the_connection_stays() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"DELETE"))
        origin = proxy.asked()
        origin.until()
        origin.reset()
        answered(client, 502)
        assert proxy.counted() == {"error": 1}


def test_a_slow_reader_holds_up_the_origin_and_gets_every_byte(tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        client = proxy.client(head(b"DELETE"), buffer_bytes=4096)
        origin = proxy.asked()
        origin.until()
        sender = origin.send_beside(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MANY), MANY))
        proxy.waits()
        answered(client)
        assert client.exactly(len(MANY)) == MANY
        sender.join()
        assert proxy.counted() == {"passed": 1}
        wait_until(lambda: spools(tmp_path) == 0, what="the end of the spool")


# -- uploads --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_slow_upload_asks_the_origin_when_all_of_it_is_there(is_chunked: bool) -> None:
    with small_proxy() as proxy:
        line = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 5"
        client = proxy.client(head(b"POST", line))
        for part in (b"h", b"el", b"l"):
            client.send(chunk(part) if is_chunked else part)
            proxy.waits()
            assert not proxy.is_asked()
        client.send(chunk(b"o") + LAST if is_chunked else b"o")
        origin = proxy.asked()
        origin.until()
        assert (unchunked(origin, 5) if is_chunked else origin.exactly(5)) == b"hello"
        origin.send(OK)
        answered(client)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_what_is_too_long_for_the_window_reaches_the_origin_as_it_comes(is_chunked: bool, tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        line = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % (2 * len(BODY) + 1)
        client = proxy.client(head(b"POST", line))
        client.send(chunk(BODY) if is_chunked else BODY)
        origin = proxy.asked()
        origin.until()
        for part in (b"x", BODY):
            proxy.waits()
            client.send(chunk(part) if is_chunked else part)
        sent = BODY + b"x" + BODY
        if is_chunked:
            client.send(LAST)
            assert unchunked(origin, len(sent)) == sent
            assert origin.until(LAST) == LAST
        else:
            assert origin.exactly(len(sent)) == sent
        origin.send(OK)
        answered(client)
        assert proxy.counted() == {"passed": 1}
        wait_until(lambda: spools(tmp_path) == 0, what="the end of the spools")


def test_an_upload_goes_on_after_an_early_answer() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"POST", b"Content-Length: %d" % (len(BODY) + 1)) + BODY)
        origin = proxy.asked()
        origin.until()
        origin.send(OK)
        answered(client)
        assert client.exactly(2) == b"ok"
        client.send(b"x" + head(b"OPTIONS", path=b"*"))
        assert origin.exactly(len(BODY) + 1) == BODY + b"x"
        assert b"\r\nAllow: " in answered(client)
        assert proxy.counted(2) == {"passed": 1, "answered": 1}


def test_a_response_is_sent_while_the_upload_goes_on() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"POST", b"Transfer-Encoding: chunked") + chunk(BODY))
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        answered(client)
        for part in (b"a", b"b"):
            origin.send(chunk(part))
            assert client.exactly(6) == chunk(part)
            client.send(chunk(part))
        client.send(LAST)
        assert unchunked(origin, len(BODY) + 2) == BODY + b"ab"
        assert origin.until(LAST) == LAST
        origin.send(LAST)
        assert client.until(LAST) == LAST
        assert proxy.counted() == {"passed": 1}


def test_a_refused_upload_is_skipped() -> None:
    """The origin wants no more of it: the rest is out of the way of the next request."""
    with small_proxy() as proxy:
        client = proxy.client(head(b"POST", b"Content-Length: %d" % (len(BODY) + 1)) + BODY)
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        answered(client, 413)
        origin.leave()
        client.send(b"x" + head(b"OPTIONS", path=b"*"))
        assert b"\r\nAllow: " in answered(client)
        assert proxy.counted(2) == {"passed": 1, "answered": 1}


STALLS = UploadLimits(0.1, NO_LIMIT)
DRIPS = UploadLimits(WATCHDOG_S, RateLimit(1000, 0.3))
UNFINISHED = {
    "length": head(b"POST", b"Content-Length: 500") + b"hel",
    "chunks": head(b"POST", b"Transfer-Encoding: chunked") + chunk(b"hel"),
    "framing": head(b"POST", b"Transfer-Encoding: chunked") + b"5;a",
    "trailers": head(b"POST", b"Transfer-Encoding: chunked") + b"0\r\nT: ",
    "GET": head(b"GET", b"Content-Length: 500") + b"hel",
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_client_that_stalls_is_told_so(name: str) -> None:
    with small_proxy(uploads=STALLS) as proxy:
        client = proxy.client(UNFINISHED[name])
        assert b"\r\nConnection: close\r\n" in answered(client, 408)
        assert client.rest().startswith(b"nothing of the request's body for ")
        assert not proxy.is_asked()
        assert proxy.counted() == {"refused": 1}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_client_that_sends_too_slowly_is_told_so(name: str) -> None:
    with small_proxy(uploads=DRIPS) as proxy:
        client = proxy.client(UNFINISHED[name])
        told = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not told.wait(0.02):
                    client.send(b"1" if name != "chunks" else chunk(b"x"))

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert b"\r\nConnection: close\r\n" in answered(client, 408)
        finally:
            told.set()
            dripping.join()
        assert not proxy.is_asked()
        assert proxy.counted() == {"refused": 1}


def test_who_was_told_to_continue_and_does_not_is_told_so() -> None:
    with small_proxy(uploads=STALLS) as proxy:
        client = proxy.client(head(b"POST", b"Content-Length: 5", b"Expect: 100-continue"))
        origin = proxy.asked()
        origin.until()
        origin.send(CONTINUE)
        assert client.until() == CONTINUE
        answered(client, 408)
        assert origin.rest() == b""
        assert proxy.counted() == {"refused": 1}


def test_a_client_that_stalls_after_the_head_of_the_response_gets_no_more_of_it() -> None:
    with small_proxy(uploads=STALLS) as proxy:
        client = proxy.client(head(b"POST", b"Transfer-Encoding: chunked") + chunk(BODY))
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc"))
        # Either the head was sent before the client had stalled, or not.
        told = client.rest()
        assert told.startswith(b"HTTP/1.1 408 ") or (told.startswith(b"HTTP/1.1 200 ") and LAST not in told)
        origin.rest()  # ends


def test_an_upload_waits_for_a_slow_origin_without_a_limit() -> None:
    """A client cannot send while there is no room: that time is not counted as its silence."""
    big = os.urandom(16 << 20)
    with small_proxy(uploads=UploadLimits(0.3, RateLimit(1, 0.3)), limits=OriginLimits(stall_s=30.0)) as proxy:
        client = proxy.client(head(b"POST", b"Content-Length: %d" % len(big)))
        sender = client.send_beside(big)
        origin = proxy.asked()
        origin.until()
        begun = proxy.handler.outcomes.totals()
        sender.join(0.7)  # longer than the limit, with the window full
        assert (begun, proxy.handler.outcomes.totals()) == ({}, {})
        assert origin.exactly(len(big)) == big
        sender.join()
        origin.send(OK)
        answered(client)


@pytest.mark.parametrize("bad", [b"0x5\r\nhello", b"5\r\nhelloXX"])
def test_invalid_chunks_are_refused_before_the_answer(bad: bytes) -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"POST", b"Transfer-Encoding: chunked") + bad)
        assert b"Connection: close" in answered(client, 400)
        assert not proxy.is_asked()
        assert proxy.counted() == {"refused": 1}


def test_invalid_chunks_behind_the_window_are_refused_too() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"POST", b"Transfer-Encoding: chunked") + chunk(BODY))
        origin = proxy.asked()
        origin.until()
        client.send(b"0x5\r\n")
        answered(client, 400)
        origin.rest()  # ends


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_invalid_body_after_the_head_breaks_the_response_off(version: bytes) -> None:
    with small_proxy() as proxy:
        lines = (b"Transfer-Encoding: chunked",) if version == b"1.1" else (b"Content-Length: %d" % (2 * len(BODY)),)
        client = proxy.client(head(b"POST", *lines, version=version) + (chunk(BODY) if version == b"1.1" else BODY))
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc"))
        client.until(b"abc")
        if version == b"1.1":
            client.send(b"0x5\r\n")
            assert LAST not in client.rest()
        else:
            client.socket.shutdown(1)
            with pytest.raises(ConnectionResetError):
                client.socket.recv(1)
        assert proxy.counted() == {"cut short" if version == b"1.1" else "client gone": 1}


# -- 100 (Continue) ---------------------------------------------------------------------------------------------------
EXPECTING = head(b"POST", b"Content-Length: 5", b"Expect: 100-continue")


def test_a_client_is_told_to_go_on_when_the_origin_says_so() -> None:
    with small_proxy() as proxy:
        client = proxy.client(EXPECTING)
        origin = proxy.asked()
        assert b"\r\nExpect: 100-continue\r\n" in origin.until()
        proxy.waits()
        assert not client.has_more()
        origin.send(CONTINUE)
        assert client.until() == CONTINUE
        client.send(b"hello")
        assert origin.exactly(5) == b"hello"
        origin.send(OK)
        answered(client)
        assert client.exactly(2) == b"ok"
        assert not client.has_more()


def test_a_client_is_told_to_go_on_after_a_second_of_silence_and_once() -> None:
    with small_proxy() as proxy:
        client = proxy.client(EXPECTING)
        origin = proxy.asked()
        origin.until()
        assert client.until() == CONTINUE
        origin.send(CONTINUE)
        client.send(b"hello")
        assert origin.exactly(5) == b"hello"
        origin.send(OK)
        answered(client)


@pytest.mark.parametrize("status", [417, 403, 200])
def test_a_client_whose_body_nobody_wants_is_not_told_to_go_on(status: int) -> None:
    with small_proxy() as proxy:
        client = proxy.client(EXPECTING)
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % status)
        answered(client, status)
        assert client.rest() == b"", "it may send the body or not"
        assert proxy.counted() == {"passed": 1}


# -- clients that leave -----------------------------------------------------------------------------------------------
def leaves(proxy: SmallProxy, client: Peer, spool_directory: Path, outcome: str = "client gone") -> None:
    """The client leaves: the request ends, is counted once, and keeps nothing."""
    proxy.waits()
    client.leave()
    assert proxy.counted() == {outcome: 1}
    wait_until(lambda: spools(spool_directory) == 0, what="the end of the spools")


def test_a_client_that_leaves_during_its_upload(tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        leaves(proxy, proxy.client(head(b"POST", b"Content-Length: 5") + b"hel"), tmp_path)
        assert not proxy.is_asked()


def test_a_client_that_leaves_while_its_upload_is_under_way(tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        client = proxy.client(head(b"POST", b"Content-Length: 1000000") + BODY)
        origin = proxy.asked()
        leaves(proxy, client, tmp_path)
        origin.rest()


@pytest.mark.parametrize(
    "request_", [head(b"DELETE"), with_length(b"hello"), EXPECTING], ids=["DELETE", "POST", "Expect"]
)
def test_a_client_that_leaves_before_the_answer(request_: bytes, tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        client = proxy.client(request_)
        origin = proxy.asked()
        origin.until()
        leaves(proxy, client, tmp_path)
        origin.rest()


@pytest.mark.parametrize("lines", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_client_that_leaves_in_the_middle_of_the_answer(lines: bytes, tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        client = proxy.client(head(b"DELETE"))
        origin = proxy.asked()
        origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % lines + chunk(b"abc"))
        client.until(b"abc")
        leaves(proxy, client, tmp_path)
        origin.rest()


def test_a_client_that_leaves_while_it_does_not_read(tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        client = proxy.client(head(b"DELETE"), buffer_bytes=4096)
        origin = proxy.asked()
        origin.until()
        sender = origin.send_beside(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MANY), MANY))
        client.until()
        proxy.waits()
        client.reset()
        assert proxy.counted() == {"client gone": 1}
        wait_until(lambda: spools(tmp_path) == 0, what="the end of the spool")
        sender.join()


def test_a_client_that_has_closed_its_side_alone_counts_as_one_that_left() -> None:
    with small_proxy() as proxy:
        client = proxy.client(head(b"DELETE"))
        origin = proxy.asked()
        client.socket.shutdown(1)
        assert client.rest() == b""
        origin.rest()
        assert proxy.counted() == {"client gone": 1}


def test_what_waits_at_the_end_of_the_process_is_released(tmp_path: Path) -> None:
    with small_proxy(spool_directory=tmp_path) as proxy:
        proxy.client(head(b"POST", b"Content-Length: 1000000") + BODY)
        proxy.asked()
        proxy.client(head(b"DELETE"))
        proxy.asked()
        proxy.waits(2)
    assert spools(tmp_path) == 0


# -- workers ----------------------------------------------------------------------------------------------------------
def test_every_step_may_be_taken_by_another_thread() -> None:
    def take_step() -> None:
        job = proxy.next_job()
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(job.run()))
        thread.start()
        thread.join()
        proxy.parking.settle(outcomes[0])

    with small_proxy(workers=0) as proxy:
        client = proxy.client(EXPECTING, buffer_bytes=4096)
        take_step()
        origin = proxy.asked()
        origin.until()
        origin.send(CONTINUE)
        take_step()
        assert client.until() == CONTINUE
        for part in (b"hel", b"lo"):
            client.send(part)
            take_step()
        assert origin.exactly(5) == b"hello"
        origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * len(BODY)))
        take_step()
        answered(client)
        sender = origin.send_beside(4 * BODY)
        received = 0
        while received < 4 * len(BODY):
            if not client.has_more():
                take_step()
            received += len(client.socket.recv(65_536))
        sender.join()
        while proxy.parking.waiting:
            take_step()
        assert proxy.counted() == {"passed": 1}


def test_twelve_that_wait_leave_one_worker_free() -> None:
    with small_proxy(workers=1) as proxy:
        uploads = [proxy.client(head(b"POST", b"Content-Length: 5") + b"h") for _ in range(6)]
        waiting = [proxy.client(head(b"DELETE")) for _ in range(6)]
        origins = [proxy.asked() for _ in waiting]
        proxy.waits(12)
        assert b"\r\nAllow: " in answered(proxy.client(head(b"OPTIONS", path=b"*")))
        for client in uploads:
            client.send(b"ello")
        origins += [proxy.asked() for _ in uploads]
        for origin in origins:
            origin.until()
            origin.send(OK)
        for client in (*uploads, *waiting):
            answered(client)
            assert client.exactly(2) == b"ok"
        assert proxy.counted(13) == {"passed": 12, "answered": 1}
