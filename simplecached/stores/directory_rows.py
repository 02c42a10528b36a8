"""Row and IndexBatch: a row of a DirectoryStore's index, and what one transaction writes.

Statements take many rows each, because SQLite lets go of the interpreter at each, and has to get it back.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

_ROWS_AT_ONCE = 64
_INSERT = "INTO objects (version, key, size_bytes, metadata, used_tick, invalidated, epoch) VALUES "
_OR_RELABEL = (
    "ON CONFLICT (version) DO UPDATE SET metadata = excluded.metadata, invalidated = 0, epoch = excluded.epoch"
)
_VALUES = "(?,?,?,?,?,?,?)"


class Row(NamedTuple):
    """One object; `epoch` is the number of the last purge when it was written."""

    version: int
    key: bytes
    size_bytes: int
    metadata: bytes
    used_tick: int
    invalidated: int
    epoch: int

    @property
    def cost_bytes(self) -> int:
        """Return its share of the byte budget."""
        return self.size_bytes + len(self.metadata)


class IndexBatch:
    """The writes of one transaction of DirectoryIndex; each may raise sqlite3.Error, which ends it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows that are not there yet."""
        for some in _parts(rows):
            values = ",".join([_VALUES] * len(some))
            self._database.execute(f"INSERT OR IGNORE {_INSERT} {values}", tuple(chain.from_iterable(some)))

    def relabel(self, row: Row) -> None:
        """Write metadata, validity and epoch of a row, or the row itself if it is not there yet."""
        rest = (
            "ON CONFLICT (version) DO UPDATE SET metadata = excluded.metadata, invalidated = 0, epoch = excluded.epoch"
        )
        self._database.execute(f"INSERT {_INSERT} {_VALUES} {rest}", row)

    def remove(self, versions: Sequence[int]) -> None:
        """Remove rows, known or not."""
        for some in _parts(versions):
            query = f"DELETE FROM objects WHERE version IN ({marks(some)})"  # noqa: S608 - no value of others
            self._database.execute(query, some)

    def invalidate(self, versions: Sequence[int], epoch: int) -> None:
        """Invalidate rows, known or not, but for those written since the purge of that number."""
        for some in _parts(versions):
            where = f"version IN ({marks(some)}) AND epoch <= ?"
            query = f"UPDATE objects SET invalidated = 1, epoch = ? WHERE {where}"  # noqa: S608 - no value of others
            self._database.execute(query, (epoch, *some, epoch))

    def note_version(self, version: int) -> None:
        """No version up to this one is given again, even if its object never had a row."""
        self._database.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'objects', 0"
            " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'objects')"
        )
        self._database.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'objects'", (version,))

    def note_use(self, uses: Sequence[tuple[int, int]]) -> None:
        """Write pairs of tick and version."""
        self._database.executemany("UPDATE objects SET used_tick = ? WHERE version = ?", uses)

    def add_purge(self, prefix: bytes, *, invalidates: bool) -> int:
        """Note a purge of everything written so far that has this prefix, and return its number."""
        cursor = self._database.execute(
            "INSERT INTO purges (prefix, invalidates) VALUES (?, ?)", (prefix, int(invalidates))
        )
        number = cursor.lastrowid
        assert number is not None
        return number

    def remove_purge(self, number: int) -> None:
        """The purge has been carried out; its number is not given again."""
        self._database.execute("DELETE FROM purges WHERE number = ?", (number,))


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[at : at + _ROWS_AT_ONCE] for at in range(0, len(items), _ROWS_AT_ONCE))


def marks(items: Sequence[int]) -> str:
    """Return as many places for values as there are items."""
    return ",".join("?" * len(items))
