"""announce(): a process tells the others of its user what it is and where, for as long as it lives.

An announcement is one small block of shared memory under a guard. The guard is acquired first, which settles who has
the name if two processes want it, and is ready once the block is published; readers look at ready guards only. A dead
process is known by its guard, one that hangs by its heartbeat, which is no more than that: a heartbeat detects "stuck",
not "dead".
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from time import monotonic_ns
from types import TracebackType
from typing import Self

from shmchannel.errors import NameTaken, ShmChannelError, UsageError
from shmchannel.process.block import create_block
from shmchannel.process.guard import ProcessGuard, read_holder
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import entry_guard_path, entry_name
from shmchannel.process.reaper import unlink_memory
from shmchannel.registry.entry_layout import ENTRY_BYTES, HEARTBEAT, LOAD, MAGIC, Entry, encode, encode_load

log = logging.getLogger(__name__)

STUCK_AFTER_SECONDS = 5.0
"""Five beats of a daemon, which beats once a second."""


def announce(
    role: str,
    name: str = "",
    *,
    queue_name: str = "",
    address: str = "",
    load: float = 0.0,
    facts: Mapping[str, str] | None = None,
    stuck_after_s: float | None = STUCK_AFTER_SECONDS,
) -> Announcement:
    """Announce this process to all processes of its user, until close() or its end; mode 0600. Call beat() regularly.

    `name` tells processes of one role apart and defaults to the pid. `address` is where to reach it, `HOST:PORT` or the
    path of a Unix socket; `facts` are short texts, 2,048 bytes in all. It counts as stuck if it has not called beat()
    for `stuck_after_s`; None: it never does. Waits for at most half a second, if somebody sweeps the name just now.

    Raises:
        UsageError: a value is not valid.
        NameTaken: a living process has this role and name; of two that announce at once, exactly one gets this.
        LimitReached, AccessDenied: the system refused; nothing is left behind.
    """
    if stuck_after_s is not None and not stuck_after_s > 0:
        raise UsageError(f"stuck_after_s {stuck_after_s} is not valid", hint="more than 0, or None for no heartbeat")
    return Announcement(
        Entry(
            role=role,
            name=name or str(os.getpid()),
            identity=own_identity(),
            announced_ns=monotonic_ns(),
            stuck_after_ns=0 if stuck_after_s is None else max(1, int(stuck_after_s * 1e9)),
            queue_name=queue_name,
            address=address,
            facts=dict(facts or {}),
        ),
        load,
    )


class Announcement:
    """An announcement that stands; made by announce(). A context manager; its methods may be called by any thread."""

    def __init__(self, entry: Entry, load: float) -> None:
        self.entry = entry
        self._ipc_name = entry_name(entry.role, entry.name)
        block, word = encode(entry), encode_load(load)
        with ExitStack() as undo:
            self._guard = _acquire(entry)
            undo.callback(self._guard.close)
            unlink_memory(self._ipc_name)  # of a dead process that had the name
            mapping = create_block(f"registry entry {self._ipc_name}", self._ipc_name, ENTRY_BYTES, undo)
            undo.callback(mapping.close)
            self._words = undo.enter_context(memoryview(mapping).cast("Q"))
            mapping[8:ENTRY_BYTES] = block[8:]
            self._words[LOAD] = word
            self._words[HEARTBEAT] = monotonic_ns()
            self._words[0] = MAGIC
            self._guard.set_ready()
            self._resources = undo.pop_all()

    def beat(self, load: float | None = None) -> None:
        """Say that this process is alive and well, and with `load` how busy it is; two stores, nothing after close().

        Raises:
            UsageError: the load is negative or not a number.
        """
        with suppress(ValueError):  # another thread has closed it
            if load is not None:
                self._words[LOAD] = encode_load(load)
            self._words[HEARTBEAT] = monotonic_ns()

    def set_stopping(self) -> None:
        """From now on nobody finds this process, while the name remains its own until close()."""
        self._guard.set_stopping()

    def close(self) -> None:
        """Withdraw the announcement; may be called twice."""
        self._guard.set_stopping()
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


class Presence:
    """A daemon's announcement of itself: it does without one if the system refuses it, and logs that.

    Its parameters are those of announce(). A method that is called before announce() or after close() does nothing.
    """

    def __init__(self, role: str, name: str = "", *, queue_name: str = "") -> None:
        self._role = role
        self._name = name
        self._queue_name = queue_name
        self._announcement: Announcement | None = None

    def announce(self, *, address: str = "", load: float = 0.0, facts: Mapping[str, str] | None = None) -> None:
        """Announce that the daemon is ready; the values are known by now."""
        try:
            self._announcement = announce(
                self._role, self._name, queue_name=self._queue_name, address=address, load=load, facts=facts
            )
        except ShmChannelError as error:
            log.warning("not announced", extra={"role": self._role, "reason": str(error)})

    def beat(self, load: float) -> None:
        """As Announcement.beat()."""
        if self._announcement is not None:
            self._announcement.beat(load)

    def set_stopping(self) -> None:
        """As Announcement.set_stopping()."""
        if self._announcement is not None:
            self._announcement.set_stopping()

    def close(self) -> None:
        """As Announcement.close()."""
        if self._announcement is not None:
            self._announcement.close()


def _acquire(entry: Entry) -> ProcessGuard:
    path = entry_guard_path(entry.role, entry.name)
    try:
        return ProcessGuard.acquire(path)
    except NameTaken as error:
        raise NameTaken(
            f"{entry.role} {entry.name} is announced by process {read_holder(path) or 'unknown'}",
            errno.EEXIST,
            hint="stop it, or choose another name",
            says_why=True,
        ) from error
