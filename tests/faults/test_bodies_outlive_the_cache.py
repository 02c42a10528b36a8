"""A cache that is killed in mid-body: its clients get the rest from the origin, exactly, or a short body."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.harness import POOL_FLAGS, assert_ends_well
from tests.support.client import connect, receive_to_end
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.http_wire import HttpClient, request
from tests.support.waiting import wait_until
from webproxy.getfile import request_bytes
from workloads.origin_stub import OriginStub, Route

SIZE = 12_000_000
BODY = b"".join(b"%07d\n" % number for number in range(SIZE // 8))
FIRST, END = 1_000_000, SIZE - 1_000
FRESH = {"Cache-Control": "max-age=600"}
GOOD = Route(body=BODY, headers={**FRESH, "ETag": '"1"'})
PATIENCE_S = 1.0
READ_BYTES = 100_000
"""How much a client has read when the cache is killed: kernel buffers have no room for what is left."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a body is asked for, and what it must be."""

    data: bytes
    wanted: bytes

    def __str__(self) -> str:
        return self.data[:8].decode().split()[0]


HTTP = Way(request("/x", b"Connection: close"), BODY)
RANGE = Way(request("/x", b"Connection: close", b"Range: bytes=%d-%d" % (FIRST, END - 1)), BODY[FIRST:END])
GETFILE = Way(request_bytes(b"/x"), BODY)
WAYS = [pytest.param(HTTP, id="http"), pytest.param(RANGE, id="range"), pytest.param(GETFILE, id="getfile")]


class Reader:
    """A client that has read the beginning of its answer, and the rest later; close() it."""

    def __init__(self, port: int, way: Way) -> None:
        self._way = way
        self._socket = connect(port, receive_buffer_bytes=1 << 16)
        self._socket.sendall(way.data)
        self._received = b""
        while len(self._received) < READ_BYTES:
            self._received += self._more()

    def _more(self) -> bytes:
        piece = self._socket.recv(1 << 16)
        assert piece, "the connection ended before the cache did"
        return piece

    def body(self) -> bytes:
        """All of the body that comes until the connection ends."""
        with self._socket:
            try:
                self._received += receive_to_end(self._socket)
            except ConnectionResetError:
                pass
        return self._received.partition(b"\r\n\r\n")[2]

    def close(self) -> None:
        """It leaves."""
        self._socket.close()


@pytest.fixture(params=["memory", "directory"])
def store_flags(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """Where the cache keeps its objects."""
    return () if request.param == "memory" else ("--store", str(tmp_path / "store"))


Filled = Callable[..., tuple[DaemonProcess, DaemonProcess]]


@pytest.fixture
def filled(yard: DaemonYard, origin: OriginStub, store_flags: tuple[str, ...]) -> Filled:
    """Start a proxy and a cache that has /x, with or without a hot table."""

    def start(way: Way, *, hot: bool = False) -> tuple[DaemonProcess, DaemonProcess]:
        cache = yard.start_cache(*store_flags, env={"SIMPLECACHED_HOT_TABLE_BYTES": "1m"} if hot else None)
        proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url)

        def is_stored() -> bool:
            with connect(proxy.port) as client:
                client.sendall(way.data)
                assert receive_to_end(client).endswith(way.wanted[-1000:])
            with HttpClient(proxy.port) as client:
                return client.ask("/x", b"Cache-Control: only-if-cached", method=b"HEAD").status == 200

        wait_until(lambda: is_stored() and is_stored() and is_stored(), what="it is stored, and in frequent use")
        return proxy, cache

    return start


def bodies_across_a_kill(
    proxy: DaemonProcess, cache: DaemonProcess, way: Way, *, before: Callable[[], None] = lambda: None
) -> list[bytes]:
    """What clients get who are in mid-body when the cache is killed; `before` that, something else is done."""
    readers = [Reader(proxy.port, way) for _ in range(3)]
    before()
    cache.kill()
    cache.wait_exit()
    with ThreadPoolExecutor(len(readers)) as crew:
        return list(crew.map(Reader.body, readers))


