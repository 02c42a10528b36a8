"""ParkingLot: slow clients, idle ones and ends of connections cost no worker and are not forgotten."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from shmchannel.streams.admission import Admission
from tests.support.jobs import FakeJob
from tests.support.tcp import at_end, connected
from tests.support.waiting import wait_until
from webproxy.serving import parking as parking_module
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.job import AnyOf, Done, Event, Idles, Job, WaitsFor, either


@pytest.fixture
def run_queue() -> Iterator[RunQueue]:
    made = RunQueue()
    yield made
    made.close()


@pytest.fixture
def idle() -> Iterator[IdleConnections]:
    made = IdleConnections()
    yield made
    made.close()


@pytest.fixture
def shutdown() -> Shutdown:
    return Shutdown()


@pytest.fixture
def admission() -> Admission:
    return Admission(1)


@pytest.fixture
def parking(
    run_queue: RunQueue, idle: IdleConnections, admission: Admission, shutdown: Shutdown
) -> Iterator[ParkingLot]:
    made = ParkingLot(run_queue, idle, admission, shutdown)
    made.start()
    yield made
    made.close()


def is_open(fd: int, inode: int) -> bool:
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:
        return False


# -- outcomes ---------------------------------------------------------------------------------------------------------
def test_what_yields_is_queued_at_once(run_queue: RunQueue, parking: ParkingLot) -> None:
    job = FakeJob(-1)
    parking.settle(WaitsFor(job, Event.TURN))
    assert parking.waiting == 1
    assert run_queue.take_back() is job


def test_what_waits_for_a_ticket_comes_with_it(run_queue: RunQueue, parking: ParkingLot, admission: Admission) -> None:
    first, second, third = FakeJob(-1), FakeJob(-1), FakeJob(-1)
    for job in (first, second, third):
        parking.settle(WaitsFor(job, Event.TICKET))
    assert run_queue.take_back() is first
    assert run_queue.take_back() is None
    assert parking.waiting == 2
    assert first.ticket is not None
    first.ticket.leave()
    assert run_queue.take_back() is second
    assert second.ticket is not None
    admission.expire(-1.0)
    assert run_queue.take_back() is third
    assert third.ticket is None, "it has waited too long, and continues without a ticket"


def test_without_an_admission_nobody_waits_for_a_ticket(run_queue: RunQueue, idle: IdleConnections) -> None:
    parking, job = ParkingLot(run_queue, idle, None, Shutdown()), FakeJob(-1)
    parking.settle(WaitsFor(job, Event.TICKET))
    assert run_queue.take_back() is job
    parking.close()


def test_what_idles_is_found_by_whoever_looks_first(idle: IdleConnections, parking: ParkingLot) -> None:
    with connected() as (fd, client):
        job = FakeJob(fd)
        parking.settle(Idles(job, 3600.0))
        assert parking.waiting == 0, "a drain does not wait for it"
        client.sendall(b"x")
        assert wait_until(idle.take) is job
        job.close()


def test_what_idles_too_long_is_told_and_ends(parking: ParkingLot) -> None:
    with connected() as (fd, client):
        parking.settle(Idles(FakeJob(fd), 0.1))
        assert at_end(client) == b"too late"


def test_in_a_drain_a_quiet_connection_ends_and_a_begun_request_may_come(
    idle: IdleConnections, parking: ParkingLot, shutdown: Shutdown
) -> None:
    with connected() as (fd, quiet), connected() as (other_fd, _other):
        begun = FakeJob(other_fd)
        begun.in_head = True
        parking.settle(Idles(FakeJob(fd), 3600.0))
        parking.settle(Idles(begun, 3600.0))
        shutdown.draining = shutdown.closes_idle = True
        assert at_end(quiet) == b"too late"
        assert idle.count == 1


# -- ends of connections ------------------------------------------------------------------------------------------
def test_an_answered_connection_closes_when_its_client_has_closed(parking: ParkingLot) -> None:
    with connected() as (fd, client):
        inode = os.fstat(fd).st_ino
        sockets.send(fd, b"answer")
        parking.settle(Done(FakeJob(fd)))
        assert at_end(client) == b"answer"
        assert is_open(fd, inode)
        client.sendall(b"late bytes, read and forgotten")
        client.close()
        wait_until(lambda: not is_open(fd, inode))


def test_a_client_that_never_closes_is_closed_at_the_limit(
    parking: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking_module, "LINGER_SECONDS", 0.1)
    with connected() as (fd, client):
        inode = os.fstat(fd).st_ino
        parking.settle(Done(FakeJob(fd)))
        assert at_end(client) == b""
        wait_until(lambda: not is_open(fd, inode))


def test_of_too_many_lingering_connections_the_oldest_closes_first(
    run_queue: RunQueue, idle: IdleConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking_module, "LINGER_SECONDS", 3600.0)
    with ExitStack() as connections:
        parking = ParkingLot(run_queue, idle, None, Shutdown(), lingering_max=2)
        connections.callback(parking.close)
        pairs = [connections.enter_context(connected()) for _ in range(4)]
        inodes = [os.fstat(fd).st_ino for fd, _ in pairs]
        for fd, _ in pairs:
            parking.settle(Done(FakeJob(fd)))
        wait_until(lambda: sum(is_open(fd, inode) for (fd, _), inode in zip(pairs, inodes, strict=True)) == 2)


def test_a_client_that_sends_no_more_is_not_waited_for(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected() as (fd, client):
        inode = os.fstat(fd).st_ino
        sockets.send(fd, b"the answer")
        parking.settle(Done(FakeJob(fd), lingers=False))
        assert not is_open(fd, inode)
        assert client.recv(64) == b"the answer"
        assert client.recv(64) == b""


# -- slow clients -------------------------------------------------------------------------------------------------
def test_a_parked_response_goes_on_when_its_client_takes_data(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, client):
        response = FakeJob(fd)
        sent = 0
        while more := sockets.send(fd, b"x" * 4096):
            sent += more
        parking.settle(WaitsFor(response, Event.WRITABLE))
        wait_until(lambda: parking.parked == 1)
        assert run_queue.take_back() is None
        received = 0
        while received < sent:
            received += len(client.recv(65_536))
        assert wait_until(run_queue.take_back) is response
        assert parking.parked == 0


def test_a_parked_client_that_takes_too_little_is_dropped(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, _client):
        inode = os.fstat(fd).st_ino
        while sockets.send(fd, b"x" * 4096):
            pass
        parking.settle(WaitsFor(FakeJob(fd, RateLimit(1000, 0.1)), Event.WRITABLE))
        wait_until(lambda: parking.too_slow_total == 1)
        wait_until(lambda: not is_open(fd, inode))
    assert run_queue.take_back() is None


def test_a_parked_client_that_leaves_comes_back_to_a_worker_that_will_see(
    run_queue: RunQueue, parking: ParkingLot
) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, client):
        while sockets.send(fd, b"x" * 4096):
            pass
        parking.settle(WaitsFor(FakeJob(fd), Event.WRITABLE))
        wait_until(lambda: parking.parked == 1)
        client.close()
        assert wait_until(run_queue.take_back) is not None


def test_closing_the_lot_closes_all_that_it_holds(run_queue: RunQueue, idle: IdleConnections) -> None:
    parking = ParkingLot(run_queue, idle, None, Shutdown())
    parking.start()
    with ExitStack() as connections:
        pairs = [connections.enter_context(connected()) for _ in range(2)]
        inodes = [os.fstat(fd).st_ino for fd, _ in pairs]
        parking.settle(Done(FakeJob(pairs[0][0])))
        while sockets.send(pairs[1][0], b"x" * 4096):
            pass
        parking.settle(WaitsFor(FakeJob(pairs[1][0]), Event.WRITABLE))
        parking.close()
        assert not any(is_open(fd, inode) for (fd, _), inode in zip(pairs, inodes, strict=True))


# -- signals ----------------------------------------------------------------------------------------------------------
class Bell:
    """A signal that the test gives; by `rung` it is there already, and by `meanwhile` something happens first."""

    def __init__(self, *, rung: bool = False, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.rung = rung
        self.wakes: list[Callable[[], None]] = []
        self._meanwhile = meanwhile

    def subscribe(self, wake: Callable[[], None]) -> bool:
        """As Signal.subscribe()."""
        self.wakes.append(wake)
        self._meanwhile()
        return not self.rung

    def ring(self) -> None:
        """Wake whoever has subscribed last."""
        self.wakes[-1]()


def test_a_signal_puts_the_job_back_once(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, _client):
        job, bell = FakeJob(fd), Bell()
        parking.settle(WaitsFor(job, bell))
        assert (parking.parked, parking.waiting, run_queue.take_back()) == (1, 1, None)
        thread = threading.Thread(target=bell.ring)
        thread.start()
        thread.join()
        bell.ring()
        assert (run_queue.take_back(), run_queue.take_back()) == (job, None)
        assert (parking.parked, job.has_left) == (0, False)


def test_a_signal_that_is_there_already_puts_the_job_back_at_once(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, _client):
        job = FakeJob(fd)
        parking.settle(WaitsFor(job, AnyOf((Bell(rung=True), Bell(rung=True)))))
        assert (run_queue.take_back(), run_queue.take_back()) == (job, None)


def test_an_earlier_wait_does_not_end_a_later_one(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, _client):
        job, first, second = FakeJob(fd), Bell(), Bell()
        parking.settle(WaitsFor(job, AnyOf((first, second))))
        first.ring()
        assert run_queue.take_back() is job
        parking.settle(WaitsFor(job, first))
        second.ring()
        first.wakes[0]()
        assert run_queue.take_back() is None
        first.ring()
        assert run_queue.take_back() is job


def test_nobody_runs_a_job_that_is_still_being_made_to_wait(run_queue: RunQueue, parking: ParkingLot) -> None:
    """Otherwise it might wait again, or be over, before the first thread has subscribed to all that it waits for."""
    with connected(closing=True) as (fd, client):
        early: list[object] = []
        first = Bell()

        def second_is_asked() -> None:
            client.sendall(b"x")
            first.ring()
            early.append(run_queue.take_back())

        job = FakeJob(fd)
        parking.settle(WaitsFor(job, AnyOf((first, Bell(meanwhile=second_is_asked)), is_readable=True)))
        assert early == [None]
        assert wait_until(run_queue.take_back) is job
        assert run_queue.take_back() is None


def test_what_may_be_read_is_not_the_clients_end(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, client):
        job = FakeJob(fd)
        parking.settle(WaitsFor(job, AnyOf((Bell(),), is_readable=True)))
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        assert wait_until(run_queue.take_back) is job
        assert not job.has_left


def test_room_for_the_client_ends_a_wait(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, _client):
        job = FakeJob(fd)
        parking.settle(WaitsFor(job, AnyOf((Bell(),), is_writable=True)))
        assert wait_until(run_queue.take_back) is job
        assert not job.has_left


def test_a_wait_has_an_end(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, _client):
        job = FakeJob(fd)
        parking.settle(WaitsFor(job, AnyOf((Bell(),), is_readable=True, limit_s=0.1)))
        assert wait_until(run_queue.take_back) is job
        assert not job.has_left


@pytest.mark.parametrize("how", ["closes", "closes its side", "resets"])
def test_a_client_that_leaves_ends_a_wait(how: str, run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(closing=True) as (fd, client):
        job, bell = FakeJob(fd), Bell()
        parking.settle(WaitsFor(job, bell))
        client.sendall(b"the next request is not looked at")
        assert run_queue.take_back() is None
        if how == "closes its side":
            client.shutdown(socket.SHUT_WR)
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", how == "resets", 0))
            client.close()
        assert wait_until(run_queue.take_back) is job
        assert job.has_left
        bell.ring()
        assert run_queue.take_back() is None


def test_an_event_of_an_earlier_connection_is_not_the_clients_end(
    run_queue: RunQueue, parking: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor may have been given to another client since the kernel reported it."""
    monkeypatch.setattr(sockets, "has_left", lambda fd: False)
    with connected(closing=True) as (fd, client):
        job = FakeJob(fd)
        parking.settle(WaitsFor(job, Bell()))
        client.close()
        assert wait_until(run_queue.take_back) is job
        assert not job.has_left


