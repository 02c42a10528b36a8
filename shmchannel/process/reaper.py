"""Remove what dead owners left, and nothing else.

Removing a name requires its guard's lock, which the kernel releases at death: so exactly one sweeper wins, and a living
owner's names cannot be touched.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import posix_ipc

from shmchannel.errors import ResourceError
from shmchannel.process.guard import GuardWatch, ProcessGuard, read_holder
from shmchannel.process.naming import (
    SHM_DIRECTORY,
    hot_table_name,
    parse_hot_table_name,
    parse_pool_guard,
    parse_queue_guard,
    parse_segment_name,
    pid_of_pool,
    pool_guard_path,
    queue_guard_path,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundName:
    """One of our OS names: `path` is its location, `kind` is segment, table, queue or guard."""

    path: str
    name: str
    kind: str
    owner_pid: int | None
    alive: bool


@dataclass(frozen=True, slots=True)
class _Group:
    """All names protected by one guard."""

    guard_path: str
    guarded: bool
    pid: int | None
    segments: tuple[str, ...] = ()
    hot_table: str | None = None
    queue: str | None = None

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """The possible names in shared memory, each with its kind."""
        named = [(name, "segment") for name in self.segments]
        return named if self.hot_table is None else [*named, (self.hot_table, "hot table")]

    def unlink(self) -> set[str]:
        """Remove all but the guard; returns the names that belong to another user and stay."""
        kept = {name for name, _ in self.blocks if not unlink_memory(name)}
        if self.queue is not None and not unlink_queue(self.queue):
            kept.add(self.queue)
        return kept

    def found(self, *, alive: bool) -> list[FoundName]:
        pid = read_holder(self.guard_path) or self.pid
        rows = [
            FoundName(path=f"{SHM_DIRECTORY}{name}", name=name, kind=kind, owner_pid=pid, alive=alive)
            for name, kind in self.blocks
            if os.path.exists(f"{SHM_DIRECTORY}{name}")
        ]
        if self.queue is not None and _queue_exists(self.queue):
            rows.append(
                FoundName(path=f"/dev/mqueue{self.queue}", name=self.queue, kind="queue", owner_pid=pid, alive=alive)
            )
        if self.guarded and os.path.exists(self.guard_path):
            name = os.path.basename(self.guard_path)
            rows.append(FoundName(path=self.guard_path, name=name, kind="guard", owner_pid=pid, alive=alive))
        return rows


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
        try:
            found = group.found(alive=False)
            kept = group.unlink()
            removed += [row for row in found if row.name not in kept]
        finally:
            guard.close()
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
        watch = GuardWatch(guard_path)
    except ResourceError:
        # No guard: its owner is gone (the guard is created first and removed last). Another user's: left alone.
        return os.path.exists(guard_path)
    try:
        return watch.alive()
    finally:
        watch.close()


def _groups() -> list[_Group]:
    segments: dict[str, list[str]] = defaultdict(list)
    guarded: set[str] = set()
    hot_tables: set[str] = set()
    groups: list[_Group] = []
    for file_name in sorted(os.listdir(SHM_DIRECTORY)):
        if not file_name.startswith("gf-"):
            continue
        if (segment := parse_segment_name(f"/{file_name}")) is not None:
            segments[segment.pool].append(f"/{file_name}")
        elif (pool := parse_pool_guard(file_name)) is not None:
            segments.setdefault(pool, [])
            guarded.add(pool)
        elif (queue := parse_queue_guard(file_name)) is not None:
            guarded.add(queue)
            groups.append(_Group(queue_guard_path(queue), True, None, hot_table=hot_table_name(queue), queue=queue))
        elif (queue := parse_hot_table_name(f"/{file_name}")) is not None:
            hot_tables.add(queue)
    # Without its guard a hot table is a leftover, and what the queue of that name is nobody can tell.
    groups += [
        _Group(queue_guard_path(queue), False, None, hot_table=hot_table_name(queue)) for queue in hot_tables - guarded
    ]
    groups += [
        _Group(pool_guard_path(pool), pool in guarded, pid_of_pool(pool), tuple(names))
        for pool, names in segments.items()
    ]
    return groups
