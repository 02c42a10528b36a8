"""Guards: the kernel frees them at death, nobody else does; one wins."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from shmchannel.errors import AccessDenied, LimitReached, NameMissing, NameTaken, ResourceError
from shmchannel.process.guard import GuardWatch, ProcessGuard, read_holder, read_ready
from tests.support.channels import in_thread
from tests.support.failing import failing
from tests.support.holders import holding

HOLD = """
from shmchannel.process.guard import ProcessGuard
guard = ProcessGuard.acquire(sys.argv[1])
guard.set_ready()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "some.guard")


def test_life_of_a_guard(path: str) -> None:
    guard = ProcessGuard.acquire(path)
    watch = GuardWatch(path)
    assert (watch.alive(), watch.ready(), read_ready(path)) == (True, False, False)
    guard.set_ready()
    assert (watch.alive(), watch.ready(), read_ready(path)) == (True, True, True)
    guard.set_stopping()
    assert (watch.alive(), watch.ready(), read_ready(path)) == (True, False, False)
    guard.close()
    assert (watch.alive(), watch.ready(), read_ready(path)) == (False, False, False)
    assert not os.path.exists(path)
    guard.close()
    guard.set_stopping()
    watch.close()
    watch.close()
    assert not watch.alive()


def test_file_is_private_and_says_who(path: str) -> None:
    guard = ProcessGuard.acquire(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert read_holder(path) == os.getpid()
    watch = GuardWatch(path)
    assert str(os.getpid()) in watch.describe()
    watch.close()
    guard.close()
    assert read_holder(path) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"no number", b"\xff\xfe"])
def test_unreadable_holder(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    assert read_holder(path) is None


def test_second_owner_in_the_same_process(path: str) -> None:
    """A classic fcntl lock would let it in, and drop the first one's when this descriptor closes."""
    guard = ProcessGuard.acquire(path)
    with pytest.raises(NameTaken, match=str(os.getpid())):
        ProcessGuard.acquire(path)
    watch = GuardWatch(path)
    assert watch.alive()
    watch.close()
    guard.close()


def test_held_by_another_process_until_sigkill(path: str) -> None:
    with holding(HOLD, path) as holder:
        watch = GuardWatch(path)
        assert watch.alive()
        assert watch.ready()
        with pytest.raises(NameTaken, match=str(holder.pid)):
            ProcessGuard.acquire(path)
        holder.kill()
        assert not watch.alive()
        assert not watch.ready()
        assert read_holder(path) == holder.pid, "a stale file stays"
        heir = ProcessGuard.acquire(path)
        assert read_holder(path) == os.getpid()
        assert watch.alive(), "the same file, locked anew"
        heir.close()
        watch.close()


def test_child_does_not_keep_it(path: str) -> None:
    """The descriptor is closed on exec, so a program that was started does not hold the lock."""
    guard = ProcessGuard.acquire(path)
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        guard.close()
        again = ProcessGuard.acquire(path)
        again.close()
        child.communicate("\n")


def test_unlinked_between_open_and_lock(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last owner removes the file after we opened it: a lock on that one guards nothing."""
    last = ProcessGuard.acquire(path)
    lock = fcntl.fcntl

    def close_then_lock(fd: int, command: int, what: bytes) -> bytes:
        last.close()
        return lock(fd, command, what)

    monkeypatch.setattr(fcntl, "fcntl", close_then_lock)
    guard = ProcessGuard.acquire(path)
    watch = GuardWatch(path)
    assert watch.alive()
    watch.close()
    guard.close()


def test_file_of_another_owner_is_not_removed(path: str) -> None:
    first = ProcessGuard.acquire(path)
    os.unlink(path)  # by hand
    second = ProcessGuard.acquire(path)
    first.close()
    assert read_holder(path) == os.getpid()
    with pytest.raises(NameTaken):
        ProcessGuard.acquire(path)
    second.close()


def test_unsigned_guard_writes_nothing(path: str) -> None:
    Path(path).write_bytes(b"4711 1\n")
    guard = ProcessGuard.acquire(path, signed=False)
    assert read_holder(path) == 4711
    with pytest.raises(NameTaken):
        ProcessGuard.acquire(path)
    guard.close()
    assert not os.path.exists(path)


def test_only_what_is_there_is_taken_over(path: str) -> None:
    with pytest.raises(NameMissing):
        ProcessGuard.acquire(path, create=False)
    assert not os.path.exists(path)
    Path(path).touch()
    ProcessGuard.acquire(path, create=False).close()


def test_no_room_for_the_signature(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", failing(OSError(errno.ENOSPC, "full")))
        with pytest.raises(LimitReached):
            ProcessGuard.acquire(path)
    assert not os.path.exists(path)
    ProcessGuard.acquire(path).close()


def test_another_users_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(path).touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    with pytest.raises(AccessDenied, match="uid"):
        ProcessGuard.acquire(path)
    assert os.path.exists(path)


def test_the_watch_of_another_users_guard(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may open it, others may not; both are told whose it is."""
    guard = ProcessGuard.acquire(path)
    uid = os.stat(path).st_uid
    with closing(GuardWatch(path)) as watch:
        watch.check_user()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        with pytest.raises(AccessDenied, match=f"belongs to .*uid {uid}.*, and this process to .*uid {uid + 1}"):
            watch.check_user()
    monkeypatch.setattr(os, "open", failing(PermissionError(errno.EACCES, "denied")))
    with pytest.raises(AccessDenied, match=f"belongs to .*uid {uid}"):
        GuardWatch(path)
    monkeypatch.undo()
    guard.close()


def test_link_is_not_followed(path: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.symlink(target, path)
    with pytest.raises(ResourceError, match="guard"):
        ProcessGuard.acquire(path)
    assert target.read_text() == "precious"


def test_watch_without_a_guard(path: str) -> None:
    with pytest.raises(NameMissing):
        GuardWatch(path)


def test_an_owner_waits_for_a_sweeper(path: str) -> None:
    """A sweep anywhere on the machine may find the new file before its owner has locked it."""
    sweeper = ProcessGuard.acquire(path, signed=False)
    with in_thread(lambda: ProcessGuard.acquire(path)) as acquired:
        sweeper.close()
    acquired.result().close()


def test_a_sweeper_waits_for_nobody(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmchannel.process.guard.sleep", None)
    owner = ProcessGuard.acquire(path)
    with pytest.raises(NameTaken):
        ProcessGuard.acquire(path, signed=False)
    owner.close()
