"""DirectoryIndex: the SQLite file that maps the files of a DirectoryStore to objects.

It is not read at the start: a row is read when its object is wanted. Two connections: one writes, a transaction at a
time, the other reads what has been committed, so that no lookup waits for a write. WAL mode without a sync at each
commit: a row lost in a power failure leaves an unknown file, which a later start removes. Triggers keep the number of
objects and their bytes, because counting a million rows takes longer than a start may.

An index of the former layout is taken over. One that is damaged is found when a page of it is read: it is marked, and
the next start begins with an empty one.
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
from simplecached.stores.directory_rows import IndexBatch, Row, marks
from simplecached.stores.purges import Purge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger(__name__)

_LAYOUT_VERSION = 4
_FORMER_LAYOUT_VERSION = 3
_WAL_BYTES_MAX = 16 << 20
_CACHE_KIB = 4096
_MARK = ".damaged"
# AUTOINCREMENT makes SQLite remember the highest number ever given, even after its row is gone.
_OBJECTS = """
CREATE TABLE objects (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    used_tick INTEGER NOT NULL,
    invalidated INTEGER NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0
)
"""
_REST = (
    "DROP TABLE IF EXISTS totals",
    "DROP TABLE IF EXISTS purges",
    "CREATE INDEX IF NOT EXISTS objects_by_key ON objects (key)",
    "CREATE INDEX IF NOT EXISTS objects_by_use ON objects (used_tick)",
    "CREATE TABLE totals (objects_count INTEGER NOT NULL, cost_bytes INTEGER NOT NULL)",
    "INSERT INTO totals SELECT count(*), coalesce(sum(size_bytes + length(metadata)), 0) FROM objects",
    """CREATE TABLE purges (
    number INTEGER PRIMARY KEY AUTOINCREMENT, prefix BLOB NOT NULL, invalidates INTEGER NOT NULL)""",
    """CREATE TRIGGER object_added AFTER INSERT ON objects BEGIN UPDATE totals SET
    objects_count = objects_count + 1, cost_bytes = cost_bytes + new.size_bytes + length(new.metadata); END""",
    """CREATE TRIGGER object_removed AFTER DELETE ON objects BEGIN UPDATE totals SET
    objects_count = objects_count - 1, cost_bytes = cost_bytes - old.size_bytes - length(old.metadata); END""",
    """CREATE TRIGGER metadata_replaced AFTER UPDATE OF metadata ON objects BEGIN UPDATE totals SET
    cost_bytes = cost_bytes + length(new.metadata) - length(old.metadata); END""",
)
_COLUMNS = "version, key, size_bytes, metadata, used_tick, invalidated, epoch"
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_AUTH: errno.EACCES,
}
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def end_of_prefix(prefix: bytes) -> bytes | None:
    """Return the first key after all that begin with the prefix, or None if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


