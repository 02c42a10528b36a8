"""The reaper: what dead owners left goes, once; what living ones have stays. Others may sweep at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import posix_ipc
import pytest

from shmchannel.deadline import Deadline
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.process.guard import GuardWatch, ProcessGuard
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name, pool_guard_path, pool_name, queue_guard_path
from shmchannel.process.reaper import survey, sweep
from shmchannel.streams.layout import SEGMENT_BYTES_MIN
from shmchannel.streams.pool import SegmentPool
from shmchannel.streams.segment import Segment
from tests.support.channels import in_thread, unique_queue
from tests.support.holders import another_users_queue, free_lock, holding, names_of
from tests.support.programs import require_program
from tests.support.stores import run_script
from tests.support.waiting import WATCHDOG_S, wait_until

OWNER = """
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.streams.pool import SegmentPool
from shmchannel.objects.hot_table_writer import HotTableWriter
pool = SegmentPool.create(3, 512)
queue = CommandQueue.create(sys.argv[1])
hot_table = HotTableWriter.create(sys.argv[1], 65536)
print(pool.name)
"""


KILLED_OWNER = """
import os, signal
from shmchannel.streams.pool import SegmentPool
pool = SegmentPool.create(3, 65536)
{remove_guard}
os.kill(os.getpid(), signal.SIGKILL)
"""


def gone_pid() -> int:
    """The pid of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(WATCHDOG_S)
    return child.pid


def kinds(pid: int) -> list[str]:
    """An owner's existing names."""
    return sorted(found.kind for found in names_of(pid))


def wait_gone(*paths: str) -> None:
    """Wait until these are gone: a sweep of another process that has begun leaves them to us no more, and ends it."""
    wait_until(lambda: not any(os.path.exists(path) for path in paths), what=f"the end of {paths}")


def test_living_owner_keeps_all() -> None:
    with holding(OWNER, unique_queue()) as holder:
        everything = ["guard", "guard", "hot table", "queue", "segment", "segment", "segment"]
        assert kinds(holder.pid) == everything
        assert all(found.alive for found in names_of(holder.pid))
        assert not [found for found in sweep() if found.owner_pid == holder.pid]
        assert kinds(holder.pid) == everything


def test_dead_owner_loses_all() -> None:
    with holding(OWNER, unique_queue()) as holder:
        holder.kill()
        assert not any(found.alive for found in names_of(holder.pid))
        sweep()
        wait_until(lambda: kinds(holder.pid) == [], what="the sweep, ours or another's")


def test_killed_by_the_guard_of_a_pool_of_this_process() -> None:
    """Not the pid decides but the lock: this process lives, the pool is dead."""
    pool = SegmentPool.create(2, SEGMENT_BYTES_MIN)
    living = SegmentPool.create(1, SEGMENT_BYTES_MIN)
    lease = pool.lease(Deadline.after(WATCHDOG_S))
    lease.segments[0].chunk[:4] = b"mine"
    free_lock(pool_guard_path(pool.name))
    sweep()
    wait_until(lambda: not [found for found in survey() if pool.name in found.name])
    assert [found.kind for found in survey() if living.name in found.name] == ["segment", "guard"]
    assert bytes(lease.segments[0].chunk[:4]) == b"mine", "the memory stays while somebody maps it"
    pool.close()
    living.close()


def test_segments_without_a_guard() -> None:
    """Their owner died before its guard was written, or somebody removed the guard by hand."""
    name = pool_name(gone_pid(), "00000abc")
    segment = Segment.create(f"/{name}-0", SEGMENT_BYTES_MIN, own_identity())
    sweep()
    wait_gone(f"{SHM_DIRECTORY}/{name}-0", pool_guard_path(name))
    segment.close()


def test_guard_without_segments() -> None:
    path = pool_guard_path(pool_name(gone_pid(), "00000abd"))
    Path(path).write_text("1 1\n")
    sweep()
    wait_gone(path)


def test_hot_table_without_a_guard() -> None:
    """Somebody removed the guard by hand; a queue of that name may be anybody's and stays."""
    name = unique_queue()
    path = f"{SHM_DIRECTORY}{hot_table_name(name)}"
    Path(path).touch()
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600)
    try:
        assert [found.kind for found in survey() if found.path == path] in (["hot table"], [])
        sweep()
        wait_gone(path, queue_guard_path(name))
        posix_ipc.MessageQueue(name).close()
    finally:
        queue.close()
        posix_ipc.unlink_message_queue(name)


