"""The benchmark driver: what it starts it stops, also when it is interrupted twice."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import posix_ipc
import pytest

from scripts.benchmark import measure
from scripts.benchmark.client_load import ClientLoad
from scripts.benchmark.load import Group, NativeLoad
from scripts.benchmark.native import build
from scripts.benchmark.rows import DEFAULT_SEGMENT_BYTES, LARGE_BYTES, MANY_OBJECTS, MANY_ROW, ROWS, SMALL_BYTES
from scripts.daemons import Daemon
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.tools.leaks import leaks_of
from tests.support.programs import require_program

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WATCHDOG_S = 60


def test_interrupted_it_leaves_no_name(tmp_path):
    command = [sys.executable, "-m", "scripts.benchmark", "--quick"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("bench: 8 KiB objects")
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            output, complaint = process.communicate(timeout=WATCHDOG_S)
        finally:
            process.kill()
    assert (process.returncode, output) == (130, "")
    assert complaint == "bench: interrupted; its daemons are stopped\n"
    assert leaks_of([process.pid], f"/gfbench-{process.pid}") == []
    assert list(tmp_path.iterdir()) == []


@contextmanager
def c_pair(tmp_path: Path, segment_count: int) -> Iterator[tuple[int, Daemon, Daemon, measure.Objects]]:
    """Run the C pair with small segments; its port, cache, proxy and objects."""
    require_program("cc")
    program = build(str(tmp_path), "pair", ["pair.c"])
    assert program is not None
    objects = measure.make_objects(str(tmp_path))
    queue = ["-q", c_queue(), "-t", "4"]
    cache = Daemon("cache", [program, "cache", *queue, "-c", objects.root], str(tmp_path / "cache.log"))
    try:
        cache.wait_for_event("ready")
        numbers = ["-p", "0", "-n", str(segment_count), "-z", "8192"]
        proxy = Daemon("proxy", [program, "proxy", *queue, *numbers], str(tmp_path / "proxy.log"))
        try:
            yield proxy.wait_for_port(), cache, proxy, objects
        finally:
            proxy.stop()
    finally:
        cache.stop()


def c_queue() -> str:
    return f"/c-pair-{os.getpid()}"


def names_of_c_pair() -> list[str]:
    return [name for name in os.listdir(SHM_DIRECTORY) if name.startswith(c_queue().removeprefix("/"))]


def test_c_pair_serves_exact_bytes_and_leaves_no_name(tmp_path):
    with c_pair(tmp_path, segment_count=2) as (port, cache, proxy, objects):
        assert len(names_of_c_pair()) == 2
        load = NativeLoad.built_in(str(tmp_path))
        assert load is not None
        load.verify(port, objects.small + objects.large, objects.map_path)
        crowd = Group(name="all", clients=6, paths=objects.small + objects.large)  # more clients than segments
        assert load.run(port, [crowd], 0.1)["all"].requests > 0
        assert (proxy.stop(), cache.stop()) == (0, 0)
        with pytest.raises(posix_ipc.ExistentialError):
            posix_ipc.MessageQueue(c_queue())
    assert names_of_c_pair() == []


def test_c_pair_refuses_and_outlives_a_client_that_leaves(tmp_path):
    """A transfer whose client is gone comes to its end, so the only segment serves the next request."""
    with c_pair(tmp_path, segment_count=1) as (port, _cache, proxy, objects):
        assert replied(port, b"GETFILE GET /no-such\r\n\r\n") == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
        assert replied(port, b"GETFILE GET ../x\r\n\r\n") == b"GETFILE INVALID\r\n\r\n"
        assert replied(port, b"GET / HTTP/1.1\r\n\r\n") == b"GETFILE INVALID\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=WATCHDOG_S) as client:
            client.sendall(f"GETFILE GET {objects.large[0]}\r\n\r\n".encode())
            assert client.recv(10) == b"GETFILE OK"
        with open(objects.root + objects.small[0], "rb") as file:
            wanted = b"GETFILE OK 8192\r\n\r\n" + file.read()
        assert replied(port, f"GETFILE GET {objects.small[0]}\r\n\r\n".encode()) == wanted
        assert proxy.running


def replied(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=WATCHDOG_S) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_rows_with_many_objects_have_objects_of_their_own(tmp_path):
    """The floor keeps all of them open."""
    few, many = measure.make_objects(str(tmp_path)), measure.make_many_objects(str(tmp_path))
    load = ClientLoad()
    bench = measure.Bench(directory=str(tmp_path), objects=few, many=many, load=load, pace=measure.QUICK)
    over = bench.with_objects_of(MANY_ROW)
    if over is None:
        pytest.skip("the limit of descriptors is too low")
    assert over.objects.group_of(MANY_ROW).paths == tuple(f"/{SMALL_BYTES}-{n}.bin" for n in range(MANY_OBJECTS))
    assert bench.with_objects_of(ROWS[0]) == bench
    with measure.running_floor(over, DEFAULT_SEGMENT_BYTES) as port:
        load.verify(port, over.objects.small[-2:], over.objects.map_path)


def test_floor_serves_exact_bytes_to_the_stand_in_load(tmp_path):
    objects = measure.make_objects(str(tmp_path))
    assert {os.path.getsize(os.path.join(objects.root, name)) for name in os.listdir(objects.root)} == {
        SMALL_BYTES,
        LARGE_BYTES,
    }
    load = ClientLoad()
    bench = measure.Bench(directory=str(tmp_path), objects=objects, load=load, pace=measure.QUICK)
    with measure.running_floor(bench, DEFAULT_SEGMENT_BYTES) as port:
        load.verify(port, objects.small + objects.large, objects.map_path)
        figures = load.run(port, [Group(name="all", clients=2, paths=objects.small)], 0.05)["all"]
    assert figures.requests > 0
    assert figures.requests_per_s > 0
    assert 0 < figures.p50_ms <= figures.p99_ms
