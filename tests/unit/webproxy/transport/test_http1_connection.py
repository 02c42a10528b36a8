"""HttpConnection: requests one after the other, bodies read or skipped, and who is told to go on."""

from __future__ import annotations

import socket
import struct
from time import monotonic

import pytest

from shmchannel.streams.admission import Admission
from tests.support.http_sockets import http_connected
from tests.support.steps import finish
from tests.support.tcp import at_end
from tests.support.waiting import wait_until
from webproxy.errors import ClientGone
from webproxy.http.messages import HttpError, RequestHead
from webproxy.transport import http1_connection, sockets
from webproxy.transport.http1_connection import UNREAD_BYTES_MAX, HttpConnection
from webproxy.transport.job import AnyOf, Done, Event, WaitsFor

GET_A = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
GET_B = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"


def post(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST /p HTTP/1.1", b"Host: h", *lines, b"", b""])


def next_request(connection: HttpConnection) -> RequestHead | None:
    """The next request, if its head is there, as a server takes it."""
    request = connection.pipelined() if connection.in_head else None
    while request is None and (data := connection.receive()):
        request = connection.feed(data)
    return request


def target(connection: HttpConnection) -> bytes | None:
    request = next_request(connection)
    return None if request is None else request.target


def test_pipelined_requests_come_in_order_and_then_none() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(GET_A + GET_B + GET_A + b"GET /c")
        assert [target(connection) for _ in range(4)] == [b"/a", b"/b", b"/a", None]
        assert (connection.served, connection.in_head, connection.ended) == (3, True, False)
        client.sendall(GET_B[6:])
        assert target(connection) == b"/c"


def test_first_bytes_that_were_read_elsewhere_count() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(GET_A[5:] + GET_B)
        assert connection.feed(GET_A[:5]) is None
        assert [target(connection), target(connection)] == [b"/a", b"/b"]


def test_the_clients_end_is_noticed_behind_its_last_request() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(GET_A)
        client.shutdown(socket.SHUT_WR)
        assert target(connection) == b"/a"
        assert not connection.ended
        assert target(connection) is None
        assert connection.ended


def test_a_reset_is_a_client_that_is_gone() -> None:
    with http_connected(closing=True) as (connection, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(ClientGone):
            next_request(connection)


@pytest.mark.parametrize("after_a_file", [False, True])
def test_waiting_takes_what_comes_and_gives_up_soon(after_a_file: bool) -> None:
    with http_connected(closing=True) as (connection, client):
        if after_a_file:
            with open(__file__, "rb") as file:
                assert connection.stream.send_file(file.fileno(), 0, 10) == 10
            assert client.recv(10)
        assert connection.receive(waits=True) == b""
        assert not connection.ended
        client.sendall(GET_A + GET_B)
        assert connection.receive(waits=True) == GET_A + GET_B
        client.shutdown(socket.SHUT_WR)
        assert connection.receive(waits=True) == b""
        assert connection.ended


def test_garbage_is_refused() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(GET_A + b"garbage\r\n")
        assert target(connection) == b"/a"
        with pytest.raises(HttpError, match="400"):
            next_request(connection)


def test_the_time_of_a_head_runs_from_its_first_bytes_on() -> None:
    with http_connected(closing=True) as (connection, _client):
        connection.feed(GET_A[:3])
        first = connection.head_time_left(10.0)
        connection.feed(GET_A[3:5])
        assert connection.head_time_left(10.0) <= first <= 10.0
        assert connection.feed(GET_A[5:]) is not None
        connection.feed(GET_B[:3])
        assert first < connection.head_time_left(20.0) <= 20.0


# -- bodies -----------------------------------------------------------------------------------------------------------
def body_of(connection: HttpConnection) -> bytes:
    return b"".join(iter(lambda: body_part(connection), b""))


def body_part(connection: HttpConnection) -> bytes:
    """The next bytes of a body, once some have come."""
    while (part := connection.body_part()) is None:
        wait_until(lambda: sockets.has_arrived(connection.fd))
    return part


@pytest.mark.parametrize(
    ("line", "sent", "body"),
    [
        (b"Content-Length: 5", b"hello", b"hello"),
        (b"Content-Length: 0", b"", b""),
        (b"Transfer-Encoding: chunked", b"3\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n", b"hello"),
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 4, 1000])
def test_a_body_ends_where_the_next_request_begins(line: bytes, sent: bytes, body: bytes, cut: int) -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(line) + sent[:cut])
        assert target(connection) == b"/p"
        client.sendall(sent[cut:] + GET_B)
        assert body_of(connection) == body
        assert target(connection) == b"/b"


def test_a_large_body_comes_as_it_arrives() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(b"Content-Length: 100000") + b"x" * 50_000)
        assert target(connection) == b"/p"
        pieces = []
        while sum(map(len, pieces)) < 50_000:
            pieces.append(body_part(connection))
        assert connection.body_part() is None
        client.sendall(b"x" * 50_000 + GET_B)
        assert b"".join(pieces) + body_of(connection) == b"x" * 100_000
        assert target(connection) == b"/b"


