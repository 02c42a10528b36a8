"""The message queue between processes: killed owners, taken names, sweepers. The contract is in tests/contract."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import posix_ipc
import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import LimitReached, NameMissing, NameTaken, PeerGone
from shmchannel.messages import posix_queue as command_queue_module
from shmchannel.messages.posix_queue import CommandQueue, CommandSender
from shmchannel.objects.hot_table_layout import HOT_TABLE_BYTES_MIN
from shmchannel.objects.hot_table_writer import HotTableWriter
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name, queue_guard_path
from shmchannel.process.reaper import unlink_queue
from tests.support.channels import in_thread, unique_queue
from tests.support.failing import failing, refusing
from tests.support.holders import another_users_queue, holding
from tests.support.stores import run_script
from tests.support.waiting import WATCHDOG_S, wait_until
from tests.support.wall_clock import set_back

HOLD = """
from shmchannel.messages.posix_queue import CommandQueue
queue = CommandQueue.create(sys.argv[1])
queue.set_ready()
"""

HOLD_HOT_TABLE = (
    HOLD
    + """
from shmchannel.objects.hot_table_writer import HotTableWriter
hot_table = HotTableWriter.create(sys.argv[1], 65536)
"""
)


@pytest.fixture
def name() -> Iterator[str]:
    name = unique_queue()
    yield name
    CommandQueue.create(name).close()  # the next owner removes whatever a killed one left


def test_owner_in_another_process_is_named(name: str) -> None:
    with holding(HOLD, name) as holder, pytest.raises(NameTaken, match=str(holder.pid)):
        CommandQueue.create(name)


def test_killed_owner_is_noticed_and_replaced(name: str) -> None:
    with holding(HOLD, name) as holder:
        sender = CommandSender(name)
        sender.send(b"lost", 1, Deadline.after(WATCHDOG_S))
        assert sender.alive()
        holder.kill()
        assert not sender.alive()
        wait_until(lambda: not sender.ready())
        with pytest.raises(NameMissing):
            CommandSender(name)
        heir = CommandQueue.create(name)
        heir.set_ready()
        assert heir.receive(0.0) is None
        assert not sender.alive()
        sender.close()
        heir.close()


def test_hot_table_of_a_killed_owner_goes_with_its_queue(name: str) -> None:
    """Also when the heir has none: what lies there was the dead cache's."""
    path = SHM_DIRECTORY + hot_table_name(name)
    with holding(HOLD_HOT_TABLE, name) as holder:
        holder.kill()
        heir = CommandQueue.create(name)
        assert not os.path.exists(path)
        hot_table = HotTableWriter.create(name, HOT_TABLE_BYTES_MIN)
        hot_table.close()
        heir.close()


def test_full_queue_of_an_owner_that_is_killed_meanwhile(name: str) -> None:
    with holding(HOLD, name) as holder:
        sender = CommandSender(name)
        for _ in range(command_queue_module.MESSAGES_MAX):
            sender.send(b"x", 1, Deadline.after(WATCHDOG_S))

        def send() -> None:
            with pytest.raises(PeerGone, match=name):
                sender.send(b"y", 1, Deadline.after(WATCHDOG_S))

        with in_thread(send):
            holder.kill()
        sender.close()


def test_sweeper_is_waited_for(name: str) -> None:
    """A sweeper holds a dead owner's guard for a moment: a cache that starts just then must not give up."""
    sweeper = ProcessGuard.acquire(queue_guard_path(name), signed=False)
    with in_thread(lambda: CommandQueue.create(name)) as created:
        sweeper.close()
    created.result().close()


def test_sweeper_that_stays_is_not_waited_for_for_ever(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmchannel.process.guard.SWEEP_SECONDS", 0.02)
    sweeper = ProcessGuard.acquire(queue_guard_path(name))
    with pytest.raises(NameTaken, match=str(os.getpid())):
        CommandQueue.create(name)
    sweeper.close()


def test_failed_creation_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            posix_ipc, "MessageQueue", failing(OSError("This process already has the maximum number of files open"))
        )
        with pytest.raises(LimitReached, match="ulimit"):
            CommandQueue.create(name)
    assert not os.path.exists(queue_guard_path(name))


