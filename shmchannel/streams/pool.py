"""SegmentPool: a fixed number of segments, leased first come, first served, and retired after a transfer that broke.

Theory of operation. Every segment of a pool is in one of three states:

    free ── lease ──▶ leased ── give_back ───────▶ free
                         ├───── give_back_one ───▶ free, in mid-transfer, because others wait
                         └───── retire ──────────▶ missing ── replaced ──▶ free

* One lock guards the decisions. Creating, unlinking and waiting happen outside of it.
* Waiters form a line. A segment that comes back is granted to the first of them under the lock, so only to one that
  still waits; a waiter that is interrupted after that gives it back.
* A lease gets one segment as soon as there is one, and more only while nobody waits: at most
  `segments_per_transfer_max`, and at most half of what is free or its equal share of the pool, so that the next one
  finds something.
* A stream shrinks while others wait. should_shrink() compares two counters without the lock: as many segments are asked
  back (`promised`) as there are waiters. A stale value costs or saves one chunk's delay, never a segment.
* After a time-out, a death or a violation the other process may still write into the segments, whenever it wakes up.
  Nothing can prevent that, and a live semaphore must not be initialised again. So the segments are retired: unlinked,
  unmapped, and replaced by new ones. The late writer writes into memory that nobody reads.
* A replacement that the system refuses stays missing until the next thread has to wait and tries again. Only a pool
  without any segment raises.
* Invariants (tests/stateful/test_pool.py): free, leased and missing add up to the count, no segment is in two leases,
  and nobody waits while a segment is free.

All memory is taken when the pool is made: a full /dev/shm shows then, and not in the middle of a transfer.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from mmap import PAGESIZE
from typing import Self

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, PoolExhausted, ResourceError, UsageError
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import ProcessIdentity, own_identity
from shmchannel.process.memory import require_memory
from shmchannel.process.naming import pool_guard_path, pool_name, segment_name
from shmchannel.stats import PoolStats
from shmchannel.streams.admission import Ticket, admission_for
from shmchannel.streams.layout import SEGMENTS_MAX
from shmchannel.streams.segment import Segment

log = logging.getLogger(__name__)

SEGMENTS_PER_TRANSFER_DEFAULT = 4
WAITERS_MAX = 10_000
GROWTH_CHUNKS = 8
"""A transfer can use one segment for every so many of its chunks."""
WIDEN_CHUNKS = 64
"""With this many chunks left it pays to end a transfer and to continue it with a wider lease."""
SHARING_LEASES = 3
"""Beside this many leases, one more may take its equal share of the pool, even if that is over half of what is free.

Otherwise four streams end up with 4, 2, 1 and 1 of eight segments, and those with one run at half the speed.
"""
CreateSegment = Callable[[str, int, ProcessIdentity], Segment]


class _Waiter:
    """One thread in the line; `segment` is set under the pool's lock, then the thread is woken."""

    __slots__ = ("_wake", "segment")

    def __init__(self) -> None:
        self.segment: Segment | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def wait(self, seconds: float) -> None:
        self._wake.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def grant(self, segment: Segment) -> None:
        self.segment = segment
        self._wake.release()


class Lease:
    """One or more segments for one transfer; ends with give_back() after a clean end, otherwise with retire()."""

    __slots__ = ("_pool", "_promised", "segments", "ticket")

    def __init__(self, pool: SegmentPool, segments: list[Segment], ticket: Ticket | None) -> None:
        self._pool = pool
        self._promised: set[Segment] = set()
        self.ticket = ticket
        self.segments = segments

    def should_shrink(self) -> bool:
        """True while more threads wait for a segment than segments were asked back; one comparison, no lock."""
        pool = self._pool
        return len(pool._waiters) > pool.promised

    def promise(self, segment: Segment) -> None:
        """The segment has been asked back from the other side."""
        self._promised.add(segment)
        with self._pool._lock:
            self._pool.promised += 1

    def give_back_one(self, segment: Segment) -> None:
        """A segment that was promised came back in the stream: it serves the next waiter."""
        self._promised.remove(segment)
        self.segments.remove(segment)
        self._pool._give_back([segment], 1, ended=False)

    def could_grow(self, chunks_left: int) -> bool:
        """True when a new lease for that many chunks would now be at least twice as wide; no lock."""
        pool = self._pool
        if chunks_left < WIDEN_CHUNKS or pool._waiters:
            return False
        width = len(self.segments)
        reach = len(pool._free) + width
        admission = pool.admission
        if admission is None:
            reach //= 2
        elif admission.waiting or (self.ticket is None and not admission.free):
            return False
        return min(pool.segments_per_transfer_max, reach) >= 2 * width

    def should_enqueue(self, chunks_left: int) -> bool:
        """True for a transfer without a ticket that is long enough to need one, while none is free; no lock."""
        admission = self._pool.admission
        return admission is not None and self.ticket is None and chunks_left >= WIDEN_CHUNKS and admission.full

    def give_back(self) -> None:
        """The transfer ended cleanly on both sides: all that is left goes back to the pool."""
        self._end(self._pool._give_back)

    def retire(self) -> None:
        """The other side may still write: unlink every segment and put new ones in their place."""
        self._end(self._pool._retire)

    def _end(self, end: Callable[[list[Segment], int], None]) -> None:
        segments, self.segments = self.segments, []
        if segments:
            try:
                end(segments, len(self._promised))
            finally:  # once the segments are back: whoever gets the ticket finds them free
                if self.ticket is not None:
                    self.ticket.leave()


