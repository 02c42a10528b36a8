"""webproxy -s URL with whole daemons: what comes from the origin, what from the cache, and what a client is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.client import Answer, ask, ask_all, connect, parse_answer, receive_to_end
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status, request_bytes
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(700_001)
QUICK = {
    "WEBPROXY_ORIGIN_STALL_S": "2",
    "WEBPROXY_ORIGIN_TRIES": "3",
    "WEBPROXY_ORIGIN_FAILURES_TO_OPEN": "0",
    "WEBPROXY_LOG_LEVEL": "debug",
}
NOT_FOUND = Answer(Status.FILE_NOT_FOUND, b"", 0)
ERROR = Answer(Status.ERROR, b"", 0)


@pytest.fixture(params=["cache", "no cache"])
def proxy(request: pytest.FixtureRequest, yard: DaemonYard, origin: OriginStub) -> DaemonProcess:
    """A proxy before the origin, with and without a cache."""
    if request.param == "cache":
        yard.start_cache()
        return yard.start_proxy("-s", origin.url, env=QUICK)
    return yard.start_proxy("-s", origin.url, "--no-cache", env=QUICK)


def found(body: bytes) -> Answer:
    return Answer(Status.OK, body, len(body))


# -- both ways ----------------------------------------------------------------------------------------------------
def test_bodies_of_every_size_and_framing_arrive_whole_with_the_right_length(
    proxy: DaemonProcess, origin: OriginStub
) -> None:
    bodies = {}
    for size in (0, 1, 262_144 - 384, 262_144, len(BODY)):
        for framing in Framing:
            path = f"/{size}-{framing}"
            bodies[path] = BODY[:size]
            origin.add(path, Route(body=BODY[:size], framing=framing))
    for _ in range(2):
        assert dict(zip(bodies, ask_all(proxy.port, bodies, clients=6), strict=True)) == {
            path: found(body) for path, body in bodies.items()
        }


def test_statuses_of_the_origin_become_ours(proxy: DaemonProcess, origin: OriginStub) -> None:
    for status in (401, 403, 404, 410):
        origin.add(f"/{status}", Route(status=status, body=b"secret page"))
        assert ask(proxy.port, f"/{status}") == NOT_FOUND
        assert origin.count(f"/{status}") == 1
    for status in (204, 206, 304, 400):
        origin.add(f"/{status}", Route(status=status))
        assert ask(proxy.port, f"/{status}") == ERROR
        assert origin.count(f"/{status}") == 1
    for status in (500, 502, 503):
        origin.add(f"/{status}", Route(status=status))
        assert ask(proxy.port, f"/{status}") == ERROR
        assert origin.count(f"/{status}") == 3


def test_an_origin_that_recovers_within_the_tries_is_not_noticed(proxy: DaemonProcess, origin: OriginStub) -> None:
    origin.add("/x", Route(body=BODY, fail_first=2))
    assert ask(proxy.port, "/x") == found(BODY)
    assert origin.count("/x") == 3


def test_failures_before_the_first_byte_are_errors_after_all_tries(proxy: DaemonProcess, origin: OriginStub) -> None:
    """Silence is not asked for twice: that would burden a slow origin only more."""
    never = threading.Event()
    routes = {
        "/silent": Route(body=BODY, hold=never, hold_head=True),
        "/cut": Route(body=BODY, truncate_at=0),
        "/reset": Route(body=BODY, reset_at=0),
        "/cut-chunked": Route(body=BODY, truncate_at=5000, framing=Framing.CHUNKED),
    }
    for path, route in routes.items():
        origin.add(path, route)
    assert ask_all(proxy.port, routes, clients=4) == [ERROR] * len(routes)
    for path in routes:
        assert origin.count(path) == (1 if path == "/silent" else 3), path


def test_an_object_that_breaks_in_mid_body_comes_short_and_is_never_kept(
    proxy: DaemonProcess, origin: OriginStub
) -> None:
    at = 500_000
    breaks = {
        "/stall": Route(body=BODY, hold=threading.Event(), hold_at=at),
        "/cut": Route(body=BODY, truncate_at=at),
        "/reset": Route(body=BODY, reset_at=at),
        "/wrong-length": Route(body=BODY[:at], declared_length=len(BODY)),
    }
    for path, route in breaks.items():
        origin.add(path, route)
    for path, answer in zip(breaks, ask_all(proxy.port, breaks, clients=4), strict=True):
        if answer != ERROR:  # a reset may destroy what the proxy had not read yet: even the first byte
            assert (answer.status, answer.length) == (Status.OK, len(BODY)), path
            assert len(answer.body) <= at, path
        assert BODY.startswith(answer.body), path
    for path in breaks:
        origin.add(path, Route(body=b"whole now"))
        assert ask(proxy.port, path) == found(b"whole now"), path


def test_redirects_within_the_origin_work_and_others_are_refused(proxy: DaemonProcess, origin: OriginStub) -> None:
    origin.add("/end", Route(body=BODY))
    origin.add("/here", Route(redirect_to="/end"))
    origin.add("/loop", Route(redirect_to="/loop"))
    origin.add("/file", Route(redirect_to="file:///etc/hostname"))
    origin.add("/metadata", Route(redirect_to="http://169.254.169.254/latest/meta-data/"))
    with OriginStub({"/secret": Route(body=b"secret")}) as other:
        origin.add("/other", Route(redirect_to=f"{other.url}/secret"))
        origin.add("/name", Route(redirect_to=f"http://localhost:{other.port}/secret"))
        assert ask(proxy.port, "/here") == found(BODY)
        for path in ("/loop", "/file", "/metadata", "/other", "/name"):
            assert ask(proxy.port, path) == ERROR, path
            assert origin.count(path) == (6 if path == "/loop" else 1), path
        assert other.requests == []


def test_paths_reach_the_origin_normalised_and_harmless(proxy: DaemonProcess, origin: OriginStub) -> None:
    asked = {"/a/../b": "/b", "/%2e%2e/%2E./c": "/c", "/d?e=/../f": "/d?e=/../f", "//g": "//g", "/h%zz": "/h%25zz"}
    for target in asked.values():
        origin.add(target, Route(body=target.encode()))
    for path, target in asked.items():
        assert ask(proxy.port, path) == found(target.encode())
        assert origin.requests[-1].path == target


def test_a_refused_connection_is_an_error_after_all_tries(yard: DaemonYard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = yard.start_proxy("-s", f"http://127.0.0.1:{port}", "--no-cache", env=QUICK)
    assert ask(proxy.port, "/x") == ERROR
    assert len(proxy.events("trying again")) == 2


def test_objects_over_the_maximum_are_refused(yard: DaemonYard, origin: OriginStub) -> None:
    limits = {"WEBPROXY_OBJECT_BYTES_MAX": str(len(BODY) - 1)}
    proxy = yard.start_proxy("-s", origin.url, "--no-cache", env=QUICK | limits)
    for framing in Framing:
        origin.add(f"/{framing}", Route(body=BODY, framing=framing))
        assert ask(proxy.port, f"/{framing}") == ERROR
        assert origin.count(f"/{framing}") == 1
    origin.add("/fits", Route(body=BODY[:-1], framing=Framing.CHUNKED))
    assert ask(proxy.port, "/fits") == found(BODY[:-1])


def test_a_plain_file_server_is_an_origin(yard: DaemonYard, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.bin").write_bytes(BODY)
    (folder / "empty").write_bytes(b"")
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        yard.start_cache()
        proxy = yard.start_proxy("-s", f"http://127.0.0.1:{port}")
        for _ in range(2):
            assert ask(proxy.port, "/a.bin") == found(BODY)
            assert ask(proxy.port, "/empty") == found(b"")
            assert ask(proxy.port, "/missing") == NOT_FOUND
        server.kill()
        server.wait(WATCHDOG_S)
        assert ask(proxy.port, "/a.bin") == found(BODY)
    finally:
        server.kill()
        server.wait(WATCHDOG_S)
        if server.stdout is not None:
            server.stdout.close()


# -- without a cache ----------------------------------------------------------------------------------------------
def test_streaming_a_large_body_to_a_slow_client_takes_constant_memory_and_disk(
    yard: DaemonYard, tmp_path: Path
) -> None:
    size = 300 << 20
    folder, spools = tmp_path / "served", tmp_path / "spools"
    folder.mkdir()
    spools.mkdir()
    with open(folder / "large", "wb") as sparse:
        sparse.truncate(size)
        sparse.seek(size - len(BODY))
        sparse.write(BODY)
    with OriginStub(folder) as origin:
        proxy = yard.start_proxy(
            "-s",
            origin.url,
            "--no-cache",
            env={
                "WEBPROXY_SPOOL_DIRECTORY": str(spools),
                "WEBPROXY_SPOOL_WINDOW_BYTES": "4m",
                "WEBPROXY_SPOOL_BYTES_MAX": "8m",  # beyond the window: how far it gets depends on who is faster
            },
        )
        origin.add("/small", Route(body=b"warm"))
        assert ask(proxy.port, "/small") == found(b"warm")
        before = proxy.resident_bytes()
        most_memory = most_disk = received = 0
        tail = b""
        with connect(proxy.port, receive_buffer_bytes=65_536) as client:
            client.sendall(request_bytes(b"/large"))
            for number, piece in enumerate(iter(lambda: client.recv(1 << 18), b"")):
                received += len(piece)
                tail = (tail + piece)[-len(BODY) :]
                if number % 64 == 0:
                    most_memory = max(most_memory, proxy.resident_bytes())
                    most_disk = max(most_disk, spooled_bytes(proxy))
        assert received > size
        assert tail == BODY
        assert most_memory < before + (16 << 20)
        assert 0 < most_disk < 64 << 20


def spooled_bytes(proxy: DaemonProcess) -> int:
    """The disk space of the proxy's open, unlinked files."""
    total = 0
    for fd in os.listdir(f"/proc/{proxy.pid}/fd"):
        path = f"/proc/{proxy.pid}/fd/{fd}"
        try:
            if "(deleted)" in os.readlink(path) and "/spools/" in os.readlink(path):
                total += os.stat(path).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


