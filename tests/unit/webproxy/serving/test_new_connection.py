"""NewConnection: what a connection says first, in whatever parts, decides who serves it; what never ends is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.handlers import LIMITS, getfile_handler
from tests.support.http_sockets import OpenFile
from tests.support.tcp import at_end, connected
from tests.support.waiting import wait_until
from webproxy.exchange.fast_path import MemoizedRequest
from webproxy.exchange.getfile_request import GetfileRequest
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.getfile import Wire, request_bytes
from webproxy.http.messages import RequestHead
from webproxy.serving.http1_server import Http1Server
from webproxy.serving.new_connection import NewConnection, Protocols
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.http1_connection import HttpConnection, PausedAnswer
from webproxy.transport.job import Done, Idles, RequestOutcome

INVALID = b"GETFILE INVALID\r\n\r\n"
NOT_FOUND = b"GETFILE FILE_NOT_FOUND\r\n\r\n"
REQUEST = request_bytes(b"/path")
HTTP = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Echo:
    """Answers HTTP with the target, and ends the connection."""

    @property
    def fast_path(self) -> Echo:
        return self

    def recognise(self, data: bytes) -> MemoizedRequest | None:
        return None

    def ended(self, connection: HttpConnection) -> None:
        """Nobody counts."""

    def note_refused(self, fd: int, answer: bytes, sent_bytes: int) -> None:
        """Nobody observes."""

    def serve(self, connection: HttpConnection, request: RequestHead | MemoizedRequest) -> RequestOutcome:
        connection.stream.send_some(b"[%s]" % request.target)
        return Done(connection)

    def resume(self, connection: HttpConnection, body: PausedAnswer) -> RequestOutcome:
        return Done(connection)


class Port:
    """The server of a port's connections; the test is worker and parking thread."""

    def __init__(
        self, *, getfile: bool = True, http: bool = True, request_s: float = 60.0, keepalive_s: float = 60.0
    ) -> None:
        self.idle, self.run_queue = IdleConnections(), RunQueue()
        shutdown, limits = Shutdown(), replace(LIMITS, request_s=request_s, keepalive_s=keepalive_s)
        self.parking = ParkingLot(self.run_queue, self.idle, None, shutdown)
        server = Http1Server(
            Echo(),
            self.parking,
            self.idle,
            ResponseHeads(b"gf"),
            limits,
            shutdown,
        )
        self.protocols = Protocols(
            getfile_handler() if getfile else None,
            server if http else None,
            Wire.CRLF,
            limits,
        )

    def close(self) -> None:
        """In the daemon's order."""
        self.parking.close()
        self.idle.close()
        self.run_queue.close()

    def connection(self, fd: int, data: bytes = b"") -> NewConnection:
        """One that has said so much."""
        return NewConnection(self.protocols, fd, data)

    def run(self, job: NewConnection) -> None:
        """A worker's part."""
        self.parking.settle(job.run())


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


@pytest.mark.parametrize(("request_bytes", "answer"), [(REQUEST, NOT_FOUND), (HTTP, b"[/a]")], ids=["getfile", "http"])
@pytest.mark.parametrize("cut", [0, 1, 3, 8, 20])
def test_a_request_in_two_parts_is_answered(port: Port, request_bytes: bytes, answer: bytes, cut: int) -> None:
    with connected() as (fd, client):
        job = port.connection(fd, request_bytes[:cut])
        outcome = job.run()
        while isinstance(outcome, Idles):
            assert job.in_head is (cut > 0)
            port.parking.settle(outcome)
            client.sendall(request_bytes[cut:])
            found = wait_until(port.idle.take)
            assert found is not None
            outcome = found.run()
        port.parking.settle(outcome)
        assert at_end(client) == answer


def test_a_connection_that_idled_before_idles_again_as_the_one_it_became(port: Port) -> None:
    """The same descriptor is watched by the same epoll all the time."""
    with connected() as (fd, client):
        port.run(port.connection(fd))
        client.sendall(HTTP[:20])
        new = wait_until(port.idle.take)
        assert isinstance(new, NewConnection)
        port.run(new)
        assert port.idle.count == 1
        client.sendall(HTTP[20:])
        now = wait_until(port.idle.take)
        assert isinstance(now, HttpConnection)
        port.parking.settle(now.run())
        assert at_end(client) == b"[/a]"


@pytest.mark.parametrize("data", [b"GETFILE GET X", b"GETFILE GET /path\n\n", b"GETFILE GET /path\r\n\r\nmore"])
@pytest.mark.parametrize("http", [False, True])
def test_a_bad_request_is_invalid(http: bool, data: bytes) -> None:
    port = Port(http=http)
    with connected() as (fd, client):
        client.shutdown(socket.SHUT_WR)
        port.run(port.connection(fd, data))
        assert at_end(client) == INVALID
    assert port.protocols.invalid_total == 1
    port.close()


