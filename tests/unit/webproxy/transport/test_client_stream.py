"""ClientStream: all is sent to a client that takes it, and one that takes too little is given up."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.streams import client_stream
from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_S
from webproxy.errors import ClientGone, ClientTooSlow
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit, Shutdown

LENIENT = RateLimit(0, 1.0)
BODY = os.urandom(2_000_000)


def test_everything_is_sent_at_the_clients_pace() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client), ThreadPoolExecutor(1) as crew:
        stream = client_stream(fd)
        received = crew.submit(at_end, client)
        stream.send_header(b"header ")
        stream.send_all(BODY)
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
                stream.wait_writable()
        sockets.end_sending(fd)
        assert received.result(WATCHDOG_S) == BODY[10:1_000_000]
        sockets.close(fd)


def fill_up(stream: ClientStream) -> None:
    """Send until the client's side is full."""
    while stream.send_some(b"x" * 4096):
        pass


def test_one_that_takes_nothing_is_too_slow() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, _client):
        stream = client_stream(fd, RateLimit(100, 0.1))
        fill_up(stream)
        with pytest.raises(ClientTooSlow, match="0 bytes"):
            stream.send_all(BODY)
        sockets.close(fd)


def test_one_that_keeps_the_minimum_rate_is_waited_for() -> None:
    """Slow, but steady: many windows pass, and it gets everything."""
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client), ThreadPoolExecutor(1) as crew:
        stream = client_stream(fd, RateLimit(1, 0.3))
        sending = crew.submit(stream.send_all, BODY[:100_000])
        received = b""
        while len(received) < 100_000:
            received += client.recv(4096)
            threading.Event().wait(0.02)
        sending.result(WATCHDOG_S)
        assert received == BODY[:100_000]
        sockets.close(fd)


def test_zero_switches_the_limit_off_and_a_stopping_daemon_does_not_wait() -> None:
    shutdown = Shutdown()
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, _client), ThreadPoolExecutor(1) as crew:
        stream = ClientStream(fd, RateLimit(0, 0.1), shutdown)
        sending = crew.submit(stream.send_all, BODY)
        with pytest.raises(TimeoutError):
            sending.result(0.6)
        shutdown.stopping = True
        with pytest.raises(ClientGone, match="stops"):
            sending.result(WATCHDOG_S)
        sockets.close(fd)


def test_a_client_that_leaves_while_it_is_waited_for_is_gone() -> None:
    with connected(client_buffer_bytes=4096, server_buffer_bytes=4096) as (fd, client), ThreadPoolExecutor(1) as crew:
        stream = client_stream(fd)
        fill_up(stream)
        sending = crew.submit(stream.send_all, BODY)
        client.close()
        with pytest.raises(ClientGone):
            sending.result(WATCHDOG_S)
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


def test_before_another_answer_the_pace_begins_anew_and_untaken_bytes_are_seen() -> None:
    with connected(client_buffer_bytes=65_536, server_buffer_bytes=65_536) as (fd, client):
        stream = client_stream(fd, RateLimit(1_000_000, 0.05))
        assert stream.begin_answer()
        stream.check_rate()  # a window opens, and ends unnoticed while the connection idles
        threading.Event().wait(0.1)
        assert stream.begin_answer()
        stream.check_rate()
        fill_up(stream)
        assert not stream.begin_answer()
        assert not stream.begin_answer()
        while not stream.begin_answer():
            client.recv(65_536)
        sockets.close(fd)


def test_an_answer_that_can_wait_later_is_begun_without_a_look() -> None:
    with connected(client_buffer_bytes=65_536, server_buffer_bytes=65_536) as (fd, client):
        stream = client_stream(fd)
        assert stream.begin_header(b"head")
        fill_up(stream)
        assert not stream.begin_answer()
        assert stream.begin_answer(looks=False)
        assert not stream.begin_header(b"head")
        while not stream.begin_header(b"head"):
            client.recv(65_536)
        sockets.close(fd)
