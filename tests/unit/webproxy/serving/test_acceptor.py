"""Acceptor: an idle worker gets its next job from the run queue, from connections that idled, or from the listener."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic

import pytest

from tests.support.handlers import LIMITS, getfile_handler
from tests.support.http_sockets import http_connected
from tests.support.jobs import FakeJob
from tests.support.tcp import at_end
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.exchange.getfile_request import GetfileRequest
from webproxy.getfile import Wire, request_bytes
from webproxy.serving.acceptor import Acceptor
from webproxy.serving.idle_workers import IdleWorkers
from webproxy.serving.new_connection import NewConnection, Protocols
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.run_queue import DEFAULTS, QueueSettings, RunQueue, Schedule
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.job import Idles
from webproxy.transport.listener import open_listener


class Door:
    """Listener, queue, idle connections and acceptor, as the daemon joins them; getfile is spoken."""

    def __init__(self, connections_max: int = 10, queue: QueueSettings = DEFAULTS) -> None:
        self.run_queue = RunQueue(queue)
        self.idle = IdleConnections()
        self.parking = ParkingLot(self.run_queue, self.idle, None, Shutdown())
        self.listener = open_listener("127.0.0.1", 0)
        self.address = self.listener.getsockname()
        limits = replace(LIMITS, connections=connections_max)
        self.protocols = Protocols(getfile_handler(), None, Wire.CRLF, limits)
        self.workers = IdleWorkers(2)
        self.acceptor = Acceptor(self.listener, self.run_queue, self.idle, self.parking, self.protocols, self.workers)

    def client(self, sends: bytes) -> socket.socket:
        """A client that has sent so much."""
        made = socket.create_connection(self.address, timeout=WATCHDOG_S)
        made.sendall(sends)
        return made

    def taken(self) -> GetfileRequest:
        """The next request for worker 0."""
        job = wait_until(lambda: self.acceptor.take(0))
        assert isinstance(job, GetfileRequest)
        return job

    def close(self) -> None:
        """In the daemon's order."""
        self.acceptor.close()
        self.workers.close()
        self.parking.close()
        self.idle.close()
        self.run_queue.close()


