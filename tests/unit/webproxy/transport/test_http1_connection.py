"""HttpConnection: requests one after the other, bodies read or skipped, and who is told to go on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import cast

import pytest

from tests.support.http_sockets import http_connected
from tests.support.tcp import at_end, connected
from tests.support.waiting import wait_until
from webproxy.errors import BodyCutShort, ClientGone
from webproxy.http.errors import HttpError
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.transport import sockets
from webproxy.transport.cached_reply import CachedReply, MemoizedRequest
from webproxy.transport.client_stream import ClientStream, RateLimit
from webproxy.transport.http1_connection import UNREAD_BYTES_MAX, HttpConnection, RequestBody

GET_A = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
GET_B = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"


def post(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST /p HTTP/1.1", b"Host: h", *lines, b"", b""])


def target(connection: HttpConnection) -> bytes | None:
    request = connection.next_request()
    return None if request is None else request.target


def test_pipelined_requests_come_in_order_and_then_none() -> None:
    with http_connected() as (connection, client):
        client.sendall(GET_A + GET_B + GET_A + b"GET /c")
        assert [target(connection) for _ in range(4)] == [b"/a", b"/b", b"/a", None]
        assert (connection.served, connection.in_head, connection.ended) == (3, True, False)
        client.sendall(GET_B[6:])
        assert target(connection) == b"/c"
        sockets.close(connection.fd)


def test_first_bytes_that_were_read_elsewhere_count() -> None:
    with http_connected() as (connection, client):
        client.sendall(GET_A[5:] + GET_B)
        assert connection.feed(GET_A[:5]) is None
        assert [target(connection), target(connection)] == [b"/a", b"/b"]
        sockets.close(connection.fd)


def test_the_clients_end_is_noticed_behind_its_last_request() -> None:
    with http_connected() as (connection, client):
        client.sendall(GET_A)
        client.shutdown(socket.SHUT_WR)
        assert target(connection) == b"/a"
        assert not connection.ended
        assert target(connection) is None
        assert connection.ended
        sockets.close(connection.fd)


def test_a_reset_is_a_client_that_is_gone() -> None:
    with http_connected() as (connection, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(ClientGone):
            connection.next_request()
        sockets.close(connection.fd)


def test_waiting_takes_what_comes_and_gives_up_soon() -> None:
    with http_connected() as (connection, client):
        assert connection.wait_request() is None
        client.sendall(GET_A + GET_B)
        request = connection.wait_request()
        assert request is not None
        assert (request.target, target(connection)) == (b"/a", b"/b")
        client.shutdown(socket.SHUT_WR)
        assert connection.wait_request() is None
        assert connection.ended
        sockets.close(connection.fd)


def test_garbage_is_refused() -> None:
    with http_connected() as (connection, client):
        client.sendall(GET_A + b"garbage\r\n")
        assert target(connection) == b"/a"
        with pytest.raises(HttpError, match="400"):
            connection.next_request()
        sockets.close(connection.fd)


def test_the_time_of_a_head_runs_from_its_first_bytes_on() -> None:
    with http_connected() as (connection, _client):
        connection.feed(GET_A[:3])
        first = connection.head_time_left(10.0)
        connection.feed(GET_A[3:5])
        assert connection.head_time_left(10.0) <= first <= 10.0
        assert connection.feed(GET_A[5:]) is not None
        connection.feed(GET_B[:3])
        assert first < connection.head_time_left(20.0) <= 20.0
        sockets.close(connection.fd)


# -- bodies -----------------------------------------------------------------------------------------------------------
def body_of(connection: HttpConnection) -> bytes:
    return b"".join(iter(lambda: connection.read_body(5.0), b""))


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
    with http_connected() as (connection, client):
        client.sendall(post(line) + sent[:cut])
        assert target(connection) == b"/p"
        client.sendall(sent[cut:] + GET_B)
        assert body_of(connection) == body
        assert target(connection) == b"/b"
        sockets.close(connection.fd)


def test_a_large_body_comes_in_pieces_of_any_wanted_size() -> None:
    with http_connected() as (connection, client):
        client.sendall(post(b"Content-Length: 100000") + b"x" * 50_000)
        request = connection.next_request()
        assert request is not None
        body = RequestBody(connection, request, 5.0)
        assert body.length == 100_000
        pieces = []
        while sum(map(len, pieces)) < 50_000:
            pieces.append(body.read(1000))
        client.sendall(b"x" * 50_000 + GET_B)
        while piece := body.read(1000):
            pieces.append(piece)
        assert {len(piece) <= 1000 for piece in pieces} == {True}
        assert b"".join(pieces) == b"x" * 100_000
        assert target(connection) == b"/b"
        sockets.close(connection.fd)


def test_a_chunked_body_has_no_length() -> None:
    with http_connected() as (connection, _client):
        request = connection.feed(post(b"Transfer-Encoding: chunked") + b"0\r\n\r\n")
        assert request is not None
        assert RequestBody(connection, request, 5.0).length is None
        sockets.close(connection.fd)


def test_a_body_that_breaks_off_is_cut_short() -> None:
    with http_connected() as (connection, client):
        client.sendall(post(b"Content-Length: 5") + b"hel")
        client.shutdown(socket.SHUT_WR)
        connection.next_request()
        assert connection.read_body(5.0) == b"hel"
        with pytest.raises(BodyCutShort, match="ended"):
            connection.read_body(5.0)
        sockets.close(connection.fd)


def test_a_body_that_does_not_come_is_cut_short() -> None:
    with http_connected() as (connection, client):
        client.sendall(post(b"Content-Length: 5") + b"hel")
        connection.next_request()
        assert connection.read_body(5.0) == b"hel"
        with pytest.raises(BodyCutShort, match="nothing"):
            connection.read_body(0.05)
        sockets.close(connection.fd)


def test_who_expects_it_is_told_to_go_on_once_and_when_the_body_is_wanted() -> None:
    with http_connected() as (connection, client):
        client.sendall(post(b"Content-Length: 5", b"Expect: 100-continue"))
        connection.next_request()
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        client.settimeout(5)
        with pytest.raises(BodyCutShort):
            connection.read_body(0.01)
        client.sendall(b"hello")
        assert connection.read_body(5.0) == b"hello"
        assert connection.read_body(5.0) == b""
        sockets.end_sending(connection.fd)
        assert at_end(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sockets.close(connection.fd)


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
    with http_connected() as (connection, client):
        client.sendall(post(line))
        connection.next_request()
        client.sendall(sent + GET_B)
        assert connection.skip_body()
        assert target(connection) == b"/b"
        sockets.close(connection.fd)


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
    with http_connected() as (connection, client):
        client.sendall(post(*lines) + sent)
        connection.next_request()
        assert not connection.skip_body()
        sockets.close(connection.fd)


def test_chunks_that_are_none_are_refused_also_when_nobody_wants_them() -> None:
    with http_connected() as (connection, client):
        client.sendall(post(b"Transfer-Encoding: chunked") + b"0x5\r\nhello")
        connection.next_request()
        with pytest.raises(HttpError, match="400"):
            connection.skip_body()
        sockets.close(connection.fd)


def test_what_a_log_line_names_it_by() -> None:
    with http_connected() as (connection, _client):
        assert connection.path == b""
        connection.held = connection.feed(GET_A)
        assert connection.path == b"/a"
        sockets.close(connection.fd)


# -- requests that are known ------------------------------------------------------------------------------------------
KNOWN = MemoizedRequest(RequestHead(b"GET", b"/a", (1, 1), Fields([(b"Host", b"h")])), cast("CachedReply", None))


@pytest.fixture
def knowing() -> Iterator[tuple[HttpConnection, socket.socket]]:
    """A connection that recognises GET_A."""
    with connected() as (fd, client):
        stream = ClientStream(fd, RateLimit(0, 1.0), lambda: False)
        yield HttpConnection(stream, head_bytes_max=8192, recognise={GET_A: KNOWN}.get), client
        sockets.close(fd)


def test_what_is_known_is_recognised(knowing: tuple[HttpConnection, socket.socket]) -> None:
    connection, client = knowing
    assert connection.feed(GET_A) is KNOWN
    for ask in (connection.next_request, connection.wait_request):
        client.sendall(GET_A)
        wait_until(lambda: sockets.has_arrived(connection.fd), what="the request")
        assert ask() is KNOWN
    assert (connection.served, connection.in_head) == (3, False)


def test_only_when_it_came_alone(knowing: tuple[HttpConnection, socket.socket]) -> None:
    """What looks like a known request may be the rest of another, or have one behind it."""
    connection, client = knowing
    client.sendall(GET_A + GET_A)
    assert [target(connection), target(connection)] == [b"/a", b"/a"]
    assert connection.feed(b"GET /b HTTP/1.1\r\nX: ") is None
    request = connection.feed(GET_A)
    assert isinstance(request, RequestHead)
    assert (request.target, request.fields.get(b"x")) == (b"/b", b"GET /a HTTP/1.1")


def test_after_a_body(knowing: tuple[HttpConnection, socket.socket]) -> None:
    """Bytes of a body that look like a known request are the body's."""
    connection, client = knowing
    client.sendall(post(b"Content-Length: %d" % len(GET_A)))
    assert target(connection) == b"/p"
    client.sendall(GET_A)
    assert connection.read_body(1.0) == GET_A
    client.sendall(GET_A)
    assert connection.next_request() is KNOWN


def test_the_bytes_of_a_whole_request() -> None:
    with http_connected() as (connection, client):
        for sent, whole in ((GET_A, GET_A), (GET_B + GET_A, b"")):
            client.sendall(sent)
            request = connection.next_request()
            assert isinstance(request, RequestHead)
            assert connection.bytes_of(request) == whole
        sockets.close(connection.fd)


def test_what_was_recognised_does_not_get_the_bytes_of_what_was_parsed_before(
    knowing: tuple[HttpConnection, socket.socket],
) -> None:
    """Its request may be held and served later: another's bytes must never stand for it."""
    connection, client = knowing
    client.sendall(GET_B)
    parsed = connection.next_request()
    assert isinstance(parsed, RequestHead)
    client.sendall(GET_A)
    assert connection.next_request() is KNOWN
    assert connection.bytes_of(KNOWN.request) == b""
    assert connection.bytes_of(parsed) == GET_B
