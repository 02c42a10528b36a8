"""Registry: finds the processes that have announced themselves, and tells what changes.

A look lists the names in /dev/shm and reads the entries of one role, about 25 microseconds for each. Nothing is kept
between looks, so that a process that was killed is not found by the next one, and a Registry needs no close().

RoleWatch waits in one call of poll(2), by pidfds: the end of a known process wakes it at once. What nobody signals, a
newcomer and an old heartbeat, is looked for every LOOK_SECONDS. (An inotify watch on /dev/shm would wake for each
segment of each pool, and tells nothing about a process that was killed.)
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from enum import Enum, auto
from time import monotonic_ns
from types import TracebackType
from typing import NamedTuple, Self

from shmchannel.deadline import Deadline
from shmchannel.errors import AccessDenied, LayoutMismatch, ShmChannelError, os_errors
from shmchannel.process.guard import GuardWatch
from shmchannel.process.identity import ProcessIdentity
from shmchannel.process.naming import SHM_DIRECTORY, entry_guard_path, parse_entry_name
from shmchannel.registry.entry_layout import ENTRY_BYTES, HEARTBEAT, LOAD, Entry, decode, decode_load

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""How often a wait looks for newcomers and for those that hang."""


class Member(NamedTuple):
    """A living process as it announced itself, at the moment of the look."""

    entry: Entry
    load: float
    heartbeat_ns: int
    """Its last beat, CLOCK_MONOTONIC nanoseconds."""
    is_stuck: bool
    """It has not beaten for as long as it said it would."""

    @property
    def name(self) -> str:
        """What tells it from others of its role."""
        return self.entry.name

    @property
    def identity(self) -> ProcessIdentity:
        """The process, which a pid alone does not name for good."""
        return self.entry.identity


class ChangeKind(Enum):
    """What has happened to a member."""

    JOINED = auto()
    LEFT = auto()
    STUCK = auto()
    BACK = auto()
    """It beats again."""


class Change(NamedTuple):
    """One change, and the member after it (before it, if it has left)."""

    kind: ChangeKind
    member: Member


def changes_between(before: Mapping[str, Member], after: Mapping[str, Member]) -> list[Change]:
    """The changes from one look to another, by name; a restarted process has left and joined."""
    changes = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None and _occurrence(old) == _occurrence(new):
            if old.is_stuck != new.is_stuck:
                changes.append(Change(ChangeKind.STUCK if new.is_stuck else ChangeKind.BACK, new))
            continue
        if old is not None:
            changes.append(Change(ChangeKind.LEFT, old))
        if new is not None:
            changes.append(Change(ChangeKind.JOINED, new))
            if new.is_stuck:
                changes.append(Change(ChangeKind.STUCK, new))
    return changes


def _occurrence(member: Member) -> tuple[ProcessIdentity, int]:
    return member.identity, member.entry.announced_ns


class Registry:
    """The announcements of this user's processes; keeps nothing, and may be used by any thread."""

    def find(self, role: str | None = None) -> list[Member]:
        """All living members of a role (None: of all roles), those that hang among them, by role and name.

        Never waits. An entry of another user, or of another layout, is left out.
        """
        found = []
        for file_name in os.listdir(SHM_DIRECTORY):
            parsed = parse_entry_name(f"/{file_name}")
            if parsed is not None and role in (None, parsed[0]):
                try:
                    member = _read(f"{SHM_DIRECTORY}/{file_name}", *parsed)
                except ShmChannelError as error:  # it has just gone, or is none of ours
                    log.debug("registry entry not read", extra={"entry": file_name, "reason": str(error)})
                else:
                    found += [] if member is None else [member]
        return sorted(found, key=lambda member: (member.entry.role, member.name))

    def watch(self, role: str) -> RoleWatch:
        """Watch a role. Nothing is known at first: the first look finds those that have joined before."""
        return RoleWatch(self, role)


def _read(path: str, role: str, name: str) -> Member | None:
    """The member of an entry; None if it is not ready. Raises a ShmChannelError if it cannot be read."""
    with closing(GuardWatch(entry_guard_path(role, name))) as watch:
        if not watch.ready():
            return None
        entry, load, heartbeat_ns = _read_block(path)
        # While it is ready the entry is its own: a dead one's is removed before.
        if not watch.ready() or (entry.role, entry.name) != (role, name):
            return None
    is_stuck = 0 < entry.stuck_after_ns <= monotonic_ns() - heartbeat_ns
    return Member(entry, load, heartbeat_ns, is_stuck)


def _read_block(path: str) -> tuple[Entry, float, int]:
    with os_errors(f"open registry entry {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise AccessDenied(f"registry entry {path} belongs to uid {status.st_uid}", errno.EACCES, says_why=True)
            if status.st_size != ENTRY_BYTES:
                raise LayoutMismatch(f"a registry entry has {ENTRY_BYTES} bytes, not {status.st_size}")
            mapping = mmap.mmap(fd, ENTRY_BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
    with mapping, memoryview(mapping) as view, view.cast("Q") as words:
        return decode(bytes(view)), decode_load(words[LOAD]), words[HEARTBEAT]


class RoleWatch:
    """The members of one role as of the last look; for one thread at a time. A context manager."""

    def __init__(self, registry: Registry, role: str) -> None:
        self._registry = registry
        self._role = role
        self.members: dict[str, Member] = {}
        """By name, as of the last look."""
        self._pidfds: dict[ProcessIdentity, int] = {}

    def look(self) -> list[Change]:
        """What has changed since the last look; never waits."""
        before, self.members = self.members, {member.name: member for member in self._registry.find(self._role)}
        return changes_between(before, self.members)

    def wait(self, deadline: Deadline) -> list[Change]:
        """Block until something changes; empty if nothing has by the deadline."""
        while not (changes := self.look()) and not deadline.expired:
            self._wait_for_an_end(deadline.slice(LOOK_SECONDS))
        return changes

    def _wait_for_an_end(self, timeout_s: float) -> None:
        """Wait until a known process ends, or for the time."""
        self._open_pidfds(member.identity for member in self.members.values())
        poller = select.poll()
        for pidfd in self._pidfds.values():
            if pidfd >= 0:
                poller.register(pidfd, select.POLLIN)
        ended = {fd for fd, _ in poller.poll(max(1, round(timeout_s * 1000)))}
        for identity, pidfd in self._pidfds.items():
            if pidfd in ended:  # said once: it may be the process of that pid in another namespace
                os.close(pidfd)
                self._pidfds[identity] = -1

    def _open_pidfds(self, identities: Iterable[ProcessIdentity]) -> None:
        wanted = set(identities)
        for identity in self._pidfds.keys() - wanted:
            pidfd = self._pidfds.pop(identity)
            if pidfd >= 0:
                os.close(pidfd)
        for identity in wanted - self._pidfds.keys():
            self._pidfds[identity] = -1  # an end that is not signalled is seen by the next look
            with suppress(OSError):
                self._pidfds[identity] = os.pidfd_open(identity.pid)

    def close(self) -> None:
        """Close the descriptors; may be called twice."""
        self._open_pidfds(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()