class DirectoryIndex:
    """The index file of one store; thread-safe, writes are serialised."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self.last_version = self.last_tick = self.last_purge = 0
        self.objects_count = self.cost_bytes = 0
        self.purges: tuple[Purge, ...] = ()
        """What was there when it was opened."""
        try:
            if os.path.exists(path + _MARK):
                self._start_over("found damaged before")
            else:
                self._open()
        except sqlite3.Error as error:
            self.close()
            if _primary_code(error) not in _DAMAGED:
                raise StartupError(f"cannot open the store's index {path}: {error}") from error
            self._start_over(str(error))

    # Reading: what has been committed. Each raises StoreUnavailable.

    def find(self, key: bytes) -> Row | None:
        """Return the youngest row of a key."""
        found = self._rows("WHERE key = ? ORDER BY version DESC LIMIT 1", (key,))
        return found[0] if found else None

    def between(self, start: bytes, end: bytes | None, limit: int = -1, epoch_below: int | None = None) -> list[Row]:
        """Return rows by key, from `start` until before `end`; if wanted only those before a purge."""
        where, values = _range(start, end)
        if epoch_below is None:
            return self._rows(f"{where} ORDER BY key LIMIT {limit:d}", values)
        return self._rows(f"{where} AND epoch < ? ORDER BY key LIMIT {limit:d}", (*values, epoch_below))

    def count_between(self, start: bytes, end: bytes | None, limit: int = -1) -> int:
        """Count the keys from `start` until before `end`, up to a limit."""
        where, values = _range(start, end)
        query = f"SELECT count(*) FROM (SELECT 1 FROM objects {where} LIMIT {limit:d})"  # noqa: S608 - no value of others
        with self._reading() as database, closing(database.execute(query, values)) as cursor:
            return int(cursor.fetchone()[0])

    def oldest(self, after: tuple[int, int], limit: int) -> list[Row]:
        """Return the least recently used, from after a pair of tick and version."""
        where = "WHERE used_tick >= ? AND (used_tick > ? OR version > ?) ORDER BY used_tick, version"
        return self._rows(f"{where} LIMIT {limit:d}", (after[0], *after))

    def after_version(self, version: int, limit: int) -> list[Row]:
        """Return rows by version, from after this one."""
        return self._rows(f"WHERE version > ? ORDER BY version LIMIT {limit:d}", (version,))

    def of_versions(self, versions: Sequence[int]) -> list[Row]:
        """Return the rows of some versions, at most a few hundred."""
        return self._rows(f"WHERE version IN ({marks(versions)})", tuple(versions))

    def known(self, versions: Sequence[int]) -> set[int]:
        """Return those of some versions, at most a few hundred, that have a row."""
        query = f"SELECT version FROM objects WHERE version IN ({marks(versions)})"  # noqa: S608 - no value of others
        with self._reading() as database, closing(database.execute(query, versions)) as cursor:
            return {version for (version,) in cursor}

    # Writing

    @contextmanager
    def writing(self) -> Iterator[IndexBatch]:
        """One transaction: all that is written through the batch, or none; raises StoreUnavailable.

        No other write can intervene. Nothing may block inside.
        """
        with self._lock:
            database = self._writer
            if database is None:
                raise StoreUnavailable("write to", self.path, errno.ESHUTDOWN)
            try:
                database.execute("BEGIN IMMEDIATE")
                yield IndexBatch(database)
                database.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unavailable("write to", error) from error
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Write what has been committed into the file itself once that is much; blocks for the medium, never raises."""
        try:
            if os.stat(self.path + "-wal").st_size < _WAL_BYTES_MAX:
                return
            with self._lock:
                if self._writer is not None:
                    self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        except (OSError, sqlite3.Error) as error:
            log.warning("store index not written back", extra={"path": self.path, "reason": str(error)})

    def close(self) -> None:
        """Close the file; may be called twice. Later uses raise StoreUnavailable."""
        with self._read_lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def _rows(self, rest: str, values: tuple[int | bytes, ...]) -> list[Row]:
        query = f"SELECT {_COLUMNS} FROM objects {rest}"  # noqa: S608 - no value of others
        with self._reading() as database, closing(database.execute(query, values)) as cursor:
            return [Row(*row) for row in cursor]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock:
            if self._reader is None:
                raise StoreUnavailable("read", self.path, errno.ESHUTDOWN)
            try:
                yield self._reader
            except sqlite3.Error as error:
                raise self._unavailable("read", error) from error

    def _unavailable(self, action: str, error: sqlite3.Error) -> StoreUnavailable:
        if _primary_code(error) in _DAMAGED and not os.path.exists(self.path + _MARK):
            log.error(
                "store index damaged, empty after the next start", extra={"path": self.path, "reason": str(error)}
            )
            try:
                open(self.path + _MARK, "wb").close()
            except OSError as refusal:
                log.error("damage not marked", extra={"path": self.path, "reason": refusal.strerror})
        return StoreUnavailable(action, self.path, _ERRNO.get(_primary_code(error), errno.EIO))

    def _open(self) -> None:
        self._writer = database = self._connect()
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        self._prepare(database)
        self._reader = self._connect()
        self.last_version = _number_in(database, "SELECT seq FROM sqlite_sequence WHERE name = 'objects'")
        self.last_purge = _number_in(database, "SELECT seq FROM sqlite_sequence WHERE name = 'purges'")
        self.last_tick = _number_in(database, "SELECT max(used_tick) FROM objects")
        self.objects_count = _number_in(database, "SELECT objects_count FROM totals")
        self.cost_bytes = _number_in(database, "SELECT cost_bytes FROM totals")
        with closing(database.execute("SELECT number, prefix, invalidates FROM purges ORDER BY number")) as cursor:
            self.purges = tuple(Purge(number, prefix, bool(invalidates)) for number, prefix, invalidates in cursor)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        layout_version = _number_in(database, "PRAGMA user_version")
        if layout_version == _LAYOUT_VERSION:
            return
        database.execute("BEGIN IMMEDIATE")
        if layout_version == _FORMER_LAYOUT_VERSION:
            database.execute("ALTER TABLE objects ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0")
        else:
            # Another layout, or a new file. A cache may forget: its objects become unknown files and are removed.
            database.execute("DROP TABLE IF EXISTS objects")
            database.execute(_OBJECTS)
        for statement in _REST:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_LAYOUT_VERSION}")
        database.execute("COMMIT")
        if layout_version == _FORMER_LAYOUT_VERSION:
            log.info("store index of the former layout taken over", extra={"path": self.path})

    def _start_over(self, reason: str) -> None:
        log.warning("store index corrupt, starting empty", extra={"path": self.path, "reason": reason})
        for suffix in ("", "-wal", "-shm", "-journal", _MARK):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            raise StartupError(f"cannot create the store's index {self.path}: {error}") from error


def _range(start: bytes, end: bytes | None) -> tuple[str, tuple[bytes, ...]]:
    return ("WHERE key >= ?", (start,)) if end is None else ("WHERE key >= ? AND key < ?", (start, end))


def _number_in(database: sqlite3.Connection, query: str) -> int:
    with closing(database.execute(query)) as cursor:
        found = cursor.fetchone()
    return int(found[0] or 0) if found else 0


def _primary_code(error: sqlite3.Error) -> int:
    code = getattr(error, "sqlite_errorcode", None)  # errors of the module itself carry none
    return code & 0xFF if code is not None else sqlite3.SQLITE_ERROR
