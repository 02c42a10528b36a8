"""A client that leaves at any step of any kind of request costs nothing that stays, and the service goes on.

The origin may have one connection: what keeps it, or joins a fetch that never ends, is noticed by who asks next.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.http.client import HttpClient, fetch
from tests.support.client import ask, connect
from tests.support.descriptors import open_descriptors
from tests.support.waiting import WATCHDOG_S, wait_until
from tests.support.whole_pair import WholePair, whole_pair
from webproxy.daemon import handover
from webproxy.exchange import body_transfer
from webproxy.getfile import request_bytes
from webproxy.serving import parking
from workloads.origin_stub import Framing, Route

FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"'}
BODY = os.urandom(100_000)
METHODS = {"GET", "HEAD", "POST", "PUT"}
LITTLE = 4096


@dataclass
class Scene:
    """A pair, and what an origin's answers wait for."""

    pair: WholePair
    gate: threading.Event = field(default_factory=threading.Event)

    def holds(self, path: str, *, at: int | None = None, framing: Framing = Framing.LENGTH) -> Route:
        """Answer by a body that stops at an offset until the gate opens; without one, before the head."""
        route = Route(
            body=BODY,
            headers=FRESH,
            framing=framing,
            methods=METHODS,
            hold=self.gate,
            hold_at=at,
            hold_head=at is None,
        )
        self.pair.origin.add(path, route)
        return route


