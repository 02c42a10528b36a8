"""PagedStore: an LruStore of which only the objects in use are in memory; all others are rows of its index.

Theory of operation
===================

    inside     an object that was used lately, is being written or read: a Record, as in LruStore
    outside    an object of which only the row exists. It is older than those inside but for a few that were being read

A lookup that finds nothing inside reads the row, and brings the object in. What is inside beyond `inside_max` is put
out again, the least recently used first. The index of rows is written behind, by one thread, many rows in one
transaction. Until then:

    pending    visible objects without a row: they stay inside. A kill loses them: their files are then unknown
    gone       versions whose rows are to be removed. A reader of rows takes no notice of these

A row that was read without the lock may have changed before the lock is taken. `generation` counts transactions: who
finds another one than before reads again.

Whatever removes objects has removed their files before it returns, so no row can bring them back. New metadata are
written before they return. Purges are in purging_store.py.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from simplecached.errors import StoreUnavailable
from simplecached.stores import steps
from simplecached.stores.directory_rows import Row
from simplecached.stores.lru_store import LruStore
from simplecached.stores.purges import PurgeList
from simplecached.stores.record import Record, State
from simplecached.stores.store_keeper import StoreKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from simplecached.stores.directory_index import DirectoryIndex

log = logging.getLogger(__name__)

INSIDE_MAX = 16_384
_PENDING_MAX = 4096
_ROWS_PER_TURN = 1024
PIECE = 128
_USES_PER_TURN = 128
_LOOKED_AT_BELOW = 64
_START = (-1, -1)


class PagedStore(LruStore):
    """Keys, versions and eviction over an index of rows; a subclass has the files."""

    def __init__(
        self, place: str, rows: DirectoryIndex, *, budget_bytes: int, entries_max: int, inside_max: int = INSIDE_MAX
    ) -> None:
        super().__init__(place, budget_bytes=budget_bytes, entries_max=entries_max, version_floor=rows.last_version)
        self._rows = rows
        self._inside_max = inside_max
        self._index.outside_count, self._index.outside_bytes = rows.objects_count, rows.cost_bytes
        self._tick = rows.last_tick
        self._purges = PurgeList(rows.last_purge, rows.purges)
        self._generation = 0
        self._pending: dict[Record, None] = {}
        self._pending_fell = threading.Condition(self._lock)
        self._write_error: StoreUnavailable | None = None
        self._gone: set[int] = set()
        self._dead: list[int] = []  # of those, what the next transactions remove
        self._used: set[Record] = set()
        self._victims: dict[int, Row] = {}  # the next ones outside to be evicted, in order
        self._cursor = _START  # up to where they were read
        self._fruitless = 0
        self._to_unlink: list[
            Record
        ] = []  # purged; the purge is in the index, so that they need not be unlinked at once
        self._write_lock = threading.Lock()  # one transaction of _write_rows at a time
        self._keeper = StoreKeeper("store-keeper", urgent=self._do_urgent, patient=self._do_patient)

    # Steps of a subclass.
    @abstractmethod
    def _unlink_object(self, key: bytes, version: int) -> None:
        """Remove a file that may be gone already; never raises."""

    @abstractmethod
    def _path_of(self, key: bytes, version: int) -> str:
        """Return the path of a complete body."""

    @abstractmethod
    def _sync(self, records: Sequence[Record]) -> None:
        """Make the data of complete bodies durable; raises StoreUnavailable."""

    @abstractmethod
    def _do_patient(self) -> bool:
        """Do a piece of what nobody waits for; returns whether there is more."""

    # What LruStore asks.

    def has_below(self, key: bytes) -> bool:
        """Return whether an object is visible whose key is this one, NUL, and anything; may read the index."""
        if key in self._below:
            return True
        if not self._index.outside_count:
            return False
        rows = self._rows.between(key + b"\0", key + b"\1", _LOOKED_AT_BELOW)
        return any(self._is_outside(row) for row in rows) or len(rows) == _LOOKED_AT_BELOW

    def records(self) -> list[Record]:
        """Return all visible objects, the least recently used first; reads the whole index."""
        outside = self._rows.oldest(_START, -1) if self._index.outside_count else []
        with self._lock:
            inside = [record for record in self._index if record.state is State.VISIBLE]
            versions = {record.version for record in inside}
            found = [self._record_of(row) for row in outside if row.version not in versions and self._is_outside(row)]
        return sorted([*found, *inside], key=lambda record: record.used_tick)

    def settle(self) -> None:
        """Block until the index has everything, and all work behind is done; for tests and measurements."""
        self._keeper.settle()

    def touch(self, keys: Iterable[bytes]) -> None:
        """As in LruStore; those outside are brought in, because somebody uses them."""
        keys = list(keys)
        super().touch(keys)
        if not self._index.outside_count:
            return
        try:
            for key in keys:
                if key not in self._visible and (record := self._bring_in(key)) is not None:
                    self._unpin(record)
        except StoreUnavailable as error:
            log.debug("uses not noted", extra={"reason": str(error)})

    # From outside to inside and back.

    def _bring_in(self, key: bytes, version: int = 0) -> Record | None:
        while self._index.outside_count:
            generation = self._generation
            row = self._rows.find(key)
            with self._lock:
                record = self._visible.get(key)
                if record is None:
                    if generation != self._generation:
                        continue
                    if row is None or not self._is_outside(row) or version not in (0, row.version):
                        return None
                    record = self._record_of(row)
                    self._index.bring_in(record, record.cost_bytes)
                    self._victims.pop(row.version, None)
                    self._show(record)
                elif version not in (0, record.version):
                    return None
                self._index.pin(record)
                self._touched(record)
                is_full = len(self._visible) > self._inside_max
            if is_full:
                self._keeper.wake()
            return record
        return None

    def _record_of(self, row: Row) -> Record:
        """Return what a row says, with the purges that hold."""
        _, invalidated = self._purges.state_of(row.key, row.epoch)
        record = Record(row.key, row.size_bytes, row.metadata, row.version, bool(row.invalidated) or invalidated)
        record.used_tick = record.row_tick = row.used_tick
        record.path = self._path_of(row.key, row.version)
        record.state = State.VISIBLE
        return record

    def _is_outside(self, row: Row) -> bool:
        """Return whether a row that was read is an object, unless it is inside."""
        if row.version in self._gone:
            return False
        if row.epoch >= self._purges.epoch:
            return True
        removed, invalidated = self._purges.state_of(row.key, row.epoch)
        return not removed and not (invalidated and not row.metadata)

    def _is_inside(self, row: Row) -> bool:
        record = self._visible.get(row.key)
        return record is not None and record.version == row.version

    def _put_out(self) -> bool:
        """Put the least recently used beyond the bound out; returns whether there are more."""
        with self._metadata_lock:  # so that the row and the record say the same
            with self._lock:
                surplus = len(self._visible) - self._inside_max
                leaving = self._index.oldest(min(surplus, _ROWS_PER_TURN)) if surplus > 0 else []
                leaving = [record for record in leaving if record.row_tick >= 0]
                uses = [(record.used_tick, record.version) for record in leaving if record.used_tick != record.row_tick]
            if uses:
                with self._rows.writing() as batch:
                    batch.note_use(uses)
            if not leaving:
                return False
            idle: list[Record] = []
            with self._lock:
                self._generation += 1
                written = {version: tick for tick, version in uses}
                for record in leaving:
                    record.row_tick = written.get(record.version, record.row_tick)
                    is_idle = record.state is State.VISIBLE and not self._index.pins(record)
                    if is_idle and record.used_tick == record.row_tick:
                        self._hide(record)
                        self._index.put_out(record)
                        self._used.discard(record)
                        idle.append(record)
                        if (record.row_tick, record.version) <= self._cursor:
                            self._victims.clear()
                            self._cursor = _START
        self._reclaim(idle)
        return len(idle) == _ROWS_PER_TURN

    # Removing what is outside.

    def _take_out(self, rows: Sequence[Row]) -> tuple[list[Row], list[Record]]:
        """Make rows gone; returns those that were outside, and those objects that are inside. The lock is held."""
        leaving: list[Row] = []
        inside: list[Record] = []
        for row in rows:
            record = self._visible.get(row.key)
            if record is not None and record.version == row.version:
                inside.append(record)
            elif row.version not in self._gone:
                self._gone.add(row.version)
                self._dead.append(row.version)
                self._victims.pop(row.version, None)
                self._index.outside_count -= 1
                self._index.outside_bytes -= row.cost_bytes
                leaving.append(row)
        return leaving, inside

    def _drop_outside(self, read: Callable[[], list[Row]]) -> int:
        """Remove the objects of rows and return how many were visible; those inside too, in case they came in since."""
        while self._index.outside_count:
            generation = self._generation
            rows = read()
            with self._lock:
                if generation != self._generation:
                    continue
                visible = {row.version for row in rows if self._is_outside(row)}
                leaving, inside = self._take_out(rows)
                told = [row for row in leaving if row.version in visible]
                self._removed += len(told)
            self._tell(told)
            self._unlink_rows(leaving)
            return len(told) + self._remove(inside)
        return 0

    def _tell(self, rows: Sequence[Row]) -> None:
        """Say that objects outside have changed or left."""
        if rows:
            self._on_change([Record(row.key, row.size_bytes, row.metadata, row.version) for row in rows])

    def _unlink_rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._unlink_object(row.key, row.version)
        if rows:
            steps.checkpoint("unlinked")
            self._keeper.wake()

    def _older_outside(self, record: Record) -> Callable[[], None]:
        if not self._index.outside_count:
            return lambda: None
        read = partial(self._rows.between, record.key, record.key + b"\0")
        if not read():
            return lambda: None
        return lambda: self._drop_older(record, read)

    def _drop_older(self, record: Record, read: Callable[[], list[Row]]) -> None:
        def older() -> list[Row]:
            return [row for row in read() if row.version < record.version]

        with self._lock:
            removed = self._removed
        self._drop_outside(older)
        with self._lock:
            self._removed = removed  # it was replaced

    def _evict_in_order(self, more_bytes: int, entry_count: int) -> None:
        leaving: list[Row] = []
        victims: list[Record] = []
        with self._lock:
            while self._index.outside_count and max(self._index.surplus_with(more_bytes, entry_count)) > 0:
                row = next(iter(self._victims.values()), None)
                if row is None:
                    break
                inside = next(iter(self._index.oldest(1)), None)
                if inside is not None and inside.used_tick < row.used_tick:
                    self._detach(inside, [])
                    victims.append(inside)
                else:
                    del self._victims[row.version]
                    leaving += self._take_out([row])[0]
                if len(leaving) + len(victims) >= PIECE:
                    break
            self._evicted += len(leaving) + len(victims)
            is_exhausted = not self._victims and self._index.outside_count > 0
        self._forget(victims, victims)
        self._tell(leaving)
        self._unlink_rows(leaving)
        if is_exhausted:
            self._find_victims()

    def _find_victims(self) -> None:
        """Read who is evicted next."""
        generation, cursor = self._generation, self._cursor
        rows = self._rows.oldest(cursor, PIECE)
        with self._lock:
            if generation != self._generation or cursor != self._cursor:
                return
            for row in rows:
                record = self._visible.get(row.key)
                if row.version not in self._gone and (record is None or record.version != row.version):
                    self._victims[row.version] = row
            self._cursor = (rows[-1].used_tick, rows[-1].version) if rows else _START
            self._fruitless = 0 if self._victims else self._fruitless + (not rows)
            if self._fruitless > 2 and self._index.outside_count:
                log.error("store index counts objects that it has not", extra={"objects": self._index.outside_count})
                self._index.outside_count = self._index.outside_bytes = 0

    def _evict_surplus(self) -> int:
        """As in LruStore; of many, some are evicted behind."""
        before = self._evicted
        for _ in range(4):
            if not self._index.outside_count or max(self._index.surplus_with(0, 0)) <= 0:
                break
            self._evict_in_order(0, 0)
        if self._index.outside_count:
            self._keeper.wake()
        else:
            super()._evict_surplus()
        return self._evicted - before

    def _oldest_outside(self) -> int:
        return next(iter(self._victims), 0) if self._index.outside_count else 0

    # The index is written.

    def _detach(self, record: Record, idle: list[Record]) -> None:
        super()._detach(record, idle)
        self._gone.add(record.version)
        self._pending.pop(record, None)
        self._used.discard(record)

    def _shown(self, record: Record) -> None:
        self._pending[record] = None
        self._keeper.wake()

    def _touched(self, record: Record) -> None:
        self._tick += 1
        record.used_tick = self._tick
        self._used.add(record)

    def _row_of(self, record: Record, metadata: bytes) -> Row:
        """Return the row of a record as it is now; the lock is held."""
        tick, invalidated = record.used_tick, int(record.invalidated)
        epoch = self._purges.epoch
        return Row(record.version, record.key, record.size_bytes, metadata, tick, invalidated, epoch)

    def _await_rows(self) -> None:
        """Block while too many objects have no row yet; raises StoreUnavailable if rows cannot be written."""
        if self._write_error is not None:
            self._write_rows()
        if len(self._pending) < _PENDING_MAX:
            return
        with self._lock:
            self._pending_fell.wait_for(
                lambda: len(self._pending) < _PENDING_MAX or self._write_error is not None or self._closed
            )
            if self._write_error is not None:
                raise self._write_error

    def _write_rows(self, uses_max: int = 0) -> bool:
        """Write what the index lacks, up to a number of rows; returns whether there is more."""
        with self._write_lock:
            return self._write_some_rows(uses_max)

    def _write_some_rows(self, uses_max: int) -> bool:
        with self._lock:
            records = list(islice(self._pending, _ROWS_PER_TURN))
            dead = self._dead[:_ROWS_PER_TURN]
            used = list(islice(self._used, uses_max or (_USES_PER_TURN if records else 0)))
            self._used.difference_update(used)
        if not records and not dead and not used:
            return False
        try:
            if records:
                self._sync(records)
            with self._rows.writing() as batch:
                with self._lock:
                    records = [record for record in records if record.state is State.VISIBLE]
                    rows = [self._row_of(record, record.metadata) for record in records]
                    noted = [record for record in used if record.row_tick >= 0 and record.state is State.VISIBLE]
                    uses = [(record.used_tick, record.version) for record in noted]
                batch.add(rows)
                batch.remove(dead)
                batch.note_use(uses)
                batch.note_version(self._last_version)
        except StoreUnavailable as error:
            with self._lock:
                self._write_error = error
                self._pending_fell.notify_all()
            raise
        if rows:
            steps.checkpoint("indexed")
        if dead:
            steps.checkpoint("unindexed")
        with self._lock:
            self._write_error = None
            self._generation += 1
            for record, row in zip(records, rows, strict=True):
                self._pending.pop(record, None)
                record.row_tick = row.used_tick
            for record, (tick, _) in zip(noted, uses, strict=True):
                record.row_tick = tick
            self._gone.difference_update(dead)
            del self._dead[: len(dead)]
            self._pending_fell.notify_all()
            return bool(self._pending or self._dead)

    def _keep_metadata(self, record: Record, metadata: bytes) -> None:
        if record.row_tick < 0:
            self._sync([record])
        with self._rows.writing() as batch:
            with self._lock:
                row = self._row_of(record, metadata) if record.state is State.VISIBLE else None
            if row is not None:
                batch.relabel(row._replace(invalidated=0))
        steps.checkpoint("relabelled")

    def _keep_invalidated(self, records: Sequence[Record]) -> None:
        with self._rows.writing() as batch:
            batch.invalidate([record.version for record in records], self._purges.epoch)
        with self._lock:
            self._generation += 1
        steps.checkpoint("invalidated")

    def _unpublish(self, records: Sequence[Record]) -> None:
        # The file first: even if the index cannot be written, the object does not come back. A record in _publish() may
        # not be renamed yet; it then gets no row, because it is `removed`.
        for record in records:
            self._unlink_object(record.key, record.version)
        steps.checkpoint("unlinked")
        with self._lock:
            self._dead += [record.version for record in records]
        self._keeper.wake()

    def _do_urgent(self) -> bool:
        """Write rows and keep to the bounds; returns whether there is more."""
        more = self._write_rows()
        more = self._put_out() or more
        if self._index.outside_count and not self._victims:
            self._find_victims()
        if self._index.outside_count and max(self._index.surplus_with(0, 0)) > 0:
            self._evict_in_order(0, 0)
            more = True
        self._rows.checkpoint()
        return more

    def _stop(self) -> None:
        """End the work behind, write what the index lacks, and forget everything; never raises."""
        self._keeper.stop()
        try:
            while self._write_rows(uses_max=max(1, len(self._used))):
                pass
            steps.checkpoint("flushed")
        except StoreUnavailable as error:
            log.warning("store index not complete", extra={"reason": str(error)})
        with self._lock:
            self._visible.clear()
            self._below.clear()
            self._pending.clear()
            self._used.clear()
            self._victims.clear()
            self._index.outside_count = self._index.outside_bytes = 0
            self._pending_fell.notify_all()
