"""DirectoryIndex: the SQLite file that maps the files of a DirectoryStore to objects.

It is read once, at startup, and only written to afterwards. It runs in WAL mode without a sync at each commit: a row
lost in a power failure leaves an unknown file, which the next start removes. No other process opens it (exclusive
mode), so there is no shared-memory file beside it.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from simplecached.errors import StartupError, StoreUnavailable
from simplecached.stores.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

_LAYOUT_VERSION = 3
# AUTOINCREMENT makes SQLite remember the highest version ever stored, even after its row is gone.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    used_tick INTEGER NOT NULL,
    invalidated INTEGER NOT NULL
)
"""
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_AUTH: errno.EACCES,
}
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class DirectoryIndex:
    """The index file of one store; thread-safe, writes are serialised."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._records: list[Record] = []
        self.last_version = 0
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            if _primary_code(error) not in _DAMAGED:
                raise StartupError(f"cannot open the store's index {path}: {error}") from error
            log.warning("store index corrupt, starting empty", extra={"path": path, "reason": str(error)})
            self._start_over()

    def take_records(self) -> list[Record]:
        """Return the content of the index when it was opened, the least recently used first, and release it."""
        records, self._records = self._records, []
        return records

    def add(self, ask: Callable[[], Record | None]) -> None:
        """Add the object that `ask` returns, unless it returns None; raises StoreUnavailable.

        `ask` is called while no other write can intervene. A caller that first tells `ask` that the object is removed
        or invalidated, and then removes or invalidates the row, therefore leaves no row that says otherwise. `ask` must
        not block.
        """
        with self._writing() as database:
            new = ask()
            if new is not None:
                row = (new.version, new.key, new.size_bytes, new.metadata, new.used_tick, int(new.invalidated))
                database.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)

    def remove(self, versions: Iterable[int]) -> None:
        """Remove objects, all or none, known or not; raises StoreUnavailable."""
        with self._writing() as database:
            database.executemany("DELETE FROM objects WHERE version = ?", ((version,) for version in versions))

    def replace_metadata(self, version: int, metadata: bytes) -> None:
        """Replace an object's metadata and make it valid again, atomically; raises StoreUnavailable."""
        with self._writing() as database:
            database.execute("UPDATE objects SET metadata = ?, invalidated = 0 WHERE version = ?", (metadata, version))

    def invalidate(self, versions: Iterable[int]) -> None:
        """Invalidate objects, all or none, known or not; raises StoreUnavailable."""
        with self._writing() as database:
            database.executemany(
                "UPDATE objects SET invalidated = 1 WHERE version = ?", ((version,) for version in versions)
            )

    def note_use(self, uses: Iterable[tuple[int, int]]) -> None:
        """Record pairs of tick and version; raises StoreUnavailable."""
        with self._writing() as database:
            database.executemany("UPDATE objects SET used_tick = ? WHERE version = ?", uses)

    def close(self) -> None:
        """Close the file; may be called twice. Later writes raise StoreUnavailable."""
        with self._lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            database = self._database
            if database is None:
                raise StoreUnavailable("write to", self.path, errno.ESHUTDOWN)
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except sqlite3.Error as error:
                code = _ERRNO.get(_primary_code(error), errno.EIO)
                raise StoreUnavailable("write to", self.path, code) from error
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    def _open(self) -> None:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._database = database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        with closing(database.execute("PRAGMA user_version")) as cursor:
            layout_version = cursor.fetchone()[0]
        if layout_version != _LAYOUT_VERSION:
            # Another layout, or a new file. A cache may forget: its objects become unknown files and are removed.
            database.execute("DROP TABLE IF EXISTS objects")
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_LAYOUT_VERSION}")
        self._load(database)

    def _load(self, database: sqlite3.Connection) -> None:
        query = (
            "SELECT key, size_bytes, metadata, version, invalidated, used_tick FROM objects ORDER BY used_tick, version"
        )
        with closing(database.execute(query)) as cursor:
            self._records += [
                Record(key, size_bytes, metadata, version, bool(invalidated), used_tick)
                for key, size_bytes, metadata, version, invalidated, used_tick in cursor
            ]
        with closing(database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'objects'")) as cursor:
            found = cursor.fetchone()
        self.last_version = found[0] if found else 0

    def _start_over(self) -> None:
        self._records.clear()
        for suffix in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            raise StartupError(f"cannot create the store's index {self.path}: {error}") from error


def _primary_code(error: sqlite3.Error) -> int:
    code = getattr(error, "sqlite_errorcode", None)  # errors of the module itself carry none
    return code & 0xFF if code is not None else sqlite3.SQLITE_ERROR