def test_a_client_that_ends_in_mid_body_is_gone() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(b"Content-Length: 5") + b"hel")
        client.shutdown(socket.SHUT_WR)
        next_request(connection)
        assert body_part(connection) == b"hel"
        with pytest.raises(ClientGone, match="ended"):
            body_part(connection)


def test_a_body_that_does_not_come_is_waited_for_by_nobody_here() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(b"Content-Length: 5") + b"hel")
        next_request(connection)
        assert body_part(connection) == b"hel"
        assert [connection.body_part(), connection.body_part()] == [None, None]


def test_who_expects_it_has_not_been_told_to_go_on() -> None:
    with http_connected(closing=True) as (connection, client):
        for lines, due in (((b"Expect: 100-continue",), True), ((), False)):
            client.sendall(post(b"Content-Length: 5", *lines))
            next_request(connection)
            assert connection.continue_due is due
            client.sendall(b"hello")
            assert body_of(connection) == b"hello"


# -- bodies that nobody wants -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b"Content-Length: %d" % len(GET_A), GET_A),
        (b"Content-Length: 60000", b"x" * 60_000),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(GET_A), GET_A)),
        (b"Content-Length: 0", b""),
    ],
)
def test_a_body_that_is_there_is_skipped(line: bytes, sent: bytes) -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(line))
        next_request(connection)
        client.sendall(sent + GET_B)
        assert finish(connection.skip_body(), connection.fd)
        assert target(connection) == b"/b"


@pytest.mark.parametrize(
    ("lines", "sent"),
    [
        ((b"Content-Length: 5",), b"hell"),
        ((b"Content-Length: 5", b"Expect: 100-continue"), b""),
        ((b"Content-Length: %d" % (4 * UNREAD_BYTES_MAX),), b"x" * (2 * UNREAD_BYTES_MAX)),
        ((b"Transfer-Encoding: chunked",), b"5\r\nhello\r\n0\r\n"),
    ],
    ids=["not all there", "never asked for", "too long", "no last chunk yet"],
)
def test_a_body_that_is_not_there_or_too_long_ends_the_connection(lines: tuple[bytes, ...], sent: bytes) -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(*lines) + sent)
        next_request(connection)
        assert not finish(connection.skip_body(), connection.fd)


def test_an_unwanted_body_that_trickles_is_waited_for_without_a_worker_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1_connection, "UNREAD_SECONDS", 0.2)
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(b"Content-Length: 1000000"))
        next_request(connection)
        steps = connection.skip_body()
        began = monotonic()
        for wait in steps:
            assert wait == AnyOf(is_readable=True, limit_s=0.2)
            client.sendall(b"x")
        assert monotonic() - began >= 0.2


def test_an_unwanted_body_whose_client_ends_it() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(b"Content-Length: 5") + b"hel")
        next_request(connection)
        client.shutdown(socket.SHUT_WR)
        assert not finish(connection.skip_body(), connection.fd)


def test_chunks_that_are_none_are_refused_also_when_nobody_wants_them() -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(post(b"Transfer-Encoding: chunked") + b"0x5\r\nhello")
        next_request(connection)
        with pytest.raises(HttpError, match="400"):
            finish(connection.skip_body(), connection.fd)


def test_what_a_log_line_names_it_by() -> None:
    with http_connected(closing=True) as (connection, _client):
        assert connection.path == b""
        connection.pause(Body(), Event.WRITABLE, is_last=False)
        assert connection.path == b"/body"


# -- as a job ---------------------------------------------------------------------------------------------------------
class Body:
    """The rest of an answer."""

    key = b"/body"
    is_closed = False

    def close(self) -> None:
        """As PausedAnswer.close()."""
        self.is_closed = True


def test_what_it_waits_with_is_kept_and_a_ticket_is_taken_once() -> None:
    with http_connected() as (connection, _client):
        body, ticket = Body(), Admission(1).try_enter()
        assert connection.pause(body, Event.TICKET, is_last=True) == WaitsFor(connection, Event.TICKET)
        assert (connection.paused, connection.is_last, connection.path) == (body, True, b"/body")
        connection.ticket = ticket
        assert [connection.take_ticket(), connection.take_ticket()] == [ticket, None]
        connection.close()
        assert body.is_closed


def test_its_server_runs_it() -> None:
    with http_connected() as (connection, client):
        assert [connection.run(), connection.expire()] == [Done(connection)] * 2
        connection.close()
        assert at_end(client) == b""


def test_the_bytes_of_a_whole_request() -> None:
    with http_connected(closing=True) as (connection, client):
        for sent, whole in ((GET_A, GET_A), (GET_B + GET_A, b"")):
            client.sendall(sent)
            request = next_request(connection)
            assert isinstance(request, RequestHead)
            assert connection.bytes_of(request) == whole


def test_a_request_that_was_not_parsed_last_does_not_get_the_bytes_of_the_one_that_was() -> None:
    """Another's bytes must never stand for it."""
    with http_connected() as (connection, client):
        client.sendall(GET_A)
        first = next_request(connection)
        assert first is not None
        client.sendall(GET_B)
        parsed = next_request(connection)
        assert parsed is not None
        assert connection.bytes_of(first) == b""
        assert connection.bytes_of(parsed) == GET_B
        connection.close()