@pytest.mark.parametrize("hot", [False, True], ids=["cold", "hot"])
@pytest.mark.parametrize("way", WAYS)
def test_the_rest_comes_from_the_origin(origin: OriginStub, filled: Filled, way: Way, hot: bool) -> None:
    origin.add("/x", GOOD)
    proxy, cache = filled(way, hot=hot)
    before = origin.count("/x")
    assert [body == way.wanted for body in bodies_across_a_kill(proxy, cache, way)] == [True] * 3
    assert hot or origin.count("/x") == before + 3
    assert_ends_well(proxy)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("store_flags", ["memory"], indirect=True)
def test_also_of_a_body_that_is_paused(origin: OriginStub, filled: Filled, way: Way) -> None:
    """Then the proxy notices when its client reads on."""
    origin.add("/x", GOOD)
    proxy, cache = filled(way)
    bodies = bodies_across_a_kill(proxy, cache, way, before=lambda: time.sleep(1.5 * PATIENCE_S))
    assert [body == way.wanted for body in bodies] == [True] * 3
    assert_ends_well(proxy)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Route(body=BODY, headers={**FRESH, "ETag": '"2"'}), id="another-validator"),
        pytest.param(Route(status=412), id="412"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("store_flags", ["memory"], indirect=True)
def test_what_is_not_the_rest_ends_the_body_short(origin: OriginStub, filled: Filled, way: Way, other: Route) -> None:
    origin.add("/x", GOOD)
    proxy, cache = filled(way)
    bodies = bodies_across_a_kill(proxy, cache, way, before=lambda: origin.add("/x", other))
    assert [(way.wanted.startswith(body), len(body) < len(way.wanted)) for body in bodies] == [(True, True)] * 3
    assert proxy.wait_event("body cut short", count=3)
    assert_ends_well(proxy)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("store_flags", ["memory"], indirect=True)
def test_without_a_validator_it_is_not_asked_for(origin: OriginStub, filled: Filled, way: Way) -> None:
    origin.add("/x", Route(body=BODY, headers=FRESH))
    proxy, cache = filled(way)
    before = origin.count("/x")
    bodies = bodies_across_a_kill(proxy, cache, way)
    assert [(way.wanted.startswith(body), len(body) < len(way.wanted)) for body in bodies] == [(True, True)] * 3
    assert origin.count("/x") == before
    assert_ends_well(proxy)


@pytest.mark.parametrize("store_flags", ["memory"], indirect=True)
def test_the_connection_stays(origin: OriginStub, filled: Filled) -> None:
    origin.add("/x", GOOD)
    origin.add("/next", Route(body=b"next", headers=FRESH))
    proxy, cache = filled(HTTP)
    with connect(proxy.port, receive_buffer_bytes=1 << 16) as client:
        client.sendall(request("/x"))
        received = client.recv(READ_BYTES)
        cache.kill()
        while len(received.partition(b"\r\n\r\n")[2]) < SIZE:
            received += client.recv(1 << 16)
        client.sendall(request("/next", b"Connection: close"))
        rest = receive_to_end(client)
    assert received.partition(b"\r\n\r\n")[2] == BODY
    assert rest.endswith(b"\r\n\r\nnext")
    assert_ends_well(proxy)


@pytest.mark.parametrize("store_flags", ["memory"], indirect=True)
def test_several_ranges_are_whole_too(origin: OriginStub, filled: Filled) -> None:
    """What is missing of the one that is being sent, and each of those behind it."""
    origin.add("/x", GOOD)
    proxy, cache = filled(HTTP)
    before, ranges = origin.count("/x"), ((100, 5_000_000), (5_000_500, 9_000_000), (SIZE - 7, SIZE))
    asked = b",".join(b"%d-%d" % (first, end - 1) for first, end in ranges)
    several = Way(request("/x", b"Connection: close", b"Range: bytes=" + asked), b"")
    for body in bodies_across_a_kill(proxy, cache, several):
        boundary = body[: body.index(b"\r\n", 2)].strip()
        parts = body.split(b"\r\n" + boundary)
        parts[0] = parts[0].removeprefix(boundary)
        for part, (first, end) in zip(parts, ranges, strict=False):
            assert part.partition(b"\r\n\r\n")[2] == BODY[first:end]
        assert parts[3:] == [b"--\r\n"]
    assert origin.count("/x") == before + 9
    assert_ends_well(proxy)
