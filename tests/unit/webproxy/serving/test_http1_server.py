"""Http1Server: which requests of a connection are served by whom, and what becomes of the connection between them."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.handlers import LIMITS
from tests.support.http_sockets import OpenFile
from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.exchange.fast_path import CachedReply, MemoizedRequest
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.http.fields import Fields
from webproxy.http.messages import HttpError, RequestHead
from webproxy.serving.http1_server import REQUESTS_IN_A_ROW, Http1Server
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.http1_connection import HttpConnection, PausedAnswer
from webproxy.transport.job import KEEP_ALIVE, Done, Event, IdleJob, Idles, Job, Outcome, RequestOutcome, WaitsFor

Answerer = Callable[[HttpConnection, RequestHead], RequestOutcome]


def echo_target(connection: HttpConnection, request: RequestHead) -> RequestOutcome:
    connection.stream.send_some(b"[%s]" % request.target)
    return KEEP_ALIVE if request.keep_alive else Done(connection)


class Known:
    """What is known by its bytes."""

    def __init__(self) -> None:
        self.requests: dict[bytes, MemoizedRequest] = {}

    def recognise(self, data: bytes) -> MemoizedRequest | None:
        return self.requests.get(data)


class FakeHandler:
    """Answers with the target, unless the test says otherwise."""

    def __init__(self) -> None:
        self.answers: Answerer = echo_target
        self.resumes: Callable[[HttpConnection], RequestOutcome] = self.ends
        self.ended_connections: list[HttpConnection] = []
        self.fast_path = Known()
        self.recognise = self.fast_path.recognise

    def serve(self, connection: HttpConnection, request: RequestHead | MemoizedRequest) -> RequestOutcome:
        return self.answers(connection, request.request if isinstance(request, MemoizedRequest) else request)

    def resume(self, connection: HttpConnection, body: PausedAnswer) -> RequestOutcome:
        return self.resumes(connection)

    def ended(self, connection: HttpConnection) -> None:
        self.ended_connections.append(connection)

    def note_refused(self, fd: int, answer: bytes, sent_bytes: int) -> None:
        """Nobody observes."""

    def ends(self, connection: HttpConnection) -> RequestOutcome:
        """The paused body comes to its end."""
        connection.paused = None
        return Done(connection) if connection.is_last else KEEP_ALIVE


class Desk:
    """A server with all that it hands connections to, and no workers: the test is the worker."""

    def __init__(self, *, request_timeout_s: float = 60.0) -> None:
        self.handler = FakeHandler()
        self.idle = IdleConnections()
        self.run_queue = RunQueue()
        self.shutdown = Shutdown()
        self.parking = ParkingLot(self.run_queue, self.idle, None, self.shutdown)
        self.server = Http1Server(
            self.handler,
            self.parking,
            self.idle,
            ResponseHeads(b"gf"),
            replace(LIMITS, request_s=request_timeout_s, keepalive_s=60.0),
            self.shutdown,
        )
        self.parking.start()

    def close(self) -> None:
        self.parking.close()
        self.idle.close()
        self.run_queue.close()

    def begin(self, fd: int, data: bytes) -> Outcome:
        """A new connection, and all that its worker does about it."""
        return self.run(self.server.connect(fd, data))

    def run(self, job: Job) -> Outcome:
        """A worker's handling of a job."""
        outcome = job.run()
        self.parking.settle(outcome)
        return outcome

    def next_idle(self) -> IdleJob:
        """A connection on which something has come."""
        found = wait_until(self.idle.take, what="a connection with something on it")
        assert found is not None
        return found

    def next_back(self) -> HttpConnection:
        """A connection that has waited."""
        found = wait_until(self.run_queue.take_back, what="a connection in the queue")
        assert isinstance(found, HttpConnection)
        return found


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


class Rest:
    """The rest of an answer, which the handler of the test knows what to do with."""

    key = b"/a"

    def close(self) -> None:
        """Nothing is held."""


