"""siblings: a purge that a cache has missed reaches every other proxy of this user as it was, or is known not to."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.waiting import WATCHDOG_S
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.store import siblings
from webproxy.store.pending_purges import EVERYTHING, Purge
from webproxy.store.siblings import Missed, Siblings, missed_in, request_of
from webproxy.transport import sockets
from webproxy.transport.listener import open_private_listener

MISSED = Missed("/gf", Purge(b"/a", below=True))
UNDERSTOOD = b"HTTP/1.1 204 \r\nConnection: close\r\n\r\n"


def unique_name() -> str:
    return f"gft-{os.getpid()}-{secrets.token_hex(4)}"


@contextmanager
def sibling(name: str, answer: bytes, received: list[bytes]) -> Iterator[None]:
    """A process that answers one request, or, without an answer, none."""

    def serve() -> None:
        with open_private_listener(name) as listener:
            listener.settimeout(WATCHDOG_S)
            listens.set()
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the other side may have left
                received.append(connection.recv(65_536))
                connection.sendall(answer)
                if not answer:
                    connection.recv(1)  # until the other side gives up

    listens = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    assert listens.wait(WATCHDOG_S)
    try:
        yield
    finally:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect_ex("\0" + name)
        thread.join()


@pytest.mark.parametrize(
    "purge",
    [Purge(b"/a"), Purge(bytes(range(256)), prefix=True), Purge(b"/a", below=True, invalidate=True), EVERYTHING],
)
def test_a_purge_is_understood_as_it_was(purge: Purge) -> None:
    missed = Missed("/queue with \xe9", purge)
    assert missed_in(parsed(request_of(missed))) == missed


def parsed(data: bytes) -> RequestHead:
    lines = data.split(b"\r\n")
    method, target, _ = lines[0].split(b" ")
    pairs = (line.partition(b": ") for line in lines[1:-2])
    return RequestHead(method, target, (1, 1), Fields(tuple((name, value) for name, _, value in pairs)))


@pytest.mark.parametrize(
    "data",
    [
        request_of(MISSED).replace(b"PURGE", b"GET"),
        request_of(MISSED).replace(b"GFCache-Key", b"X"),
        request_of(MISSED).replace(b"GFCache-Cache", b"X"),
        request_of(MISSED).replace(b"GFCache-Key: ", b"GFCache-Key: #"),
        request_of(MISSED).replace(b"GFCache-Cache: ", b"GFCache-Cache: /w=="),
    ],
)
def test_what_is_no_such_request(data: bytes) -> None:
    assert missed_in(parsed(data)) is None


def test_all_others_are_told() -> None:
    received: list[bytes] = []
    own, first, second, ended = (unique_name() for _ in range(4))
    with sibling(first, UNDERSTOOD, received), sibling(second, UNDERSTOOD, received):
        assert Siblings(own, lambda: [first, own, ended, second]).tell(MISSED) == (2, 0)
    assert received == [request_of(MISSED)] * 2


def test_one_of_another_cache_neither_knows_nor_is_missed() -> None:
    received: list[bytes] = []
    with sibling(name := unique_name(), b"HTTP/1.1 404 \r\nConnection: close\r\n\r\n", received):
        assert Siblings("own", lambda: [name]).tell(MISSED) == (0, 0)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 \r\n\r\n"])
def test_one_that_does_not_say_that_it_knows_is_counted(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "TELL_SECONDS", 0.1)
    received: list[bytes] = []
    with sibling(name := unique_name(), answer, received):
        assert Siblings("own", lambda: [name]).tell(MISSED) == (0, 1)


def test_another_user_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    with sibling(name := unique_name(), UNDERSTOOD, received):
        monkeypatch.setattr(sockets, "is_own_user", lambda _socket: False)
        assert Siblings("own", lambda: [name]).tell(MISSED) == (0, 0)
    assert received == [b""]
