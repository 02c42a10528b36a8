"""The stub over real sockets, asked by the standard library's client."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from workloads.origin_stub import Framing, OriginStub, Route

BODY = bytes(range(256)) * 2000


@contextmanager
def connected(origin: OriginStub) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(origin.host, origin.port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def get(
    origin: OriginStub, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, bytes, http.client.HTTPMessage]:
    with connected(origin) as connection:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        with response:
            return response.status, response.read(), response.headers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "deep/a b").write_bytes(BODY)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "door").symlink_to(tmp_path / "secret")
    return root


def test_files_of_a_folder(folder: Path) -> None:
    with OriginStub(folder) as origin:
        status, body, headers = get(origin, "/deep/a%20b?x=1")
        assert (status, body) == (200, BODY)
        assert get(origin, "/deep/a%20b", {"If-None-Match": headers["ETag"]})[0] == 304
        assert get(origin, "/deep/a%20b", {"If-Modified-Since": headers["Last-Modified"]})[0] == 304
        status, body, headers = get(origin, "/deep/a%20b", {"Range": "bytes=1000-1999"})
        assert (status, body, headers["Content-Range"]) == (206, BODY[1000:2000], f"bytes 1000-1999/{len(BODY)}")
        assert get(origin, "/deep/a%20b", method="HEAD")[1] == b""
        assert origin.count("/deep/a%20b") == 4


@pytest.mark.parametrize("path", ["/absent", "/deep", "/", "/../secret", "/%2e%2e/secret", "/door", "/a%00b"])
def test_what_is_no_file_below_the_folder_is_not_found(folder: Path, path: str) -> None:
    with OriginStub(folder) as origin:
        assert get(origin, path)[0] == 404


def test_a_route_wins_over_a_file(folder: Path) -> None:
    with OriginStub(folder, routes={"/deep/a%20b": Route(status=500)}) as origin:
        assert get(origin, "/deep/a%20b")[0] == 500
        origin.add("/deep/a%20b", Route(body=b"new"))
        assert get(origin, "/deep/a%20b")[1] == b"new"


def test_requests_are_remembered() -> None:
    with OriginStub({"/a": Route(body=b"x")}) as origin:
        get(origin, "/a", {"X-Test": "1"})
        get(origin, "/b")
        assert [(request.method, request.path) for request in origin.requests] == [("GET", "/a"), ("GET", "/b")]
        assert origin.requests[0].headers["x-test"] == "1"
        assert (origin.count("/a"), origin.count("/c")) == (1, 0)
        assert origin.wait_for("/a", 1)
        assert not origin.wait_for("/a", 2, timeout_s=0.01)


def test_the_peak_of_connections_is_remembered() -> None:
    with OriginStub({"/a": Route(body=b"x")}) as origin:
        assert origin.connections_peak == 0
        with connected(origin) as first, connected(origin) as second:
            for connection in (first, second):
                connection.request("GET", "/a")
                connection.getresponse().read()
        wait_until(lambda: not origin.connection_count)
        get(origin, "/a")
        assert origin.connections_peak == 2


@pytest.mark.parametrize("framing", Framing)
def test_every_framing_carries_the_body(framing: Framing) -> None:
    with OriginStub({"/a": Route(body=BODY, framing=framing)}) as origin:
        assert get(origin, "/a")[1] == BODY


def test_a_connection_is_kept_and_used_again() -> None:
    routes = {"/a": Route(body=b"x"), "/c": Route(body=b"y", framing=Framing.CHUNKED), "/n": Route(status=204)}
    with OriginStub(routes) as origin, connected(origin) as connection:
        ports = set()
        for path in ("/a", "/c", "/n", "/absent", "/a"):
            connection.request("GET", path)
            with connection.getresponse() as response:
                response.read()
            ports.add(connection.sock.getsockname()[1])
        assert len(ports) == 1


@pytest.mark.parametrize(
    "route",
    [
        Route(body=BODY, truncate_at=1000),
        Route(body=BODY, truncate_at=1000, framing=Framing.CHUNKED),
        Route(body=BODY, declared_length=len(BODY) + 1),
    ],
    ids=["truncated", "truncated-chunked", "declares-more"],
)
def test_short_bodies_are_short(route: Route) -> None:
    with OriginStub({"/a": route}) as origin, pytest.raises(http.client.IncompleteRead):
        get(origin, "/a")


def test_a_body_that_is_longer_than_declared() -> None:
    with OriginStub({"/a": Route(body=b"hello", declared_length=2)}) as origin:
        with socket.create_connection((origin.host, origin.port), timeout=60) as connection:
            connection.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b"".join(iter(lambda: connection.recv(4096), b""))
        assert b"Content-Length: 2\r\n" in received
        assert received.endswith(b"\r\n\r\nhello")


def test_a_reset_is_a_reset() -> None:
    with OriginStub({"/a": Route(body=BODY, reset_at=10)}) as origin, pytest.raises(ConnectionResetError):
        get(origin, "/a")


def test_failing_first_then_well() -> None:
    with OriginStub({"/a": Route(body=b"x", fail_first=2)}) as origin:
        assert [get(origin, "/a")[0] for _ in range(3)] == [503, 503, 200]


def test_a_redirect_loop() -> None:
    with OriginStub({"/a": Route(redirect_to="/a")}) as origin:
        status, _, headers = get(origin, "/a")
    assert (status, headers["Location"]) == (302, "/a")


def test_a_drip_and_delays_change_no_byte() -> None:
    route = Route(body=b"0123456789", drip_bytes_per_s=200, delay_s=0.01, stall_at=3, stall_s=0.01)
    with OriginStub({"/a": route}) as origin:
        assert get(origin, "/a")[1] == b"0123456789"


def test_a_held_body_goes_on_when_released() -> None:
    route = Route(body=b"0123456789", hold=threading.Event())
    bodies: list[bytes] = []
    with OriginStub({"/a": route}) as origin:
        client = threading.Thread(target=lambda: bodies.append(get(origin, "/a")[1]))
        client.start()
        assert route.reached.wait(60)
        assert bodies == []
        assert route.hold is not None
        route.hold.set()
        client.join()
    assert bodies == [b"0123456789"]


def test_leaving_ends_what_is_held_stalled_or_not_read() -> None:
    before = threading.active_count()
    routes = {
        "/held": Route(body=BODY, hold=threading.Event()),
        "/stalled": Route(body=BODY, stall_at=0, stall_s=3600),
        "/unread": Route(body=b"x" * 50_000_000),
    }
    with OriginStub(routes) as origin:
        clients = [socket.create_connection((origin.host, origin.port)) for _ in [*routes, "silent"]]
        for client, path in zip(clients, routes, strict=False):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert all(origin.wait_for(path, 1) for path in routes)
    for client in clients:
        client.close()
    assert threading.active_count() == before
    origin.close()


def test_a_stub_that_is_never_entered_can_be_closed() -> None:
    OriginStub({}).close()


def test_many_clients_at_once() -> None:
    with OriginStub({"/a": Route(body=BODY)}) as origin:
        bodies: list[bytes] = []
        clients = [threading.Thread(target=lambda: bodies.append(get(origin, "/a")[1])) for _ in range(50)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert bodies == [BODY] * 50
        assert origin.count("/a") == 50


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"nonsense\r\n\r\n", b"400"), (b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", b"405")],
)
def test_what_the_stub_does_not_do_is_refused(sent: bytes, status: bytes) -> None:
    stub = OriginStub({"/a": Route(body=b"x")})
    with stub as origin, socket.create_connection((origin.host, origin.port), timeout=60) as connection:
        connection.sendall(sent)
        assert connection.recv(12) == b"HTTP/1.1 " + status


def test_ipv6_url() -> None:
    with OriginStub({"/a": Route(body=b"x")}, host="::1") as origin:
        assert origin.url == f"http://[::1]:{origin.port}"
        assert get(origin, "/a")[1] == b"x"


def test_the_command_prints_its_url_and_ends_by_a_signal(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "workloads.origin_stub",
        "--root",
        str(folder),
        "--header",
        "Cache-Control: no-store",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, port = process.stdout.readline().strip().removeprefix("http://").split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            connection.request("GET", "/deep/a%20b")
            with connection.getresponse() as response:
                assert (response.read(), response.headers["Cache-Control"]) == (BODY, "no-store")
            connection.close()
            os.kill(process.pid, signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, rest) == (0, "1 requests\n")


def test_the_command_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with OriginStub() as other:
        port = other.url.rpartition(":")[2].strip("/")
        command = [sys.executable, "-m", "workloads.origin_stub", "--root", str(tmp_path), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"origin_stub: 127.0.0.1 port {port}: Address already in use (choose another --port)\n"


def test_the_command_refuses_what_is_no_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workloads.origin_stub", "--root", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "is not a directory" in done.stderr
