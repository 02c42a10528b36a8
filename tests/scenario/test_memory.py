"""A hundred thousand requests leave both daemons as they were: memory, threads, descriptors."""

import json
import subprocess
from collections.abc import Callable
from http.client import HTTPConnection

import pytest

from scripts.benchmark.load import NativeLoad
from tests.support.client import ask_all
from tests.support.contents import write_files
from tests.support.daemons import NO_HOT_TABLE, DaemonProcess, Resources
from tests.support.waiting import wait_until
from workloads.origin_stub import Route

REQUESTS = 100_000
WARM_UP = 10_000
CLIENTS = 8
GROWTH_BYTES_MAX = 1 << 20  # ten bytes a request: less than the smallest Python object that could be forgotten in each
DESCRIPTORS_SPARE = 2 * CLIENTS  # connections that are being closed
SIZES = {f"file-{number}": size for number, size in enumerate((0, 1, 700, 8_192, 20_000))}
URLS = 700
LONG_URL_BYTES = 3_900
ANSWERS = {
    "/stored": {"Cache-Control": "max-age=60"},
    "/refused": {"Cache-Control": "no-store"},
    "/varying": {"Cache-Control": "max-age=60", "Vary": "Accept-Language"},
}
LONG_URLS_GROWTH_BYTES_MAX = len(ANSWERS) * URLS * LONG_URL_BYTES // 2
PATHS = [f"/{name}" for name in SIZES]


@pytest.fixture
def run_load(tmp_path) -> Callable[[int, int], None]:
    """`run_load(port, count)`: so many requests by several clients, half of them misses, every reply checked."""
    bodies = write_files(tmp_path / "files", SIZES)
    asked = [*PATHS, *(f"{path}-absent" for path in PATHS)]
    load = NativeLoad.built_in(str(tmp_path))

    def natively(port: int, count: int) -> None:
        assert load is not None
        names = tmp_path / "map"
        names.write_text("".join(f"/{name} files/{name}\n" for name in SIZES))
        command = [load.program, "-p", str(port), "-k", str(names), "-M", "-t", str(CLIENTS), "-r", str(count), *asked]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        report = json.loads(result.stdout)
        assert (result.returncode, report["all_right"]) == (0, True), report

    def in_python(port: int, count: int) -> None:
        for _ in range(count // 1_000):
            answers = ask_all(port, asked * (1_000 // len(asked)), clients=CLIENTS)
            assert [answer.body for answer in answers[: len(asked)]] == [bodies.get(path, b"") for path in asked]

    return in_python if load is None else natively


def settled(daemon: DaemonProcess, descriptors_max: int) -> Resources:
    """The daemon's resources once the connections of the load are closed."""
    wait_until(lambda: daemon.descriptor_count() <= descriptors_max, what="closed connections")
    return daemon.resources()


@pytest.mark.slow
def test_a_hundred_thousand_requests_leave_nothing(yard, tmp_path, run_load):
    cache = yard.start_cache("-t", "4", content=tmp_path / "files", env=NO_HOT_TABLE)
    proxy = yard.start_proxy("-n", "8", "-z", "8192")
    port = proxy.port
    idle = {daemon: daemon.descriptor_count() for daemon in (cache, proxy)}
    run_load(port, WARM_UP)
    before = {daemon: settled(daemon, idle[daemon] + DESCRIPTORS_SPARE) for daemon in idle}
    run_load(port, REQUESTS)
    for daemon, warm in before.items():
        after = settled(daemon, warm.descriptors)
        assert after.threads == warm.threads
        assert after.resident_bytes - warm.resident_bytes < GROWTH_BYTES_MAX, daemon.program
    assert (proxy.stop(), cache.stop()) == (0, 0)
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["not_found"]) == ((WARM_UP + REQUESTS) // 2, (WARM_UP + REQUESTS) // 2)
    assert stopped["retired"] == 0
    assert cache.wait_event("stopped")["served"] == WARM_UP + REQUESTS


@pytest.mark.slow
def test_urls_as_long_as_clients_like_leave_nothing(yard, origin):
    """What is remembered of requests does not depend on the length of their URLs, be they stored, refused or absent."""
    yard.start_cache("--store-bytes", "100k", env=NO_HOT_TABLE)
    proxy = yard.start_proxy("-s", origin.url)

    def ask(path: str, url_bytes: int) -> None:
        connection = HTTPConnection("127.0.0.1", proxy.port)
        for number in range(URLS):
            connection.request("GET", f"{path}?{number}-{'x' * url_bytes}")
            assert connection.getresponse().read() == b"x"
        connection.close()

    for path, headers in ANSWERS.items():
        origin.add(path, Route(body=b"x", headers=headers))
        ask(path, 0)
    warm = proxy.resident_bytes()
    for path in ANSWERS:
        ask(path, LONG_URL_BYTES)
    assert proxy.resident_bytes() - warm < LONG_URLS_GROWTH_BYTES_MAX