# -- the end of the daemon ----------------------------------------------------------------------------------------
def test_sigterm_finishes_a_fetch_under_way(proxy: DaemonProcess, origin: OriginStub) -> None:
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=300_000)
    origin.add("/x", route)
    with ThreadPoolExecutor(1) as crew:
        answer = crew.submit(ask, proxy.port, "/x")
        assert route.reached.wait(WATCHDOG_S)
        proxy.signal(15)
        gate.set()
        assert answer.result(WATCHDOG_S) == found(BODY)
        assert proxy.wait_exit() == 0


def test_sigterm_does_not_wait_for_a_silent_origin_beyond_the_drain_limit(yard: DaemonYard, origin: OriginStub) -> None:
    proxy = yard.start_proxy("-s", origin.url, "--no-cache", env={"WEBPROXY_DRAIN_S": "0.3"})
    route = Route(body=BODY, hold=threading.Event(), hold_at=300_000)
    origin.add("/x", route)
    with connect(proxy.port) as client:
        client.sendall(request_bytes(b"/x"))
        assert route.reached.wait(WATCHDOG_S)
        proxy.signal(15)
        answer = parse_answer(receive_to_end(client))
    assert (answer.status, answer.length) == (Status.OK, len(BODY))
    assert BODY.startswith(answer.body)
    assert not answer.whole
    assert proxy.wait_exit() == 130


def test_clients_that_leave_end_the_fetch(yard: DaemonYard, origin: OriginStub) -> None:
    proxy = yard.start_proxy("-s", origin.url, "--no-cache", env=QUICK | {"WEBPROXY_ORIGIN_STALL_S": "60"})
    route = Route(body=BODY * 20, hold=threading.Event(), hold_at=len(BODY) * 10)
    origin.add("/x", route)
    with connect(proxy.port) as client:
        client.sendall(request_bytes(b"/x"))
        client.recv(1000)
    wait_until(lambda: proxy.events("fetch failed"))
    assert ask(proxy.port, "/missing") == NOT_FOUND
