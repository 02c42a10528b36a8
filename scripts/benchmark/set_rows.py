"""PURE: the rows with sets of objects, hits and misses, and their targets. The only place with these numbers.

A row names its set by number and size of objects; rows of the same set share its objects. What a row needs is known
before anything is started, so that one that does not fit the disk or the memory is left out with its reason, and rows
are put together in batches that fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scripts.benchmark.stats import Target

_KIB = 1 << 10
_MANY = 100_000
SIZES_KIB = (4, 16, 20, 32, 64, 128, 256, 512, 2048)
P99_TARGET = Target(value=4, is_maximum=True)
"""Of each row: our 99th percentile, to nginx's."""
BATCH_BYTES_MAX = 1100 << 20
"""What the sets of one batch have together, unless a single one has more."""
_BLOCK_BYTES = 4096
_HEAD_BYTES = 512
_SPARE_BYTES = 512 << 20
_STORES = 2
"""Ours and nginx's are files; varnish keeps its objects in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRow:
    """One line of the table: connections that are kept ask for objects of one size, drawn at random."""

    key: str
    title: str
    objects: int
    """0 for misses: each request is for another object."""
    object_bytes: int
    connections: int
    alpha: float = 0.0
    """Of Zipf's law; 0: each object is as likely."""
    targets: Mapping[int, Target] = field(default_factory=dict)
    """Of the ratio to nginx's rate, by number of workers."""
    in_quick: bool = True

    @property
    def is_misses(self) -> bool:
        """Whether each request is a miss; otherwise each is a hit."""
        return self.objects == 0

    @property
    def set_name(self) -> str:
        """The first part of the paths of its objects."""
        return "misses" if self.is_misses else f"set-{self.objects}"

    @property
    def stored_bytes(self) -> int:
        """The room that its objects take in one store."""
        blocks = -(-(self.object_bytes + _HEAD_BYTES) // _BLOCK_BYTES)
        return self.objects * blocks * _BLOCK_BYTES

    def target_for(self, workers: int) -> Target | None:
        """The goal with so many workers on each side; for more than two that of two."""
        return self.targets.get(min(workers, 2))


def _targets(one: float, two: float) -> dict[int, Target]:
    return {1: Target(value=one), 2: Target(value=two)}


def _size_text(object_bytes: int) -> str:
    return f"{object_bytes // _KIB:,} KiB" if object_bytes >= _KIB else f"{object_bytes} B"


def _connections_text(connections: int) -> str:
    return f"{connections} connection{'' if connections == 1 else 's'}"


def _hits(objects: int, object_bytes: int, connections: int, targets: dict[int, Target]) -> SetRow:
    size = f"_{object_bytes // _KIB}k" if object_bytes >= _KIB else ""
    return SetRow(
        key=f"hits_{objects}{size}_{connections}",
        title=f"hits, {objects:,} objects of {_size_text(object_bytes)}, {_connections_text(connections)}",
        objects=objects,
        object_bytes=object_bytes,
        connections=connections,
        targets=targets,
        in_quick=object_bytes < _KIB or (objects, object_bytes) == (5_000, 8 * _KIB),
    )


def _zipf(connections: int) -> SetRow:
    return SetRow(
        key=f"zipf_{connections}",
        title=f"hits, {_MANY:,} objects of 8 KiB by Zipf's law, {_connections_text(connections)}",
        objects=_MANY,
        object_bytes=8 * _KIB,
        connections=connections,
        alpha=1.0,
        targets=_targets(0.4, 0.8),
        in_quick=False,  # filling alone takes minutes
    )


def _sizes(objects: int, size_kib: int) -> SetRow:
    return SetRow(
        key=f"sizes_{objects}_{size_kib}k",
        title=f"hits, {objects:,} objects of {size_kib:,} KiB, 16 connections",
        objects=objects,
        object_bytes=size_kib * _KIB,
        connections=16,
        targets=_targets(0.75, 1.0),
        in_quick=objects < 1000 or size_kib in (20, 128),
    )


def _misses(connections: int, targets: dict[int, Target]) -> SetRow:
    return SetRow(
        key=f"misses_{connections}",
        title=f"misses, objects of 100 B, {_connections_text(connections)}",
        objects=0,
        object_bytes=100,
        connections=connections,
        targets=targets,
    )


_HALF = _targets(0.5, 0.9)
_ALONE = _targets(0.7, 0.7)
_MISS = _targets(0.35, 0.6)
SET_ROWS = (
    *(_hits(objects, 100, connections, _HALF) for objects in (10, 300) for connections in (8, 64)),
    _hits(300, 8 * _KIB, 8, _HALF),
    _hits(300, 100 * _KIB, 8, _HALF),
    _hits(5_000, 100, 1, _ALONE),
    _hits(5_000, 100, 8, _HALF),
    _hits(5_000, 100, 64, _HALF),
    _hits(5_000, 8 * _KIB, 8, _HALF),
    _hits(5_000, 8 * _KIB, 64, _HALF),
    _hits(5_000, 100 * _KIB, 8, _HALF),
    _zipf(8),
    _zipf(64),
    *(_sizes(64, size) for size in SIZES_KIB),
    *(_sizes(2_000, size) for size in SIZES_KIB),
    _misses(1, {}),
    _misses(8, _MISS),
    _misses(64, _MISS),
)


def is_chosen(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a key begins with one of these; without any every key is chosen."""
    return not prefixes or key.startswith(tuple(prefixes))


def unknown_prefixes(prefixes: Iterable[str], keys: Iterable[str]) -> list[str]:
    """The prefixes that choose nothing."""
    known = list(keys)
    return [prefix for prefix in prefixes if not any(key.startswith(prefix) for key in known)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the machine has to spare."""

    disk_bytes: int
    memory_bytes: int


def why_left_out(row: SetRow, room: Room, *, quick: bool) -> str | None:
    """The reason for which a row is not measured; None if it is.

    Its objects must fit the disk, and the page cache too: hits that read from a disk would measure the disk.
    """
    if quick and not row.in_quick:
        return "not with --quick"
    needed = row.stored_bytes * _STORES + _SPARE_BYTES
    for what, there in (("disk space", room.disk_bytes), ("memory for the page cache", room.memory_bytes)):
        if needed > there:
            return f"needs {needed / 1e9:.1f} GB of {what}, {there / 1e9:.1f} GB are free"
    return None


def stored_bytes_of(rows: Iterable[SetRow]) -> int:
    """The room that the objects of these rows take in one store; a set counts once."""
    return sum({(row.set_name, row.object_bytes): row.stored_bytes for row in rows}.values())


def batches(rows: Iterable[SetRow]) -> list[list[SetRow]]:
    """The rows in their order, in groups whose sets have at most BATCH_BYTES_MAX together, or one set with more."""
    found: list[list[SetRow]] = []
    for row in rows:
        together = stored_bytes_of([*found[-1], row]) if found else 0
        if found and (together <= BATCH_BYTES_MAX or together == row.stored_bytes):
            found[-1].append(row)
        else:
            found.append([row])
    return found
