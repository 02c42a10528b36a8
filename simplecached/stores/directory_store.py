"""DirectoryStore: objects in files below one directory, found again after a restart.

A body is written to ``tmp/``, its length is checked, its data is synced, it is renamed into place, and then its row is
added to the index; only then is it visible. If the process is killed between any two of these steps, the next start
removes what is left (directory_recovery.py).

The data of each body is synced before its row can exist, so that a row never names a body that a power failure emptied.
Neither the directories nor the index are synced at each commit: losing them in a power failure makes a recent object
unknown, but no object wrong. ``sync_data=False`` leaves the data to the kernel as well, which is as safe against a
kill, but after a power failure only on file systems that write data before names.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from shmchannel.objects.hot_table_layout import FileRef
from simplecached.descriptors import ENTRIES_MAX, OPEN_FILES_MAX, Descriptors
from simplecached.errors import StoreUnavailable, store_errors
from simplecached.stores.directory_index import DirectoryIndex
from simplecached.stores.directory_layout import DirectoryLayout
from simplecached.stores.directory_recovery import recover
from simplecached.stores.lru_store import LruStore
from simplecached.stores.open_files import OpenFile, OpenFiles
from simplecached.stores.record import Record, State
from simplecached.stores.store import StoredObject

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

_COMMITS_PER_FLUSH = 64
_USES_PER_FLUSH = 2048
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW

KILL_POINTS = (
    "created",
    "written",
    "synced",
    "renamed",
    "indexed",
    "unlinked",
    "unindexed",
    "flushed",
    "relabelled",
    "invalidated",
)


def checkpoint(_point: str) -> None:
    """Do nothing: fault tests replace it by a function that kills the process at one of KILL_POINTS."""


class DirectoryStore(LruStore):
    """Objects in a directory used by this process alone; thread-safe.

    Raises StartupError if the directory cannot be used, or another process has it.
    """

    def __init__(
        self,
        path: str,
        budget_bytes: int,
        *,
        entries_max: int = ENTRIES_MAX,
        open_files_max: int = OPEN_FILES_MAX,
        sync_data: bool = True,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._layout = DirectoryLayout(path)
        self._sync_data = sync_data
        self._files: OpenFiles[Record] = OpenFiles(open_files_max)
        self._descriptors = descriptors or Descriptors()
        self._descriptors.add_giver(self._files.drop_idle)
        self._numbers = itertools.count(1)
        self._tick = 0
        self._used: set[Record] = set()
        self._commits_since_flush = 0
        with ExitStack() as undo:
            lock_fd = self._layout.acquire()
            undo.callback(os.close, lock_fd)
            self._objects_fd = self._layout.open_objects()
            undo.callback(os.close, self._objects_fd)
            self._rows = DirectoryIndex(self._layout.index_path)
            undo.callback(self._rows.close)
            kept = recover(self._layout, self._rows, budget_bytes=budget_bytes, entries_max=entries_max)
            super().__init__(
                self._layout.directory,
                budget_bytes=budget_bytes,
                entries_max=entries_max,
                version_floor=self._rows.last_version,
            )
            self._adopt(kept)
            undo.callback(self._files.close)
            self._resources = undo.pop_all()

    def open(self, key: bytes) -> StoredObject | None:
        """Return the object of this key, pinned, or None; raises StoreUnavailable if it cannot be opened.

        Accesses the disk only if the object's file is not open yet.
        """
        while (record := self._pin_visible(key)) is not None:
            file = self._files.peek(record)
            if file is None or not self._files.pin(file):
                file = self._open_file(record)
            if file is not None:
                invalidated = record.invalidated  # before the metadata: as in MemoryStore
                return StoredObject(
                    file.fd, record.size_bytes, record.version, record.metadata, self._release, file, invalidated
                )
        return None

    def close(self) -> None:
        """Record the order of use, close everything that nobody reads, and release the directory; may be called twice.

        Objects being read stay readable until their release. Unfinished writers get StoreUnavailable.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._flush(uses_max=len(self._used))
        with self._lock:
            self._visible.clear()
            self._below.clear()
        self._resources.close()

    def _adopt(self, records: Sequence[Record]) -> None:
        for record in records:
            record.path = self._path_of(record)
            record.state = State.VISIBLE
            self._tick = max(self._tick, record.used_tick)
            self._index.add(record, record.cost_bytes)
            self._show(record)

    def _path_of(self, record: Record) -> str:
        """Return the path of a complete body."""
        return self._layout.object_path(self._layout.object_name(record.key, record.version))

    def _open_file(self, record: Record) -> OpenFile[Record] | None:
        """Open the file of a pinned record; None, with the pin released, if the file is missing or has another size."""
        try:
            fd = self._open_fd(record.path)
            status = os.fstat(fd)
            size_bytes = status.st_size
        except FileNotFoundError:
            fd, size_bytes = -1, -1
        except OSError as error:
            self._unpin(record)
            raise StoreUnavailable("open", record.path, error.errno or errno.EIO) from error
        if size_bytes == record.size_bytes:
            record.identity = status.st_dev, status.st_ino
            return self._files.keep(OpenFile(record, fd))
        if fd >= 0:
            os.close(fd)
        self._lose(record)
        self._unpin(record)
        return None

    def _open_fd(self, path: str) -> int:
        return self._descriptors.open(lambda: os.open(path, _READ_FLAGS))

    def _lose(self, record: Record) -> None:
        """Remove a record whose file is gone: it was deleted from outside, unless it was just replaced."""
        with self._lock:
            if record.state is not State.VISIBLE or self._closed:
                return
            self._detach(record, [])
        log.warning("stored object lost", extra={"path": record.path, "size_bytes": record.size_bytes})
        self._forget([record], [])

    def _release(self, file: OpenFile[Record]) -> None:
        self._files.release(file)
        self._unpin(file.key)

    def _create(self, record: Record) -> None:
        path = self._layout.temporary_path(next(self._numbers))
        with store_errors("create", path):
            try:
                record.fd = self._descriptors.open(lambda: os.open(path, _WRITE_FLAGS, 0o600))
                record.path = path
                if record.size_bytes:
                    # Allocates the space now: a full disk is detected before the first byte instead of at the last.
                    os.posix_fallocate(record.fd, 0, record.size_bytes)
            except OSError:
                self._destroy(record)
                raise
        checkpoint("created")

    def _publish(self, record: Record) -> None:
        checkpoint("written")
        path = self._path_of(record)
        with store_errors("commit", path):
            if self._sync_data:
                os.fdatasync(record.fd)
            checkpoint("synced")
            os.rename(record.path, path)
            record.path = path
            checkpoint("renamed")
            fd, record.fd = record.fd, -1
            status = os.fstat(fd)
            record.identity = status.st_dev, status.st_ino
            os.close(fd)
        record.used_tick = self._tick
        self._rows.add(lambda: None if record.removed else record)
        checkpoint("indexed")
        self._commits_since_flush += 1  # a count lost between threads only delays the next flush
        if self._commits_since_flush >= _COMMITS_PER_FLUSH:
            self._commits_since_flush = 0
            self._flush(uses_max=_USES_PER_FLUSH)

    def _destroy(self, record: Record) -> None:
        if record.fd >= 0:
            os.close(record.fd)
            record.fd = -1
        if record.path:
            self._unlink(record.path)
        if record.version:
            self._remove_rows([record])

    def _unpublish(self, records: Sequence[Record]) -> None:
        # The file first: even if the index cannot be written, the object does not come back. A record in _publish() may
        # not be renamed yet; it then gets no row, because it is `removed`.
        for record in records:
            self._unlink(self._path_of(record))
        checkpoint("unlinked")
        self._remove_rows(records)
        checkpoint("unindexed")

    def _keep_metadata(self, record: Record, metadata: bytes) -> None:
        self._rows.replace_metadata(record.version, metadata)
        checkpoint("relabelled")

    def _keep_invalidated(self, records: Sequence[Record]) -> None:
        self._rows.invalidate([record.version for record in records])
        checkpoint("invalidated")

    def _file_of(self, record: Record) -> FileRef | None:
        device, inode = record.identity
        if not inode:
            return None
        name = os.fsencode(self._layout.name_below_objects(record.path))
        return FileRef(self._objects_fd, device, inode, record.size_bytes, name)

    def _reclaim(self, records: Sequence[Record]) -> None:
        for record in records:
            self._files.drop(record)

    def _touched(self, record: Record) -> None:
        self._tick += 1
        record.used_tick = self._tick
        self._used.add(record)

    def _flush(self, *, uses_max: int) -> None:
        """Record the last uses, so that the eviction order roughly survives a restart; never raises."""
        with self._lock:
            batch = list(itertools.islice(self._used, uses_max))
            self._used.difference_update(batch)
            uses = [(record.used_tick, record.version) for record in batch if record.state is State.VISIBLE]
        if not uses:
            return
        try:
            self._rows.note_use(uses)
        except StoreUnavailable as error:
            log.warning("access order not saved", extra={"reason": str(error)})
        checkpoint("flushed")

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("object file not removed", extra={"path": path, "reason": error.strerror})

    def _remove_rows(self, records: Sequence[Record]) -> None:
        try:
            self._rows.remove([record.version for record in records])
        except StoreUnavailable as error:
            # A row without its file is dropped at the next start.
            log.warning("index rows not removed", extra={"row_count": len(records), "reason": str(error)})
