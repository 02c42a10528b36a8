"""MemoryStore: objects in anonymous memory files, one each; they end with the process."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from shmchannel.objects.hot_table_layout import FileRef
from simplecached.descriptors import ENTRIES_MAX, Descriptors
from simplecached.errors import store_errors
from simplecached.stores.lru_store import LruStore
from simplecached.stores.record import Record, State
from simplecached.stores.store import StoredObject

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEW = 4
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def _create_memory_file() -> int:
    return os.memfd_create("gfcache-object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class MemoryStore(LruStore):
    """Objects in memory files, bounded by bytes and by count.

    The budget counts bodies and metadata; the kernel rounds every body up to whole pages. Each has a descriptor.
    """

    def __init__(
        self, budget_bytes: int, entries_max: int = ENTRIES_MAX, descriptors: Descriptors | None = None
    ) -> None:
        super().__init__("the memory store", budget_bytes=budget_bytes, entries_max=entries_max)
        self._descriptors = descriptors or Descriptors()
        self._descriptors.add_giver(self.close_idle)
        self._release = self._unpin  # bound once: open() is the hot path

    def open(self, key: bytes) -> StoredObject | None:
        """Return the object of this key, pinned, or None; never blocks."""
        record = self._pin_visible(key)
        if record is None:
            return None
        invalidated = record.invalidated  # before the metadata: a validation too many is harmless
        return StoredObject(
            record.fd, record.size_bytes, record.version, record.metadata, self._release, record, invalidated
        )

    def close_idle(self) -> int:
        """Evict a few objects that nobody reads and return how many, for when descriptors run out."""
        with self._lock:
            victims = self._index.oldest(_FEW + len(self._index) // 64)
            for victim in victims:
                self._detach(victim, [])
            self._evicted += len(victims)
        self._forget(victims, victims)
        return len(victims)

    def close(self) -> None:
        """Free everything that nobody reads; objects being sent are freed at their release. May be called twice."""
        idle: list[Record] = []
        with self._lock:
            self._closed = True
            leaving = list(self._visible.values())
            for record in leaving:
                self._detach(record, idle)
        self._forget(leaving, idle)

    def _create(self, record: Record) -> None:
        with store_errors("create an object in", self.place):
            record.fd = self._descriptors.open(_create_memory_file)

    def _publish(self, record: Record) -> None:
        # Once sealed it can be passed to sendfile() too: the kernel itself refuses changes.
        with store_errors("seal an object in", self.place):
            fcntl.fcntl(record.fd, fcntl.F_ADD_SEALS, _SEALS)

    def _destroy(self, record: Record) -> None:
        os.close(record.fd)

    def _unpublish(self, records: Sequence[Record]) -> None:
        """A memory file has no name that could be left behind."""

    def _keep_metadata(self, record: Record, metadata: bytes) -> None:
        """Metadata live in the record alone."""

    def _keep_invalidated(self, records: Sequence[Record]) -> None:
        """Likewise."""

    def _touched(self, record: Record) -> None:
        """The order of use lives in the index alone."""

    def _file_of(self, record: Record) -> FileRef | None:
        try:
            status = os.fstat(record.fd)
        except OSError:  # evicted meanwhile
            return None
        return FileRef(record.fd, status.st_dev, status.st_ino, record.size_bytes)

    def _reclaim(self, records: Sequence[Record]) -> None:
        for record in records:
            assert record.state is State.LEAVING
            os.close(record.fd)
