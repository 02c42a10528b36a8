"""Identity: a pid that comes back is not the same process."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shmchannel.process.identity import own_identity, start_time_in, user_text


def test_own_identity() -> None:
    mine = own_identity()
    assert mine == own_identity()
    assert mine.pid == os.getpid()
    started = psutil.Process().create_time() - psutil.boot_time()
    assert mine.start_time / os.sysconf("SC_CLK_TCK") == pytest.approx(started, abs=1.1)
    written = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    assert f"{mine.boot_id:032x}" == written.strip().replace("-", "")


def test_child_differs() -> None:
    source = "from shmchannel.process.identity import own_identity; print(*own_identity())"
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    pid, start_time, boot = map(int, child.stdout.split())
    mine = own_identity()
    assert boot == mine.boot_id
    assert pid != mine.pid
    assert start_time >= mine.start_time


def test_command_name_with_spaces_and_parentheses() -> None:
    fields = " ".join(["S", *map(str, range(4, 30))])
    assert start_time_in(f"77 (a) b) S (c 3 4 5) {fields}\n".encode()) == 22


def test_users_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_text(0) == f"{pwd.getpwuid(0).pw_name} (uid 0)"

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert user_text(4711) == "uid 4711"
