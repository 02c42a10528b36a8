"""AttachmentTable: the cache's mapped segments of proxies, kept from request to request (attaching each time is waste).

A segment serves one transfer at a time, so a transfer takes its segments out of the table and puts them back when it
ended cleanly: dictionary pops are atomic, and no lock is needed. What is not put back is unmapped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence

from shmchannel.commands import SegmentRef
from shmchannel.errors import PeerGone, PeerProtocolError, ResourceError
from shmchannel.guard import GuardWatch
from shmchannel.naming import SHM_DIRECTORY, parse_segment_name, pool_guard_path
from shmchannel.segment import Segment

log = logging.getLogger(__name__)


class AttachmentTable:
    """Segments by wire name and the guards of their pools."""

    def __init__(self) -> None:
        self._idle: dict[bytes, Segment] = {}
        self._watches: dict[str, GuardWatch] = {}
        self._pools: dict[bytes, str] = {}
        self._lock = threading.Lock()

    def take(self, refs: Sequence[SegmentRef]) -> tuple[list[Segment], GuardWatch]:
        """Map what is not mapped yet, check all of it against the command, and hand it to one transfer.

        Raises:
            PeerProtocolError: a bad name, size or generation, a name twice, or names of two pools.
            PeerGone, ResourceError, NotPublished, LayoutMismatch: it cannot be attached.
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
            return taken, self._watch_of(refs)
        except BaseException:
            self.drop(taken)
            raise

    def put_back(self, segments: Sequence[Segment]) -> None:
        """The transfer ended cleanly: keep the segments mapped for the next one."""
        for segment in segments:
            self._idle[segment.wire_name] = segment

    def drop(self, segments: Sequence[Segment]) -> None:
        """Unmap: the transfer did not end cleanly, or the owner is gone."""
        for segment in segments:
            self._pools.pop(segment.wire_name, None)  # else its pool's watch would stay open after the owner's death
            with contextlib.suppress(BufferError):  # a traceback still holds a view: the memory goes with it
                segment.close()

    def sweep(self) -> int:
        """Unmap the idle segments whose name or owner is gone; returns how many. For the boss, now and then."""
        dropped = 0
        for name in list(self._idle):
            pool = self._pools.get(name, "")
            watch = self._watches.get(pool)
            if watch is not None and watch.alive() and os.path.exists(SHM_DIRECTORY + name.decode()):
                continue
            segment = self._idle.pop(name, None)
            if segment is not None:  # else a worker was faster
                self.drop([segment])
                dropped += 1
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
        parsed = parse_segment_name(wire_name.decode("ascii", "replace"))
        if parsed is None:
            raise PeerProtocolError(f"{wire_name!r} is no segment name")
        self._pools[wire_name] = parsed.pool
        try:
            self._open_watch(parsed.pool)
            return Segment.attach(wire_name.decode())
        except BaseException:
            self._pools.pop(wire_name, None)
            raise

    def _open_watch(self, pool: str) -> None:
        with self._lock:
            if pool in self._watches:
                return
            try:
                self._watches[pool] = GuardWatch(pool_guard_path(pool))
            except ResourceError as error:
                raise PeerGone(f"the guard of {pool} cannot be watched: {error}") from error

    def _watch_of(self, refs: Sequence[SegmentRef]) -> GuardWatch:
        pool = self._pools.get(refs[0].name, "")
        if len(refs) > 1:
            pools = {self._pools.get(ref.name, "") for ref in refs}
            if len(pools) != 1 or len({ref.name for ref in refs}) != len(refs):
                raise PeerProtocolError("the segments of a command are of one pool, each named once")
        watch = self._watches.get(pool)
        if watch is None:
            raise PeerGone("the proxy has ended")
        return watch
