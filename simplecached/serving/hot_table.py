"""HotObjects: decides which objects are in the hot table, and for how long.

An object is published when it is requested a second time within SEEN_SECONDS: a small one completely, a large immutable
one as a reference to its file. Its life is short; then it is requested by a command again, which tells the eviction
order that it is in use and reveals changed files. A purge or a replacement, even of its metadata alone, removes it at
once. An invalidated object is not published, because the table cannot say so.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING

from shmchannel.objects.commands import BELOW, PREFIX
from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX

if TYPE_CHECKING:
    from shmchannel.objects.commands import Command
    from shmchannel.objects.hot_table_writer import HotTableToken, HotTableWriter
    from simplecached.stores.store import StoredObject

log = logging.getLogger(__name__)

FILE_SECONDS = 0.1
"""Life in the hot table where files of others are served: the time until a changed or new file is noticed."""

STORED_SECONDS = 1.0
"""Life in the hot table where only stored objects are served: how often an object in use is touched in the store."""

SEEN_SECONDS = 2.0
"""Longer than a life, so that an expired object is published again at the first request."""

_SEEN_SLOTS = 1024  # a power of two
_SEEN_NS = round(SEEN_SECONDS * 1e9)


class HotObjects:
    """Thread-safe. A key that loses its slot in the table of seen keys to another one only starts over."""

    def __init__(self, hot_table: HotTableWriter, life_s: float) -> None:
        self._hot_table = hot_table
        self._life_ns = round(life_s * 1e9)
        self._seen: list[tuple[int, int]] = [(0, -_SEEN_NS)] * _SEEN_SLOTS

    def begin(self, command: Command) -> HotTableToken | None:
        """Before the lookup: a token if this GET wants an object, or a part of it, that was requested recently."""
        if command.version:  # it resumes a transfer
            return None
        fingerprint = hash(command.key)  # compared only within this process
        slot = fingerprint & (_SEEN_SLOTS - 1)
        now = monotonic_ns()
        seen, seen_ns = self._seen[slot]
        self._seen[slot] = (fingerprint, now)
        return self._hot_table.begin() if seen == fingerprint and now - seen_ns < _SEEN_NS else None

    def publish(self, token: HotTableToken, key: bytes, found: StoredObject) -> None:
        """After the answer: publish the object unless it is invalidated; never raises."""
        if found.invalidated:
            return
        if found.size_bytes > BODY_BYTES_MAX:
            if found.recheck() is None:
                is_there = self._hot_table.publish_file(
                    token, key, found.version, found.metadata, found.fd, found.size_bytes, life_ns=self._life_ns
                )
                log.debug("object offered to the hot table", extra={"key": key, "is_there": is_there})
            return
        try:
            is_there = self._hot_table.publish(
                token,
                key,
                found.version,
                found.metadata,
                found.size_bytes,
                partial(os.preadv, found.fd),
                life_ns=self._life_ns,
                is_unchanged=found.recheck(),
            )
        except OSError as error:
            log.debug("object not added to the hot table", extra={"key": key, "reason": str(error)})
            return
        log.debug("object offered to the hot table", extra={"key": key, "is_there": is_there})

    def drop(self, key: bytes) -> None:
        """The object or its metadata was replaced: call once the successor is visible, before acknowledging."""
        self._hot_table.drop(key)

    def drop_purged(self, command: Command) -> None:
        """The objects of a PURGE were removed or invalidated: call before it is acknowledged."""
        key, flags = command.key, command.flags
        if flags & (PREFIX | BELOW):
            self._hot_table.drop_prefix(key if flags & PREFIX else key + b"\0")
        if not flags & PREFIX:
            self._hot_table.drop(key)

    def start_over(self, life_s: float) -> None:
        """Remove everything, and publish with another life from now on."""
        self._life_ns = round(life_s * 1e9)
        self._hot_table.drop_prefix(b"")

    def expire(self) -> None:
        """Close the files of expired references; called regularly."""
        self._hot_table.expire()
