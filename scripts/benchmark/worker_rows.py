"""PURE: the rows of the HTTP table with several workers, and their targets. The only place with these numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scripts.benchmark.http_rows import HTTP_ROWS, KIB8, NGINX, VARNISH, HttpRow
from scripts.benchmark.stats import Comparison, Target

ONE_WORKER, LOGGED = "1 worker", "without access log and admin server"
WORKER_ROWS = tuple(replace(row, target=Target(value=1.0)) for row in HTTP_ROWS)
LOG_ROWS = tuple(row for row in WORKER_ROWS if row.object_bytes == KIB8 and not row.new_connections)
LOG_TARGET = Target(value=0.93)
CPU_UNIT = "µs/request"
CPU_TARGET = Target(value=1.1, is_maximum=True)
START_WORKERS = 4
START_TITLE = f"start to first answer, {START_WORKERS} workers"
START_TARGET = Target(value=1.5, is_maximum=True)
"""Seconds."""
MEMORY_TITLE = "memory of each further worker (PSS)"
MEMORY_TARGET = Target(value=30, is_maximum=True)
"""Megabytes."""
_VARNISH_TARGETS = {"http_10m": Target(value=0.95)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Our figure under a load, compared with another's."""

    key: str
    load: str
    against: str
    unit: str
    comparison: Comparison
    target: Target | None
    """Of the ratio; None if it is only of interest."""


def target_of(row: HttpRow, against: str) -> Target | None:
    """The goal of our figure's ratio to another's."""
    if against == NGINX:
        return row.target
    if against == VARNISH:
        return _VARNISH_TARGETS.get(row.key)
    if against == ONE_WORKER and row.object_bytes != KIB8:
        return Target(value=1.0)
    return None


def cpu_target_of(row: HttpRow) -> Target | None:
    """The goal of our CPU time for each request, as a ratio to nginx's."""
    return CPU_TARGET if row.object_bytes == KIB8 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResults:
    """The results of one run. Without nginx or wrk there are none; `missing` names what is not installed."""

    workers: int
    accepting: str
    """How nginx shares connections, which was the fastest of its ways here."""
    lines: Sequence[Line]
    start_s: float
    memory_mb: float
    missing: Sequence[str]

    @property
    def singles(self) -> Mapping[str, tuple[float, str, Target]]:
        """The figures that are compared with nothing: value, unit and target by title."""
        return {
            START_TITLE: (self.start_s, "s", START_TARGET),
            MEMORY_TITLE: (self.memory_mb, "MB", MEMORY_TARGET),
        }
