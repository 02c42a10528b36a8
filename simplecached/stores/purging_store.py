"""PurgingStore: a PagedStore that removes and invalidates, one object or a million, inside and outside.

A few objects are removed or invalidated at once, as in LruStore: files first, then rows. What has too many for that is
a Purge in the index (purges.py): written before it is acknowledged, looked at whenever a row is read, and carried out
behind.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from simplecached.errors import StoreUnavailable
from simplecached.stores import steps
from simplecached.stores.directory_index import end_of_prefix
from simplecached.stores.paged_store import INSIDE_MAX, PIECE, PagedStore
from simplecached.stores.purges import Purge
from simplecached.stores.record import Record, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from simplecached.stores.directory_index import DirectoryIndex
    from simplecached.stores.directory_rows import Row

log = logging.getLogger(__name__)

_SMALL_PURGE = 512
_PURGES_MAX = 64


class PurgingStore(PagedStore):
    """The purges; a subclass has the files and the recovery."""

    def __init__(
        self, place: str, rows: DirectoryIndex, *, budget_bytes: int, entries_max: int, inside_max: int = INSIDE_MAX
    ) -> None:
        super().__init__(place, rows, budget_bytes=budget_bytes, entries_max=entries_max, inside_max=inside_max)
        self._to_unlink: list[Record] = []  # purged: as the purge is in the index, they need not be unlinked at once
        self._worked_off = b""  # up to where the first purge has been carried out

    @abstractmethod
    def _recover_piece(self) -> bool:
        """Do a piece of the recovery; returns whether there is more."""

    def _do_patient(self) -> bool:
        return self._carry_out() or self._recover_piece()

    def remove(self, key: bytes) -> bool:
        """As in LruStore; raises StoreUnavailable if the index cannot be read."""
        found = super().remove(key)
        return self._drop_outside(partial(self._rows.between, key, key + b"\0")) > 0 or found

    def remove_prefix(self, prefix: bytes) -> int:
        """As in LruStore. Of many objects, the files are removed behind; they are not found from now on."""
        if self._is_large(prefix):
            return self._purge(prefix, invalidates=False)
        count = super().remove_prefix(prefix)
        return count + self._drop_outside(partial(self._rows.between, prefix, end_of_prefix(prefix)))

    def invalidate(self, key: bytes) -> bool:
        """As in LruStore; raises StoreUnavailable if the index cannot be read."""
        with self._metadata_lock:
            count = self._invalidate(self._records_at(key))
            return count + self._invalidate_outside(partial(self._rows.between, key, key + b"\0")) > 0

    def invalidate_prefix(self, prefix: bytes) -> int:
        """As in LruStore. Of many objects, the rows are changed behind; they count as invalidated from now on."""
        with self._metadata_lock:
            if self._is_large(prefix):
                return self._purge(prefix, invalidates=True)
            count = self._invalidate(self._records_below(prefix))
            return count + self._invalidate_outside(partial(self._rows.between, prefix, end_of_prefix(prefix)))

    # Invalidating what is outside, and purges of many.

    def _invalidate_outside(self, read: Callable[[], list[Row]]) -> int:
        """Invalidate the objects of rows and return how many were visible; the metadata lock is held."""
        if not self._index.outside_count:
            return 0
        count = self._drop_outside(lambda: [row for row in read() if not row.metadata])
        rows = [row for row in read() if row.metadata]
        with self._lock:
            rows = [row for row in rows if self._is_outside(row) and not self._is_inside(row)]
        if not rows:
            return count
        try:
            with self._rows.writing() as batch:
                batch.invalidate([row.version for row in rows], self._purges.epoch)
        except StoreUnavailable:
            return count + self._drop_outside(read)  # a restart would make them valid again
        steps.checkpoint("invalidated")
        with self._lock:
            self._generation += 1
            for row in rows:
                if self._is_inside(row):  # it came in since
                    self._visible[row.key].invalidated = True
        self._tell(rows)
        return count + len(rows)

    def _is_large(self, prefix: bytes) -> bool:
        if self._index.outside_count <= _SMALL_PURGE:
            return False
        return self._rows.count_between(prefix, end_of_prefix(prefix), _SMALL_PURGE + 1) > _SMALL_PURGE

    def _purge(self, prefix: bytes, *, invalidates: bool) -> int:
        """Purge at once what has many rows, carry it out behind, and return about how many were visible."""
        count = self._rows.count_between(prefix, end_of_prefix(prefix))
        try:
            if len(self._purges.active) >= _PURGES_MAX:
                raise StoreUnavailable("add a purge to", self._rows.path, 0)
            with self._rows.writing() as batch:
                number = batch.add_purge(prefix, invalidates=invalidates)
        except StoreUnavailable:
            return self._purge_one_by_one(prefix)
        steps.checkpoint("purged")
        idle: list[Record] = []
        with self._lock:  # from here on no row brings one in; the rows of those inside are all older than this epoch
            self._purges = self._purges.with_one(Purge(number, prefix, invalidates))
            self._generation += 1
            records = [record for record in self._all_records() if record.key.startswith(prefix)]
            visible = [record for record in records if record.state is State.VISIBLE]
            count += sum(record.row_tick < 0 for record in visible)
            if not invalidates:
                for record in records:
                    record.removed = True
                for record in visible:
                    self._detach(record, idle)
                self._removed += len(visible)
                self._to_unlink += visible
        if invalidates:
            self._invalidate(records)
        self._on_large_purge()
        self._reclaim(idle)
        self._keeper.wake()
        return count

    def _all_records(self) -> list[Record]:
        """Return what is inside, in whatever state; the lock is held."""
        return [*self._writing, *self._leaving, *self._visible.values()]

    def _purge_one_by_one(self, prefix: bytes) -> int:
        """Without a place to note it; removes what should be invalidated, because a restart would make it valid."""
        count = self._remove(self._records_below(prefix))
        end, start = end_of_prefix(prefix), prefix
        while self._index.outside_count:
            rows = self._rows.between(start, end, PIECE)
            if not rows:
                break
            count += self._drop_outside(partial(self._rows.between, start, rows[-1].key + b"\0"))
            start = rows[-1].key + b"\0"
        return count

    def _carry_out(self) -> bool:
        """Carry out a piece of the first purge; returns whether there is more."""
        unlinked, self._to_unlink[:PIECE] = self._to_unlink[:PIECE], []
        self._forget(unlinked, [])
        if not self._purges.active:
            return bool(self._to_unlink)
        purge = self._purges.active[0]
        start = max(purge.prefix, self._worked_off)
        end = end_of_prefix(purge.prefix)
        rows = self._rows.between(start, end, PIECE, purge.number)
        if not rows:
            with self._rows.writing() as batch:
                batch.remove_purge(purge.number)
            with self._lock:
                self._purges = self._purges.without(purge)
                self._generation += 1
            self._worked_off = b""
            log.info("purge carried out", extra={"prefix": purge.prefix, "invalidates": purge.invalidates})
            return True
        read = partial(self._rows.between, start, rows[-1].key + b"\0", -1, purge.number)
        if purge.invalidates:
            self._drop_outside(lambda: [row for row in read() if not row.metadata])
            with self._rows.writing() as batch:
                batch.invalidate([row.version for row in rows if row.metadata], purge.number)
        else:
            self._drop_outside(read)
        self._worked_off = rows[-1].key + b"\0"
        return True
