"""Kill points: off without the variable; with it they strike at the pass that was named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from shmchannel import faults

SOURCE = """
from shmchannel import faults
print(faults.ARMED, flush=True)
for number in range(5):
    faults.reach("cache.attached")
    faults.reach("cache.received")
    print(number, flush=True)
"""


def run(value: str) -> subprocess.CompletedProcess[str]:
    """A process that passes two points five times each."""
    env = {**os.environ, "GFCACHE_FAULT": value}
    return subprocess.run(
        [sys.executable, "-c", SOURCE], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_points_are_unique_and_say_whose_they_are() -> None:
    assert len(set(faults.KILL_POINTS)) == len(faults.KILL_POINTS)
    assert all(point.split(".")[0] in ("proxy", "cache") for point in faults.KILL_POINTS)


@pytest.mark.parametrize(
    ("value", "status", "passed"),
    [
        ("", 0, 5),
        ("no.such.point", 0, 5),
        ("cache.streaming", 0, 5),
        ("cache.received", -signal.SIGKILL, 0),
        ("cache.received:3", -signal.SIGKILL, 2),
        ("cache.received:2:exit", 99, 1),
        ("cache.received:9", 0, 5),
    ],
)
def test_strikes(value: str, status: int, passed: int) -> None:
    child = run(value)
    assert child.returncode == status
    assert child.stdout.split() == [str(value.startswith("cache.")), *map(str, range(passed))]


def test_stop() -> None:
    env = {**os.environ, "GFCACHE_FAULT": "cache.attached:1:stop"}
    with subprocess.Popen([sys.executable, "-c", SOURCE], env=env, stdout=subprocess.PIPE, text=True) as child:
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=60)[0].split() == ["True", "0", "1", "2", "3", "4"]
    assert child.returncode == 0
