"""Reading stats pages: which there are, in what state their writers are, and all values of each as plain data.

A reader takes no part in the writing: it maps a page read-only, copies it, and judges the copy. So it sees a daemon
that hangs as well as one that works, and one that was killed until its names are swept. Values of one copy may be a few
counts apart from each other. Nothing is raised for a page that vanishes, is half-written or belongs to somebody else.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic_ns
from zlib import crc32

import posix_ipc

from shmchannel.errors import LayoutMismatch, ResourceError
from shmchannel.process.guard import GuardWatch
from shmchannel.process.identity import ProcessIdentity, start_time_in
from shmchannel.process.naming import SHM_DIRECTORY, parse_stats_page_name, stats_guard_path
from shmchannel.stats_pages import layout
from shmchannel.stats_pages.histogram import Histogram
from shmchannel.stats_pages.page import row_names
from shmchannel.stats_pages.schema import Metric, MetricKind, Schema, decode_schema

log = logging.getLogger(__name__)

STUCK_NS = 5_000_000_000
"""From this age on a heartbeat, which comes each second, tells that its process is stuck."""

_ENDED_STATES = (b"Z", b"X")  # proc_pid_stat(5): a zombie only waits for its parent


class PageState(StrEnum):
    """What became of the writer of a page, as far as another process can tell."""

    LIVE = "live"
    STUCK = "stuck"
    """It lives and makes no progress: its heartbeat is old."""
    NO_WRITER = "no writer"
    """None has begun yet, or one is beginning at this moment."""
    WRITER_DEAD = "writer dead"
    """It has ended, and its owner, which lives, has not noticed that yet."""
    OWNER_DEAD = "owner dead"
    """Nobody will write it any more, and its name is about to be removed."""
    HALF_WRITTEN = "half-written"
    """It is being made, or its owner was killed while it made it."""
    OTHER_VERSION = "other version"
    """Another release has written it; no values."""
    INVALID = "invalid"
    """Its numbers contradict each other; no values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValues:
    """A metric and the values of its rows, by their label values: numbers, or histograms for a histogram."""

    metric: Metric
    numbers: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    histograms: Mapping[tuple[str, ...], Histogram] = field(default_factory=dict)
    names_change: bool = False
    """Its rows are those of a table whose names change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageReading:
    """One page at one moment. What could not be read is None, 0 or empty; times are those of CLOCK_MONOTONIC."""

    name: str
    state: PageState
    layout_version: int = 0
    role: str = ""
    instance: str = ""
    slot: int = 0
    owner: ProcessIdentity | None = None
    writer: ProcessIdentity | None = None
    writers_total: int = 0
    """How many have written it so far."""
    started_ns: int = 0
    heartbeat_ns: int = 0
    read_ns: int = 0
    metrics: Mapping[str, MetricValues] = field(default_factory=dict)

    @property
    def uptime_s(self) -> float:
        """How long its writer has been at it."""
        return max(0, self.read_ns - self.started_ns) / 1e9 if self.writer else 0.0

    @property
    def heartbeat_age_s(self) -> float:
        """How long ago its writer was seen to make progress."""
        return max(0, self.read_ns - self.heartbeat_ns) / 1e9 if self.writer else 0.0

    def number(self, name: str, *labels: str) -> int:
        """The value of a counter or gauge; 0 if the page has none of that name and row."""
        values = self.metrics.get(name)
        return values.numbers.get(labels, 0) if values is not None else 0

    def histogram(self, name: str, *labels: str) -> Histogram | None:
        """A histogram; None if the page has none of that name and row."""
        values = self.metrics.get(name)
        return values.histograms.get(labels) if values is not None else None


def list_pages() -> list[str]:
    """The names of all stats pages on this machine, whoever owns them."""
    names = (f"/{file_name}" for file_name in os.listdir(SHM_DIRECTORY))
    return sorted(name for name in names if parse_stats_page_name(name) is not None)


def read_pages(role: str | None = None, *, stuck_ns: int = STUCK_NS) -> list[PageReading]:
    """All pages of this user (of this role), those of the dead and the half-written ones included."""
    readings = (read_page(name, stuck_ns=stuck_ns) for name in list_pages())
    return [found for found in readings if found is not None and role in (None, found.role)]


def read_page(name: str, *, stuck_ns: int = STUCK_NS) -> PageReading | None:
    """One page; None if there is none of this name, or it is another user's. Never blocks."""
    set_name = parse_stats_page_name(name)
    copy = None if set_name is None else _copy(name)
    if copy is None or set_name is None:
        return None
    data, words = copy
    now = monotonic_ns()
    if not words or words[layout.MAGIC_WORD] != layout.MAGIC:
        empty = not words or not words[layout.MAGIC_WORD]
        return PageReading(name=name, state=PageState.HALF_WRITTEN if empty else PageState.INVALID, read_ns=now)
    version = words[layout.VERSION_WORD]
    if version != layout.LAYOUT_VERSION:
        return PageReading(name=name, state=PageState.OTHER_VERSION, layout_version=version, read_ns=now)
    try:
        schema, places = _schema_of(data, words)
    except LayoutMismatch as error:
        log.debug("stats page not read", extra={"ipc_name": name, "reason": str(error)})
        return PageReading(name=name, state=PageState.INVALID, layout_version=version, read_ns=now)
    boot_id = words[layout.BOOT_LOW] | words[layout.BOOT_HIGH] << 64
    pid = words[layout.WRITER_PID]
    writer = ProcessIdentity(pid, words[layout.WRITER_START], boot_id) if pid else None
    heartbeat_ns = words[layout.HEARTBEAT]
    return PageReading(
        name=name,
        state=_state(stats_guard_path(set_name), writer, now - heartbeat_ns > stuck_ns),
        layout_version=version,
        role=layout.text_of(data[layout.ROLE_OFFSET : layout.ROLE_OFFSET + layout.ROLE_BYTES]),
        instance=layout.text_of(data[layout.INSTANCE_OFFSET : layout.INSTANCE_OFFSET + layout.INSTANCE_BYTES]),
        slot=words[layout.SLOT_WORD],
        owner=ProcessIdentity(words[layout.OWNER_PID], words[layout.OWNER_START], boot_id),
        writer=writer,
        writers_total=words[layout.WRITER_COUNT],
        started_ns=words[layout.STARTED],
        heartbeat_ns=heartbeat_ns,
        read_ns=now,
        metrics=_values(schema, places, data, words),
    )