def test_a_client_that_reads_too_slowly_while_its_job_waits_for_more_is_given_up(
    run_queue: RunQueue, parking: ParkingLot
) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, _client):
        while sockets.send(fd, b"x" * 4096):
            pass
        job = FakeJob(fd, RateLimit(1000, 0.1))
        parking.settle(WaitsFor(job, AnyOf((Bell(),), is_writable=True)))
        assert wait_until(run_queue.take_back) is job
        assert (job.has_left, parking.too_slow_total) == (True, 1)


def test_a_client_that_cannot_be_watched_waits_all_the_same(
    run_queue: RunQueue, idle: IdleConnections, caplog: pytest.LogCaptureFixture
) -> None:
    parking, job, bell = ParkingLot(run_queue, idle, None, Shutdown()), FakeJob(1 << 20), Bell()
    parking.settle(WaitsFor(job, bell))
    assert [record.msg for record in caplog.records] == ["client not watched"]
    bell.ring()
    assert run_queue.take_back() is job
    parking.close()


def test_what_waits_for_a_signal_is_closed_at_the_end(run_queue: RunQueue, idle: IdleConnections) -> None:
    parking, bell = ParkingLot(run_queue, idle, None, Shutdown()), Bell()
    with connected() as (fd, client):
        parking.settle(WaitsFor(FakeJob(fd), bell))
        parking.close()
        assert at_end(client) == b""
        bell.ring()
        assert run_queue.take_back() is None