def test_a_full_limit_of_queue_bytes_is_named_with_who_holds_it(name: str) -> None:
    program = f"""
        import resource
        from shmchannel.messages.posix_queue import CommandQueue
        from shmchannel.errors import LimitReached

        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (100, 100))
        try:
            CommandQueue.create("{name}-more")
        except LimitReached as error:
            print(error)
    """
    holder = CommandQueue.create(name)
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=WATCHDOG_S, check=True
    )
    holder.close()
    assert "RLIMIT_MSGQUEUE, 100 bytes" in child.stdout
    assert f"{name} (process {os.getpid()})" in child.stdout
    assert f"{name}-more (" not in child.stdout
    assert "too many open files" not in child.stdout.lower()


def test_another_users_queue(name: str) -> None:
    """Nobody holds its guard: that was removed by hand, or the queue is another program's."""
    with another_users_queue(name):
        with pytest.raises(NameTaken, match=f"{name} .*another user.* -q"):
            CommandQueue.create(name)
        assert not os.path.exists(queue_guard_path(name))


def test_another_users_queue_after_the_name_was_removed_by_hand(name: str) -> None:
    queue = CommandQueue.create(name)
    unlink_queue(name)
    with another_users_queue(name):
        queue.close()
        assert not os.path.exists(queue_guard_path(name))


def test_name_removed_by_hand(name: str) -> None:
    queue = CommandQueue.create(name)
    queue.set_ready()
    sender = CommandSender(name)
    unlink_queue(name)
    assert not sender.alive(), "that queue can no longer be reached"
    with pytest.raises(NameMissing):
        CommandSender(name)
    sender.close()
    queue.close()


def test_signal_during_receive(name: str) -> None:
    queue = CommandQueue.create(name)
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert queue.receive(WATCHDOG_S) is None
    finally:
        signal.signal(signal.SIGALRM, previous)
        queue.close()


def test_signals_during_send(name: str) -> None:
    queue = CommandQueue.create(name)
    queue.set_ready()
    sender = CommandSender(name)
    for _ in range(command_queue_module.MESSAGES_MAX):
        sender.send(b"x", 1, Deadline.after(WATCHDOG_S))
    count = 0

    def on_signal(*_: object) -> None:
        nonlocal count
        count += 1
        if count == 20:
            signal.setitimer(signal.ITIMER_REAL, 0)
            queue.receive(0.0)

    previous = signal.signal(signal.SIGALRM, on_signal)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        sender.send(b"patient", 3, Deadline.after(WATCHDOG_S))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert queue.receive(0.0) == b"patient"
    sender.close()
    queue.close()


SEND_TO_A_FULL_QUEUE = """
import os, sys
from shmchannel.messages.posix_queue import MESSAGES_MAX, CommandQueue, CommandSender
from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, PeerGone
queue = CommandQueue.create(sys.argv[1])
queue.set_ready()
sender = CommandSender(sys.argv[1])
for _ in range(MESSAGES_MAX):
    sender.send(b"x", 1, Deadline.after(30))
try:
    sender.send(b"too much", 1, Deadline.after(0.05))
except ChannelTimeout:
    print("in time")
queue.close()
try:
    sender.send(b"too late", 1, Deadline.after(3600))
except PeerGone:
    print("gone")
"""


def test_full_queue_while_the_wall_clock_is_set_back(tmp_path: Path) -> None:
    """The sender's deadline holds, and so does its look at the owner's guard."""
    clock = ("env", *(f"{name}={value}" for name, value in set_back(tmp_path).items()))
    child = run_script(SEND_TO_A_FULL_QUEUE, unique_queue(), prefix=clock)
    assert child.stdout.splitlines() == ["in time", "gone"], child.stderr


def test_no_descriptor_left_to_wait_for_room_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = CommandQueue.create(name)
    queue.set_ready()
    sender = CommandSender(name)
    for _ in range(command_queue_module.MESSAGES_MAX):
        sender.send(b"x", 1, Deadline.after(WATCHDOG_S))
    monkeypatch.setattr(command_queue_module.select, "epoll", refusing(errno.EMFILE))
    with pytest.raises(LimitReached, match=name):
        sender.send(b"y", 1, Deadline.after(WATCHDOG_S))
    sender.close()
    queue.close()
