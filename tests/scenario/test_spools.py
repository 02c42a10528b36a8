"""Bodies between origins and slow clients: what frees an origin, and what happens when there is no room left."""

from __future__ import annotations

import os
import threading

import pytest

from tests.support.client import ask, connect, receive_to_end
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import OriginStub, Route

BODY = os.urandom(12_000_001)
WINDOW = {"WEBPROXY_SPOOL_WINDOW_BYTES": "65536"}
KINDS = {"stored": {"Cache-Control": "max-age=600"}, "no-store": {"Cache-Control": "no-store"}}


def _request(path: str, method: str = "GET") -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
    return f"{lines}{'Content-Length: 0' if method == 'POST' else 'X: x'}\r\n\r\n".encode()


def _body(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return body


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", KINDS)
def test_readers_that_have_stopped_keep_no_origin(yard: DaemonYard, origin: OriginStub, kind: str, method: str) -> None:
    """The origin is done with all three bodies while their clients have read next to nothing."""
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, env=WINDOW | {"WEBPROXY_ORIGIN_CONNECTIONS_EACH_MAX": "3"})
    for n in range(3):
        origin.add(f"/{n}", Route(body=BODY, headers=KINDS[kind], methods=("GET", "POST")))
    origin.add("/more", Route(body=b"more"))
    clients = [connect(proxy.port, receive_buffer_bytes=4096) for _ in range(3)]
    try:
        for n, client in enumerate(clients):
            client.sendall(_request(f"/{n}", method))
            assert client.recv(1)
        with connect(proxy.port) as other:  # its origin has a connection for it
            other.sendall(_request("/more"))
            assert _body(receive_to_end(other)) == b"more"
        for client in clients:
            assert _body(b"H" + receive_to_end(client)) == BODY
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_room_everything_comes_all_the_same(
    yard: DaemonYard, origin: OriginStub, kind: str, method: str
) -> None:
    """Slow readers have used up the room: hits, a quick reader of a large body, and they themselves go on."""
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, env=WINDOW | {"WEBPROXY_SPOOL_BYTES_MAX": "2m"})
    origin.add("/hit", Route(body=b"hit", headers=KINDS["stored"]))
    for n in range(4):
        origin.add(f"/{n}", Route(body=BODY, headers=KINDS[kind], methods=("GET", "POST")))
    assert ask(proxy.port, "/hit").body == b"hit"
    clients = [connect(proxy.port, receive_buffer_bytes=4096) for _ in range(3)]
    try:
        for n, client in enumerate(clients):
            client.sendall(_request(f"/{n}", method))
            assert client.recv(1)
        wait_until(lambda: proxy.events("spools full"))
        assert ask(proxy.port, "/hit").body == b"hit"
        with connect(proxy.port) as quick:
            quick.sendall(_request("/3", method))
            assert _body(receive_to_end(quick)) == BODY
        answers: list[bytes] = []
        readers = [threading.Thread(target=lambda one=one: answers.append(receive_to_end(one))) for one in clients]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(WATCHDOG_S)
        assert [_body(b"H" + answer) == BODY for answer in answers] == [True] * 3
    finally:
        for client in clients:
            client.close()


def test_those_who_leave_give_their_room_back(yard: DaemonYard, origin: OriginStub) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, env=WINDOW | {"WEBPROXY_SPOOL_BYTES_MAX": "16m"})
    for n in range(6):
        origin.add(f"/{n}", Route(body=BODY, headers=KINDS["no-store"]))
    for n in (0, 2, 4):
        with connect(proxy.port, receive_buffer_bytes=4096) as stopped:
            stopped.sendall(_request(f"/{n}"))
            assert stopped.recv(1)
            with connect(proxy.port) as client:
                client.sendall(_request(f"/{n + 1}"))
                assert _body(receive_to_end(client)) == BODY
