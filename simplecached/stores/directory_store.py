"""DirectoryStore: objects in files below one directory, found again after a restart.

A body is written to ``tmp/``, its length is checked, and it is renamed into place; then it is visible. Its row in the
index is written behind (paged_store.py). If the process is killed in between, the object is lost: a later start removes
what is left (directory_recovery.py).

The data of bodies is synced before their rows are written, many at once, so that a row never names a body that a power
failure emptied. Neither the directories nor the index are synced at each commit: losing them in a power failure makes
a recent object unknown, but no object wrong. ``sync_data=False`` leaves the data to the kernel as well, which is as
safe against a kill, but after a power failure only on file systems that write data before names.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from shmchannel.objects.hot_table_layout import FileRef
from simplecached.descriptors import OPEN_FILES_MAX, Descriptors
from simplecached.errors import SimpleCachedError, StoreUnavailable, store_errors
from simplecached.stores import steps
from simplecached.stores.directory_index import DirectoryIndex
from simplecached.stores.directory_layout import DirectoryLayout
from simplecached.stores.directory_recovery import recover
from simplecached.stores.disk_sync import sync_all, sync_file
from simplecached.stores.open_files import OpenFile, OpenFiles
from simplecached.stores.paged_store import INSIDE_MAX
from simplecached.stores.purging_store import PurgingStore
from simplecached.stores.record import Record, State
from simplecached.stores.store import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simplecached.stores.directory_rows import Row

log = logging.getLogger(__name__)

OBJECTS_MAX = 1 << 26
"""Far more than are tested: what bounds a store is its budget."""

_FEW = 8
_ALLOCATED_FROM_BYTES = 64 << 10
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class DirectoryStore(PurgingStore):
    """Objects in a directory used by this process alone; thread-safe.

    Raises StartupError if the directory cannot be used, or another process has it.
    """

    def __init__(
        self,
        path: str,
        budget_bytes: int,
        *,
        entries_max: int = OBJECTS_MAX,
        inside_max: int = INSIDE_MAX,
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
        with ExitStack() as undo:
            undo.callback(os.close, self._layout.acquire())
            self._objects_fd = self._layout.open_objects()
            undo.callback(os.close, self._objects_fd)
            unfinished_count = self._layout.empty_temporary()
            rows = DirectoryIndex(self._layout.index_path)
            undo.callback(rows.close)
            super().__init__(
                self._layout.directory, rows, budget_bytes=budget_bytes, entries_max=entries_max, inside_max=inside_max
            )
            self._skip_versions()
            self._recovery: Iterator[None] | None = recover(
                self._layout,
                rows,
                version_max=self._last_version,
                unfinished_count=unfinished_count,
                drop=self._drop_lost,
            )
            undo.callback(self._files.close)
            undo.callback(self._stop)
            self._keeper.start()
            self._evict_surplus()
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
        self._resources.close()

    def _path_of(self, key: bytes, version: int) -> str:
        return self._layout.object_path(self._layout.object_name(key, version))

    def _recover_piece(self) -> bool:
        if self._recovery is None:
            return False
        try:
            next(self._recovery)
        except StopIteration:
            self._recovery = None
        except SimpleCachedError as error:
            log.warning("store not recovered", extra={"directory": self._layout.directory, "reason": str(error)})
            self._recovery = None
        return self._recovery is not None

    def _drop_lost(self, rows: list[Row]) -> None:
        """Remove rows whose files are missing; those inside are noticed by who opens them."""
        versions = [row.version for row in rows]
        log.warning("stored objects lost", extra={"directory": self._layout.directory, "objects": len(versions)})
        self._drop_outside(partial(self._rows.of_versions, versions))

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
                if record.size_bytes >= _ALLOCATED_FROM_BYTES:
                    # Allocates the space now: a full disk is detected before the first byte instead of at the last. A
                    # small body is one write, which fails as a whole, and is written to disk three times faster.
                    os.posix_fallocate(record.fd, 0, record.size_bytes)
            except OSError:
                self._destroy(record)
                raise
        steps.checkpoint("created")

    def _publish(self, record: Record) -> None:
        steps.checkpoint("written")
        self._await_rows()
        path = self._path_of(record.key, record.version)
        with store_errors("commit", path):
            os.rename(record.path, path)
            record.path = path
            steps.checkpoint("renamed")
            fd, record.fd = record.fd, -1
            status = os.fstat(fd)
            record.identity = status.st_dev, status.st_ino
            os.close(fd)

    def _sync(self, records: Sequence[Record]) -> None:
        if not self._sync_data:
            return
        with store_errors("sync", self._layout.directory):
            if len(records) > _FEW:
                sync_all(self._layout.directory)
            else:
                for record in records:
                    sync_file(record.path)
        steps.checkpoint("synced")

    def _destroy(self, record: Record) -> None:
        if record.fd >= 0:
            os.close(record.fd)
            record.fd = -1
        if record.path:
            self._unlink(record.path)

    def _unlink_object(self, key: bytes, version: int) -> None:
        self._unlink(self._path_of(key, version))

    def _file_of(self, record: Record) -> FileRef | None:
        device, inode = record.identity
        if not inode:
            return None
        name = os.fsencode(self._layout.name_below_objects(record.path))
        return FileRef(self._objects_fd, device, inode, record.size_bytes, name)

    def _reclaim(self, records: Sequence[Record]) -> None:
        for record in records:
            self._files.drop(record)

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("object file not removed", extra={"path": path, "reason": error.strerror})