def test_foreign_names_are_left_alone() -> None:
    paths = [Path(f"{SHM_DIRECTORY}/gf-{os.getpid()}-nothing-of-ours"), Path(f"{SHM_DIRECTORY}/gft-{os.getpid()}")]
    for path in paths:
        path.touch()
    try:
        sweep()
        assert all(path.exists() for path in paths)
        assert not [found for found in survey() if found.path in map(str, paths)]
    finally:
        for path in paths:
            path.unlink()


def test_another_users_queue_under_a_guard_of_ours() -> None:
    """A name that cannot be removed stays and is not reported as removed; the guard and the names after it go."""
    name, pool = unique_queue(), pool_name(gone_pid(), "00000abf")
    guards = {queue_guard_path(name), pool_guard_path(pool)}
    for path in guards:
        Path(path).write_text("1 1\n")
    with another_users_queue(name):
        removed = {found.path for found in sweep()}
        wait_gone(*guards)
        assert f"/dev/mqueue{name}" not in removed


def test_dry_run_tells_what_would_go(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SegmentPool.create(2, SEGMENT_BYTES_MIN)
    monkeypatch.setattr(GuardWatch, "alive", lambda watch: pool.name not in watch.path)
    told = [found for found in sweep(dry_run=True) if pool.name in found.name]
    assert [found.kind for found in told] == ["segment", "segment", "guard"]
    assert {found.owner_pid for found in told} == {os.getpid()}
    assert os.path.exists(pool_guard_path(pool.name))
    sweep()  # thinks it dead, and fails at the lock
    assert os.path.exists(f"{SHM_DIRECTORY}/{pool.name}-0")
    pool.close()


def test_one_sweeper_wins() -> None:
    """Many at once: each name is told as removed by one of them, none by two."""
    with holding(OWNER, unique_queue()) as holder:
        paths = {found.path for found in names_of(holder.pid)}
        holder.kill()
        barrier = threading.Barrier(4)

        def sweep_together() -> list[str]:
            barrier.wait(WATCHDOG_S)
            return [found.path for found in sweep() if found.path in paths]

        with ExitStack() as threads:
            sweepers = [threads.enter_context(in_thread(sweep_together)) for _ in range(4)]
        removed = [path for sweeper in sweepers for path in sweeper.result()]
        assert len(removed) == len(set(removed))
        wait_until(lambda: kinds(holder.pid) == [], what="the sweep, ours or another's")


def test_another_sweeper_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look at the lock and taking it somebody removes everything: we neither make nor tell anything."""
    with holding(OWNER, unique_queue()) as holder:
        paths = {found.path for found in names_of(holder.pid)}
        holder.kill()
        acquire = ProcessGuard.acquire

        def sweep_first(path: str, **how: bool) -> ProcessGuard:
            monkeypatch.undo()
            sweep()
            return acquire(path, **how)

        monkeypatch.setattr(ProcessGuard, "acquire", sweep_first)
        assert paths.isdisjoint(found.path for found in sweep())
        wait_until(lambda: kinds(holder.pid) == [], what="the sweep, ours or another's")


def test_owner_that_starts_during_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the lock and taking it a new cache takes the name over: it keeps it."""
    name = unique_queue()
    with holding(OWNER, name) as holder:
        holder.kill()
        acquire = ProcessGuard.acquire
        heirs: list[CommandQueue] = []

        def heir_first(path: str, **how: bool) -> ProcessGuard:
            if not heirs and path.endswith(f"{name[1:]}.guard"):
                monkeypatch.undo()
                heirs.append(CommandQueue.create(name))
            return acquire(path, **how)

        monkeypatch.setattr(ProcessGuard, "acquire", heir_first)
        sweep()
        if heirs:  # else a sweep of another process was faster
            assert [found.kind for found in survey() if found.name == name] == ["queue"]
            heirs[0].close()


def test_full_memory_is_swept_too() -> None:
    """The dead left so much that a guard could not even be written."""
    script = """
        import os, subprocess, sys
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", "/dev/shm"], check=True)
        from shmchannel.process.reaper import sweep
        for remove_guard in ("", "os.unlink('/dev/shm/' + pool.name + '.guard')"):
            subprocess.run([sys.executable, "-c", sys.argv[1].format(remove_guard=remove_guard)])
            with open("/dev/shm/filler", "wb", buffering=0) as filler:
                try:
                    while filler.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            before = len(os.listdir("/dev/shm"))
            removed = len(sweep())
            print(before, removed, os.listdir("/dev/shm"))
            os.unlink("/dev/shm/filler")
    """
    prefix = (require_program("unshare"), "--user", "--map-root-user", "--mount", "--ipc")
    if run_script("print()", prefix=prefix).returncode:
        pytest.skip("no user namespaces here")
    child = run_script(script, KILLED_OWNER, prefix=prefix)
    assert child.stdout.splitlines() == ["5 4 ['filler']", "4 3 ['filler']"], child.stderr