@pytest.fixture(autouse=True)
def short_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds nothing says so soon."""
    monkeypatch.setattr("webproxy.serving.acceptor.SLEEP_SECONDS", 0.1)


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def test_a_whole_request_is_a_job(door: Door) -> None:
    with door.client(request_bytes(b"/a")) as client:
        job = door.taken()
        assert job.path == b"/a"
        sockets.send(job.fd, b"bye")
        job.close()
        assert at_end(client) == b"bye"


@pytest.mark.parametrize("sent", [request_bytes(b"/a")[:7], b"GETFILE PUT /a\r\n\r\n", b"\r\n\r\n"])
def test_what_is_not_whole_or_no_request_is_a_connection_that_sees_to_itself(door: Door, sent: bytes) -> None:
    with door.client(sent):
        job = wait_until(lambda: door.acceptor.take(0))
        assert isinstance(job, NewConnection)
        job.close()


def test_half_a_request_idles_and_comes_back(door: Door) -> None:
    request = request_bytes(b"/a")
    with door.client(request[:7]) as client:
        half = wait_until(lambda: door.acceptor.take(0))
        assert half is not None
        outcome = half.run()
        assert isinstance(outcome, Idles)
        door.idle.put(outcome.job, outcome.limit_s)
        client.sendall(request[7:])
        again = wait_until(lambda: door.acceptor.take(0))
        assert again is half
        half.close()


def test_nothing_to_do_is_none(door: Door) -> None:
    assert door.acceptor.take(1) is None


def test_woken_workers_come_back_without_a_job(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.serving.acceptor.SLEEP_SECONDS", 2 * WATCHDOG_S)
    with ThreadPoolExecutor(2) as crew:
        jobs = [crew.submit(door.acceptor.take, index) for index in range(2)]
        door.workers.end()
        assert [job.result(WATCHDOG_S) for job in jobs] == [None, None]


def test_new_jobs_and_those_that_have_waited_take_turns(door: Door) -> None:
    new, back = [FakeJob(-1) for _ in range(4)], [FakeJob(-1) for _ in range(4)]
    for one, other in zip(new, back, strict=True):
        door.run_queue.put(one)
        door.run_queue.put_back(other)
    jobs = [door.acceptor.take(0) for _ in range(8)]
    assert [job in back for job in jobs] in ([True, False] * 4, [False, True] * 4)


def test_at_the_stop_what_was_sent_is_still_taken_and_nothing_new(door: Door) -> None:
    clients = [door.client(request_bytes(b"/%d" % n)) for n in range(5)]
    wait_until(lambda: all_queued(door.listener, 5))
    door.acceptor.stop_accepting()
    paths = set()
    for _ in clients:
        job = door.taken()
        paths.add(job.path)
        job.close()
    assert paths == {b"/%d" % n for n in range(5)}
    with pytest.raises(ConnectionRefusedError):
        door.client(b"")
    assert door.acceptor.take(0) is None
    for client in clients:
        client.close()


def test_at_the_stop_who_has_sent_nothing_is_no_work(door: Door) -> None:
    """A drain waits for what is queued."""
    with door.client(b"") as client:
        wait_until(lambda: all_queued(door.listener, 1))
        door.acceptor.stop_accepting()
        assert (door.run_queue.waiting, door.idle.count) == (0, 1)
        door.idle.close()
        assert at_end(client) == b""


def test_at_the_stop_no_more_than_a_queue_of_them_is_taken(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that connect faster than they are accepted would hold the stop up for good."""
    monkeypatch.setattr("webproxy.serving.acceptor.BACKLOG", 2)
    clients = [door.client(request_bytes(b"/%d" % n)) for n in range(5)]
    wait_until(lambda: all_queued(door.listener, 5))
    door.acceptor.stop_accepting()
    for _ in range(3):
        door.taken().close()
    assert door.acceptor.take(0) is None
    for client in clients:
        client.close()


def all_queued(listener: socket.socket, count: int) -> bool:
    """Whether so many connections wait to be accepted."""
    return sockets.backlog(listener) >= count


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
        wait_until(lambda: (door.acceptor.take(0), door.acceptor.refused_total)[1])
        assert door.acceptor.take(0) is None
    finally:
        for fd in taken_fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert at_end(refused) == b"GETFILE ERROR\r\n\r\n"
    served = door.client(request_bytes(b"/b"))
    job = door.taken()
    assert job.path == b"/b"
    job.close()
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
        other = crew.submit(lambda: (begun.set(), door.acceptor.take(1))[1])
        assert begun.wait(WATCHDOG_S)
        with pytest.raises(TimeoutError):
            other.result(0.1)

    monkeypatch.setattr(sockets, "accept", accepts)
    monkeypatch.setattr(sockets, "close", gives_up)
    with ThreadPoolExecutor(1) as crew:
        assert door.acceptor.take(0) is None
    assert door.acceptor.refused_total == 1
    assert at_end(client) == b"GETFILE ERROR\r\n\r\n"
    client.close()


@pytest.mark.parametrize("sent", [request_bytes(b"/a"), b"GETF", b""])
def test_beyond_the_bound_of_connections_a_new_one_is_told_so(sent: bytes) -> None:
    door = Door(connections_max=1)
    with door.client(request_bytes(b"/a")[:7]), door.client(sent) as refused:
        wait_until(lambda: all_queued(door.listener, 2))
        half = door.acceptor.take(0)
        assert isinstance(half, NewConnection)
        door.parking.settle(half.run())
        assert door.acceptor.take(0) is None
        refused.sendall(b"more than is read")
        assert refused.recv(100) == b"GETFILE ERROR\r\n\r\n"
        assert (door.acceptor.refused_total, door.parking.connections) == (1, 1)
    door.close()


