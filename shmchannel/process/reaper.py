"""Remove what dead owners left, and nothing else.

Removing a name requires its guard's lock, which the kernel releases at death: so exactly one sweeper wins, and a living
owner's names cannot be touched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field

import posix_ipc

from shmchannel.errors import ResourceError
from shmchannel.process.guard import GuardWatch, ProcessGuard, read_holder
from shmchannel.process.naming import (
    SHM_DIRECTORY,
    entry_guard_path,
    parse_entry_guard,
    parse_entry_name,
    parse_hot_table_name,
    parse_pool_guard,
    parse_queue_guard,
    parse_segment_name,
    parse_stats_guard,
    parse_stats_page_name,
    pid_of_pool,
    pool_guard_path,
    queue_guard_path,
    stats_guard_path,
)

log = logging.getLogger(__name__)

_DIRECTORIES = {"queue": "/dev/mqueue"}
"""Of kinds of names that are not in SHM_DIRECTORY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundName:
    """One of our OS names: `path` is its location, `kind` is segment, hot table, stats page, queue, entry or guard."""

    path: str
    name: str
    kind: str
    owner_pid: int | None
    alive: bool


@dataclass(slots=True)
class _Group:
    """What was found of the names that one guard protects, each with its kind; `pid` is that in the names."""

    guard_path: str
    pid: int | None
    guarded: bool = False
    kinds: dict[str, str] = field(default_factory=dict)

    def unlink(self) -> set[str]:
        """Remove all but the guard; returns the names that belong to another user and stay."""
        return {
            name
            for name, kind in self.kinds.items()
            if not (unlink_queue(name) if kind == "queue" else unlink_memory(name))
        }

    def found(self, *, alive: bool) -> list[FoundName]:
        pid = read_holder(self.guard_path) or self.pid
        places = [(f"{_DIRECTORIES.get(kind, SHM_DIRECTORY)}{name}", name, kind) for name, kind in self.kinds.items()]
        if self.guarded:
            places.append((self.guard_path, os.path.basename(self.guard_path), "guard"))
        return [
            FoundName(path=path, name=name, kind=kind, owner_pid=pid, alive=alive)
            for path, name, kind in places
            if (_queue_exists(name) if kind == "queue" else os.path.exists(path))
        ]


def survey() -> list[FoundName]:
    """List all our names visible to this user, with owner and whether that is alive. Changes nothing."""
    return [row for group in _groups() for row in group.found(alive=_alive(group.guard_path))]


def sweep(*, dry_run: bool = False) -> list[FoundName]:
    """Remove the names of dead owners and return them; `dry_run` only returns them. Never raises for a single name."""
    removed: list[FoundName] = []
    for group in _groups():
        if _alive(group.guard_path):
            continue
        if dry_run:
            removed += group.found(alive=False)
            continue
        try:
            # A guard that has disappeared means that another sweeper was faster.
            guard = ProcessGuard.acquire(group.guard_path, signed=False, create=not group.guarded)
        except ResourceError as error:  # another sweeper won, a new owner started, or it belongs to another user
            log.debug("left alone", extra={"guard": group.guard_path, "reason": str(error)})
            continue
        with closing(guard):
            found = group.found(alive=False)
            kept = group.unlink()
            removed += [row for row in found if row.name not in kept]
    return removed


def unlink_queue(name: str) -> bool:
    """Remove a message queue's name if it exists; False if it belongs to another user, and stays."""
    return _unlink(posix_ipc.unlink_message_queue, name)


def unlink_memory(name: str) -> bool:
    """Remove the name of a block of shared memory if it exists; False if it belongs to another user, and stays."""
    return _unlink(posix_ipc.unlink_shared_memory, name)


def _unlink(unlink: Callable[[str], None], name: str) -> bool:
    try:
        unlink(name)
    except posix_ipc.ExistentialError:
        return True
    except posix_ipc.PermissionsError as error:
        log.debug("name not removed", extra={"ipc_name": name, "reason": str(error)})
        return False
    return True


def _queue_exists(name: str) -> bool:
    try:
        posix_ipc.MessageQueue(name, read=False, write=True).close()
    except posix_ipc.Error as error:
        return not isinstance(error, posix_ipc.ExistentialError)
    return True


def _alive(guard_path: str) -> bool:
    try:
        with closing(GuardWatch(guard_path)) as watch:
            return watch.alive()
    except ResourceError:
        # No guard: its owner is gone (the guard is created first and removed last). Another user's: left alone.
        return os.path.exists(guard_path)


def _groups() -> Iterable[_Group]:
    groups: dict[str, _Group] = {}
    for file_name in sorted(os.listdir(SHM_DIRECTORY)):
        name = f"/{file_name}"
        pool = parse_segment_name(name) or parse_pool_guard(file_name)
        queue = parse_queue_guard(file_name) or parse_hot_table_name(name)
        member = parse_entry_name(name) or parse_entry_guard(file_name)
        stats = parse_stats_page_name(name) or parse_stats_guard(file_name)
        if pool is not None:
            guard_path, pid, kind = pool_guard_path(pool), pid_of_pool(pool), "segment"
        elif stats is not None:
            guard_path, pid, kind = stats_guard_path(stats), pid_of_pool(stats), "stats page"
        elif queue is not None:
            guard_path, pid, kind = queue_guard_path(queue), None, "hot table"
        elif member is not None:
            guard_path, pid, kind = entry_guard_path(*member), None, "entry"
        else:
            continue
        group = groups.setdefault(guard_path, _Group(guard_path, pid))
        if guard_path != f"{SHM_DIRECTORY}{name}":
            group.kinds[name] = kind
        else:
            group.guarded = True
            if queue is not None:  # without its guard, what the queue of that name is nobody can tell
                group.kinds[queue] = "queue"
    return groups.values()