@pytest.mark.parametrize(
    ("data", "answer"),
    [(b"", INVALID), (REQUEST[:9], INVALID), (b"GET /a HT", b"HTTP/1.1 400 ")],
    ids=["nothing", "half a request of getfile's", "half a line of HTTP"],
)
def test_an_end_before_the_request_was_whole(port: Port, data: bytes, answer: bytes) -> None:
    with connected() as (fd, client):
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: sockets.has_arrived(fd))
        port.run(port.connection(fd, data))
        assert at_end(client).startswith(answer)


@pytest.mark.parametrize(
    ("getfile", "data", "answer"),
    [
        (True, b"", INVALID),
        (True, REQUEST[:9], INVALID),
        (True, b"GET /a HT", b"HTTP/1.1 408 "),
        (False, b"", b""),
    ],
)
def test_a_request_that_does_not_come_in_time(getfile: bool, data: bytes, answer: bytes) -> None:
    """A silent client is told only what it could understand."""
    port = Port(getfile=getfile)
    with connected() as (fd, client):
        job = port.connection(fd, data)
        outcome = job.run()
        assert isinstance(outcome, Idles)
        assert 0 < outcome.limit_s <= 60.0
        port.parking.settle(job.expire())
        told = at_end(client)
        assert told.startswith(answer)
        assert bool(told) is bool(answer)
    port.close()


def test_where_http_alone_is_spoken_everything_is_http() -> None:
    port = Port(getfile=False)
    with connected() as (fd, client):
        port.run(port.connection(fd, REQUEST))
        assert at_end(client).startswith(b"HTTP/1.1 400 ")
    assert port.protocols.invalid_total == 0
    port.close()


def test_a_whole_request_needs_no_detour(port: Port) -> None:
    assert isinstance(port.protocols.job_for(-1, REQUEST), GetfileRequest)
    with connected(closing=True) as (fd, _client):
        assert isinstance(port.protocols.job_for(fd, HTTP), HttpConnection)
        assert port.protocols.job_for(fd, b"GET") is None


def test_a_reset_closes_without_an_answer(port: Port) -> None:
    with connected() as (fd, client):
        file = OpenFile(fd)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        port.run(port.connection(fd, REQUEST[:5]))
        assert not file.is_open
    assert port.protocols.invalid_total == 0


ERROR = b"GETFILE ERROR\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 "


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", ERROR),
        (b"GETF", ERROR),
        (REQUEST, ERROR),
        (b"GET /a HT", UNAVAILABLE),
        (b"GET /a HTTP/1.1\r\n", UNAVAILABLE),
        (HTTP, UNAVAILABLE),
    ],
)
def test_beyond_the_bound_each_protocol_has_its_answer(port: Port, data: bytes, answer: bytes) -> None:
    with connected() as (fd, client):
        port.protocols.refuse_overload(fd, data)
        sockets.end_sending(fd)
        told = at_end(client)
        assert told.startswith(answer)
        assert (b"\r\nRetry-After: 1\r\n" in told) is (answer is UNAVAILABLE)


def test_a_port_without_getfile_refuses_in_http(port: Port) -> None:
    only_http = Port(getfile=False)
    with connected() as (fd, client):
        only_http.protocols.refuse_overload(fd, b"")
        sockets.end_sending(fd)
        assert at_end(client).startswith(UNAVAILABLE)
    only_http.close()


def test_the_time_for_a_head_begins_with_its_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it the connection is merely idle; the rest of the head, whoever reads it, has what is left."""
    now = 1000.0
    monkeypatch.setattr("webproxy.serving.new_connection.monotonic", lambda: now)
    monkeypatch.setattr("webproxy.transport.http1_connection.monotonic", lambda: now)
    port = Port(request_s=10.0, keepalive_s=60.0)
    with connected() as (fd, client):
        job = port.connection(fd)

        def left() -> float:
            outcome = job.run()
            assert isinstance(outcome, Idles)
            return outcome.limit_s

        assert left() == 60.0
        now += 50.0
        assert left() == 10.0
        client.sendall(b"GET")
        wait_until(lambda: sockets.has_arrived(fd))
        assert left() == 10.0
        now += 4.0
        client.sendall(b" /a HT")
        wait_until(lambda: sockets.has_arrived(fd))
        assert left() == 6.0
        now += 3.0
        client.sendall(b"TP/1.1\r\nHost")
        wait_until(lambda: sockets.has_arrived(fd))
        assert left() == 3.0
        job.close()
    port.close()


def test_closing_it_closes_its_connection(port: Port) -> None:
    with connected() as (fd, client):
        job = port.connection(fd)
        assert (job.path, os.fstat(fd) is not None) == (b"", True)
        job.close()
        assert at_end(client) == b""
