"""sockets: do the calls by descriptor do what the socket module's do, with errors as ours?"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import TypeAlias

import pytest

from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_MS, wait_until
from webproxy.errors import ClientGone
from webproxy.transport import sockets
from webproxy.transport.listener import open_listener


def test_nothing_has_arrived_then_bytes_then_the_end() -> None:
    with connected(closing=True) as (fd, client):
        assert sockets.receive(fd) is None
        client.sendall(b"abc")
        assert sockets.receive(fd) == b"abc"
        client.shutdown(socket.SHUT_WR)
        assert sockets.receive(fd) == b""


def test_a_reset_is_a_client_that_is_gone() -> None:
    with connected(closing=True) as (fd, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(ClientGone):
            sockets.receive(fd)
        with pytest.raises(ClientGone):
            sockets.send(fd, b"x")
        assert not sockets.end_sending(fd)


def test_a_header_waits_for_its_body_and_both_arrive() -> None:
    body = ctypes.create_string_buffer(b"body", 4)
    with connected(closing=True) as (fd, client):
        assert sockets.send_header(fd, b"header ") == 7
        assert sockets.send_memory(fd, ctypes.addressof(body), 4) == 4
        assert sockets.end_sending(fd)
        assert at_end(client) == b"header body"


Memory: TypeAlias = "ctypes.Array[ctypes.c_char]"


def by_address(fd: int, memory: Memory) -> int:
    return sockets.send_memory(fd, ctypes.addressof(memory), len(memory))


def by_pointer(fd: int, memory: Memory) -> int:
    return sockets.send_chunk(fd, ctypes.byref(memory), len(memory), False)


def in_a_row(fd: int, memory: Memory) -> int:
    return sockets.send_chunk(fd, ctypes.byref(memory), len(memory), True)


@pytest.mark.parametrize("send", [by_address, by_pointer, in_a_row])
@pytest.mark.parametrize("count", [1000, sockets.SMALL_BYTES, sockets.SMALL_BYTES + 1, 1_000_000])
def test_a_client_that_takes_nothing_gets_what_fits_and_then_zero(
    count: int, send: Callable[[int, Memory], int]
) -> None:
    memory = ctypes.create_string_buffer(os.urandom(count), count)
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, client):
        sent = [0]
        while (last := send(fd, memory)) > 0:
            assert last <= count
            sent.append(last)
        sockets.end_sending(fd)
        received = at_end(client)
    assert len(received) == sum(sent)
    assert received == b"".join(memory.raw[:part] for part in sent)


@pytest.mark.parametrize("send", [by_address, by_pointer, in_a_row])
@pytest.mark.parametrize("count", [1000, 1_000_000])
def test_sending_to_a_client_that_is_gone(count: int, send: Callable[[int, Memory], int]) -> None:
    memory = ctypes.create_string_buffer(count)
    with connected(closing=True) as (fd, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(ClientGone):
            send(fd, memory)


def test_nobody_to_accept() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        assert sockets.accept(listener.fileno()) is None


def test_accept_of_what_is_no_listener_is_an_os_error() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="socket"):
        sockets.accept(reading)
    os.close(reading)
    os.close(writing)


def test_has_arrived_and_has_room_look_and_take_nothing() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, client):
        assert (sockets.has_arrived(fd), sockets.has_room(fd)) == (False, True)
        client.sendall(b"x")
        assert sockets.has_arrived(fd)
        assert sockets.receive(fd) == b"x"
        while sockets.send(fd, b"x" * 4096):
            pass
        assert not sockets.has_room(fd)
        assert not sockets.has_room(fd, 1)
        client.close()
        assert sockets.has_arrived(fd, WATCHDOG_MS)
        assert sockets.has_room(fd, WATCHDOG_MS)


def test_a_watched_descriptor_is_reported_once_for_each_watch_and_never_when_unwatched() -> None:
    with select.epoll() as epoll, connected(closing=True) as (fd, client):
        assert sockets.take_ready(epoll.fileno()) is None
        sockets.unwatch(epoll.fileno(), fd)  # not known: nothing happens
        client.sendall(b"x")
        for again in (False, True):
            sockets.watch_once(epoll.fileno(), fd, again=again)
            assert wait_until(lambda: sockets.take_ready(epoll.fileno())) == fd
            assert sockets.take_ready(epoll.fileno()) is None
        sockets.watch_once(epoll.fileno(), fd, again=True)
        sockets.unwatch(epoll.fileno(), fd)
        assert sockets.take_ready(epoll.fileno()) is None
        with pytest.raises(OSError, match="No such file"):
            sockets.watch_once(epoll.fileno(), fd, again=True)