def http(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


LENGTH, CHUNKED = "Content-Length: 100", "Transfer-Encoding: chunked"
GET = http("GET /x")
REQUESTS = {
    "miss": GET,
    "no-store": http("GET /x", "Cache-Control: no-store"),
    "HEAD": http("HEAD /x"),
    "range": http("GET /x", "Range: bytes=10-"),
    "ranges": http("GET /x", "Range: bytes=10-20, 50000-"),
    "passed through": http("POST /x", "Content-Length: 0"),
    "getfile": request_bytes(b"/x"),
}
BODIES = {name: request for name, request in REQUESTS.items() if name != "HEAD"}
UPLOADS = {
    "with a length": http("PUT /x", LENGTH) + b"abc",
    "in chunks": http("PUT /x", CHUNKED) + b"5\r\nab",
    "before the first byte": http("PUT /x", LENGTH),
    "Expect": http("PUT /x", LENGTH, "Expect: 100-continue"),
    "GET with a body": http("GET /x", LENGTH) + b"abc",
    "PURGE with a body": http("PURGE /x", LENGTH) + b"abc",
}
HEADS = {
    "nothing": b"",
    "half a line": b"GET /x HT",
    "half a head": GET[:-3],
    "half of getfile": request_bytes(b"/x")[:-3],
}

Leave = Callable[[socket.socket], None]


def close(client: socket.socket) -> None:
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.fixture(params=[close, reset], ids=["FIN", "RST"])
def leave(request: pytest.FixtureRequest) -> Leave:
    chosen: Leave = request.param
    return chosen


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """At its end all that a client could have left behind is looked for."""
    monkeypatch.setattr(body_transfer, "PATIENCE_NS", 0)
    monkeypatch.setattr(parking, "LINGER_SECONDS", 0.0)
    listen = handover.open_listener

    def listener(host: str, port: int) -> socket.socket:
        made = listen(host, port)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        return made

    monkeypatch.setattr(handover, "open_listener", listener)
    with whole_pair(origin_connections_each_max=1, spool_window_bytes=65_536) as pair:
        made = Scene(pair)
        pair.fill("/hit", Route(body=BODY, headers=FRESH))
        serves(pair)
        pair.settle()
        idle = open_descriptors()
        with ExitStack() as ending:
            ending.callback(made.gate.set)
            yield made
        pair.settle()
        serves(pair)
        pair.settle()
        wait_until(lambda: open_descriptors() <= idle, what=f"{open_descriptors()} descriptors to be {idle} again")


def serves(pair: WholePair) -> None:
    """A hit, and something from the origin, by both protocols, also of what the client who left had asked for."""
    assert fetch(pair.port, "/hit").body == BODY
    pair.origin.add("/x", Route(body=BODY[:70_000], headers={"Cache-Control": "no-store"}, methods=METHODS))
    for _ in range(2):
        wait_until(lambda: fetch(pair.port, "/x", method="POST").body == BODY[:70_000])
    assert ask(pair.port, "/hit").body == BODY


def waits(scene: Scene, count: int = 1) -> None:
    wait_until(lambda: scene.pair.proxy.parking.parked == count, what="a request that waits")


def is_gone(scene: Scene) -> None:
    wait_until(lambda: scene.pair.proxy.parking.connections == 0, what="the end of the request")


def is_broken_off(scene: Scene, name: str) -> None:
    """A request of nobody else's ends at the origin as well, whose only connection it had; fetches may go on."""
    if name in ("passed through", *UPLOADS):
        scene.pair.origin.add("/other", Route(body=b"other", methods=METHODS))
        assert fetch(scene.pair.port, "/other", method="POST").body == b"other"


@pytest.mark.parametrize("name", HEADS)
def test_before_the_end_of_the_head(scene: Scene, leave: Leave, name: str) -> None:
    client = connect(scene.pair.port)
    client.sendall(HEADS[name])
    if HEADS[name]:
        wait_until(lambda: scene.pair.proxy.parking.connections == 1, what="the connection")
    leave(client)
    is_gone(scene)


@pytest.mark.parametrize("name", REQUESTS)
def test_before_the_head_of_the_answer(scene: Scene, leave: Leave, name: str) -> None:
    route = scene.holds("/x")
    client = connect(scene.pair.port)
    client.sendall(REQUESTS[name])
    assert route.reached.wait(WATCHDOG_S)
    waits(scene)
    leave(client)
    is_gone(scene)
    is_broken_off(scene, name)


@pytest.mark.parametrize("name", UPLOADS)
def test_in_mid_upload(scene: Scene, leave: Leave, name: str) -> None:
    client = connect(scene.pair.port)
    client.sendall(UPLOADS[name])
    waits(scene)
    leave(client)
    is_gone(scene)
    is_broken_off(scene, name)


@pytest.mark.parametrize("name", [name for name in UPLOADS if "PURGE" not in name])
def test_in_an_upload_that_is_under_way(scene: Scene, leave: Leave, name: str) -> None:
    """It is longer than the window, so the origin has its beginning, of which it does not read all."""
    route = scene.holds("/x")
    route.reads_body = False
    request = UPLOADS[name].replace(LENGTH.encode(), b"Content-Length: 1000000")
    client = connect(scene.pair.port)
    client.sendall(request)
    if "Expect" in name:
        assert client.recv(100).startswith(b"HTTP/1.1 100")
    client.sendall(b"cde\r\n%x\r\n" % 900_000 + bytes(200_000) if "chunks" in name else bytes(200_000))
    assert route.reached.wait(WATCHDOG_S)
    waits(scene)
    leave(client)
    is_gone(scene)
    is_broken_off(scene, name)


@pytest.mark.parametrize("name", REQUESTS)
def test_in_the_line_for_a_connection(scene: Scene, leave: Leave, name: str) -> None:
    route = scene.holds("/first")
    scene.holds("/x")
    with HttpClient(scene.pair.port) as first:
        first.send("/first")
        assert route.reached.wait(WATCHDOG_S)
        client = connect(scene.pair.port)
        client.sendall(REQUESTS[name])
        waits(scene, 2)
        leave(client)
        waits(scene, 1)
        scene.gate.set()
        assert first.receive().body == BODY


@pytest.mark.parametrize("at", [50_000, len(BODY) - 1], ids=["in the middle", "before the last byte"])
@pytest.mark.parametrize("name", BODIES)
def test_in_a_body_that_does_not_come(scene: Scene, leave: Leave, name: str, at: int) -> None:
    """The client has all that has come. Each kind of request asks for the last byte too: else it would not wait."""
    scene.holds("/x", at=at, framing=Framing.LENGTH)
    client = connect(scene.pair.port)
    client.sendall(BODIES[name])
    received = b""
    while not received.endswith(BODY[at - 20 : at]):
        received += client.recv(1 << 16)
    waits(scene)
    leave(client)
    is_gone(scene)
    is_broken_off(scene, name)


@pytest.mark.parametrize("name", BODIES)
def test_in_a_body_that_it_does_not_read(scene: Scene, leave: Leave, name: str) -> None:
    scene.pair.origin.add("/x", Route(body=BODY * 30, headers=FRESH, framing=Framing.LENGTH, methods=METHODS))
    client = connect(scene.pair.port, receive_buffer_bytes=LITTLE)
    client.sendall(BODIES[name])
    waits(scene)
    leave(client)
    is_gone(scene)
    is_broken_off(scene, name)


HITS = {name: request.replace(b"/x", b"/hit") for name, request in BODIES.items() if name != "passed through"}


@pytest.mark.parametrize("name", HITS)
def test_in_a_hit_that_it_does_not_read(scene: Scene, leave: Leave, name: str) -> None:
    client = connect(scene.pair.port, receive_buffer_bytes=LITTLE)
    client.sendall(HITS[name])
    waits(scene)
    leave(client)
    is_gone(scene)


@pytest.mark.parametrize("then", [b"", GET[:5], GET], ids=["idle", "in the next head", "behind the next head"])
def test_between_two_requests(scene: Scene, leave: Leave, then: bytes) -> None:
    route = scene.holds("/x")
    client = connect(scene.pair.port)
    client.sendall(http("GET /hit", "Range: bytes=0-9"))
    received = b""
    while not received.endswith(BODY[:10]):
        received += client.recv(1 << 16)
    client.sendall(then)
    if then == GET:
        assert route.reached.wait(WATCHDOG_S)
        waits(scene)
    leave(client)
    is_gone(scene)


def test_with_another_request_behind_the_one_that_waits(scene: Scene, leave: Leave) -> None:
    route = scene.holds("/x")
    client = connect(scene.pair.port)
    client.sendall(GET + http("GET /hit"))
    assert route.reached.wait(WATCHDOG_S)
    waits(scene)
    leave(client)
    is_gone(scene)
