"""Misses of small objects: no spool file, no thread for each, and few calls that wait for other threads."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.fetch.spool import MEMORY_BYTES_MAX
from workloads.origin_stub import OriginStub, Route

FRESH = {"Cache-Control": "max-age=600"}
MISSES = 60
WAKE_UPS, SENT, COMMANDS = 2, 2, 2
"""For a miss: of the origin thread and of a worker; a request and a response, each with one call; a GET and a PUT."""
FUTEX_CALLS_MAX = 100
"""For a miss, of both daemons together: 14 while nothing else runs. A thread that waits for the GIL makes more with
each 5 ms, and strace and whatever else runs make it wait; with one thread handing each step to another there were 174.
"""


def fetch_all(port: int, paths: list[str]) -> list[bytes]:
    """One after the other, on one connection."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=WATCHDOG_S)) as connection:
        bodies = []
        for path in paths:
            connection.request("GET", path)
            bodies.append(connection.getresponse().read())
        return bodies


def test_a_small_body_needs_no_file_and_a_larger_one_has_one(
    yard: DaemonYard, origin: OriginStub, tmp_path: Path
) -> None:
    """The directory is gone: whoever wants a file there says so."""
    spools = tmp_path / "spools"
    spools.mkdir()
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, env={"WEBPROXY_SPOOL_DIRECTORY": str(spools)})
    spools.rmdir()
    small, large = os.urandom(MEMORY_BYTES_MAX), os.urandom(MEMORY_BYTES_MAX + 1)
    origin.add("/small", Route(body=small, headers=FRESH))
    origin.add("/large", Route(body=large, headers=FRESH))
    assert fetch_all(proxy.port, ["/small", "/small"]) == [small, small]
    assert not proxy.events("spool not written")
    assert fetch_all(proxy.port, ["/large"]) == [large]
    assert proxy.events("spool not written")


@contextmanager
def counted_calls(daemon: DaemonProcess, directory: Path) -> Iterator[Callable[[], dict[str, int]]]:
    """The calls of all threads of a daemon, once they are asked for; skips the test if nobody may look at it."""
    out = directory / f"calls-{daemon.pid}"
    strace = subprocess.Popen(
        [
            "strace",
            "-f",
            "-c",
            "-e",
            "trace=futex,openat,clone,clone3,write,sendto,mq_timedsend",
            "-o",
            str(out),
            "-p",
            str(daemon.pid),
        ],
        stderr=subprocess.PIPE,
    )

    def counts() -> dict[str, int]:
        strace.send_signal(signal.SIGINT)
        strace.wait(WATCHDOG_S)
        rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", out.read_text(), re.MULTILINE)
        return {name: int(count) for count, name in rows if name != "total"}

    try:
        wait_until(lambda: strace.poll() is not None or all(map(is_traced, threads_of(daemon))))
        if strace.poll() is not None:
            assert strace.stderr is not None
            pytest.skip(f"strace: {strace.stderr.read().decode()}")
        yield counts
    finally:
        strace.kill()
        strace.wait(WATCHDOG_S)
        if strace.stderr is not None:
            strace.stderr.close()


def threads_of(daemon: DaemonProcess) -> list[Path]:
    return list(Path(f"/proc/{daemon.pid}/task").iterdir())


def is_traced(thread: Path) -> bool:
    return "TracerPid:\t0\n" not in (thread / "status").read_text()


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_a_small_miss_starts_no_thread_opens_no_file_and_wakes_few(
    yard: DaemonYard, origin: OriginStub, tmp_path: Path
) -> None:
    cache = yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    paths = [f"/{number}" for number in range(MISSES + 10)]
    for path in paths:
        origin.add(path, Route(body=path.encode(), headers=FRESH))
    fetch_all(proxy.port, paths[:10])  # whatever is made once is there
    with counted_calls(proxy, tmp_path) as calls, counted_calls(cache, tmp_path) as calls_of_cache:
        assert fetch_all(proxy.port, paths[10:]) == [path.encode() for path in paths[10:]]
        seen, seen_of_cache = calls(), calls_of_cache()
    assert origin.connections_peak == 1
    assert not {"clone", "clone3"} & seen.keys()
    few = MISSES // 2  # that the housekeeping makes, and a slow cache, for which a fetch thread goes on
    assert seen.get("openat", 0) <= few
    assert seen["write"] <= WAKE_UPS * MISSES + few
    assert seen["sendto"] <= SENT * MISSES + few
    assert seen["mq_timedsend"] <= COMMANDS * MISSES + few
    assert seen["futex"] + seen_of_cache.get("futex", 0) <= FUTEX_CALLS_MAX * MISSES
