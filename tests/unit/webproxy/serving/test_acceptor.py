"""Acceptor: an idle worker gets whole requests from listener and line; what is not whole goes to the boss."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.http_sockets import http_connected
from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.getfile import Wire, request_bytes
from webproxy.serving.acceptor import Acceptor
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import HttpStart, Request, RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit
from webproxy.transport.keepalive import IdleConnections
from webproxy.transport.listener import open_listener


class Door:
    """Listener, line, boss and intake, as the daemon joins them."""

    def __init__(self) -> None:
        self.run_queue = RunQueue()
        self.listener = open_listener("127.0.0.1", 0)
        self.address = self.listener.getsockname()
        self.parking = ParkingLot(self.run_queue, request_timeout_s=60.0, wire=Wire.CRLF)
        self.parking.start()
        self.acceptor = Acceptor(self.listener, self.run_queue, self.parking, 2, Wire.CRLF)

    def client(self, sends: bytes) -> socket.socket:
        """A client that has sent so much."""
        made = socket.create_connection(self.address, timeout=WATCHDOG_S)
        made.sendall(sends)
        return made

    def taken(self) -> Request:
        """The next request for worker 0."""
        job = wait_until(lambda: self.acceptor.take(0))
        assert isinstance(job, tuple)
        return job

    def close(self) -> None:
        """In the daemon's order."""
        self.acceptor.close()
        self.parking.close()
        self.run_queue.close()


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def test_a_whole_request_needs_no_boss(door: Door) -> None:
    with door.client(request_bytes(b"/a")) as client:
        fd, path = door.taken()
        assert path == b"/a"
        sockets.send(fd, b"bye")
        sockets.close(fd)
        assert at_end(client) == b"bye"
    assert door.parking.unfinished == 0


def test_half_a_request_goes_by_the_boss_and_comes_back_on_the_line(door: Door) -> None:
    request = request_bytes(b"/a")
    with door.client(request[:7]) as client:
        wait_until(lambda: (door.acceptor.take(0), door.parking.unfinished)[1])
        client.sendall(request[7:])
        fd, path = door.taken()
        assert path == b"/a"
        sockets.close(fd)


@pytest.mark.parametrize("sent", [b"GETFILE PUT /a\r\n\r\n", b"\r\n\r\n", b"GETFILE GET a\r\n\r\n"])
def test_a_bad_request_is_answered_at_once(door: Door, sent: bytes) -> None:
    with door.client(sent) as client:
        wait_until(lambda: (door.acceptor.take(0), door.acceptor.invalid_total)[1])
        assert at_end(client) == b"GETFILE INVALID\r\n\r\n"


def test_nothing_to_do_is_none(door: Door) -> None:
    assert door.acceptor.take(1) is None
    assert not door.acceptor.others_wait()