def get(target: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: h", *lines, b"", b""])


def received(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += client.recv(count - len(data))
    return data


# -- requests ---------------------------------------------------------------------------------------------------------
def test_a_request_is_answered_and_its_connection_idles(desk: Desk) -> None:
    with connected() as (fd, client):
        assert isinstance(desk.begin(fd, get(b"/a")), Idles)
        assert received(client, 4) == b"[/a]"
        assert desk.idle.count == 1
        for _ in range(3):
            client.sendall(get(b"/b") + get(b"/c"))
            assert isinstance(desk.run(desk.next_idle()), Idles)
            assert received(client, 8) == b"[/b][/c]"
        assert desk.idle.count == 1


def test_a_worker_goes_on_with_whoever_has_something_to_read(desk: Desk) -> None:
    """In one go, one request each in turn; all of them idle again behind it."""
    with connected() as (one, first), connected() as (two, second), connected() as (three, third):
        for fd, client in ((one, first), (two, second), (three, third)):
            desk.begin(fd, get(b"/a"))
            assert received(client, 4) == b"[/a]"
        poll = select.poll()
        poll.register(desk.idle.fileno(), select.POLLIN)
        third.sendall(get(b"/b"))
        second.sendall(get(b"/c"))
        first.sendall(get(b"/d"))
        assert isinstance(desk.run(desk.next_idle()), Idles)
        assert [received(client, 4) for client in (third, second, first)] == [b"[/b]", b"[/c]", b"[/d]"]
        assert (desk.idle.count, poll.poll(0)) == (3, [])


def test_who_is_gone_does_not_hold_up_who_is_next(desk: Desk) -> None:
    with connected() as (one, first), connected() as (two, second):
        for fd, client in ((one, first), (two, second)):
            desk.begin(fd, get(b"/a"))
            assert received(client, 4) == b"[/a]"
        first.sendall(get(b"/b"))
        connection = desk.next_idle()
        second.close()
        wait_until(lambda: sockets.has_arrived(two), what="the end of the other one")
        desk.run(connection)
        assert received(first, 4) == b"[/b]"
        wait_until(lambda: desk.idle.count == 1, what="one that idles")


def test_more_requests_than_are_answered_in_a_row_take_turns(desk: Desk) -> None:
    count = 2 * REQUESTS_IN_A_ROW + 3
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a") * count)
        assert received(client, 4 * REQUESTS_IN_A_ROW) == b"[/a]" * REQUESTS_IN_A_ROW
        assert desk.idle.count == 0, "nothing that comes would wake it there"
        desk.run(desk.next_back())
        desk.run(desk.next_back())
        assert received(client, 4 * (count - REQUESTS_IN_A_ROW)) == b"[/a]" * (count - REQUESTS_IN_A_ROW)
        assert desk.idle.count == 1


def test_half_a_head_idles_until_the_rest_comes(desk: Desk) -> None:
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a")[:20])
        assert desk.idle.count == 1
        client.sendall(get(b"/a")[20:])
        desk.run(desk.next_idle())
        assert received(client, 4) == b"[/a]"


def test_what_pauses_goes_on_and_then_the_next_request_is_answered(desk: Desk) -> None:
    with connected() as (fd, client):

        def pauses(connection: HttpConnection, request: RequestHead) -> RequestOutcome:
            return connection.pause(Rest(), Event.TURN, is_last=False)

        desk.handler.answers = pauses
        connection = desk.server.connect(fd, get(b"/a") + get(b"/b"))
        assert desk.run(connection) == WaitsFor(connection, Event.TURN)
        assert desk.idle.count == 0
        desk.handler.resumes = lambda connection: pauses(connection, RequestHead(b"GET", b"/a", (1, 1), Fields(())))
        assert desk.run(desk.next_back()) == WaitsFor(connection, Event.TURN)
        desk.handler.resumes, desk.handler.answers = desk.handler.ends, echo_target
        assert isinstance(desk.run(desk.next_back()), Idles)
        assert received(client, 4) == b"[/b]"
        assert desk.idle.count == 1


def test_a_paused_answer_that_ends_its_connection(desk: Desk) -> None:
    with connected() as (fd, client):
        connection = desk.server.connect(fd, b"")
        connection.pause(Rest(), Event.TURN, is_last=True)
        assert desk.run(connection) == Done(connection)
        assert at_end(client) == b""


# -- requests that are known ------------------------------------------------------------------------------------------
def known_reply(*, large: bool) -> CachedReply:
    """One that nobody asks for more than whether a file comes with it."""
    anything = cast("Any", SimpleNamespace(size_bytes=0, status=200))
    return CachedReply(b"/k", b"", anything if large else None, False, anything, 0, anything)


@pytest.fixture(params=[False, True], ids=["small", "large"])
def known(desk: Desk, request: pytest.FixtureRequest) -> MemoizedRequest:
    """GET /k is known."""
    made = MemoizedRequest(RequestHead(b"GET", b"/k", (1, 1), Fields(())), known_reply(large=request.param))
    desk.handler.fast_path.requests[get(b"/k")] = made
    return made


def test_known_requests_follow_each_other(desk: Desk, known: MemoizedRequest) -> None:
    with connected() as (fd, client):
        assert isinstance(desk.begin(fd, get(b"/k")), Idles)
        assert received(client, 4) == b"[/k]"
        for _ in range(3):
            client.sendall(get(b"/k"))
            assert isinstance(desk.run(desk.next_idle()), Idles)
            assert received(client, 4) == b"[/k]"
        client.sendall(get(b"/b"))
        assert isinstance(desk.run(desk.next_idle()), Idles)
        assert received(client, 4) == b"[/b]"
        assert desk.idle.count == 1


def test_a_request_that_is_there_behind_a_known_one_is_taken(desk: Desk, known: MemoizedRequest) -> None:
    """Whether the worker looks for it, waits for it, or leaves it to whoever is idle."""
    with connected() as (fd, client):
        client.sendall(get(b"/b"))
        assert isinstance(desk.begin(fd, get(b"/k")), Idles)
        if desk.idle.count and known.reply.file is not None:
            assert isinstance(desk.run(desk.next_idle()), Idles)
        assert received(client, 8) == b"[/k][/b]"


def test_known_bytes_that_did_not_come_alone_are_parsed(desk: Desk, known: MemoizedRequest) -> None:
    """They may be the rest of another request, or have one behind them."""
    answered: list[tuple[bytes, bytes | None]] = []

    def notes(connection: HttpConnection, request: RequestHead) -> RequestOutcome:
        answered.append((request.target, request.fields.get(b"x")))
        return KEEP_ALIVE

    desk.handler.answers = notes
    with connected() as (fd, client):
        desk.begin(fd, get(b"/k") + get(b"/k"))
        client.sendall(b"GET /b HTTP/1.1\r\nX: ")
        desk.run(desk.next_idle())
        client.sendall(get(b"/k"))
        desk.run(desk.next_idle())
        assert answered == [(b"/k", None), (b"/k", None), (b"/b", b"GET /k HTTP/1.1")]


def test_known_bytes_in_a_body_are_the_bodys(desk: Desk, known: MemoizedRequest) -> None:
    bodies: list[bytes] = []

    def reads(connection: HttpConnection, request: RequestHead) -> RequestOutcome:
        bodies.append(b"".join(iter(lambda: connection.body_part(), b"")))
        return echo_target(connection, request)

    with connected() as (fd, client):
        desk.handler.answers = reads
        client.sendall(get(b"/k"))
        desk.begin(fd, b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(get(b"/k")))
        assert received(client, 4) == b"[/p]"
        assert bodies == [get(b"/k")]
        desk.handler.answers = echo_target
        client.sendall(get(b"/k"))
        desk.run(desk.next_idle())
        assert received(client, 4) == b"[/k]"


# -- ends -------------------------------------------------------------------------------------------------------------
def test_the_last_answer_ends_the_connection_and_what_is_behind_it_is_forgotten(desk: Desk) -> None:
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a", b"Connection: close") + get(b"/b"))
        assert at_end(client) == b"[/a]"
        assert desk.idle.count == 0


def test_the_clients_end_is_ours(desk: Desk) -> None:
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a"))
        client.shutdown(socket.SHUT_WR)
        desk.run(desk.next_idle())
        assert at_end(client) == b"[/a]"


def test_a_client_that_is_gone_is_closed(desk: Desk) -> None:
    with connected() as (fd, client):
        file = OpenFile(fd)
        desk.begin(fd, get(b"/a"))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        desk.run(desk.next_idle())
        assert not file.is_open


@pytest.mark.parametrize("idled", [False, True])
def test_what_is_no_request_is_refused_behind_the_answers_before_it(desk: Desk, idled: bool) -> None:
    with connected() as (fd, client):
        if idled:
            desk.begin(fd, get(b"/a"))
            client.sendall(b"garbage\r\n\r\n")
            desk.run(desk.next_idle())
        else:
            desk.begin(fd, get(b"/a") + b"garbage\r\n\r\n" + get(b"/b"))
        answer = at_end(client)
        assert answer.startswith(b"[/a]HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"/b" not in answer


def test_a_bad_body_that_nobody_wanted_is_refused_behind_its_answer(desk: Desk) -> None:
    def answers_and_skips(connection: HttpConnection, request: RequestHead) -> RequestOutcome:
        connection.stream.send_some(b"[answer]")
        raise HttpError(400, "not a chunk size")

    desk.handler.answers = answers_and_skips
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a"))
        assert at_end(client).startswith(b"[answer]HTTP/1.1 400 ")


def test_a_bad_beginning_is_refused(desk: Desk) -> None:
    with connected() as (fd, client):
        desk.begin(fd, b"GET /a HTTP/2.0\r\n")
        assert at_end(client).startswith(b"HTTP/1.1 505 ")


def test_half_a_head_and_the_end_is_refused(desk: Desk) -> None:
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a") + b"GET /b")
        client.shutdown(socket.SHUT_WR)
        desk.run(desk.next_idle())
        assert at_end(client).startswith(b"[/a]HTTP/1.1 400 ")


@pytest.mark.parametrize("status", [400, 408])
def test_a_request_that_does_not_come_to_its_end_is_told_so(desk: Desk, status: int) -> None:
    with connected() as (fd, client):
        desk.server.refuse(fd, status)
        sockets.end_sending(fd)
        assert at_end(client).startswith(b"HTTP/1.1 %d " % status)


# -- time -------------------------------------------------------------------------------------------------------------
def test_a_head_that_takes_too_long_is_408_and_an_idle_connection_just_ends() -> None:
    desk = Desk(request_timeout_s=0.0)
    with connected() as (fd, client), connected() as (other, quiet):
        desk.begin(fd, get(b"/a")[:20])
        desk.begin(other, get(b"/a"))
        assert at_end(client).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert desk.idle.count == 1
        assert received(quiet, 4) == b"[/a]"
    desk.close()


def test_bytes_that_trickle_in_give_a_head_no_more_time(desk: Desk) -> None:
    with connected() as (fd, client):
        desk.begin(fd, get(b"/a")[:20])
        client.sendall(get(b"/a")[20:22])
        connection = desk.next_idle()
        expires = connection.expires
        desk.run(connection)
        assert connection.expires == pytest.approx(expires, abs=0.5)
        client.sendall(get(b"/a")[22:])
        desk.run(desk.next_idle())
        assert received(client, 4) == b"[/a]"
        assert connection.expires >= expires


def test_in_the_end_quiet_connections_end_and_begun_requests_are_answered(desk: Desk) -> None:
    with connected() as (fd, quiet), connected() as (other, client):
        desk.begin(fd, get(b"/a"))
        desk.begin(other, get(b"/b")[:20])
        desk.shutdown.draining = desk.shutdown.closes_idle = True
        quiet.settimeout(WATCHDOG_S)
        assert at_end(quiet) == b"[/a]"
        client.sendall(get(b"/b")[20:])
        desk.run(desk.next_idle())
        assert at_end(client) == b"[/b]"
        assert desk.idle.count == 0
        ended = desk.handler.ended_connections
        assert sorted(connection.fd for connection in ended) == sorted((fd, other)), "each is told once"


def test_an_unexpected_failure_ends_the_connection_that_it_came_from(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker may be on another connection than it began with by then: that one stays."""

    def answer(connection: HttpConnection, request: RequestHead) -> RequestOutcome:
        if request.target == b"/bad":
            raise RuntimeError("of the test's")
        return echo_target(connection, request)

    desk.handler.answers = answer
    with connected() as (one, first), connected() as (two, second):
        assert isinstance(desk.begin(one, get(b"/a")), Idles)
        assert isinstance(desk.begin(two, get(b"/b")), Idles)
        first.sendall(get(b"/c"))
        connection = desk.next_idle()
        second.sendall(get(b"/bad"))
        desk.run(connection)
        while desk.idle.count > 1:
            desk.run(desk.next_idle())
        assert at_end(second) == b"[/b]"
        assert "of the test's" in caplog.text
        assert received(first, 8) == b"[/a][/c]"
        assert desk.idle.count == 1
