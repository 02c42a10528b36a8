"""Identity: a pid that comes back is not the same process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shmchannel.process import identity
from shmchannel.process.identity import boot_id, own_identity, start_time_of


def test_own_identity() -> None:
    mine = own_identity()
    assert mine == own_identity()
    assert mine.pid == os.getpid()
    assert mine.start_time == start_time_of(os.getpid())
    assert mine.boot_id == boot_id()
    assert 0 < mine.boot_id < 2**128


def test_child_differs() -> None:
    source = "from shmchannel.process.identity import own_identity; print(*own_identity())"
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    pid, start_time, boot = map(int, child.stdout.split())
    mine = own_identity()
    assert boot == mine.boot_id
    assert pid != mine.pid
    assert start_time >= mine.start_time


def test_no_such_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(60)
    assert start_time_of(child.pid) is None


def test_command_name_with_spaces_and_parentheses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ["S", *map(str, range(4, 30))]
    stat = tmp_path / "stat"
    stat.write_text(f"77 (a) b) S (c 3 4 5) {' '.join(fields)}\n")
    monkeypatch.setattr(identity, "open", lambda *_args, **_more: stat.open("rb"), raising=False)
    assert start_time_of(77) == 22