def _copy(name: str) -> tuple[bytes, list[int]] | None:
    """The page's bytes, and its words, each as it was at one moment; empty if it has no valid size (yet)."""
    try:
        memory = posix_ipc.SharedMemory(name, read_only=True)
    except (posix_ipc.Error, OSError):
        return None
    try:
        status = os.fstat(memory.fd)
        if status.st_uid != os.geteuid():
            return None
        if not layout.HEADER_BYTES <= status.st_size <= layout.PAGE_BYTES_MAX or status.st_size % 8:
            return b"", []
        with (
            mmap.mmap(memory.fd, status.st_size, prot=mmap.PROT_READ) as mapping,
            memoryview(mapping) as octets,
            octets.cast("Q") as words,
        ):
            return mapping[:], words.tolist()  # the words one by one: a copy of bytes may tear them
    except (OSError, ValueError):
        return None
    finally:
        memory.close_fd()


def _schema_of(data: bytes, words: Sequence[int]) -> tuple[Schema, layout.Places]:
    places = layout.check_header(words, len(data))
    text = data[places.schema : places.schema + places.schema_bytes]
    if crc32(text) != words[layout.SCHEMA_CRC_WORD]:
        raise LayoutMismatch("the schema of a stats page does not have its checksum")
    schema = decode_schema(text)
    if (
        schema.cell_count != places.cell_count
        or places.names + layout.ROW_NAME_BYTES * schema.name_count > places.cells
    ):
        raise LayoutMismatch("the cells of a stats page are not those of its schema")
    return schema, places


def _state(guard_path: str, writer: ProcessIdentity | None, is_late: bool) -> PageState:
    try:
        with closing(GuardWatch(guard_path)) as watch:
            owned = watch.alive()
    except ResourceError:
        owned = False
    if not owned:
        return PageState.OWNER_DEAD
    if writer is None:
        return PageState.NO_WRITER
    if not _lives(writer):
        return PageState.WRITER_DEAD
    return PageState.STUCK if is_late else PageState.LIVE


def _lives(writer: ProcessIdentity) -> bool:
    """Whether this very process runs, and not another one that got its pid."""
    try:
        with open(f"/proc/{writer.pid}/stat", "rb") as file:
            stat = file.read()
        ended = stat[stat.rindex(b")") + 2 :][:1] in _ENDED_STATES
        return start_time_in(stat) == writer.start_time and not ended
    except (OSError, ValueError, IndexError):
        return False


def _values(schema: Schema, places: layout.Places, data: bytes, words: Sequence[int]) -> dict[str, MetricValues]:
    cells = words[places.cells // 8 : places.cells // 8 + places.cell_count]
    octets = memoryview(data)
    rows = {
        table.name: [
            ((name,), row) for name, row in row_names(octets, places.names, schema.first_rows[table.name], table.rows)
        ]
        for table in schema.tables
    }
    found = {}
    for metric in schema.metrics:
        first, width = schema.first_cells[metric.name], metric.row_cells
        changes = bool(metric.table) and schema.table(metric.table).names_change
        named = rows[metric.table] if metric.table else [(row, index) for index, row in enumerate(metric.rows)]
        if metric.kind is MetricKind.HISTOGRAM:
            histograms = {
                labels: Histogram.of(metric.buckets, cells[first + row * width : first + (row + 1) * width])
                for labels, row in named
            }
            found[metric.name] = MetricValues(metric=metric, histograms=histograms, names_change=changes)
        else:
            numbers = {labels: cells[first + row] for labels, row in named}
            found[metric.name] = MetricValues(metric=metric, numbers=numbers, names_change=changes)
    return found
