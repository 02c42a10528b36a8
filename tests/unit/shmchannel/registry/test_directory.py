"""Announcing and finding: among processes that live, hang, are killed, restart, and want the same name."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import posix_ipc
import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import AccessDenied, NameTaken, UsageError
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import ProcessIdentity, own_identity
from shmchannel.process.naming import SHM_DIRECTORY, entry_guard_path, entry_name
from shmchannel.process.reaper import survey
from shmchannel.registry import Change, ChangeKind, Member, Presence, Registry, announce
from shmchannel.registry.directory import changes_between
from shmchannel.registry.entry_layout import ENTRY_BYTES, Entry
from tests.support.channels import in_thread
from tests.support.holders import Holder, holding, names_of, swept
from tests.support.waiting import WATCHDOG_S

_numbers = itertools.count(1)

ANNOUNCER = """
from shmchannel.registry import announce
announcement = announce(sys.argv[1], "one", address="/a/socket", stuck_after_s=None)
"""
BEATING = """
import threading
from shmchannel.registry import announce
announcement = announce(sys.argv[1], "one", stuck_after_s=0.2)
def beat():
    while True:
        announcement.beat()
        threading.Event().wait(0.01)
threading.Thread(target=beat, daemon=True).start()
"""
SAME_NAME = """
from shmchannel.errors import NameTaken
from shmchannel.registry import announce
try:
    announcement = announce(sys.argv[1], "one")
    print("has it")
except NameTaken as error:
    print(error)
"""


@pytest.fixture
def role() -> str:
    """A role that no other test has."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def names(role: str) -> list[str]:
    """The members of a role."""
    return [member.name for member in Registry().find(role)]


def kinds(changes: Iterable[Change]) -> list[tuple[ChangeKind, str]]:
    """What has changed, without the members' facts."""
    return [(change.kind, change.member.name) for change in changes]


def test_what_was_announced_is_found(role: str) -> None:
    facts = {"version": "1.2", "workers": "4"}
    with announce(role, "one", queue_name="/q", address="127.0.0.1:80", load=1.5, facts=facts) as announcement:
        (member,) = Registry().find(role)
        assert member.entry == announcement.entry
        assert (member.name, member.identity, member.load, member.is_stuck) == ("one", own_identity(), 1.5, False)
        assert (member.entry.queue_name, member.entry.address, member.entry.facts) == ("/q", "127.0.0.1:80", facts)
        announcement.beat(load=7)
        (after,) = Registry().find(role)
        assert after.load == 7
        assert after.heartbeat_ns > member.heartbeat_ns
        announcement.beat()
        assert Registry().find(role)[0].load == 7
        assert after in [m._replace(heartbeat_ns=after.heartbeat_ns) for m in Registry().find()]
    assert names(role) == []
    assert not [found for found in names_of() if role in found.name]


def test_the_name_defaults_to_the_pid(role: str) -> None:
    with announce(role):
        assert names(role) == [str(os.getpid())]


def test_only_the_owner_may_read_and_write(role: str) -> None:
    with announce(role, "one"):
        for path in (SHM_DIRECTORY + entry_name(role, "one"), entry_guard_path(role, "one")):
            assert os.stat(path).st_mode & 0o777 == 0o600


def test_after_the_end_a_beat_is_nothing(role: str) -> None:
    announcement = announce(role, "one")
    announcement.close()
    announcement.close()
    announcement.beat(load=1)
    assert names(role) == []


def test_who_stops_is_not_found_and_keeps_its_name(role: str) -> None:
    with announce(role, "one") as announcement:
        announcement.set_stopping()
        assert names(role) == []
        with pytest.raises(NameTaken, match=f"{role} one is announced by process {os.getpid()}"):
            announce(role, "one")


@pytest.mark.parametrize(
    "call",
    [
        lambda role: announce(role, "a b"),
        lambda role: announce(role, "one", load=-1),
        lambda role: announce(role, "one", stuck_after_s=0),
        lambda role: announce(role, "one", facts={"a": "x" * 4096}),
        lambda role: announce(role, "one", queue_name="q"),
    ],
)
def test_values_that_are_not_valid_leave_nothing(role: str, call: Callable[[str], object]) -> None:
    with pytest.raises(UsageError):
        call(role)
    assert not [found for found in survey() if role in found.name]


