"""Hits are the same, and counted and logged the same way, whether the compiled loop answers them or Python does."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.client import HttpClient
from tests.support.client import connect
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.programs import skip_for_want_of
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub, Route

FRESH = {"Cache-Control": "max-age=3600", "ETag": '"1"', "Age": "7"}
BODY = bytes(range(256)) * 32
LARGE = b"0123456789abcdef" * 1023
BODIES = {"/a": BODY, "/b": b"", "/c": LARGE, "/d": LARGE * 2, "/e": LARGE * 20}
"""Small ones, and two that are read from their files."""
HEADS = {
    "kept": b"Host: h\r\nUser-Agent: one/1\r\n\r\n",
    "closed": b"Host: h\r\nConnection: close\r\nReferer: http://r/?a=1\r\n\r\n",
    "another client": b"Host: h\r\nUser-Agent: another/2\r\nAccept: */*\r\n\r\n",
}


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    routes = {path: Route(body=body, headers=FRESH) for path, body in BODIES.items()}
    with OriginStub(routes) as stub:
        yield stub


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[DaemonYard]:
    try:
        import webproxy.serving.native_hits  # noqa: F401
    except ImportError as error:
        skip_for_want_of(f"the compiled loop for hits ({error})")
    with DaemonYard(tmp_path) as living:
        living.start_cache("--store", str(tmp_path / "store"))
        yield living


def start(yard: DaemonYard, origin: OriginStub, way: str, *arguments: str) -> DaemonProcess:
    flags = ("--no-compiled-hits",) if way == "python" else ()
    return yard.start_proxy("--protocols", "getfile,http", "-s", origin.url, *flags, *arguments)


def make_hot(proxy: DaemonProcess, path: str) -> None:
    with HttpClient(proxy.port) as client:
        wait_until(lambda: client.ask(path).is_hit, what="it is stored")
        for _ in range(3):
            client.ask(path)


def exchange(proxy: DaemonProcess, data: bytes) -> bytes:
    """What comes back for these bytes, up to the end of the connection."""
    with connect(proxy.port) as client:
        client.sendall(data)
        parts = []
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def without_times(data: bytes) -> bytes:
    return re.sub(rb"(Age: |ttl=|Date: )[^\r]+", rb"\1-", data)


def test_replies_are_the_same_bytes(yard: DaemonYard, origin: OriginStub) -> None:
    found = []
    for way in ("compiled", "python"):
        proxy = start(yard, origin, way)
        for path in BODIES:
            make_hot(proxy, path)
        replies = []
        for path in map(str.encode, BODIES):
            for version in (b"1.1", b"1.0"):
                for _ in range(3):  # learned by the first
                    for head in HEADS.values():
                        closing = b"GET %s HTTP/%s\r\n%s" % (path, version, HEADS["closed"])
                        replies.append(exchange(proxy, b"GET %s HTTP/%s\r\n%s%s" % (path, version, head, closing)))
                        replies.append(exchange(proxy, b"GET %s HTTP/%s\r\n%s" % (path, version, HEADS["closed"])))
        found.append(list(map(without_times, replies)))
        proxy.stop()
    assert found[0] == found[1]
    assert all(reply.startswith(b"HTTP/1.1 200 OK\r\n") for reply in found[0])


def test_ages_rise(yard: DaemonYard, origin: OriginStub) -> None:
    proxy = start(yard, origin, "compiled")
    make_hot(proxy, "/a")
    with HttpClient(proxy.port) as client:
        first = client.ask("/a")
        assert first.age is not None
        later = wait_until(lambda: (reply := client.ask("/a")).age != first.age and reply, what="a second has passed")
    assert later.age == first.age + 1
    assert int(later.cache["ttl"]) == int(first.cache["ttl"]) - 1


@pytest.mark.parametrize("way", ["compiled", "python"])
@pytest.mark.parametrize("form", ["common", "combined", "extended", "json"])
def test_counts_and_lines(yard: DaemonYard, origin: OriginStub, tmp_path: Path, way: str, form: str) -> None:
    path = tmp_path / "log"
    proxy = start(yard, origin, way, "--access-log", str(path), "--access-log-format", form)
    make_hot(proxy, "/a")
    for _ in range(40):
        exchange(proxy, b"GET /a HTTP/1.1\r\n" + HEADS["kept"] + b"GET /a HTTP/1.1\r\n" + HEADS["closed"])
        exchange(proxy, b"GET /a HTTP/1.1\r\n" + HEADS["closed"])
    proxy.stop()
    lines = path.read_bytes().splitlines()
    stopped = proxy.wait_event("stopped")
    assert stopped["http_hit"] == len(lines) - stopped["http_fetched"] >= 120
    if form == "json":
        entries = [json.loads(line) for line in lines[-20:]]
        assert {(entry["client"], entry["status"], entry["bytes"], entry["cache"]) for entry in entries} == {
            ("127.0.0.1", 200, len(BODY), entries[0]["cache"])
        }
        assert len({entry["id"] for entry in entries}) == len(entries)
    else:
        request = b'"GET /a HTTP/1.1" 200 %d' % len(BODY)
        assert all(line.startswith(b"127.0.0.1 - - [") and request in line for line in lines)


def test_a_purge_is_seen_at_once(yard: DaemonYard, origin: OriginStub) -> None:
    proxy = start(yard, origin, "compiled")
    make_hot(proxy, "/a")
    for number in range(20):
        body = b"%d" % number
        origin.add("/a", Route(body=body, headers=FRESH))
        with HttpClient(proxy.port) as client:
            assert client.ask("/a", method="PURGE").status in (200, 204)
            wait_until(lambda client=client: client.ask("/a").is_hit, what="it is stored again")  # type: ignore[misc]
            for _ in range(5):
                assert client.ask("/a").body == body


@pytest.mark.parametrize(("path", "count"), [("/c", 400), ("/d", 200), ("/e", 40)])
def test_a_client_that_does_not_read_is_served_in_the_end(
    yard: DaemonYard, origin: OriginStub, path: str, count: int
) -> None:
    """Of more than the kernel holds for it."""
    proxy = start(yard, origin, "compiled")
    make_hot(proxy, path)
    request = b"GET %s HTTP/1.1\r\n" % path.encode()
    with connect(proxy.port) as client:
        for _ in range(count):
            client.sendall(request + HEADS["kept"])
        client.sendall(request + HEADS["closed"])
        data = bytearray()
        while part := client.recv(65_536):
            data += part
    assert data.count(BODIES[path]) == count + 1
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["http_hit"] >= count


def test_a_drain_closes_kept_connections(yard: DaemonYard, origin: OriginStub) -> None:
    proxy = start(yard, origin, "compiled")
    make_hot(proxy, "/a")
    with HttpClient(proxy.port) as client:
        for _ in range(5):
            assert client.ask("/a").is_hit
        os.kill(proxy.pid, signal.SIGTERM)
        proxy.wait_all_ended()
        assert proxy.wait_exit() == 0
