"""AttachmentTable: the mapped segments of other processes, kept between transfers because mapping them is expensive.

A segment serves one transfer at a time. A transfer takes its segments out of the table and puts them back after a clean
end; dictionary pops are atomic, so no lock is needed. What is not put back is unmapped. A segment is mapped twice when
its owner got it back in mid-transfer: the mappings are independent, and one of them is kept.

Every mapping and every watch of an owner holds a descriptor. Above `kept_max` of them, idle segments make way for new
ones; there are more only while more are in use at the same time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from shmchannel.errors import OUT_OF_DESCRIPTORS, LimitReached, PeerGone, PeerProtocolError, ResourceError
from shmchannel.process.guard import GuardWatch
from shmchannel.process.naming import parse_segment_name, pool_guard_path
from shmchannel.streams.layout import SegmentRef
from shmchannel.streams.segment import Segment
from shmchannel.sync.semaphore import PeerLiveness

log = logging.getLogger(__name__)

KEPT_MAX = 8192
_DROPPED_AT_ONCE = 4


class PeerWatch(PeerLiveness, Protocol):
    """Tells whether the owner of a pool lives, until it is closed."""

    def close(self) -> None:
        """May be called twice."""
        ...


def _watch_guard(pool: str) -> PeerWatch:
    return GuardWatch(pool_guard_path(pool))


class AttachmentTable:
    """Segments by wire name and the watches of their pools' owners.

    When an attachment finds no descriptor left, `make_room` is asked to close some of something else, and tells whether
    it did; it is called without a lock. `segment_type` attaches names, and `open_watch` opens the watch of a pool's
    owner and raises as GuardWatch().
    """

    def __init__(
        self,
        kept_max: int = KEPT_MAX,
        make_room: Callable[[], bool] = lambda: False,
        *,
        segment_type: type[Segment] = Segment,
        open_watch: Callable[[str], PeerWatch] = _watch_guard,
    ) -> None:
        self._kept_max = kept_max
        self._make_room = make_room
        self._segment_type = segment_type
        self._open_watch = open_watch
        self._idle: dict[bytes, Segment] = {}  # the one that served least recently first
        self._watches: dict[str, PeerWatch] = {}
        self._pools: dict[Segment, str] = {}  # of each mapping, in use or idle
        self._lock = threading.Lock()

    def take(self, refs: Sequence[SegmentRef]) -> tuple[list[Segment], PeerLiveness]:
        """Map what is not mapped yet, check all of it against the references, and give it to one transfer.

        Raises:
            PeerProtocolError: a bad name, size or generation, a name twice, or names of two pools.
            PeerGone, ResourceError, LayoutMismatch: it cannot be attached.
        """
        taken: list[Segment] = []
        try:
            for name, generation, segment_bytes in refs:
                segment = self._idle.pop(name, None) or self._attach(name)
                taken.append(segment)
                if segment.segment_bytes != segment_bytes or segment.header.generation != generation:
                    raise PeerProtocolError(
                        f"segment {segment.name}: {segment.segment_bytes} bytes generation {segment.header.generation},"
                        f" the command says {segment_bytes} and {generation}"
                    )
            return taken, self._watch_of(taken)
        except BaseException:
            self.drop(taken)
            raise

    def put_back(self, segments: Sequence[Segment]) -> None:
        """The transfer ended cleanly: keep the segments mapped for the next one."""
        for segment in segments:
            if self._idle.setdefault(segment.wire_name, segment) is not segment:
                self.drop([segment])  # another mapping of it was faster

    def drop(self, segments: Sequence[Segment]) -> None:
        """Unmap: the transfer did not end cleanly, or the owner is gone."""
        for segment in segments:
            self._pools.pop(segment, None)  # else its pool's watch would stay open after the owner's death
            segment.close()

    def sweep(self) -> int:
        """Unmap the idle segments whose name or owner is gone; returns how many. For housekeeping."""
        dropped = 0
        for name in list(self._idle):
            segment = self._idle.get(name)
            if segment is None:  # a worker was faster
                continue
            watch = self._watches.get(self._pools.get(segment, ""))
            if watch is None or not watch.alive() or not self._segment_type.exists(name.decode()):
                dropped += self._drop_idle(name)
        with self._lock:
            for pool, watch in list(self._watches.items()):
                if not watch.alive() and pool not in self._pools.values():
                    del self._watches[pool]
                    watch.close()
        return dropped

    @property
    def count(self) -> int:
        """How many segments are mapped and idle."""
        return len(self._idle)

    def close(self) -> None:
        """Unmap all idle segments and close the watches."""
        self.drop([self._idle.pop(name) for name in list(self._idle)])
        with self._lock:
            for watch in self._watches.values():
                watch.close()
            self._watches.clear()

    def _attach(self, wire_name: bytes) -> Segment:
        pool = parse_segment_name(wire_name.decode("ascii", "replace"))
        if pool is None:
            raise PeerProtocolError(f"{wire_name!r} is not a segment name")
        surplus = len(self._pools) + len(self._watches) + 1 - self._kept_max
        if surplus > 0:
            self._drop_oldest(surplus)
        try:
            segment = self._map(pool, wire_name)
        except LimitReached as error:
            if error.errno not in OUT_OF_DESCRIPTORS or not (self._make_room() or self._drop_oldest(_DROPPED_AT_ONCE)):
                raise
            segment = self._map(pool, wire_name)
        self._pools[segment] = pool
        return segment

    def _map(self, pool: str, wire_name: bytes) -> Segment:
        self._watch_pool(pool)
        return self._segment_type.attach(wire_name.decode())

    def _drop_idle(self, name: bytes) -> int:
        """Unmap an idle segment; returns how many: a worker may have been faster."""
        segment = self._idle.pop(name, None)
        if segment is None:
            return 0
        self.drop([segment])
        return 1

    def _drop_oldest(self, count: int) -> int:
        """Unmap the idle segments that served least recently; returns how many."""
        return sum(map(self._drop_idle, list(self._idle)[:count]))

    def _watch_pool(self, pool: str) -> None:
        with self._lock:
            if pool in self._watches:
                return
            try:
                self._watches[pool] = self._open_watch(pool)
            except LimitReached:
                raise  # this says nothing about the owner
            except ResourceError as error:
                raise PeerGone(f"the guard of {pool} cannot be watched: {error}") from error

    def _watch_of(self, segments: Sequence[Segment]) -> PeerWatch:
        pool = self._pools.get(segments[0], "")
        if len(segments) > 1:
            pools = {self._pools.get(segment, "") for segment in segments}
            if len(pools) != 1 or len({segment.wire_name for segment in segments}) != len(segments):
                raise PeerProtocolError("the segments of a command are of one pool, each named once")
        watch = self._watches.get(pool)
        if watch is None:
            raise PeerGone("the owner of the segments has ended")
        return watch
