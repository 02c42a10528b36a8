"""MemoryStore: objects in anonymous memory files, one each; gone with the process."""

from __future__ import annotations

import fcntl
import os
import resource
from typing import TYPE_CHECKING

from simplecached.errors import store_errors
from simplecached.lru_store import LruStore, Record, State
from simplecached.store import StoredObject

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESERVED_FDS = 256  # for sockets, queues, segments, logs and the like
_ENTRIES_MAX = 1_048_576
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def entries_max_from_limit(soft_limit: int) -> int:
    """Return how many objects may each hold a descriptor under this soft limit (RLIMIT_NOFILE)."""
    if soft_limit == resource.RLIM_INFINITY:
        return _ENTRIES_MAX
    return max(1, min(_ENTRIES_MAX, max(soft_limit - _RESERVED_FDS, soft_limit // 2)))


class MemoryStore(LruStore):
    """Objects in memory files, bounded by bytes and by count.

    The budget counts bodies and metadata; the kernel rounds every body up to whole pages. ``entries_max`` defaults to
    what the process's limit of descriptors allows at this moment, so raise the limit first.
    """

    def __init__(self, budget_bytes: int, entries_max: int | None = None) -> None:
        if entries_max is None:
            entries_max = entries_max_from_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        super().__init__("the memory store", budget_bytes=budget_bytes, entries_max=entries_max)
        self._release = self._unpin  # bound once: open() is the hot path

    def open(self, key: bytes) -> StoredObject | None:
        """Return the object of this key, pinned, or None; never blocks."""
        record = self._pin_visible(key)
        if record is None:
            return None
        marked = record.marked  # before the metadata: the mark of older metadata asks for too much, a lost one is lost
        return StoredObject(
            record.fd, record.size_bytes, record.version, record.metadata, self._release, record, marked
        )

    def close(self) -> None:
        """Free everything that nobody reads; what is being sent is freed at its release. May be called twice."""
        idle: list[Record] = []
        with self._lock:
            self._closed = True
            for record in list(self._visible.values()):
                self._detach(record, idle)
        self._reclaim(idle)

    def _create(self, record: Record) -> None:
        with store_errors("create an object in", self.place):
            record.fd = os.memfd_create("gfcache-object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def _publish(self, record: Record) -> None:
        # Sealed, it can be handed to sendfile() as well: the kernel itself refuses to change it.
        with store_errors("seal an object in", self.place):
            fcntl.fcntl(record.fd, fcntl.F_ADD_SEALS, _SEALS)

    def _destroy(self, record: Record) -> None:
        os.close(record.fd)

    def _unpublish(self, records: Sequence[Record]) -> None:
        """A memory file has no name that could stay behind."""

    def _keep_metadata(self, record: Record, metadata: bytes) -> None:
        """It lives in the record alone."""

    def _keep_marks(self, records: Sequence[Record]) -> None:
        """Likewise."""

    def _touched(self, record: Record) -> None:
        """The order of use lives in the index alone."""

    def _reclaim(self, records: Sequence[Record]) -> None:
        for record in records:
            assert record.state is State.LEAVING
            os.close(record.fd)
