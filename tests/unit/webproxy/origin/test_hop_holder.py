"""Requests to another process of this user: over its private socket, whatever host their URL names."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.sinks import CollectingSink, WaitingClient, fetch, origin_limits
from tests.support.waiting import WATCHDOG_S
from webproxy.errors import OriginNotAsked, OriginUnreachable
from webproxy.origin.driver import OriginDriver
from webproxy.origin.request import OriginRequest
from webproxy.transport import sockets
from webproxy.transport.listener import open_private_listener

ANSWER = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


def unique_name() -> str:
    return f"gft-{os.getpid()}-{secrets.token_hex(4)}"


def asked(name: str) -> OriginRequest:
    return OriginRequest(url=f"http://7.{name}/7", holder=name)


@contextmanager
def holder(name: str, received: list[bytes]) -> Iterator[None]:
    """A process that answers each connection."""

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                data = connection.recv(65_536)
                if not data:
                    return
                received.append(data)
                connection.sendall(ANSWER)

    with open_private_listener(name) as listener:
        listener.settimeout(WATCHDOG_S)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect("\0" + name)
            thread.join()


def test_it_is_asked_over_its_socket() -> None:
    received: list[bytes] = []
    name, sink = unique_name(), CollectingSink()
    with holder(name, received):
        for _ in range(2):
            response = fetch(asked(name), sink)
            assert (response.status, response.length) == (200, 5)
    assert sink.body == b"hello" * 2
    assert [data.split(b"\r\n")[0] for data in received] == [b"GET /7 HTTP/1.1"] * 2


def test_nobody_listens() -> None:
    with pytest.raises(OriginUnreachable):
        fetch(asked(unique_name()), CollectingSink())


def test_another_user_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not sent a byte."""
    received: list[bytes] = []
    name = unique_name()
    with holder(name, received):
        monkeypatch.setattr(sockets, "is_own_user", lambda _socket: False)
        with open_private_listener(other := unique_name()), pytest.raises(OriginUnreachable, match="another user"):
            fetch(asked(other), CollectingSink())
    assert not received


def test_a_process_that_may_follow_none_asks_none() -> None:
    """Where there is no descriptor for it, the origin is asked instead."""
    received: list[bytes] = []
    name, sink, driver = unique_name(), CollectingSink(), OriginDriver(followed_max=0)
    driver.start()
    try:
        with holder(name, received), pytest.raises(OriginNotAsked):
            WaitingClient(driver, origin_limits()).fetch(asked(name), sink)
    finally:
        driver.close()
    assert received == []
