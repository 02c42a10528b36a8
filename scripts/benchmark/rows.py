"""PURE: the loads of the speed table and their targets. The only place with these numbers."""

from dataclasses import dataclass, replace

from scripts.benchmark.load import Figures
from scripts.benchmark.stats import Comparison, Target

SMALL_BYTES = 8192
LARGE_BYTES = 10_000_000
DEFAULT_SEGMENT_BYTES = 262_144
CLASSIC_SEGMENT_BYTES = 8192
MANY_OBJECTS = 5_000
SEGMENT_COUNT = 8
WORKER_COUNT = 8

REQUESTS, MEGABYTES = "requests/s", "MB/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: that many clients request objects of one size; `figure` is compared."""

    key: str
    title: str
    object_bytes: int
    clients: int
    segment_bytes: int
    figure: str
    target: Target | None
    """None if the figure only explains another row."""
    hot_table: bool = True
    """Whether the cache has a hot table."""
    many: bool = False
    """Whether it is for MANY_OBJECTS small ones in place of a few."""
    c_pair_target: Target | None = None
    """Of the ratio to the C pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One measured line: our pair against both yardsticks, in the same rounds."""

    row: Row
    floor: Comparison
    c_pair: Comparison | None
    """None if there is no C compiler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFigures:
    """A peer's figures under the load of a row; over HTTP, with a new connection for each request, as for ours."""

    name: str
    row_title: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessRow:
    """Small requests beside large ones: their p99 with `crowd` large clients against that with `few`."""

    key: str
    title: str
    few: int
    crowd: int
    segment_bytes: int
    target: Target


def _large(clients: int, segment_bytes: int, target: float, key: str) -> Row:
    options = "default -z" if segment_bytes == DEFAULT_SEGMENT_BYTES else f"-n {SEGMENT_COUNT} -z {segment_bytes}"
    return Row(
        key=key,
        title=f"10 MB objects, {clients} client{'s' if clients > 1 else ''}, {options}",
        object_bytes=LARGE_BYTES,
        clients=clients,
        segment_bytes=segment_bytes,
        figure=MEGABYTES,
        target=Target(value=target),
    )


SMALL_ROW = Row(
    key="small",
    title="8 KiB objects, 8 clients, default -z",
    object_bytes=SMALL_BYTES,
    clients=8,
    segment_bytes=DEFAULT_SEGMENT_BYTES,
    figure=REQUESTS,
    target=Target(value=0.75),
)
COMMAND_ROW = replace(
    SMALL_ROW, key="small_commands", title="the same without the hot table", target=None, hot_table=False
)
MANY_ROW = replace(
    SMALL_ROW, key="many", title=f"{MANY_OBJECTS:,} objects of 8 KiB, 8 clients, default -z", target=None, many=True
)
MANY_COMMANDS_ROW = replace(
    MANY_ROW,
    key="many_commands",
    title=f"the same {MANY_OBJECTS:,} without the hot table",
    hot_table=False,
    c_pair_target=Target(value=1.5),
)
LARGE_ROW = _large(4, DEFAULT_SEGMENT_BYTES, 0.9, "large")
ROWS = (
    SMALL_ROW,
    COMMAND_ROW,
    MANY_ROW,
    MANY_COMMANDS_ROW,
    LARGE_ROW,
    _large(1, CLASSIC_SEGMENT_BYTES, 2.0, "large_classic_1"),
    _large(4, CLASSIC_SEGMENT_BYTES, 1.4, "large_classic_4"),
)
FAIRNESS_ROW = FairnessRow(
    key="small_beside_large",
    title=f"1 client of 8 KiB beside 12 clients of 10 MB, -n {SEGMENT_COUNT} -z {CLASSIC_SEGMENT_BYTES}",
    few=7,
    crowd=12,
    segment_bytes=CLASSIC_SEGMENT_BYTES,
    target=Target(value=5, is_maximum=True),
)
MEMORY_TARGET = Target(value=45, is_maximum=True)