def test_a_full_file_system_leaves_nothing(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(Exception, match="No space left"):
        announce(role, "one")
    monkeypatch.undo()
    assert not [found for found in survey() if role in found.name]


def test_who_was_killed_is_not_found_by_the_next_look(role: str) -> None:
    with holding(ANNOUNCER, role) as holder:
        (member,) = Registry().find(role)
        assert (member.identity.pid, member.entry.address) == (holder.pid, "/a/socket")
        holder.kill()
        assert names(role) == []
        assert {found.kind for found in swept(holder.pid)} == {"entry", "guard"}


def test_a_restarted_process_takes_its_name_again(role: str) -> None:
    with Registry().watch(role) as watch, ExitStack() as holders:
        first = holders.enter_context(holding(ANNOUNCER, role))
        assert kinds(watch.look()) == [(ChangeKind.JOINED, "one")]
        first.kill()
        second = holders.enter_context(holding(ANNOUNCER, role))
        left, joined = watch.look()
        assert kinds([left, joined]) == [(ChangeKind.LEFT, "one"), (ChangeKind.JOINED, "one")]
        assert (left.member.identity.pid, joined.member.identity.pid) == (first.pid, second.pid)


def test_of_two_processes_that_announce_one_name_exactly_one_has_it(role: str) -> None:
    with ExitStack() as holders:
        gate = threading.Barrier(4)

        def start() -> Holder:
            gate.wait(WATCHDOG_S)
            return holders.enter_context(holding(SAME_NAME, role))

        with ThreadPoolExecutor(4) as executor:
            both = [started.result(WATCHDOG_S) for started in [executor.submit(start) for _ in range(4)]]
        said = sorted(line for holder in both for line in holder.said)
        winner = next(holder for holder in both if holder.said == ["has it"])
        assert said.count("has it") == 1
        assert [line for line in said if line != "has it"] == [
            f"{role} one is announced by process {winner.pid} (stop it, or choose another name)"
        ] * 3
        assert [member.identity.pid for member in Registry().find(role)] == [winner.pid]


def test_who_is_stopped_counts_as_stuck_and_comes_back(role: str) -> None:
    with holding(BEATING, role) as holder, Registry().watch(role) as watch:
        assert kinds(watch.wait(Deadline.after(WATCHDOG_S))) == [(ChangeKind.JOINED, "one")]
        os.kill(holder.pid, signal.SIGSTOP)
        assert kinds(watch.wait(Deadline.after(WATCHDOG_S))) == [(ChangeKind.STUCK, "one")]
        assert watch.members["one"].is_stuck
        os.kill(holder.pid, signal.SIGCONT)
        assert kinds(watch.wait(Deadline.after(WATCHDOG_S))) == [(ChangeKind.BACK, "one")]
        os.kill(holder.pid, signal.SIGKILL)
        assert kinds(watch.wait(Deadline.after(WATCHDOG_S))) == [(ChangeKind.LEFT, "one")]


def test_who_does_not_beat_is_never_stuck(role: str) -> None:
    with announce(role, "one", stuck_after_s=None), announce(role, "two", stuck_after_s=1e-9):
        assert [member.is_stuck for member in Registry().find(role)] == [False, True]


def test_a_wait_ends_with_the_process_that_was_killed(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end wakes the wait; the next regular look would come only after the watchdog."""
    monkeypatch.setattr("shmchannel.registry.directory.LOOK_SECONDS", 10 * WATCHDOG_S)
    with holding(ANNOUNCER, role) as holder, Registry().watch(role) as watch:
        watch.look()
        with in_thread(lambda: watch.wait(Deadline.after(10 * WATCHDOG_S))) as changes:
            holder.kill()
        assert kinds(changes.result()) == [(ChangeKind.LEFT, "one")]


def test_a_wait_finds_who_comes(role: str) -> None:
    with Registry().watch(role) as watch:
        assert watch.wait(Deadline.after(0)) == []
        with in_thread(lambda: watch.wait(Deadline.after(WATCHDOG_S))) as changes, announce(role, "one"):
            assert kinds(changes.result(WATCHDOG_S)) == [(ChangeKind.JOINED, "one")]
            assert watch.wait(Deadline.after(0)) == []


def test_a_watch_keeps_no_descriptor(role: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Registry().watch(role) as watch:
        for _ in range(3):
            with announce(role, "one"):
                watch.wait(Deadline.after(WATCHDOG_S))
                watch.wait(Deadline.after(0.001))
            watch.wait(Deadline.after(WATCHDOG_S))
    assert len(os.listdir("/proc/self/fd")) == before


def test_half_an_announcement_is_not_found_and_swept(role: str) -> None:
    """A process that was killed between its guard and its entry, or before it published that."""
    source = f"""
    import os, posix_ipc
    from shmchannel.process.guard import ProcessGuard
    guard = ProcessGuard.acquire("{entry_guard_path(role, "one")}")
    block = posix_ipc.SharedMemory("{entry_name(role, "one")}", posix_ipc.O_CREX, size={ENTRY_BYTES})
    """
    with holding(source) as holder:
        assert names(role) == []
        holder.kill()
        with announce(role, "one"):  # over what it left
            assert names(role) == ["one"]
    assert not [found for found in survey() if role in found.name]


@pytest.mark.parametrize("content", [b"", b"short", bytes(ENTRY_BYTES), b"x" * ENTRY_BYTES, b"x" * (ENTRY_BYTES + 1)])
def test_damaged_entries_are_left_out(role: str, content: bytes) -> None:
    path = SHM_DIRECTORY + entry_name(role, "bad")
    guard = ProcessGuard.acquire(entry_guard_path(role, "bad"))
    try:
        guard.set_ready()
        assert names(role) == []
        Path(path).write_bytes(content)
        with announce(role, "good"):
            assert names(role) == ["good"]
    finally:
        posix_ipc.unlink_shared_memory(entry_name(role, "bad"))
        guard.close()


def test_entries_of_other_users_are_left_out(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with announce(role, "one"):
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        assert names(role) == []
        with pytest.raises(AccessDenied):
            announce(role, "one")
        monkeypatch.undo()
        assert names(role) == ["one"]


def test_a_reader_beside_a_writer_sees_whole_numbers(role: str) -> None:
    """Load and heartbeat are one word each: whatever is read was written."""
    stop = threading.Event()
    with announce(role, "one", load=0) as announcement:

        def write() -> None:
            while not stop.is_set():
                announcement.beat(load=0)
                announcement.beat(load=1e9)

        with in_thread(write):
            try:
                loads = {Registry().find(role)[0].load for _ in range(300)}
            finally:
                stop.set()
    assert loads <= {0, 1e9}


def test_a_daemon_does_without_an_announcement_that_is_refused(role: str, caplog: pytest.LogCaptureFixture) -> None:
    presence = Presence(role, "one", queue_name="/q")
    presence.beat(1)
    presence.set_stopping()
    with announce(role, "one"):
        presence.announce()
        presence.beat(1)
        assert Registry().find(role)[0].load == 0
    presence.close()
    assert [record.message for record in caplog.records] == ["not announced"]


def test_a_daemon_announces_itself_until_it_stops(role: str) -> None:
    presence = Presence(role, "one", queue_name="/q")
    assert names(role) == []
    presence.announce(address="a:1", facts={"k": "v"})
    presence.beat(3)
    (found,) = Registry().find(role)
    assert (found.load, found.entry.queue_name, found.entry.address, found.entry.facts) == (3, "/q", "a:1", {"k": "v"})
    presence.set_stopping()
    assert names(role) == []
    presence.close()
    assert not [left for left in survey() if role in left.name]


def member(name: str, pid: int = 1, *, is_stuck: bool = False) -> Member:
    """A member of that process."""
    return Member(Entry("r", name, ProcessIdentity(pid, 1, 1), pid, 1, "", "", {}), 0.0, 0, is_stuck)


def test_changes() -> None:
    before = {"kept": member("kept"), "gone": member("gone"), "again": member("again", 1), "hung": member("hung")}
    after = {"kept": member("kept"), "new": member("new"), "again": member("again", 2)}
    after["hung"] = member("hung", is_stuck=True)
    after["late"] = member("late", is_stuck=True)
    assert kinds(changes_between(before, after)) == [
        (ChangeKind.LEFT, "again"),
        (ChangeKind.JOINED, "again"),
        (ChangeKind.LEFT, "gone"),
        (ChangeKind.STUCK, "hung"),
        (ChangeKind.JOINED, "late"),
        (ChangeKind.STUCK, "late"),
        (ChangeKind.JOINED, "new"),
    ]
    assert kinds(changes_between(after, before))[-1] == (ChangeKind.LEFT, "new")
    assert kinds(changes_between({"a": member("a", is_stuck=True)}, {"a": member("a")})) == [(ChangeKind.BACK, "a")]
