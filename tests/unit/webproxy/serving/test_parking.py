"""Boss: unfinished requests, slow clients and ends of connections cost no worker and are not forgotten."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.tcp import at_end, connected
from tests.support.waiting import wait_until
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.getfile import Wire, request_bytes
from webproxy.serving import parking as boss_module
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import HttpStart, Request, RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit

INVALID = b"GETFILE INVALID\r\n\r\n"
REQUEST = request_bytes(b"/path")


@pytest.fixture
def run_queue() -> Iterator[RunQueue]:
    made = RunQueue()
    yield made
    made.close()


def started(run_queue: RunQueue, request_timeout_s: float = 60.0) -> ParkingLot:
    made = ParkingLot(run_queue, request_timeout_s=request_timeout_s, wire=Wire.CRLF)
    made.start()
    return made


@pytest.fixture
def parking(run_queue: RunQueue) -> Iterator[ParkingLot]:
    made = started(run_queue)
    yield made
    made.close()


def taken(run_queue: RunQueue) -> Request:
    request = wait_until(run_queue.take, what="a request on the line")
    assert request is not None
    return request


def is_open(fd: int, inode: int) -> bool:
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:
        return False


def paused(fd: int, limit: RateLimit) -> BodyTransfer:
    return BodyTransfer(ClientStream(fd, limit, lambda: False), b"/path", 100, 1, lambda: False)


# -- unfinished requests ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cut", [0, 1, 8, len(REQUEST) - 1])
def test_a_request_in_two_parts_comes_to_the_line_whole(run_queue: RunQueue, parking: ParkingLot, cut: int) -> None:
    with connected() as (fd, client):
        parking.adopt(fd, REQUEST[:cut])
        wait_until(lambda: parking.unfinished == 1)
        client.sendall(REQUEST[cut:])
        assert taken(run_queue) == (fd, b"/path")
        assert parking.unfinished == 0
        sockets.close(fd)


@pytest.mark.parametrize("rest", [b"X", b"path\n\n", b"path\r\n\r\nmore"])
def test_a_bad_request_is_answered_without_a_worker(run_queue: RunQueue, parking: ParkingLot, rest: bytes) -> None:
    with connected() as (fd, client):
        parking.adopt(fd, b"GETFILE GET " if rest == b"X" else b"GETFILE GET /")
        client.sendall(rest)
        if rest == b"path\n\n":
            client.shutdown(socket.SHUT_WR)
        assert at_end(client) == INVALID
    assert run_queue.take() is None


def test_half_a_request_and_the_end_is_invalid(parking: ParkingLot) -> None:
    with connected() as (fd, client):
        parking.adopt(fd, REQUEST[:9])
        client.shutdown(socket.SHUT_WR)
        assert at_end(client) == INVALID
    wait_until(lambda: parking.invalid_total == 1)


def test_a_silent_client_is_answered_at_the_time_limit(run_queue: RunQueue) -> None:
    parking = started(run_queue, request_timeout_s=0.1)
    with ExitStack() as connections:
        clients = []
        for _ in range(5):
            fd, client = connections.enter_context(connected())
            parking.adopt(fd, b"")
            clients.append(client)
        assert [at_end(client) for client in clients] == [INVALID] * 5
    assert (parking.unfinished, parking.invalid_total) == (0, 5)
    parking.close()


def test_a_reset_in_mid_request_closes_without_an_answer(parking: ParkingLot) -> None:
    with connected() as (fd, client):
        inode = os.fstat(fd).st_ino
        parking.adopt(fd, REQUEST[:5])
        wait_until(lambda: parking.unfinished == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        wait_until(lambda: not is_open(fd, inode))
    assert (parking.unfinished, parking.invalid_total) == (0, 0)


def test_beyond_the_bound_of_unfinished_requests_the_answer_is_error(
    parking: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boss_module, "UNFINISHED_MAX", 2)
    with ExitStack() as connections:
        pairs = [connections.enter_context(connected()) for _ in range(3)]
        for fd, _ in pairs:
            parking.adopt(fd, b"")
        assert at_end(pairs[2][1]) == b"GETFILE ERROR\r\n\r\n"
        assert parking.unfinished == 2


# -- with HTTP ----------------------------------------------------------------------------------------------------
def speaking(run_queue: RunQueue, *, getfile: bool = True, request_timeout_s: float = 60.0) -> ParkingLot:
    made = ParkingLot(
        run_queue, request_timeout_s=request_timeout_s, wire=Wire.CRLF, speaks_http=True, speaks_getfile=getfile
    )
    made.start()
    return made


@pytest.mark.parametrize("cut", [0, 1, 4, 15])
def test_a_line_of_http_goes_on_when_it_is_whole(run_queue: RunQueue, cut: int) -> None:
    line = b"GET /a HTTP/1.1\r\n"
    parking = speaking(run_queue)
    with connected() as (fd, client):
        parking.adopt(fd, line[:cut])
        client.sendall(line[cut:])
        assert wait_until(run_queue.take) == HttpStart(fd, line)
        sockets.close(fd)
    parking.close()


def test_a_getfile_request_is_one_beside_http_too(run_queue: RunQueue) -> None:
    parking = speaking(run_queue)
    with connected() as (fd, client):
        parking.adopt(fd, b"GET")
        client.sendall(REQUEST[3:])
        assert taken(run_queue) == (fd, b"/path")
        sockets.close(fd)
    parking.close()


def test_where_http_alone_is_spoken_everything_is_http(run_queue: RunQueue) -> None:
    parking = speaking(run_queue, getfile=False)
    with connected() as (fd, client):
        parking.adopt(fd, b"")
        client.sendall(REQUEST)
        assert wait_until(run_queue.take) == HttpStart(fd, REQUEST)
        sockets.close(fd)
    parking.close()


@pytest.mark.parametrize("ends", [True, False])
def test_half_a_line_of_http_is_refused_by_a_worker(run_queue: RunQueue, ends: bool) -> None:
    parking = speaking(run_queue, request_timeout_s=60.0 if ends else 0.1)
    with connected() as (fd, client):
        parking.adopt(fd, b"GET /a HT")
        if ends:
            client.shutdown(socket.SHUT_WR)
        assert wait_until(run_queue.take) == HttpStart(fd, b"GET /a HT", 400 if ends else 408)
        sockets.close(fd)
    assert parking.invalid_total == 0
    parking.close()


@pytest.mark.parametrize(("getfile", "answer"), [(True, INVALID), (False, b"")])
def test_a_silent_client_is_told_only_what_it_could_understand(
    run_queue: RunQueue, getfile: bool, answer: bytes
) -> None:
    parking = speaking(run_queue, getfile=getfile, request_timeout_s=0.1)
    with connected() as (fd, client):
        parking.adopt(fd, b"")
        assert at_end(client) == answer
    parking.close()


# -- ends of connections ------------------------------------------------------------------------------------------
def test_an_answered_connection_closes_when_its_client_has_closed(parking: ParkingLot) -> None:
    with connected() as (fd, client):
        inode = os.fstat(fd).st_ino
        sockets.send(fd, b"answer")
        parking.linger(fd)
        assert at_end(client) == b"answer"
        assert is_open(fd, inode)
        client.sendall(b"late bytes, read and forgotten")
        client.close()
        wait_until(lambda: not is_open(fd, inode))


def test_a_client_that_never_closes_is_closed_at_the_limit(
    parking: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boss_module, "LINGER_SECONDS", 0.1)
    with connected() as (fd, client):
        inode = os.fstat(fd).st_ino
        parking.linger(fd)
        assert at_end(client) == b""
        wait_until(lambda: not is_open(fd, inode))


def test_of_too_many_lingering_connections_the_oldest_closes_first(
    parking: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boss_module, "LINGERING_MAX", 2)
    monkeypatch.setattr(boss_module, "LINGER_SECONDS", 3600.0)
    with ExitStack() as connections:
        pairs = [connections.enter_context(connected()) for _ in range(4)]
        inodes = [os.fstat(fd).st_ino for fd, _ in pairs]
        for fd, _ in pairs:
            parking.linger(fd)
        wait_until(lambda: sum(is_open(fd, inode) for (fd, _), inode in zip(pairs, inodes, strict=True)) == 2)


# -- slow clients -------------------------------------------------------------------------------------------------
def test_a_parked_response_goes_on_when_its_client_takes_data(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client):
        response = paused(fd, RateLimit(0, 1))
        sent = 0
        while more := sockets.send(fd, b"x" * 4096):
            sent += more
        parking.park(response)
        wait_until(lambda: parking.parked == 1)
        assert run_queue.take_paused() is None
        received = 0
        while received < sent:
            received += len(client.recv(65_536))
        assert wait_until(run_queue.take_paused) is response
        assert parking.parked == 0
        sockets.close(fd)


def test_a_parked_client_that_takes_too_little_is_dropped(run_queue: RunQueue, parking: ParkingLot) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, _client):
        inode = os.fstat(fd).st_ino
        while sockets.send(fd, b"x" * 4096):
            pass
        parking.park(paused(fd, RateLimit(1000, 0.1)))
        wait_until(lambda: parking.too_slow_total == 1)
        wait_until(lambda: not is_open(fd, inode))
    assert run_queue.take_paused() is None


def test_a_parked_client_that_leaves_comes_back_to_a_worker_that_will_see(
    run_queue: RunQueue, parking: ParkingLot
) -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client):
        while sockets.send(fd, b"x" * 4096):
            pass
        parking.park(paused(fd, RateLimit(0, 1)))
        wait_until(lambda: parking.parked == 1)
        client.close()
        assert wait_until(run_queue.take_paused) is not None
        sockets.close(fd)


def test_closing_the_boss_closes_all_that_it_holds(run_queue: RunQueue) -> None:
    parking = started(run_queue)
    with ExitStack() as connections:
        pairs = [connections.enter_context(connected()) for _ in range(3)]
        inodes = [os.fstat(fd).st_ino for fd, _ in pairs]
        parking.adopt(pairs[0][0], b"GET")
        parking.linger(pairs[1][0])
        while sockets.send(pairs[2][0], b"x" * 4096):
            pass
        parking.park(paused(pairs[2][0], RateLimit(0, 1)))
        parking.close()
        assert not any(is_open(fd, inode) for (fd, _), inode in zip(pairs, inodes, strict=True))