def test_woken_workers_come_back_without_a_job(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.serving.acceptor.WAIT_SECONDS", 2 * WATCHDOG_S)
    with ThreadPoolExecutor(2) as crew:
        jobs = [crew.submit(door.acceptor.take, index) for index in range(2)]
        door.run_queue.wake(2)
        assert [job.result(WATCHDOG_S) for job in jobs] == [None, None]


def test_others_wait_takes_in_what_has_arrived(door: Door) -> None:
    with door.client(request_bytes(b"/a")):
        wait_until(door.acceptor.others_wait)
        assert door.acceptor.others_wait()  # still on the line
        fd, path = door.taken()
        assert path == b"/a"
        sockets.close(fd)
    assert not door.acceptor.others_wait()


def test_paused_responses_and_requests_take_turns(door: Door) -> None:
    with connected() as (fd, _client):
        response = BodyTransfer(ClientStream(fd, RateLimit(0, 1), lambda: False), b"/p", 1, 1, lambda: False)
        for _ in range(4):
            door.run_queue.put((fd, b"/r"))
            door.run_queue.put_paused(response)
        jobs = [door.acceptor.take(0) for _ in range(8)]
        assert [isinstance(job, BodyTransfer) for job in jobs] in ([True, False] * 4, [False, True] * 4)
        sockets.close(fd)


def test_at_the_stop_what_was_sent_is_still_taken_and_nothing_new(door: Door) -> None:
    clients = [door.client(request_bytes(b"/%d" % n)) for n in range(5)]
    wait_until(lambda: all_queued(door.listener, 5))
    door.acceptor.stop_accepting()
    paths = set()
    for _ in clients:
        fd, path = door.taken()
        paths.add(path)
        sockets.close(fd)
    assert paths == {b"/%d" % n for n in range(5)}
    with pytest.raises(ConnectionRefusedError):
        door.client(b"")
    assert door.acceptor.take(0) is None
    for client in clients:
        client.close()


def test_at_the_stop_no_more_than_a_queue_of_them_is_taken(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that connect faster than they are accepted would hold the stop up for good."""
    monkeypatch.setattr("webproxy.serving.acceptor.BACKLOG", 2)
    clients = [door.client(request_bytes(b"/%d" % n)) for n in range(5)]
    wait_until(lambda: all_queued(door.listener, 5))
    door.acceptor.stop_accepting()
    for _ in range(3):
        sockets.close(door.taken()[0])
    assert door.acceptor.take(0) is None
    for client in clients:
        client.close()


def all_queued(listener: socket.socket, count: int) -> bool:
    """Whether so many connections wait to be accepted: tcpi_unacked of a listening socket counts them (tcp(7))."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], "little") >= count


def test_without_descriptors_a_client_is_told_and_the_next_one_is_served(door: Door) -> None:
    refused = door.client(request_bytes(b"/a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken_fds = []
    try:
        wait_until(lambda: all_queued(door.listener, 1))
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            while True:
                taken_fds.append(os.dup(0))
        except OSError:
            pass
        wait_until(lambda: (door.acceptor.take(0), door.acceptor.shed_total)[1])
        assert door.acceptor.take(0) is None
    finally:
        for fd in taken_fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert at_end(refused) == b"GETFILE ERROR\r\n\r\n"
    served = door.client(request_bytes(b"/b"))
    fd, path = door.taken()
    assert path == b"/b"
    sockets.close(fd)
    refused.close()
    served.close()


def test_nobody_takes_the_descriptor_that_is_given_up_for_a_refusal(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken by another worker's connection it would be gone, and who comes next would wait for good."""
    begun, close, accept = threading.Event(), sockets.close, sockets.accept
    client = door.client(request_bytes(b"/a"))
    wait_until(lambda: all_queued(door.listener, 1))
    refusing = threading.Event()

    def accepts(listener_fd: int) -> int | None:
        if not refusing.is_set():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listener_fd)

    def gives_up(fd: int) -> None:
        close(fd)
        monkeypatch.setattr(sockets, "close", close)
        refusing.set()
        other = crew.submit(lambda: (begun.set(), door.acceptor.others_wait())[1])
        assert begun.wait(WATCHDOG_S)
        with pytest.raises(TimeoutError):
            other.result(0.1)

    monkeypatch.setattr(sockets, "accept", accepts)
    monkeypatch.setattr(sockets, "close", gives_up)
    with ThreadPoolExecutor(1) as crew:
        assert door.acceptor.take(0) is None
    assert door.acceptor.shed_total == 1
    assert at_end(client) == b"GETFILE ERROR\r\n\r\n"
    client.close()


class HttpDoor(Door):
    """The same where HTTP is spoken too, or alone."""

    def __init__(self, *, speaks_getfile: bool = True) -> None:
        self.run_queue = RunQueue()
        self.listener = open_listener("127.0.0.1", 0)
        self.address = self.listener.getsockname()
        self.idle = IdleConnections()
        self.parking = ParkingLot(
            self.run_queue, request_timeout_s=60.0, wire=Wire.CRLF, speaks_http=True, speaks_getfile=speaks_getfile
        )
        self.parking.start()
        self.acceptor = Acceptor(
            self.listener, self.run_queue, self.parking, 2, Wire.CRLF, idle=self.idle, speaks_getfile=speaks_getfile
        )

    def close(self) -> None:
        super().close()
        self.idle.close()


HTTP = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("speaks_getfile", "sent", "is_http"),
    [(True, HTTP, True), (True, request_bytes(b"/a"), False), (False, HTTP, True), (False, request_bytes(b"/a"), True)],
)
def test_the_first_bytes_decide(speaks_getfile: bool, sent: bytes, is_http: bool) -> None:
    door = HttpDoor(speaks_getfile=speaks_getfile)
    with door.client(sent):
        job = door.taken()
        assert isinstance(job, HttpStart) == is_http
        assert job[1] == (sent if is_http else b"/a")
        sockets.close(job[0])
    door.close()


def test_a_client_of_http_alone_that_leaves_at_once_is_told_nothing() -> None:
    door = HttpDoor(speaks_getfile=False)
    with door.client(b"") as client:
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: (door.acceptor.take(0), door.acceptor.take(0), sockets.has_arrived(client.fileno()))[2])
        assert at_end(client) == b""
    assert door.acceptor.invalid_total == 0
    door.close()


def test_new_connections_and_old_ones_take_turns() -> None:
    """Old ones with requests at hand must not keep a new one waiting."""
    door = HttpDoor()
    with ExitStack() as stack:
        old = [stack.enter_context(http_connected()) for _ in range(4)]
        for connection, client in old:
            client.sendall(b"x")
            door.idle.put(connection, 3600.0)
        stack.enter_context(door.client(request_bytes(b"/new")))
        wait_until(lambda: all_queued(door.listener, 1))
        wait_until(lambda: all(sockets.has_arrived(connection.fd) for connection, _ in old))
        jobs = [door.acceptor.take(0) for _ in range(5)]
        assert [isinstance(job, tuple) for job in jobs[:2]].count(True) == 1
        for job in jobs:
            assert job is not None
            sockets.close(job[0] if isinstance(job, tuple) else job.fd)  # type: ignore[union-attr]
    door.close()
