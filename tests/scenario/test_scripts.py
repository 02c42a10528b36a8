"""gfcache-leaks and gfcache-clean, and the scripts in front of them, on what really killed processes left behind."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from shmchannel.process.reaper import FoundName
from shmchannel.tools import clean, leaks
from tests.support import names
from tests.support.programs import require_program

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WATCHDOG_S = 60

# Owns a pool of two segments and a command queue, says so, and lives until its input ends or it is killed.
OWNER = """
import sys
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.streams.pool import SegmentPool
queue = CommandQueue.create(sys.argv[1])
pool = SegmentPool.create(2, 4096)
print("owning", flush=True)
sys.stdin.read()
pool.close()
queue.close()
"""


@dataclass(frozen=True)
class Owner:
    """A process that owns names of ours."""

    process: "subprocess.Popen[str]"
    queue_name: str

    @property
    def names(self) -> list[FoundName]:
        """The parts of it that exist now."""
        return leaks.leaks_of([self.process.pid], self.queue_name)

    def kill(self) -> None:
        """SIGKILL it, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WATCHDOG_S)


@contextmanager
def owner() -> Iterator[Owner]:
    """Run an owner; at the end it is gone and so are its names."""
    queue_name = f"/test-scripts-{secrets.token_hex(4)}"
    command = [sys.executable, "-c", OWNER, queue_name]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "owning\n"
            yield Owner(process, queue_name)
        finally:
            process.kill()
            process.wait(WATCHDOG_S)
            names.remove(leaks.leaks_of([process.pid], queue_name))
            assert leaks.leaks_of([process.pid], queue_name) == []


def run_script(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of the commands as a user does, from elsewhere."""
    require_program("bash")
    command = [os.path.join(ROOT, "scripts", name), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


def kinds(names: list[FoundName]) -> list[str]:
    return sorted(found.kind for found in names)


@pytest.mark.alone  # a daemon that starts beside it would sweep the dead owner's names away
class TestDeadOwner:
    def test_is_seen_and_swept(self, capsys):
        with owner() as dead:
            dead.kill()
            assert kinds(dead.names) == ["guard", "guard", "queue", "segment", "segment"]
            assert leaks.main([]) == 1
            text = capsys.readouterr().out
            for found in dead.names:
                line = next(line for line in text.splitlines() if line.startswith(found.path))
                assert f"pid {dead.process.pid}" in line
                assert "dead" in line
                assert "gfcache-clean" in line

            paths = {found.path for found in dead.names}
            assert clean.main([]) == 0
            removed = {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("removed ")}
            assert paths <= removed
            assert dead.names == []
            assert not any(os.path.exists(path) for path in paths)

    def test_dry_run_changes_nothing(self, capsys):
        with owner() as dead:
            dead.kill()
            before = dead.names
            assert clean.main(["--dry-run"]) == 0
            assert "would remove " in capsys.readouterr().out
            assert dead.names == before

    def test_json(self, capsys):
        with owner() as dead:
            dead.kill()
            assert leaks.main(["--json"]) == 1
            document = json.loads(capsys.readouterr().out)
            mine = [name for name in document["names"] if name["owner_pid"] == dead.process.pid]
            assert document["leaks"] >= len(mine) == 5
            assert not any(name["alive"] for name in mine)


class TestLivingOwner:
    def test_is_listed_as_in_use_and_never_swept(self, capsys):
        with owner() as living:
            leaks.main([])
            lines = capsys.readouterr().out.splitlines()
            for found in living.names:
                assert "alive" in next(line for line in lines if line.startswith(found.path))
            before = living.names
            clean.main([])
            assert f"pid {living.process.pid})" not in capsys.readouterr().out
            assert living.names == before
            assert all(found.alive for found in before)

    def test_that_stops_cleanly_leaves_nothing(self):
        with owner() as stopped:
            assert stopped.process.stdin is not None
            stopped.process.stdin.close()
            assert stopped.process.wait(WATCHDOG_S) == 0
            assert stopped.names == []


class TestQueueListing:
    def test_root_or_a_mount_shows_the_queue(self):
        listing = leaks.list_queues()
        if listing.names is None:
            pytest.skip(listing.how)
        with owner() as living:
            names = leaks.list_queues().names
            assert names is not None
            assert living.queue_name in names

    def test_without_mount_and_root_says_so(self, monkeypatch):
        monkeypatch.setattr(leaks, "mounted_at", lambda: None)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        listing = leaks.list_queues()
        assert listing.names is None
        assert "guard files" in listing.how

    def test_a_default_queue_without_guard_is_a_leak(self, monkeypatch):
        listing = leaks.QueueListing(names=("/cache_request_q", "/other"), how="listed")
        monkeypatch.setattr(leaks, "list_queues", lambda: listing)
        monkeypatch.setattr(leaks, "survey", list)
        findings = leaks.examine()
        assert findings.leak_count == 1
        assert findings.other_queues == ("/other",)
        assert "takes it over" in leaks.as_text(findings)


@pytest.mark.alone  # as above
def test_commands_run_from_anywhere():
    with owner() as dead:
        dead.kill()
        seen = run_script("check-ipc-leaks")
        assert (seen.returncode, seen.stderr) == (1, "")
        assert str(dead.process.pid) in seen.stdout
        assert "remedy: scripts/clean-shm removes" in seen.stdout
        swept = run_script("clean-shm")
        assert (swept.returncode, swept.stderr) == (0, "")
        assert dead.names == []
    refused = run_script("clean-shm", "--nonsense")
    assert refused.returncode == 2
    assert "clean-shm: error: " in refused.stderr


def test_an_environment_that_is_a_symbolic_link_is_not_touched(tmp_path):
    """To make it anew would empty the folder it leads to, perhaps that of another clone."""
    require_program("bash")
    clone, other = tmp_path / "clone", tmp_path / "other"
    (clone / "scripts").mkdir(parents=True)
    for name in ("scripts/lib.sh", "scripts/check-ipc-leaks", "pyproject.toml"):
        shutil.copy(os.path.join(ROOT, name), clone / name)
    other.mkdir()
    (other / "precious").write_text("kept")
    (clone / ".venv").symlink_to(other)
    command = [clone / "scripts" / "check-ipc-leaks"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    assert os.listdir(other) == ["precious"]
    assert ended.returncode == 2
    assert ended.stderr.startswith("check-ipc-leaks: ")
    assert f"{clone}/.venv is a symbolic link" in ended.stderr
    assert f"rm {clone}/.venv" in ended.stderr


class TestTestCommand:
    """`scripts/test` itself; all that it checks is what runs this."""

    def test_help_is_its_own_and_needs_no_environment(self, tmp_path):
        clone = tmp_path / "clone"
        (clone / "scripts").mkdir(parents=True)
        for name in ("lib.sh", "test"):
            shutil.copy(os.path.join(ROOT, "scripts", name), clone / "scripts")
        for flag in ("-h", "--help"):
            command = [require_program("bash"), clone / "scripts" / "test", flag]
            said = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=True).stdout
            assert said.startswith("usage: scripts/test ")
            assert "--fast" in said
        assert os.listdir(clone) == ["scripts"]

    def test_fast_takes_no_arguments(self):
        refused = run_script("test", "--fast", "tests/unit")
        assert refused.returncode == 2
        assert refused.stderr.startswith("usage: scripts/test ")

    def test_what_stands_behind_two_dashes_is_for_pytest(self):
        assert run_script("test", "--", "--version").stdout.startswith("pytest ")
