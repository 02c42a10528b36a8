"""HotTableWriter: publishes objects in a hot table, where other processes read them without asking, and withdraws them.

Theory of operation. The table is a hash table in shared memory: buckets of seven cells, each under a sequence number (a
seqlock), which say where in the arena the records of the objects are. One process writes, any number read; readers
never wait, and write nothing but marks.

    free ── publish ──▶ valid until its time, if it has one ──▶ free
                          ├── lengthened: same version, only more time
                          ├── dropped: the object has changed or is gone ──▶ free, for all readers at once
                          └── evicted: bucket or arena is full ──▶ free

* A reader looks at the sequence number before and after it copies. If it was odd or has changed, it has read nothing. A
  record's place is used again only after its cell was emptied, so the sequence number speaks for the record as well.
* All sequence numbers come from one counter, so that a cell never has one twice.
* Publishing races with purging. Before an object is looked up, begin() notes how often a key like this one has been
  dropped; when that number has changed at the time of publish(), the object may be the one that was dropped.
* A mark says that the object of a cell was read. take_used() collects the marks: for the arena, in which what is used
  has a second chance, and for the store, which does not see these reads otherwise.
* The arena is two rings (hot_table_arena.py), one for objects that are there whole, and one for references. Memory is
  taken as they fill. A page that was not taken is never touched.
* Small objects are stored whole. Of an object in an immutable file there may be a reference to it. Whoever publishes it
  keeps the descriptor of the reference open until the object was dropped.
* What the writer knows it knows from its own memory: of the table it reads nothing but marks.
* Readers must see stores in the order in which they were made. x86-64 guarantees that; other processors do not, and
  Python has no barrier: see is_supported().
* Invariant: when drop() returns, no reader that looks afterwards finds the object, and none finds it later.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from contextlib import ExitStack
from struct import Struct
from time import monotonic_ns
from typing import NamedTuple, Self
from zlib import crc32

from shmchannel import faults
from shmchannel.errors import ResourceError
from shmchannel.objects.hot_table_arena import RingArena, Span
from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    BUCKET_BYTES,
    BUCKET_CELLS,
    CELL_BYTES,
    CELLS_AT,
    LINE_BYTES,
    MAGIC,
    MARKS_AT,
    MARKS_PER_BUCKET,
    RECORD_BYTES_MAX,
    TAG_BYTES,
    FileRef,
    Geometry,
    check_hot_table_bytes,
    geometry,
    header_words,
)
from shmchannel.process.block import create_sparse_block, take
from shmchannel.process.memory import can_spare, require_memory
from shmchannel.process.naming import hot_table_name
from shmchannel.process.reaper import unlink_memory
from shmchannel.stats import HotTableStats

_ORDERED_MACHINES = ("x86_64",)
NO_END_NS = 1 << 63
"""The time until which an object is valid that only a drop ends."""
_TAKEN_AT_ONCE_BYTES = 1 << 20
_DROP_GROUPS = 4096
"""Keys of one group void each other's tokens. A power of two."""
_SEQUENCES = 1 << 64
_FIELDS = Struct("@5Q")
"""Of a cell, behind its sequence number; both lengths of 32 bits are one word."""
_WORD = 8
_PAGE_BYTES = 4096
_WHOLE_SHARE = 0.8
"""Of the arena, for objects that are there whole; the rest is for references."""
_EVICTED_MAX = 64
"""So many keys are kept for take_evicted()."""


def require_room(hot_table_bytes: int) -> None:
    """Refuse a hot table for whose beginning there is no room in /dev/shm or in memory, before a page of it is touched.

    Raises:
        LimitReached: with the numbers.
    """
    hint = "take a smaller one (--hot-table-bytes, 0 for none), or give /dev/shm more room"
    require_memory("a hot table", taken_at_first(hot_table_bytes), hint=hint)


def taken_at_first(hot_table_bytes: int) -> int:
    """How much memory a hot table of this size has before anything is in it."""
    return min(geometry(hot_table_bytes).arena_at + _TAKEN_AT_ONCE_BYTES, hot_table_bytes)


def is_supported() -> bool:
    """Whether other processes see the stores of one process in order on this processor."""
    return os.uname().machine in _ORDERED_MACHINES


