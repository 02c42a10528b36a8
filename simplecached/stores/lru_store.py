"""LruStore: the common part of stores with a budget: keys, versions, pins, eviction. Subclasses store the bytes.

A Record is WRITING (space is reserved), then VISIBLE, then LEAVING (replaced, removed, evicted), and gone with its last
pin. The lock guards dictionaries and counters only: what must be opened, synced or unlinked is decided under it and
done outside. So objects that are not yet or no longer visible may have a name on the medium that a restart would find.
Removing or invalidating a key handles such names as well before it returns, because the threads they belong to may
never run again.

Long because the states of an object and all that changes them are one idea, whose steps are only right together.
"""

from __future__ import annotations

import errno
import threading
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from simplecached.errors import NotStored, StoreUnavailable
from simplecached.stores.lru import LruIndex
from simplecached.stores.record import Record, State
from simplecached.stores.store import BodyWriter, StoreStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shmchannel.objects.hot_table_layout import FileRef
    from simplecached.stores.store import StoredObject


def _nothing() -> None:
    pass


class VisibleObject(NamedTuple):
    """An object as it is now; `file` says where others can read its body, if that is known."""

    version: int
    size_bytes: int
    metadata: bytes
    invalidated: bool
    file: FileRef | None


class LruStore(ABC):
    """The common part of all stores; thread-safe.

    ``place`` names the store in errors. A write that began before a remove of its key counts as committed before it:
    its object never becomes visible, so a running fill cannot undo a purge. The same holds for invalidations.
    """

    def __init__(self, place: str, *, budget_bytes: int, entries_max: int, version_floor: int = 0) -> None:
        self.place = place
        self._lock = threading.Lock()
        # Serialises replacements of metadata and invalidations: memory and medium end up with the same.
        self._metadata_lock = threading.Lock()
        self._index: LruIndex[Record] = LruIndex(budget_bytes=budget_bytes, entries_max=entries_max)
        self._visible: dict[bytes, Record] = {}
        self._below: dict[bytes, set[Record]] = {}  # the visible ones whose keys have a NUL, by what is before it
        self._writing: set[Record] = set()
        self._leaving: set[Record] = set()  # no longer visible, but their names may not be removed yet
        self._last_version = version_floor
        self._closed = False
        self._on_change: Callable[[Sequence[Record]], None] = lambda _records: None
        self._on_large_purge = _nothing
        self._hits = self._misses = self._stored = self._evicted = self._removed = self._refused = 0

    @abstractmethod
    def open(self, key: bytes) -> StoredObject | None:
        """Return the object of this key, pinned, or None; raises StoreUnavailable if it cannot be opened."""

    @abstractmethod
    def close(self) -> None:
        """Close everything that nobody reads; objects being read close at their release. May be called twice."""

    # Operations of a subclass on its medium. All but _touched are called without the lock.
    @abstractmethod
    def _create(self, record: Record) -> None:
        """Open record.fd for the body of a new object; raises StoreUnavailable, and leaves nothing behind then."""

    @abstractmethod
    def _publish(self, record: Record) -> None:
        """Persist a complete body before it becomes visible; raises StoreUnavailable, and _destroy follows.

        If the record becomes `removed` or `invalidated` during the call, _unpublish or _keep_invalidated is called for
        it: once they have returned, a restart does not find it, or finds it invalidated.
        """

    @abstractmethod
    def _destroy(self, record: Record) -> None:
        """Remove everything that _create and _publish made of an object that never became visible; never raises."""

    @abstractmethod
    def _unpublish(self, records: Sequence[Record]) -> None:
        """Remove the names of objects that are no longer visible, or never will be; never raises.

        They may still be read, or be in _publish; several threads may do it for the same object.
        """

    @abstractmethod
    def _reclaim(self, records: Sequence[Record]) -> None:
        """Free resources held for the readers of objects that have none left; never raises."""

    @abstractmethod
    def _keep_metadata(self, record: Record, metadata: bytes) -> None:
        """Persist new metadata of an object, valid again with it; raises StoreUnavailable, nothing changed."""

    @abstractmethod
    def _keep_invalidated(self, records: Sequence[Record]) -> None:
        """Persist that objects are invalidated, all or none, including those in _publish; raises StoreUnavailable."""

    def _shown(self, record: Record) -> None:
        """Note that a new object has become visible; called under the lock."""
        del record

    @abstractmethod
    def _touched(self, record: Record) -> None:
        """Note a use; called under the lock."""

    @abstractmethod
    def _file_of(self, record: Record) -> FileRef | None:
        """Where other processes of this user can open a visible object's body, or None."""

    def tell_changes(self, on_change: Callable[[Sequence[Record]], None], on_large_purge: Callable[[], None]) -> None:
        """Have somebody told which objects were replaced, removed, evicted, invalidated or updated.

        `on_change` is called without the lock, after the change, before the call that made it returns, and before a
        descriptor of such an object is closed. `on_large_purge` is called likewise, in its place, if those are too many
        to name. Neither may block or raise.
        """
        self._on_change, self._on_large_purge = on_change, on_large_purge

    def look(self, key: bytes, *, locate: bool = False) -> VisibleObject | None:
        """Say what is visible under a key, without a pin, and without counting it as a use; no lock.

        Its `file` is found only if asked to `locate` it, which may cost a system call.
        """
        record = self._visible.get(key)
        if record is None:
            return None
        invalidated = record.invalidated  # before the metadata: a validation too many is harmless
        file = self._file_of(record) if locate else None
        return VisibleObject(record.version, record.size_bytes, record.metadata, invalidated, file)

    def touch(self, keys: Iterable[bytes]) -> None:
        """Make objects the most recently used, whose uses this store has not seen."""
        with self._lock:
            for key in keys:
                record = self._visible.get(key)
                if record is not None:
                    self._index.touch(record)
                    self._touched(record)

    # Objects of a subclass that are not in memory: outside. They count in the index, and are older than those in it.
    def _bring_in(self, key: bytes, version: int = 0) -> Record | None:
        """Return the object of this key and version (0: any) from outside: visible, pinned, touched; or None."""
        del key, version
        return None

    def _older_outside(self, record: Record) -> Callable[[], None]:
        """Before an object becomes visible: return what removes those of its key that are outside, afterwards."""
        del record
        return _nothing

    def _evict_in_order(self, more_bytes: int, entry_count: int) -> None:
        """Evict the least recently used, wherever it is, until so much more fits, or nothing is outside."""
        raise NotImplementedError

    def _oldest_outside(self) -> int:
        """Return the version of the object that is evicted next, if it is outside, or 0; the lock is held."""
        return 0

    def begin(self, key: bytes, size_bytes: int, metadata: bytes) -> BodyWriter:
        """Reserve space for an object, evicting for it, and return its writer.

        Raises NotStored (above the whole budget, or everything else is pinned) or StoreUnavailable (the medium fails).
        Body and metadata count against the budget from now on.
        """
        record = Record(key, size_bytes, metadata)
        victims = self._reserve(record)
        try:
            self._forget(victims, victims)
            self._create(record)
        except BaseException:
            self._unreserve(record)
            raise
        return BodyWriter(
            record.fd,
            size_bytes,
            self.place,
            commit=partial(self._commit, record),
            abort=partial(self._abort, record),
        )

    def set_budget(self, budget_bytes: int) -> int:
        """Change the budget, evict what is beyond it, and return how many objects that were; blocks for the medium.

        Objects that are being sent or written stay, and count until they are not.
        """
        with self._lock:
            self._index.budget_bytes = budget_bytes
        return self._evict_surplus()

    def _evict_surplus(self) -> int:
        """Evict what is beyond the budget and return how many objects that were; may leave some of it for later."""
        with self._lock:
            victims = self._index.surplus()
            for victim in victims:
                self._detach(victim, [])
            self._evicted += len(victims)
        self._forget(victims, victims)
        return len(victims)

    def has_below(self, key: bytes) -> bool:
        """Return whether an object is visible whose key is this one, NUL, and anything; one look, without the lock."""
        return key in self._below

    def remove(self, key: bytes) -> bool:
        """Remove one object, visible or being written, and return whether it was visible; blocks for the medium."""
        return self._remove(self._records_at(key)) > 0

    def remove_prefix(self, prefix: bytes) -> int:
        """Remove all objects whose keys begin with the prefix and return how many were visible.

        An object that is committed after the call began may stay. An empty prefix removes everything.
        """
        return self._remove(self._records_below(prefix))

    def replace_metadata(self, key: bytes, version: int, metadata: bytes) -> bool:
        """Replace the metadata of the visible object of this version (0: any) and make it valid again; counts as a use.

        Returns False if there is none, or it has been removed in the meantime. Raises NotStored (the metadata
        grows and nothing can be evicted) or StoreUnavailable; the object is then unchanged. Blocks for the medium.
        """
        with self._metadata_lock:
            record = self._pinned(key, version)
            if record is None:
                return False
            idle: list[Record] = []
            kept = False
            try:
                self._reserve_growth(record, record.size_bytes + len(metadata))
                self._keep_metadata(record, metadata)
                kept = True
            finally:
                with self._lock:
                    kept = kept and record.state is State.VISIBLE
                    if kept:
                        record.metadata = metadata  # before the flag: open() reads them in the opposite order
                        record.invalidated = False
                    self._index.resize(record, record.cost_bytes)
                    self._drop_pin(record, idle)
                if kept:
                    self._on_change([record])
                self._reclaim(idle)
            return kept

    def invalidate(self, key: bytes) -> bool:
        """Invalidate one object, visible or being written, and return whether it was visible; blocks for the medium.

        One without metadata is removed instead, because nothing would report it.
        """
        with self._metadata_lock:
            return self._invalidate(self._records_at(key)) > 0

    def invalidate_prefix(self, prefix: bytes) -> int:
        """Invalidate all objects whose keys begin with the prefix, as invalidate(), and return how many were visible.

        One that is committed after the call began may stay valid.
        """
        with self._metadata_lock:
            return self._invalidate(self._records_below(prefix))

    def records(self) -> list[Record]:
        """Return all visible objects, the least recently used first; they must not be changed."""
        with self._lock:
            return [record for record in self._index if record.state is State.VISIBLE]

    def stats(self) -> StoreStats:
        """Return the current counts."""
        with self._lock:
            oldest = next(iter(self._index.oldest(1)), None)
            # Its version is the time when it was stored.
            stored_ns = self._oldest_outside() or (0 if oldest is None else oldest.version)
            return StoreStats(
                objects_count=len(self._visible) + self._index.outside_count,
                pinned_count=self._index.pinned_count - len(self._writing),
                hits_total=self._hits,
                misses_total=self._misses,
                used_bytes=self._index.used_bytes,
                budget_bytes=self._index.budget_bytes,
                writing_count=len(self._writing),
                stored_total=self._stored,
                evicted_total=self._evicted,
                removed_total=self._removed,
                refused_total=self._refused,
                oldest_age_s=max(0, time.time_ns() - stored_ns) / 1e9 if stored_ns else 0.0,
            )

    def _pin_visible(self, key: bytes) -> Record | None:
        """Look up a key for reading: count, pin, touch. The matching call is _unpin."""
        with self._lock:
            record = self._visible.get(key)
            if record is not None:
                self._index.pin(record)
                self._hits += 1
                self._touched(record)
                return record
        record = self._bring_in(key)
        with self._lock:
            if record is None:
                self._misses += 1
            else:
                self._hits += 1
        return record

    def _pinned(self, key: bytes, version: int) -> Record | None:
        """Pin and touch the visible object of this version (0: any). The matching call is _drop_pin."""
        with self._lock:
            self._check_open()
            record = self._visible.get(key)
            if record is not None:
                if version not in (0, record.version):
                    return None
                self._index.pin(record)
                self._touched(record)
                return record
        return self._bring_in(key, version)

    def _unpin(self, record: Record) -> None:
        """Release a reader's pin."""
        idle: list[Record] = []
        with self._lock:
            self._drop_pin(record, idle)
        if idle:
            self._reclaim(idle)

    def _commit(self, record: Record) -> int:
        with self._lock:
            self._check_open()
            # The wall clock, so that versions differ from those before a restart; it may step back.
            self._last_version = record.version = max(self._last_version + 1, time.time_ns())
            wanted = not record.removed
        if wanted:
            self._publish(record)  # whoever removes or invalidates the key from here on handles the name as well
        drop_older = self._older_outside(record)
        leaving: list[Record] = []
        idle: list[Record] = []
        with self._lock:
            self._check_open()
            older = self._visible.get(record.key)
            # Two commits of one key may overtake each other in _publish: the higher version stays.
            wanted = not (record.removed or (older is not None and older.version > record.version))
            if wanted:
                if older is not None:
                    self._detach(older, idle)
                    leaving.append(older)
                record.state = State.VISIBLE
                self._show(record)
                self._shown(record)
                self._writing.discard(record)
                self._index.unpin(record)
                self._index.touch(record)
                self._touched(record)
            self._stored += 1
        if not wanted:
            self._abort(record)
        self._forget(leaving, idle)
        drop_older()
        return record.version

    def _skip_versions(self) -> None:
        """Give no version up to the present time: those of earlier processes are below it, unless the clock stepped."""
        self._last_version = max(self._last_version, time.time_ns())

    def _abort(self, record: Record) -> None:
        self._destroy(record)
        self._unreserve(record)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("write to", self.place, errno.ESHUTDOWN)

    def _reserve(self, record: Record) -> list[Record]:
        def take() -> None:
            self._index.add(record, record.cost_bytes)
            self._index.pin(record)
            self._writing.add(record)

        return self._take_room(record.cost_bytes, record.cost_bytes, 1, take)

    def _reserve_growth(self, record: Record, cost_bytes: int) -> None:
        """Reserve the additional space of a pinned object; raises as _take_room()."""
        growth_bytes = cost_bytes - record.cost_bytes
        if growth_bytes > 0:
            victims = self._take_room(growth_bytes, cost_bytes, 0, lambda: self._index.resize(record, cost_bytes))
            self._forget(victims, victims)

    def _take_room(self, more_bytes: int, cost_bytes: int, entry_count: int, take: Callable[[], None]) -> list[Record]:
        """Evict for an object of `cost_bytes` that lacks `more_bytes` of them, take its room, and return the evicted.

        Raises NotStored. Whatever is outside is evicted without the lock, so it is looked at again with it.
        """
        while True:
            with self._lock:
                self._check_open()
                victims = self._victims_for(more_bytes, cost_bytes, entry_count)
                if not self._index.outside_count or max(self._index.surplus_with(more_bytes, entry_count)) <= 0:
                    for victim in victims:
                        self._detach(victim, [])
                    self._evicted += len(victims)
                    take()
                    return victims
            self._evict_in_order(more_bytes, entry_count)

    def _victims_for(self, more_bytes: int, cost_bytes: int, entry_count: int) -> list[Record]:
        """Return what of the objects in memory must leave; raises NotStored. The lock is held."""
        budget_bytes = self._index.budget_bytes
        if cost_bytes > budget_bytes:
            self._refused += 1
            raise NotStored(
                f"object of {cost_bytes} bytes does not fit the store's budget of {budget_bytes} bytes",
                hint="raise the byte budget of the store to keep such objects",
            )
        victims = self._index.victims_for(more_bytes, entry_count=entry_count)
        if victims is None:
            self._refused += 1
            pinned_bytes = self._index.pinned_bytes
            raise NotStored(
                f"no room for {more_bytes} bytes: {pinned_bytes} of {budget_bytes} bytes are being sent or written",
                hint="if this happens often, raise the byte budget or the descriptor limit",
            )
        return victims

    def _records_at(self, key: bytes) -> list[Record]:
        """Return the records that are or will be visible under a key, or were and may still have a name."""
        with self._lock:
            passing = [*self._writing, *self._leaving]
            visible = self._visible.get(key)
        records = [record for record in passing if record.key == key]
        return records if visible is None else [*records, visible]

    def _records_below(self, prefix: bytes) -> list[Record]:
        family, has_family, _ = prefix.partition(b"\0")
        with self._lock:
            visible = self._below.get(family, ()) if has_family else self._visible.values()
            records = [*self._writing, *self._leaving, *visible]
        return [record for record in records if record.key.startswith(prefix)]  # a long scan, so without the lock

    def _remove(self, records: Sequence[Record]) -> int:
        """Remove objects in any state and return how many were visible."""
        idle: list[Record] = []
        visible_count = 0
        with self._lock:
            for record in records:
                record.removed = True
                if self._visible.get(record.key) is record:
                    visible_count += 1
                    self._detach(record, idle)
            self._removed += visible_count
        # Without a version its commit is still to come, and will see that it was removed.
        self._forget([record for record in records if record.version], idle)
        return visible_count

    def _invalidate(self, records: Sequence[Record]) -> int:
        """Invalidate objects in any state and return how many were visible; under the metadata lock."""
        going: list[Record] = []
        staying: list[Record] = []
        visible_count = 0
        with self._lock:
            for record in records:
                visible_count += self._visible.get(record.key) is record
                if record.state is State.LEAVING or not record.metadata:
                    going.append(record)
                else:
                    record.invalidated = True
                    staying.append(record)
        self._on_change(staying)
        self._remove(going)
        named = [record for record in staying if record.version]  # the others' commits will see the flag
        if named:
            try:
                self._keep_invalidated(named)
            except StoreUnavailable:
                self._remove(named)  # a restart would make them valid again
        return visible_count

    def _unreserve(self, record: Record) -> None:
        with self._lock:
            self._writing.discard(record)
            record.state = State.LEAVING
            self._drop_pin(record, [])

    def _detach(self, record: Record, idle: list[Record]) -> None:
        """Make a visible object invisible, and note it as idle if nobody reads it; the lock is held."""
        self._hide(record)
        self._leaving.add(record)
        record.state = State.LEAVING
        if not self._index.pins(record):
            self._index.discard(record)
            idle.append(record)

    def _show(self, record: Record) -> None:
        """Make an object visible; the lock is held."""
        self._visible[record.key] = record
        family, has_family, _ = record.key.partition(b"\0")
        if has_family:
            self._below.setdefault(family, set()).add(record)

    def _hide(self, record: Record) -> None:
        """Make it invisible; the lock is held."""
        del self._visible[record.key]
        family, has_family, _ = record.key.partition(b"\0")
        if has_family:
            below = self._below[family]
            below.discard(record)
            if not below:
                del self._below[family]

    def _drop_pin(self, record: Record, idle: list[Record]) -> None:
        """Release one pin; the lock is held."""
        if not self._index.unpin(record) and record.state is State.LEAVING:
            self._index.discard(record)
            idle.append(record)

    def _forget(self, leaving: Sequence[Record], idle: Sequence[Record]) -> None:
        if leaving:
            self._on_change(leaving)
            self._unpublish(leaving)
            with self._lock:
                self._leaving.difference_update(leaving)
        if idle:
            self._reclaim(idle)