# -- waits ------------------------------------------------------------------------------------------------------------
def test_either_of_two_waits() -> None:
    one, other = Bell(), Bell()
    more = AnyOf((other,), is_readable=True, limit_s=2.0)
    assert either(one, more) == AnyOf((one, other), is_readable=True, limit_s=2.0)
    assert either(Event.WRITABLE, more) == AnyOf((other,), is_readable=True, is_writable=True, limit_s=2.0)
    assert either(Event.TURN, more) is Event.TURN
    assert either(AnyOf((one,), limit_s=1.0), more) == AnyOf((one, other), is_readable=True, limit_s=1.0)


# -- a drain ----------------------------------------------------------------------------------------------------------
class CountingQueue(RunQueue):
    """Notes how much a drain would wait for at the moment at which a job is put back, before it is there."""

    parking: ParkingLot

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def put_back(self, job: Job) -> None:
        self.seen.append(self.parking.waiting)
        super().put_back(job)


@pytest.mark.parametrize("wait", [Bell(), Event.TICKET, Event.WRITABLE], ids=["signal", "ticket", "writable"])
def test_a_drain_counts_a_job_on_its_way_to_the_queue(
    wait: Bell | Event, idle: IdleConnections, admission: Admission
) -> None:
    run_queue = CountingQueue()
    run_queue.parking = parking = ParkingLot(run_queue, idle, admission, Shutdown())
    parking.start()
    ticket = admission.try_enter()
    assert ticket is not None
    with connected() as (fd, _):
        parking.settle(WaitsFor(FakeJob(fd), wait))
        if isinstance(wait, Bell):
            wait.ring()
        ticket.leave()
        wait_until(lambda: run_queue.seen, what="it is put back")
        assert run_queue.seen == [1]
        wait_until(lambda: parking.waiting == 1, what="it is only in the queue")
        assert run_queue.take_back() is not None
        assert parking.waiting == 0
    parking.close()
    run_queue.close()


def test_the_lot_is_full_when_so_many_wait(run_queue: RunQueue, idle: IdleConnections) -> None:
    parking, bell = ParkingLot(run_queue, idle, None, Shutdown(), waiting_max=1), Bell()
    with connected(closing=True) as (fd, _client), connected() as (idle_fd, _other):
        parking.settle(Idles(FakeJob(idle_fd), 3600.0))
        assert not parking.is_full(), "who has asked for nothing does not wait"
        parking.settle(WaitsFor(FakeJob(fd), bell))
        assert parking.is_full()
        bell.ring()
        assert not parking.is_full()
        assert run_queue.take_back() is not None
    parking.close()
