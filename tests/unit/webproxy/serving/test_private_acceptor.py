"""PrivateAcceptor: connections of other processes of this user become jobs, and nobody else's."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.private_acceptor import PrivateAcceptor
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.listener import open_private_listener


class Queue:
    """As RunQueue and Http1Server: a job is its descriptor."""

    def __init__(self) -> None:
        self.jobs: list[int] = []

    def connect(self, fd: int, data: bytes) -> int:
        assert data == b""
        return fd

    def put_back(self, job: int) -> None:
        self.jobs.append(job)


class Served:
    def __init__(self, parking: ParkingLot) -> None:
        self.name = f"gft-{os.getpid()}-{secrets.token_hex(4)}"
        self.queue = Queue()
        self.listener = open_private_listener(self.name)
        self.parking = parking
        self.acceptor = PrivateAcceptor(self.listener, cast(Any, self.queue), parking, cast(Any, self.queue), 2)


@pytest.fixture
def served() -> Iterator[Served]:
    run_queue, idle = RunQueue(), IdleConnections()
    parking = ParkingLot(run_queue, idle, None, Shutdown())
    made = Served(parking)
    parking.start()
    made.acceptor.start()
    yield made
    made.acceptor.close()
    made.acceptor.close()
    for fd in made.queue.jobs:
        os.close(fd)
    parking.close()
    idle.close()
    run_queue.close()


def test_connections_become_jobs(served: Served) -> None:
    for count in (1, 2, 3):
        with sockets.connect_private(served.name):
            wait_until(lambda count=count: len(served.queue.jobs) == count)  # type: ignore[misc]


def test_another_user_is_not_let_in(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "is_of_own_user", lambda _fd: False)
    with sockets.connect_private(served.name) as connection:
        connection.settimeout(WATCHDOG_S)
        assert connection.recv(1) == b""
    assert not served.queue.jobs


def test_beyond_the_bound_of_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParkingLot, "connections", 2)
    with sockets.connect_private(served.name) as connection:
        connection.settimeout(WATCHDOG_S)
        assert connection.recv(1) == b""


def test_without_descriptors_it_tries_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, failures = sockets.accept, [OSError(24, "no descriptors")]

    def fails_once(fd: int) -> int | None:
        if failures:
            raise failures.pop()
        return accept(fd)

    monkeypatch.setattr(sockets, "accept", fails_once)
    with sockets.connect_private(served.name):
        wait_until(lambda: len(served.queue.jobs) == 1)


def test_after_the_end_nobody_connects(served: Served) -> None:
    served.acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        sockets.connect_private(served.name)


def test_a_listener_of_another_user_is_not_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may listen on an abstract name."""
    monkeypatch.setattr(sockets, "is_own_user", lambda _socket: False)
    with pytest.raises(PermissionError, match="another user"):
        sockets.connect_private(served.name)


def test_two_processes_of_one_name() -> None:
    name = f"gft-{os.getpid()}-{secrets.token_hex(4)}"
    with open_private_listener(name), pytest.raises(OSError, match="in use"):
        open_private_listener(name)


def test_the_name_is_free_after_the_end() -> None:
    name = f"gft-{os.getpid()}-{secrets.token_hex(4)}"
    for _ in range(2):
        with open_private_listener(name) as listener:
            assert listener.family is socket.AF_UNIX


def test_whose_socket_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this user, or of root, for anybody else."""
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        assert sockets.is_own_user(near)
        assert sockets.is_of_own_user(near.fileno())
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert sockets.is_own_user(near) is (os.getuid() == 0)