class HotTableToken(NamedTuple):
    """The state seen by begin(): how often its group of keys, and all, were dropped, and the time in nanoseconds."""

    drops: int
    clears: int
    begun_ns: int


class UsedObject(NamedTuple):
    """One that was read; `file_bytes` is 0 if it is there whole, and else its size."""

    key: bytes
    file_bytes: int


class _Record(Span):
    """What the writer knows about an object that is in the table."""

    ring: RingArena[_Record]
    __slots__ = ("file_bytes", "key", "published_ns", "ring", "slot", "tag", "valid_until_ns", "version", "word")

    def __init__(self, key: bytes, version: int, file_bytes: int, valid_until_ns: int, published_ns: int) -> None:
        super().__init__()
        self.key = key
        self.version = version
        self.file_bytes = file_bytes
        self.valid_until_ns = valid_until_ns
        self.published_ns = published_ns
        self.slot = self.word = self.tag = 0
        """Of its cell: its number, as in the use marks; where it begins, in 64-bit words; where its tag is, in 32."""


class HotTableWriter:
    """The writing end; thread-safe. No call blocks for longer than another one's copying of a record."""

    def __init__(self, name: str, mapping: mmap.mmap, fd: int, first_sequence: int = 0) -> None:
        """Take over a block of zeros, and the descriptor for taking more of it; sequence numbers follow the even first.

        Use create().
        """
        self.name = name
        self._fd = fd
        self._mapping = mapping
        self._octets = memoryview(mapping)
        self._words = self._octets.cast("Q")
        self._tags = self._octets.cast("I")
        self._geometry: Geometry = geometry(len(mapping))
        self._slots: list[_Record | None] = [None] * (self._geometry.bucket_count * MARKS_PER_BUCKET)
        self._records: dict[bytes, _Record] = {}
        arena_at, size_bytes = self._geometry.arena_at, len(mapping)
        files_at = arena_at + int((size_bytes - arena_at) * _WHOLE_SHARE) // _PAGE_BYTES * _PAGE_BYTES
        # A ring each: a body that gives way leaves a reference, and would otherwise push out dozens of references.
        self._bodies = self._ring(arena_at, files_at, taken_at_first(size_bytes))
        self._files = self._ring(files_at, size_bytes, files_at)
        self._sequence = first_sequence
        self._lock = threading.Lock()
        self._drops = [0] * _DROP_GROUPS
        self._clears = 0
        self._next_mark = 0
        self._evicted: deque[bytes] = deque(maxlen=_EVICTED_MAX)
        self._published_total = self._dropped_total = self._evicted_total = 0
        self._closed = False

    def _ring(self, begin: int, bound: int, taken_end: int) -> RingArena[_Record]:
        """A part of the arena, of which the beginning is taken."""

        def take_more(end: int) -> int:
            if end < taken_end:
                return min(taken_end, bound)
            more_bytes = min(_TAKEN_AT_ONCE_BYTES, bound - end)
            try:
                can = can_spare(more_bytes)
            except ResourceError:
                can = False
            return end + more_bytes if can and take(self._fd, end, more_bytes) else end

        return RingArena(begin, bound, take=take_more, evict=self._evict)

    @classmethod
    def create(cls, queue_name: str, hot_table_bytes: int, *, first_sequence: int = 0) -> Self:
        """Make the hot table of the cache that holds this queue's guard; mode 0600. Close it before the queue.

        `hot_table_bytes` is the most it takes; it begins with less.

        Raises:
            UsageError: the size is out of range.
            NameTaken, LimitReached, AccessDenied: the system refused; nothing is left behind.
        """
        check_hot_table_bytes(hot_table_bytes)
        require_room(hot_table_bytes)
        name = hot_table_name(queue_name)
        what = f"hot table {name} of {hot_table_bytes} bytes"
        with ExitStack() as undo:
            mapping, fd = create_sparse_block(what, name, hot_table_bytes, taken_at_first(hot_table_bytes), undo)
            hot_table = cls(name, mapping, fd, first_sequence)
            for number, word in enumerate(header_words(hot_table_bytes), start=1):
                hot_table._words[number] = word
            hot_table._words[0] = MAGIC
            undo.pop_all()
        return hot_table

    @property
    def cell_count(self) -> int:
        """How many objects it can have at most."""
        return self._geometry.cell_count

    def begin(self, key: bytes) -> HotTableToken:
        """The token for a later publish(); taken before the object is looked up."""
        return HotTableToken(self._drops[crc32(key) % _DROP_GROUPS], self._clears, monotonic_ns())

    def publish(
        self, token: HotTableToken, key: bytes, version: int, metadata: bytes, body: bytes,
        *, life_ns: int | None = None, file_bytes: int = 0,
    ) -> bool:  # fmt: skip
        """Put an object into the hot table; returns whether it is there.

        It stays until it is dropped or evicted; with a `life_ns` readers use it only for so long after the token.

        It does not get there when its key, or one like it, was dropped since the token (what was looked up may be what
        was dropped), when it is too large, or when another thread has published the key in the meantime. With
        `file_bytes` the body is a packed FileRef to an object of that size.
        """
        size_bytes = len(key) + len(metadata) + len(body)
        if size_bytes > RECORD_BYTES_MAX or len(body) > BODY_BYTES_MAX:
            return False
        key_hash = crc32(key)
        with self._lock:
            now_ns = monotonic_ns()
            valid_until_ns = NO_END_NS if life_ns is None else token.begun_ns + life_ns
            if not self._is_current(token, key_hash) or valid_until_ns <= now_ns:
                return False
            old = self._records.get(key)
            if old is not None:
                if old.published_ns > token.begun_ns:
                    return False
                self._remove(old)
            record = _Record(key, version, file_bytes, valid_until_ns, now_ns)
            self._take_cell(record, key_hash)
            record.ring = self._files if file_bytes and size_bytes <= self._files.size_bytes // 4 else self._bodies
            start = record.ring.place(record, size_bytes)
            body_at = start + len(key) + len(metadata)
            self._mapping[start:body_at] = key + metadata
            self._mapping[body_at : start + size_bytes] = body
            lengths, place = len(key) | len(metadata) << 32, start // LINE_BYTES | size_bytes << 32
            # From here on as the layout says: odd, the fields, even.
            words, word, sequence = self._words, record.word, self._sequence
            words[word] = sequence + 1
            fields_at = (word + 1) * _WORD
            self._mapping[fields_at : fields_at + _FIELDS.size] = _FIELDS.pack(
                valid_until_ns, version, place, lengths, file_bytes
            )
            if faults.ARMED:
                faults.reach("cache.publishing")
            self._tags[record.tag] = key_hash
            words[word] = self._sequence = (sequence + 2) % _SEQUENCES
            self._slots[record.slot] = self._records[key] = record
            self._published_total += 1
        return True

    def publish_file(
        self, token: HotTableToken, key: bytes, version: int, metadata: bytes, file: FileRef,
        *, life_ns: int | None = None,
    ) -> bool:  # fmt: skip
        """As publish(), for an object whose bytes are those of a file that does not change: a reference goes there.

        Its descriptor stays the caller's, who closes it only after a drop of the key.
        """
        return bool(file.size_bytes) and self.publish(
            token, key, version, metadata, file.packed, life_ns=life_ns, file_bytes=file.size_bytes
        )

    def lengthen(
        self, token: HotTableToken, key: bytes, version: int, *, by_file: bool = False, life_ns: int | None = None
    ) -> bool:
        """Give an object that is there more time, as if it were published now.

        False if it is not there in this version, and whole, or, if `by_file`, by reference. For objects whose bytes are
        always those of their version, and whose metadata are changed only with a drop.
        """
        with self._lock:
            record = self._records.get(key)
            if record is None or (record.version, record.file_bytes > 0) != (version, by_file):
                return False
            if not self._is_current(token, crc32(key)):
                return False
            valid_until_ns = NO_END_NS if life_ns is None else token.begun_ns + life_ns
            if valid_until_ns > record.valid_until_ns:
                record.valid_until_ns = valid_until_ns
                self._words[record.word + 1] = valid_until_ns
            return True

    def _is_current(self, token: HotTableToken, key_hash: int) -> bool:
        is_as_found = token.drops == self._drops[key_hash % _DROP_GROUPS] and token.clears == self._clears
        return is_as_found and not self._closed

    def _take_cell(self, record: _Record, key_hash: int) -> None:
        """Give it a free cell of the key's bucket. If all are taken, the oldest of those not used gives way."""
        places = self._geometry
        bucket = key_hash % places.bucket_count
        first = bucket * MARKS_PER_BUCKET
        cells = self._slots[first : first + BUCKET_CELLS]
        if None in cells:
            number = cells.index(None)
        else:
            oldest = min((other for other in cells if other is not None), key=lambda one: (one.used, one.published_ns))
            oldest.ring.drop(oldest)
            self._evict(oldest)
            number = oldest.slot - first
        bucket_at = places.buckets_at + bucket * BUCKET_BYTES
        record.slot = first + number
        record.word = (bucket_at + CELLS_AT + number * CELL_BYTES) // _WORD
        record.tag = bucket_at // TAG_BYTES + number

    def _empty(self, record: _Record) -> None:
        """Withdraw what a record's cell has, for all readers; the lock is held."""
        words, word, sequence = self._words, record.word, self._sequence
        words[word] = sequence + 1
        if faults.ARMED:
            faults.reach("cache.withdrawing")
        words[word + 1] = 0
        self._tags[record.tag] = 0
        words[word] = self._sequence = (sequence + 2) % _SEQUENCES
        self._slots[record.slot] = None

    def _evict(self, record: _Record) -> None:
        """It gives way to another; its place is the arena's again."""
        del self._records[record.key]
        self._empty(record)
        self._evicted_total += 1
        if not record.file_bytes and record.valid_until_ns == NO_END_NS:
            self._evicted.append(record.key)

    def _remove(self, record: _Record) -> None:
        del self._records[record.key]
        self._empty(record)
        record.ring.drop(record)

    def drop(self, key: bytes) -> None:
        """Withdraw an object, for all readers at once; no lookup of the key that is under way is published."""
        group = crc32(key) % _DROP_GROUPS
        with self._lock:
            self._drops[group] += 1
            record = self._records.get(key)
            if record is not None and not self._closed:
                self._remove(record)
                self._dropped_total += 1

    def clear(self) -> None:
        """Withdraw all objects; no lookup that is under way is published."""
        with self._lock:
            self._clears += 1
            if not self._closed:
                self._dropped_total += len(self._records)
                for record in list(self._records.values()):
                    self._remove(record)

    def take_evicted(self) -> list[bytes]:
        """The keys of objects that were there whole and have given way to others since the last call."""
        with self._lock:
            keys = list(self._evicted)
            self._evicted.clear()
        return keys

    def take_used(self, count_max: int) -> list[UsedObject]:
        """The objects that were read since their last mention here, at most so many; the next call goes on."""
        used: list[UsedObject] = []
        with self._lock:
            if self._closed:
                return used
            marks = bytes(self._octets[MARKS_AT : MARKS_AT + len(self._slots)])
            at, turns = self._next_mark, 0
            while len(used) < count_max:
                at = marks.find(b"\1", at)
                if at < 0:
                    at, turns = 0, turns + 1
                    if turns > 1 or not self._next_mark:
                        break
                    continue
                if turns and at >= self._next_mark:
                    break
                self._octets[MARKS_AT + at] = 0
                record = self._slots[at]
                if record is not None:
                    record.used = True
                    used.append(UsedObject(record.key, record.file_bytes))
                at += 1
            self._next_mark = at
        return used

    def stats(self) -> HotTableStats:
        """A snapshot."""
        return HotTableStats(
            published_total=self._published_total,
            dropped_total=self._dropped_total,
            evicted_total=self._evicted_total,
            objects_count=len(self._records),
            taken_bytes=self._geometry.arena_at + self._bodies.taken_bytes + self._files.taken_bytes,
        )

    def close(self) -> None:
        """Withdraw everything and remove the name; may be called twice. The queue's guard is still held."""
        self.clear()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        unlink_memory(self.name)
        for view in (self._tags, self._words, self._octets):
            view.release()
        self._mapping.close()
        os.close(self._fd)
