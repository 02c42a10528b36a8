"""IdleConnections: what comes on one of them is reported once, and each has one owner at a time."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.failing import failing
from tests.support.http_sockets import OpenFile, http_connected
from tests.support.tcp import at_end
from tests.support.waiting import wait_until
from webproxy.serving.parking import IdleConnections
from webproxy.transport import sockets
from webproxy.transport.http1_connection import HttpConnection

LONG_S = 3600.0


@pytest.fixture
def idle() -> Iterator[IdleConnections]:
    made = IdleConnections()
    yield made
    made.close()


def readable(idle: IdleConnections) -> bool:
    """Whether a worker that sleeps on it would wake."""
    poll = select.poll()
    poll.register(idle.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def taken(idle: IdleConnections) -> HttpConnection:
    found = wait_until(idle.take, what="a connection to take")
    assert found is not None
    return found


def test_nothing_to_take_while_nothing_comes(idle: IdleConnections) -> None:
    with http_connected() as (connection, _client):
        assert idle.take() is None
        idle.put(connection, LONG_S)
        assert (idle.take(), readable(idle), idle.count) == (None, False, 1)


@pytest.mark.parametrize("how", ["bytes", "end"])
def test_what_comes_is_reported_once_and_again_after_the_next_put(idle: IdleConnections, how: str) -> None:
    with http_connected(closing=True) as (connection, client):
        for _ in range(3):
            idle.put(connection, LONG_S)
            client.sendall(b"x") if how == "bytes" else client.shutdown(socket.SHUT_WR)
            wait_until(lambda: readable(idle))
            assert taken(idle) is connection
            assert (idle.take(), readable(idle), idle.count) == (None, False, 0)


def test_what_has_come_before_the_put_is_reported(idle: IdleConnections) -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(b"x")
        idle.put(connection, LONG_S)
        assert taken(idle) is connection
        idle.put(connection, LONG_S)  # not read in between
        assert taken(idle) is connection


def test_each_is_taken_by_one(idle: IdleConnections) -> None:
    with ExitStack() as stack:
        pairs = [stack.enter_context(http_connected()) for _ in range(10)]
        for connection, client in pairs:
            idle.put(connection, LONG_S)
            client.sendall(b"x")
        found = [taken(idle) for _ in pairs]
        assert {id(connection) for connection in found} == {id(connection) for connection, _ in pairs}
        assert idle.take() is None
        for connection in found:
            sockets.close(connection.fd)


def test_one_that_is_taken_and_put_back_before_put_returns_stays(
    idle: IdleConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the call that arms the watch and the return of put() another worker may have served a request."""
    watch_once = sockets.watch_once
    turns = []

    def with_a_faster_worker(epoll_fd: int, fd: int, *, again: bool) -> None:
        watch_once(epoll_fd, fd, again=again)
        if not turns:
            turns.append(again)
            other = taken(idle)
            idle.put(other, LONG_S)

    with http_connected(closing=True) as (connection, client):
        client.sendall(b"x")
        monkeypatch.setattr(sockets, "watch_once", with_a_faster_worker)
        idle.put(connection, LONG_S)
        assert idle.count == 1
        assert taken(idle) is connection


def test_without_a_watch_it_is_closed(idle: IdleConnections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "watch_once", failing(OSError(28, "limit of watches")))
    with http_connected() as (connection, client):
        idle.put(connection, LONG_S)
        assert at_end(client) == b""
        assert idle.count == 0


def test_those_whose_time_is_over_are_given_back(idle: IdleConnections) -> None:
    with http_connected(closing=True) as (early, _), http_connected() as (late, _client):
        idle.put(early, 0.0)
        idle.put(late, LONG_S)
        assert idle.expire() == [early]
        assert (idle.expire(), idle.count) == ([], 1)


@pytest.mark.parametrize("others", [0, 1])
def test_what_comes_on_one_that_was_given_back_wakes_nobody(idle: IdleConnections, others: int) -> None:
    with ExitStack() as stack:
        for _ in range(others):
            idle.put(stack.enter_context(http_connected())[0], LONG_S)
        connection, client = stack.enter_context(http_connected())
        idle.put(connection, 0.0)
        assert idle.expire() == [connection]
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: sockets.has_arrived(connection.fd))
        assert not readable(idle)
        assert idle.take() is None
        idle.put(connection, LONG_S)  # and it can be kept again
        assert taken(idle) is connection
        sockets.close(connection.fd)


def test_one_that_a_worker_has_does_not_expire(idle: IdleConnections) -> None:
    with http_connected(closing=True) as (connection, client):
        client.sendall(b"x")
        idle.put(connection, 0.0)
        assert taken(idle) is connection
        assert idle.expire() == []


def test_the_quiet_ones_can_be_had_too(idle: IdleConnections) -> None:
    """Neither one in the middle of a head, nor one whose next request is there already."""
    with http_connected() as (quiet, _), http_connected() as (in_head, _), http_connected() as (has_next, client):
        in_head.feed(b"GET ")
        client.sendall(b"x")
        for connection in (quiet, in_head, has_next):
            idle.put(connection, LONG_S)
        wait_until(lambda: sockets.has_arrived(has_next.fd))
        assert idle.expire(quiet_too=True) == [quiet]
        assert idle.count == 2
        sockets.close(quiet.fd)


def test_closing_closes_all(idle: IdleConnections) -> None:
    with ExitStack() as stack:
        pairs = [stack.enter_context(http_connected()) for _ in range(5)]
        files = [OpenFile(connection.fd) for connection, _ in pairs]
        for connection, _ in pairs:
            idle.put(connection, LONG_S)
        idle.close()
        assert not any(file.is_open for file in files)
        assert [at_end(client) for _, client in pairs] == [b""] * 5