class SegmentPool:
    """Owner of `count` segments of `segment_bytes` bytes (header included) and of the guard that proves its life."""

    def __init__(
        self,
        name: str,
        guard: ProcessGuard | None,
        count: int,
        segment_bytes: int,
        *,
        segments_per_transfer_max: int = SEGMENTS_PER_TRANSFER_DEFAULT,
        waiters_max: int = WAITERS_MAX,
        create: CreateSegment = Segment.create,
    ) -> None:
        if count < 1:
            raise UsageError(f"a pool of {count} segments: it has at least 1")
        if not 1 <= segments_per_transfer_max <= SEGMENTS_MAX:
            raise UsageError(
                f"leases of up to {segments_per_transfer_max} segments: a command names 1 to {SEGMENTS_MAX}"
            )
        self.name = name
        self.segment_bytes = segment_bytes
        self.segments_per_transfer_max = segments_per_transfer_max
        self.promised = 0  # read without the lock by streams that may shrink, as the waiters are
        self.admission = admission_for(count, segment_bytes, segments_per_transfer_max)
        self._count = count
        self._guard = guard
        self._create = create
        self._owner = own_identity()
        self._lock = threading.Lock()
        self._free: list[Segment] = []
        self._waiters: deque[_Waiter] = deque()
        self._waiters_max = waiters_max
        self._inventory: set[Segment] = set()
        self._next_index = 0
        self._missing = 0
        self._leases_now = 0
        self._closed = False
        self._leases_total = self._retired_total = self._timeouts_total = self._refused_total = 0
        self._widest_lease = self._shrunk_total = 0
        try:
            for _ in range(count):
                self._free.append(self._new_segment())
            if guard is not None:
                guard.set_ready()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        count: int,
        segment_bytes: int,
        *,
        segments_per_transfer_max: int = SEGMENTS_PER_TRANSFER_DEFAULT,
        waiters_max: int = WAITERS_MAX,
    ) -> Self:
        """Make a guard and all segments.

        Raises:
            LimitReached: /dev/shm or memory has no room for them, or a limit is reached; nothing is left behind.
            UsageError: the count, the size or the maximum of a transfer is out of range.
        """
        require_memory(
            f"a pool of {count} segments of {segment_bytes} bytes",
            count * -(-segment_bytes // PAGESIZE) * PAGESIZE,
            hint="take fewer or smaller segments (-n, -z), or give /dev/shm more room",
        )
        name = pool_name(os.getpid(), os.urandom(4).hex())
        with ExitStack() as undo:
            guard = ProcessGuard.acquire(pool_guard_path(name))
            undo.callback(guard.close)
            pool = cls(
                name,
                guard,
                count,
                segment_bytes,
                segments_per_transfer_max=segments_per_transfer_max,
                waiters_max=waiters_max,
            )
            undo.pop_all()
            return pool

    def lease(self, deadline: Deadline, want: int | None = None, *, ticket: Ticket | None = None) -> Lease:
        """Lease one segment as soon as there is one, and more while nobody waits.

        At most `want` (default: `segments_per_transfer_max`), and beyond the first never more than half of what is
        free, or than an equal share, unless it has a `ticket`, which ends with the lease, and stays the caller's when
        this raises. Blocks until the deadline.

        Raises:
            ChannelTimeout: none came free in time.
            PoolExhausted: the waiting line is full, or not one segment could be had from the system.
        """
        with self._lock:
            lease = self._lease_free(want, ticket)
            if lease is not None:
                return lease
            if len(self._waiters) >= self._waiters_max:
                self._refused_total += 1
                raise PoolExhausted(
                    f"{len(self._waiters)} threads wait for a segment already", hint="raise -n, or shed load"
                )
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            refusal = self._replace_missing()
            if refusal is None:
                waiter.wait(deadline.remaining())
        except BaseException:
            granted = self._collect(waiter, None)
            if granted is not None:  # in the last moment: nobody would ever give it back
                granted.give_back()
            raise
        lease = self._collect(waiter, ticket)
        if lease is None and refusal is not None:
            raise PoolExhausted("no segment left in the pool", hint=str(refusal)) from refusal
        if lease is None:
            raise ChannelTimeout(f"none of {self._count} segments became free in time")
        return lease

    def try_lease(self, want: int | None = None) -> Lease | None:
        """As lease(), but None at once when there is nothing free or somebody waits."""
        with self._lock:
            return self._lease_free(want, None)

    def _lease_free(self, want: int | None, ticket: Ticket | None) -> Lease | None:
        if self._closed:
            raise UsageError(f"pool {self.name} is closed")
        free = self._free
        if self._waiters or not free:
            return None
        most = len(free)
        if ticket is None:
            share = self._count // (self._leases_now + 1) if self._leases_now >= SHARING_LEASES else 0
            most = max(most // 2, min(most, share))
        count = max(1, min(want or self.segments_per_transfer_max, self.segments_per_transfer_max, most))
        # The most recently used first: its memory is warm.
        segments = [free.pop()] if count == 1 else [free.pop() for _ in range(count)]
        self._leases_total += 1
        self._leases_now += 1
        if count > self._widest_lease:
            self._widest_lease = count
        return Lease(self, segments, ticket)

    def _collect(self, waiter: _Waiter, ticket: Ticket | None) -> Lease | None:
        with self._lock:
            if waiter.segment is not None:
                self._leases_total += 1
                self._leases_now += 1
                return Lease(self, [waiter.segment], ticket)
            self._timeouts_total += 1
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if self._closed:
                raise UsageError(f"pool {self.name} is closed")
            return None

    def _give_back(self, segments: list[Segment], promised: int, *, ended: bool = True) -> None:
        with self._lock:
            self.promised -= promised
            if ended:
                self._leases_now -= 1
            else:
                self._shrunk_total += promised
            if self._closed:
                return
            for segment in segments:
                if self._waiters:
                    self._waiters.popleft().grant(segment)
                else:
                    self._free.append(segment)

    def _retire(self, segments: list[Segment], promised: int) -> None:
        with self._lock:
            self._leases_now -= 1
            self.promised -= promised
            self._retired_total += len(segments)
            self._missing += len(segments)
            self._inventory.difference_update(segments)
        for segment in segments:
            segment.unlink()
            segment.close()
        if faults.ARMED:
            faults.reach("proxy.retired")
        self._replace_missing()  # what is refused now is told to who leases next

    def _replace_missing(self) -> ResourceError | None:
        """Make new segments for retired ones; what the system refuses now is tried again by the next that waits.

        Returns the refusal that leaves the pool without any segment; never raises it, for a retiring transfer has an
        error of its own to tell.
        """
        while True:
            with self._lock:
                if self._closed or not self._missing:
                    return None
                self._missing -= 1
            try:
                segment = self._new_segment()
            except ResourceError as error:
                with self._lock:
                    self._missing += 1
                    empty = self._missing >= self._count
                log.warning("segment not replaced", extra={"pool": self.name, "reason": str(error)})
                return error if empty else None
            self._give_back([segment], 0, ended=False)

    def _new_segment(self) -> Segment:
        with self._lock:
            index = self._next_index
            self._next_index += 1
        segment = self._create(segment_name(self.name, index), self.segment_bytes, self._owner)
        with self._lock:
            self._inventory.add(segment)
            closed = self._closed
        if closed:
            segment.unlink()
        return segment

    @property
    def waiting(self) -> int:
        """How many threads wait for a segment; no lock."""
        return len(self._waiters)

    def stats(self) -> PoolStats:
        """A snapshot under the lock."""
        with self._lock:
            return PoolStats(
                segments_total=len(self._inventory),
                segments_leased=len(self._inventory) - len(self._free),
                waiting=len(self._waiters),
                leases_total=self._leases_total,
                widest_lease=self._widest_lease,
                shrunk_total=self._shrunk_total,
                retired_total=self._retired_total,
                timeouts_total=self._timeouts_total,
                refused_total=self._refused_total,
            )

    def close(self) -> None:
        """Remove every name, including segments in use, wake waiters, release the guard; may be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiters, self._waiters = list(self._waiters), deque()
            free, self._free = self._free, []
            inventory = list(self._inventory)
        for waiter in waiters:
            waiter._wake.release()
        try:
            for segment in inventory:
                segment.unlink()
            for segment in free:  # what is in use stays mapped until its thread ends with the process
                segment.close()
        finally:
            if self._guard is not None:
                self._guard.close()
