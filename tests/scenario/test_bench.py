"""The benchmark driver: what it starts it stops, also when it is interrupted twice."""

import os
import signal
import subprocess
import sys

from scripts.benchmark import measure
from scripts.benchmark.client_load import ClientLoad
from scripts.benchmark.load import Group
from scripts.benchmark.rows import DEFAULT_SEGMENT_BYTES, LARGE_BYTES, SMALL_BYTES
from scripts.ipc_leaks import leaks_of

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
