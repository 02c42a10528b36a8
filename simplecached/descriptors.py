"""Descriptor planning: how many each part of the cache may hold, and who closes some when none is left.

All parts together stay below the limit of the process (RLIMIT_NOFILE): plan_descriptors() is the one place that adds
them up. The limit can be lowered later, or the whole system run short, so descriptors are opened through
Descriptors.open().
"""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING

from shmchannel.errors import OUT_OF_DESCRIPTORS
from shmchannel.streams.attachments import KEPT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

ENTRIES_MAX = 1_048_576
OPEN_FILES_MAX = 256
PAUSED_MAX = 256
LIMIT_ENOUGH = 8 * OPEN_FILES_MAX
"""From this limit on only the number of objects in memory, and of mapped segments, depends on the limit."""

_BASE = (
    32  # streams, queue, guards of queue and directory, hot table, signals, index; twice what a cache has at its start
)
_PER_WORKER = 8  # the segments of one transfer, its file, one being opened, one being closed
_SEGMENTS_MIN = 16
_ENOUGH_FREED = 4  # an attachment takes three: the guard, the block, and its mapping
_LOG_INTERVAL_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorPlan:
    """How many descriptors each part may hold; `objects_max` bounds the objects of a memory store, which have one each.

    `is_short`: the limit is so low that parts get less than they could use.
    """

    limit: int
    is_short: bool
    static_files_max: int
    store_files_max: int
    paused_max: int
    segments_max: int
    objects_max: int


def plan_descriptors(limit: int, *, worker_threads: int, has_static: bool, in_memory: bool) -> DescriptorPlan:
    """Divide a soft limit (RLIMIT_NOFILE); with a memory store the objects get what the other parts leave."""
    if limit == resource.RLIM_INFINITY:
        limit = 2 * ENTRIES_MAX
    share = max(1, limit // 8)
    plan = {
        "static_files_max": min(OPEN_FILES_MAX, share) if has_static else 0,
        "store_files_max": 0 if in_memory else min(OPEN_FILES_MAX, share),
        "paused_max": min(PAUSED_MAX, share),
        "segments_max": min(KEPT_MAX, max(_SEGMENTS_MIN, share)),
    }
    left = limit - _BASE - _PER_WORKER * worker_threads - sum(plan.values())
    if in_memory and not has_static:
        left += plan["paused_max"]  # a paused object is one of the objects; with other stores it is one more open file
    return DescriptorPlan(
        limit=limit,
        is_short=limit < LIMIT_ENOUGH or left < share,
        objects_max=max(share, min(left, ENTRIES_MAX)) if in_memory else ENTRIES_MAX,
        **plan,
    )


class Descriptors:
    """Closes idle descriptors when one is needed and none is left. Thread-safe once all givers are registered.

    A giver takes its own lock, and the caller holds none that comes below it in the lock order.
    """

    def __init__(self) -> None:
        self._givers: list[Callable[[], int]] = []
        self._next_log_ns = 0

    def add_giver(self, give: Callable[[], int]) -> None:
        """Register a function that closes idle descriptors and returns how many; called in order of registration."""
        self._givers.append(give)

    def open(self, open_fd: Callable[[], int]) -> int:
        """Return the result of `open_fd`; if no descriptor is left, have some closed and call it once more."""
        try:
            return open_fd()
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS or not self.free():
                raise
            return open_fd()

    def free(self) -> bool:
        """Have some descriptors closed; False if none could be. Logged at most once a minute."""
        freed = 0
        for give in self._givers:
            freed += give()
            if freed >= _ENOUGH_FREED:
                break
        now = monotonic_ns()
        if now >= self._next_log_ns:
            self._next_log_ns = now + _LOG_INTERVAL_NS
            log.warning("out of descriptors", extra={"freed": freed})
        return freed > 0
