"""ClientStream: sends what its client's socket takes without waiting; one that takes too little is found out."""

from __future__ import annotations

import ctypes
import os
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.streams import client_stream, send_all
from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_MS, WATCHDOG_S
from webproxy.errors import ClientGone, ClientTooSlow
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.listener import UNSENT_BYTES

BODY = os.urandom(2_000_000)


def test_everything_is_sent_at_the_clients_pace() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client), ThreadPoolExecutor(1) as crew:
        stream = client_stream(fd)
        received = crew.submit(at_end, client)
        assert stream.send_some(b"header ", more=True) == 7
        send_all(stream, BODY)
        sockets.end_sending(fd)
        assert received.result(WATCHDOG_S) == b"header " + BODY
        sockets.close(fd)


def test_a_file_is_sent_in_parts_and_never_beyond_what_was_said() -> None:
    with (
        tempfile.TemporaryFile() as file,
        connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client),
        ThreadPoolExecutor(1) as crew,
    ):
        file.write(BODY)
        file.flush()
        stream = client_stream(fd)
        received = crew.submit(at_end, client)
        position = 10
        while position < 1_000_000:
            sent = stream.send_file(file.fileno(), position, 1_000_000 - position)
            position += sent
            if not sent:
                assert stream.has_room_within(WATCHDOG_MS)
        sockets.end_sending(fd)
        assert received.result(WATCHDOG_S) == BODY[10:1_000_000]
        sockets.close(fd)


def fill_up(stream: ClientStream) -> None:
    """Send until the client's side is full."""
    while stream.send_some(b"x" * 4096):
        pass


def test_who_takes_nothing_is_never_waited_for() -> None:
    memory = ctypes.create_string_buffer(BODY)
    address = ctypes.addressof(memory)
    with (
        tempfile.TemporaryFile() as file,
        connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, _client),
    ):
        file.write(BODY)
        file.flush()
        stream = client_stream(fd)
        fill_up(stream)
        for count in (100, sockets.SMALL_BYTES + 1):
            assert stream.send_memory(address, count) == 0
            assert stream.send_chunk(ctypes.byref(memory), count, True) == 0
            assert stream.send_with_header(b"header", address, count, False) == 0
        assert stream.send_file(file.fileno(), 0, len(BODY)) == 0
        assert not stream.has_room_within(1)


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("count", [100, sockets.SMALL_BYTES + 1])
def test_a_header_and_memory_are_counted_together(count: int, more: bool) -> None:
    memory = ctypes.create_string_buffer(BODY)
    with connected() as (fd, client):
        stream = client_stream(fd)
        assert stream.send_with_header(b"header ", ctypes.addressof(memory), count, more) == 7 + count
        sockets.close(fd)
        assert at_end(client) == b"header " + BODY[:count]


def wait_out(stream: ClientStream) -> None:
    """Wait for a client as the parking thread does, until it is too slow or gone."""
    while True:
        stream.check_rate()
        stream.has_room_within(20)


def test_one_that_takes_nothing_is_too_slow() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, _client):
        stream = client_stream(fd, RateLimit(100, 0.1))
        fill_up(stream)
        with pytest.raises(ClientTooSlow, match="0 bytes"):
            wait_out(stream)
        sockets.close(fd)


def test_one_that_keeps_the_minimum_rate_is_waited_for() -> None:
    """Slow, but steady: many windows pass, and it gets everything."""

    def send() -> None:
        data = BODY[:100_000]
        while data := data[stream.send_some(data) :]:
            while not stream.has_room_within(20):
                stream.check_rate()

    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client), ThreadPoolExecutor(1) as crew:
        stream = client_stream(fd, RateLimit(1, 0.3))
        sending = crew.submit(send)
        received = b""
        while len(received) < 100_000:
            received += client.recv(4096)
            threading.Event().wait(0.02)
        sending.result(WATCHDOG_S)
        assert received == BODY[:100_000]
        sockets.close(fd)


def test_zero_switches_the_limit_off() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, _client):
        stream = client_stream(fd, RateLimit(0, 0.01))
        fill_up(stream)
        for _ in range(5):
            stream.check_rate()
            assert not stream.has_room_within(20)


def test_a_client_that_leaves_while_it_is_waited_for_is_gone() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client):
        stream = client_stream(fd)
        fill_up(stream)
        client.close()
        assert stream.has_room_within(WATCHDOG_MS)
        with pytest.raises(ClientGone):
            send_all(stream, BODY)
        sockets.close(fd)


def send_on(stream: ClientStream, fd: int) -> None:
    """Send the same file again and again, until that fails."""
    while True:
        stream.send_file(fd, 0, len(BODY))


def test_a_file_for_a_client_that_left() -> None:
    with tempfile.TemporaryFile() as file, connected() as (fd, client):
        file.write(BODY)
        file.flush()
        stream = client_stream(fd)
        client.close()
        with pytest.raises(ClientGone):
            send_on(stream, file.fileno())
        sockets.close(fd)


def test_before_another_answer_the_pace_begins_anew() -> None:
    with connected(client_buffer_bytes=65_536, server_buffer_bytes=65_536, closing=True) as (fd, _client):
        stream = client_stream(fd, RateLimit(1_000_000, 0.05))
        stream.measure_anew()
        stream.check_rate()  # a window opens, and ends unnoticed while the connection idles
        threading.Event().wait(0.1)
        stream.measure_anew()
        stream.check_rate()


def test_the_kernel_takes_little_for_a_client_until_it_was_quick_once() -> None:
    with connected(server_buffer_bytes=8 << 20, client_buffer_bytes=4096, closing=True) as (fd, client):
        stream, sent = client_stream(fd), 0
        while taken := stream.send_some(b"x" * 65_536):
            sent += taken
        assert sent < 2 * UNSENT_BYTES
        assert not stream.has_room_within(1)
        assert not stream.is_quick
        received = len(client.recv(1 << 20, socket.MSG_WAITALL))
        while not stream.has_room_within(20):
            received += len(client.recv(1 << 20))
        assert stream.is_quick
        while taken := stream.send_some(b"x" * 65_536):
            sent += taken
        assert sent - received > 2 * UNSENT_BYTES
