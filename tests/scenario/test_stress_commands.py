"""The commands of `scripts/stress` measure what they say, and leave nothing behind, also when interrupted."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager

import pytest

from scripts.stress.measure import Pace, measure_row
from scripts.stress.rows import ROWS
from shmchannel.tools.leaks import leaks_of
from tests.support.waiting import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WATCHDOG_S = 60


@contextmanager
def command(module: str, *arguments: str, directory: os.PathLike[str]):
    environ = {**os.environ, "TMPDIR": os.fspath(directory)}
    program: Sequence[str] = [sys.executable, "-m", f"scripts.stress.{module}", *arguments]
    with subprocess.Popen(
        program, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("module", "tag", "arguments", "stream"),
    [
        ("slow_parties", "gfslow", ("--rows", "silent-one"), "stderr"),
        ("chaos", "gfchaos", ("--seed", "3"), "stdout"),
        ("soak", "gfsoak", ("--seed", "3"), "stdout"),
        ("reload_under_load", "gfreload", (), "stdout"),
    ],
)
def test_interrupted_it_leaves_nothing(tmp_path, module, tag, arguments, stream):
    with command(module, *arguments, directory=tmp_path) as process:
        assert getattr(process, stream).readline().startswith(f"{module}: ")
        wait_until(lambda: list(tmp_path.glob("*/*-webproxy.log")), what="the pair is being started")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=WATCHDOG_S)
    assert process.returncode == 130
    assert complaint.endswith(f"{module}: interrupted; its daemons are stopped\n")
    assert leaks_of([process.pid], f"/{tag}-{process.pid}") == []
    assert list(tmp_path.iterdir()) == []


def test_hits_beside_parties_are_counted(tmp_path):
    """Stopped readers of stored objects hold no worker, so that hits come beside them."""
    row = next(row for row in ROWS if row.name == "stopped-hit-getfile")
    result = measure_row(row, str(tmp_path), Pace(parties=4, windows=1, idle_s=0.2, beside_s=0.3))
    assert result.idle is not None
    assert result.beside is not None
    assert (result.idle.count, result.beside.count) == (40, 60)
    assert result.beside.failed == 0
    assert result.party_kib is not None


@pytest.mark.slow
def test_chaos_prints_its_seed_and_its_counts(tmp_path):
    with command("chaos", "--seed", "7", "--minutes", "0.1", "--clients", "4", directory=tmp_path) as process:
        output, complaint = process.communicate(timeout=WATCHDOG_S)
    assert (process.returncode, complaint) == (0, "")
    lines = output.splitlines()
    assert lines[0].startswith("chaos: seed 7, ")
    assert lines[-1] == "ok"
    assert any(line.startswith("wrong bytes: 0, hangs: 0, ") for line in lines)
