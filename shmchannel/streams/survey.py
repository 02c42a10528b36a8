"""Survey: all segments of this user as they are at one moment, for monitors; takes no part in any transfer.

The header of each is copied and judged, semaphores included: a copy has no waiters, but the same value. What two
processes do in the meantime is not seen, and fields of one copy may be a chunk apart.
"""

from __future__ import annotations

import mmap
import os
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from shmchannel.errors import LayoutMismatch, ResourceError
from shmchannel.process.guard import GuardWatch
from shmchannel.process.naming import SHM_DIRECTORY, parse_segment_name, pid_of_pool, pool_guard_path
from shmchannel.streams.layout import (
    DATA_AVAILABLE_OFFSET,
    HEADER_BYTES,
    SEM_BYTES,
    SPACE_AVAILABLE_OFFSET,
    SegmentHeader,
    SegmentSight,
)
from shmchannel.sync.semaphore import value_in


class SegmentState(StrEnum):
    """What happens in a segment, by its semaphores and its last chunk."""

    UNUSED = "unused"
    """No transfer has used it yet."""
    AT_REST = "at rest"
    """Its last transfer has ended."""
    EMPTY = "empty"
    """There is space: the producer's turn."""
    FULL = "full"
    """There is a chunk: the consumer's turn."""
    IN_USE = "in use"
    """One side has taken its turn, and works on it, or has died or stopped in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentView:
    """One segment. `done_bytes` of `object_bytes` have been put into it or those leased with it, as far as it shows."""

    name: str
    pool: str
    owner_pid: int
    owner_lives: bool
    segment_bytes: int
    generation: int
    state: SegmentState
    producer_pid: int
    """0: none has begun."""
    done_bytes: int
    object_bytes: int


def survey() -> list[SegmentView]:
    """All segments of this user by name; what vanishes, or is no segment of this layout, is left out. Never blocks."""
    found = []
    alive: dict[str, bool] = {}
    for file_name in sorted(os.listdir(SHM_DIRECTORY), key=_by_number):
        pool = parse_segment_name(f"/{file_name}")
        if pool is None:
            continue
        if pool not in alive:
            alive[pool] = _lives(pool)
        view = _view(file_name, pool, owner_lives=alive[pool])
        if view is not None:
            found.append(view)
    return found


def _by_number(file_name: str) -> tuple[str, int, str]:
    stem, _, number = file_name.rpartition("-")
    return (stem, int(number), "") if number.isdecimal() else (file_name, 0, "")


def _lives(pool: str) -> bool:
    try:
        with closing(GuardWatch(pool_guard_path(pool))) as watch:
            return watch.alive()
    except ResourceError:
        return False


def _view(file_name: str, pool: str, *, owner_lives: bool) -> SegmentView | None:
    try:
        fd = os.open(f"{SHM_DIRECTORY}/{file_name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_size < HEADER_BYTES:
            return None
        with mmap.mmap(fd, HEADER_BYTES, prot=mmap.PROT_READ) as mapping:
            copy = mapping[:]
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    try:
        with memoryview(copy).cast("Q") as words:
            header = SegmentHeader(words)
            try:
                header.check(status.st_size)
                sight = header.sight()
            finally:
                header.release()
    except LayoutMismatch:
        return None
    has_data = value_in(copy[DATA_AVAILABLE_OFFSET:][:SEM_BYTES]) > 0
    has_space = value_in(copy[SPACE_AVAILABLE_OFFSET:][:SEM_BYTES]) > 0
    return SegmentView(
        name=file_name,
        pool=pool,
        owner_pid=pid_of_pool(pool),
        owner_lives=owner_lives,
        segment_bytes=status.st_size,
        generation=sight.generation,
        state=state_of(sight, has_data=has_data, has_space=has_space),
        producer_pid=sight.producer_pid if sight.generation else 0,
        done_bytes=sight.done_bytes,
        object_bytes=sight.object_bytes,
    )


def state_of(sight: SegmentSight, *, has_data: bool, has_space: bool) -> SegmentState:
    """The state by what the header says and the two semaphores."""
    if not sight.generation:
        return SegmentState.UNUSED
    if has_data:
        return SegmentState.FULL
    if not has_space:
        return SegmentState.IN_USE
    return SegmentState.AT_REST if sight.has_ended else SegmentState.EMPTY