def test_when_nobody_can_even_be_refused_accepting_pauses(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, for example, is nothing of which some can be reserved. No worker is woken in vain, and none waits."""
    accept, asked = sockets.accept, 0

    def fails(listener_fd: int) -> int | None:
        nonlocal asked
        asked += 1
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    with door.client(request_bytes(b"/a")):
        wait_until(lambda: all_queued(door.listener, 1))
        monkeypatch.setattr("webproxy.serving.acceptor.PAUSE_SECONDS", 1800.0)
        monkeypatch.setattr(sockets, "accept", fails)
        assert door.acceptor.take(0) is None
        assert asked == 2
        for _ in range(5):
            assert door.acceptor.take(1) is None
        assert (asked, door.acceptor.refused_total) == (2, 0)
        monkeypatch.setattr("webproxy.serving.acceptor.monotonic", lambda: monotonic() + 3600.0)
        assert door.acceptor.take(1) is None
        assert asked == 4
        monkeypatch.setattr(sockets, "accept", accept)
        monkeypatch.setattr("webproxy.serving.acceptor.monotonic", lambda: monotonic() + 7200.0)
        door.taken().close()


def test_the_stop_ends_the_pause_for_good(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(listener_fd: int) -> int | None:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr("webproxy.serving.acceptor.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(sockets, "accept", fails)
    assert door.acceptor.take(0) is None
    door.acceptor.stop_accepting()
    for _ in range(3):
        assert door.acceptor.take(0) is None


def test_new_connections_and_old_ones_take_turns(door: Door) -> None:
    """Old ones with requests at hand must not keep a new one waiting."""
    with ExitStack() as stack:
        old = [stack.enter_context(http_connected()) for _ in range(4)]
        for connection, client in old:
            client.sendall(b"x")
            door.idle.put(connection, 3600.0)
        stack.enter_context(door.client(request_bytes(b"/new")))
        wait_until(lambda: all_queued(door.listener, 1))
        wait_until(lambda: all(sockets.has_arrived(connection.fd) for connection, _ in old))
        jobs = [door.acceptor.take(0) for _ in range(5)]
        assert [isinstance(job, GetfileRequest) for job in jobs[:2]].count(True) == 1
        for job in jobs:
            assert job is not None
            job.close()


# -- overload ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", Schedule)
def test_under_overload_who_cannot_be_served_in_time_is_told_at_once(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webproxy.serving.acceptor.GATHER_DEPTH", 4)
    door = Door(queue=QueueSettings(schedule, length_max=3))
    clients = [door.client(request_bytes(b"/%d" % n)) for n in range(5)]
    wait_until(lambda: sockets.backlog(door.listener) == 5)
    served = []
    while isinstance(job := door.acceptor.take(0), NewConnection):
        served.append(job)
        job.close()
    refused = clients[3:] if schedule is Schedule.FIFO else clients[:2]
    assert [client.recv(100) for client in refused] == [b"GETFILE ERROR\r\n\r\n"] * 2
    assert (len(served), door.acceptor.refused_total) == (3, 2)
    for client in clients:
        client.close()
    door.close()


def test_while_a_worker_can_be_woken_nothing_is_gathered(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.serving.acceptor.GATHER_DEPTH", 1)
    door.workers.sleeping[1] = 1
    clients = [door.client(request_bytes(b"/%d" % n)) for n in range(3)]
    wait_until(lambda: sockets.backlog(door.listener) == 3)
    for _ in clients:
        door.taken().close()
        assert door.run_queue.waiting == 0
    for client in clients:
        client.close()


def test_who_has_waited_too_long_for_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.serving.acceptor.GATHER_SECONDS", 0.0)
    door = Door(queue=QueueSettings(limit_s=0.0))
    with door.client(request_bytes(b"/a")) as client:
        job = wait_until(lambda: door.acceptor.take(0))
        door.run_queue.put(job)
        assert door.acceptor.take(0) is None
        assert client.recv(100) == b"GETFILE ERROR\r\n\r\n"
        assert door.acceptor.refused_total == 1
    door.close()
