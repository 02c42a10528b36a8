"""PURE: samples of what a pair holds when its load pauses → what grew, and the table.

Counts are compared exactly: at a pause there are no clients, and the cache holds the same objects, so that a daemon
that loses nothing has as many of everything as before. A count has grown if all of the last quarter of the run is above
the highest of the second: a thread that is started late, because more was wanted at once than before, is no growth.
What must not be there at a pause at all is judged at the last one, which may take longest.

Memory is not that exact. The interpreter and malloc() take memory in arenas and give back what is wholly free, so that
it depends on what happened to be alive at once. It is compared by medians of quarters, which one odd sample does not
move. The first quarter is the warm-up. A leak grows with requests, and so from the second quarter to the third, and on
to the last. An arena that is taken late comes once; the allowance is for a few of them. PSS and RSS are for the reader:
they change when another program that maps the same libraries starts or ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

from scripts.benchmark.report import aligned
from scripts.stress.resources import Held, Sample

QUARTERS = 4

_Figure: TypeAlias = Callable[[Held], float]
_COUNTS: dict[str, _Figure] = {
    "threads": lambda held: held.threads,
    "descriptors": lambda held: held.descriptors - held.origins - held.objects,
    "mapped segments": lambda held: held.segments,
}
_OBJECTS = "descriptors of objects"
"""Which files of the store are open is by chance: no more than there are."""
_VARIES = 8
"""So many objects more or less are in the hot table, or kept for a reader that has paused."""
_NONE_LEFT: dict[str, _Figure] = {
    "connections of clients": lambda held: held.clients,
    "descriptors of unlinked files": lambda held: held.unlinked,
}
_MEMORY: dict[str, _Figure] = {
    "own memory": lambda held: held.own_mb,
    "shared memory": lambda held: held.shared_mb,
}
_COLUMNS = (
    "at",
    "requests",
    "RSS",
    "PSS",
    "own",
    "shared",
    "threads",
    "descriptors",
    "clients",
    "origins",
    "objects",
    "unlinked",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is flat."""

    memory_allowed_mb: float
    origin_connections_max: int


def counts_of(sample: Sample) -> dict[str, float]:
    """What must be the same at each pause, by its name."""
    counts = _of_both(sample, _COUNTS) | _of_both(
        sample, {_OBJECTS: lambda held: max(held.objects - sample.stored_files, 0)}
    )
    return counts | {"names": sample.names, "message queues": sample.queues, "files of the store": sample.stored_files}


def left_of(sample: Sample) -> dict[str, float]:
    """What must not be there at a pause, by its name; only what is there."""
    return {name: count for name, count in _of_both(sample, _NONE_LEFT).items() if count}


def is_settled(now: Sample, before: Sample | None, earlier: Sequence[Sample]) -> bool:
    """Whether a pause may end: nothing is left, and every count is as low as at an earlier one, or rests."""
    if left_of(now):
        return False
    counts = counts_of(now)
    if not earlier:
        return before is not None and counts_of(before) == counts
    return all(count <= max(counts_of(sample)[name] for sample in earlier) for name, count in counts.items())


def what_grew(samples: Sequence[Sample], bounds: Bounds) -> list[str]:
    """Everything that is not flat, each with its figures; there must be four samples."""
    second, third, last = (quarter(samples, number) for number in range(1, QUARTERS))
    grown = [f"{name}: {count:g} at the end" for name, count in left_of(samples[-1]).items()]
    for name in counts_of(samples[-1]):
        highest, lowest = (
            max(counts_of(sample)[name] for sample in second),
            min(counts_of(sample)[name] for sample in last),
        )
        if lowest > highest + (_VARIES if name.endswith(_OBJECTS) else 0):
            grown.append(f"{name}: from {highest:g} to {lowest:g}")
    for name in _of_both(samples[-1], _MEMORY):
        middles = [median(_of_both(sample, _MEMORY)[name] for sample in part) for part in (second, third, last)]
        if middles[1] > middles[0] and middles[2] - middles[0] > bounds.memory_allowed_mb:
            grown.append(f"{name}: from {middles[0]:.1f} over {middles[1]:.1f} to {middles[2]:.1f} MB")
    peak = max(sample.proxy.origins for sample in samples)
    if peak > bounds.origin_connections_max:
        grown.append(f"connections to the origin: {peak} of at most {bounds.origin_connections_max}")
    return grown


def as_tables(samples: Sequence[Sample]) -> str:
    """One table for each daemon, a row for each pause."""
    lines = []
    for name, held in (
        ("webproxy", [each.proxy for each in samples]),
        ("simplecached", [each.cache for each in samples]),
    ):
        rows: list[tuple[str, ...]] = [(name, *_COLUMNS, "segments", "names", "queues", "files")]
        rows += [("", *_cells(sample, one)) for sample, one in zip(samples, held, strict=True)]
        lines += [*aligned(rows), ""]
    return "\n".join(lines)


def _cells(sample: Sample, held: Held) -> tuple[str, ...]:
    memory = (f"{megabytes:.1f}" for megabytes in (held.rss_mb, held.pss_mb, held.own_mb, held.shared_mb))
    counts = (held.threads, held.descriptors, held.clients, held.origins, held.objects, held.unlinked, held.segments)
    of_both = (sample.names, sample.queues, sample.stored_files)
    return (f"{sample.at_s:.0f} s", str(sample.requests), *memory, *map(str, counts), *map(str, of_both))


def quarter(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    """The samples of a quarter of the run, from 0."""
    return samples[number * len(samples) // QUARTERS : (number + 1) * len(samples) // QUARTERS]


def _of_both(sample: Sample, figures: dict[str, _Figure]) -> dict[str, float]:
    daemons = (("webproxy", sample.proxy), ("simplecached", sample.cache))
    return {f"{name} {what}": figure(held) for name, held in daemons for what, figure in figures.items()}
