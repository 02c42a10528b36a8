"""StatsPages and StatsPage: pages of shared memory that one process counts in, and any other of this user reads.

Theory of operation. A page outlives its writer, so that a worker that is replaced goes on counting where the last one
ended. Its name therefore belongs to somebody else: an owner (StatsPages), which is the supervisor of the workers or the
writing process itself. A guard tells whether the owner lives, and without it the reaper removes the pages.

    owner   StatsPages.create() ── add(slot) ──▶ page published, no writer ── close() ──▶ names gone
    writer  StatsPage.open(name) ── begin() ──▶ writing: counts, beat() ── ends or is killed ──▶ the next begin()
    owner   ── end(pid) ──▶ no writer: it has seen that end, and does what is to be done about it

* begin() says who writes now and since when, and sets the gauges to 0, as those of the last writer mean nothing; the
  counters and histograms keep their values. Only one process may write at a time, and its owner sees to that: it begins
  a new writer only when the last one has ended.
* A page is never unmapped by its writer: threads that still run at the end of a process may count until it is gone.
* A writer with another schema is refused, after an update for example; its owner adds a new page for the slot.
* A process that gets no page counts in memory of its own (StatsPage.private()) and is otherwise the same.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic_ns
from typing import Self, TypeAlias

import posix_ipc

from shmchannel.errors import AccessDenied, LayoutMismatch, ShmChannelError, UsageError, os_errors
from shmchannel.process.block import create_block
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import ProcessIdentity, own_identity
from shmchannel.process.naming import stats_guard_path, stats_page_name, stats_set_name
from shmchannel.process.reaper import unlink_memory
from shmchannel.stats_pages import layout
from shmchannel.stats_pages.counting import Counter, Gauge, HistogramCells, SampledTotal, TimedEvent
from shmchannel.stats_pages.schema import OTHER, Metric, MetricKind, Schema

log = logging.getLogger(__name__)

Row: TypeAlias = tuple[str, ...]
"""The name of a metric and the labels of its row."""

_LOW_64 = (1 << 64) - 1


class StatsPage:
    """The writer's side of a page. Thread-safe; the counting itself is described in counting.py."""

    def __init__(self, name: str, schema: Schema, memory: mmap.mmap | bytearray) -> None:
        """Take over the memory of a page with this schema, published or empty."""
        self.name = name
        """Empty for one in memory of its own."""
        self.schema = schema
        self._octets = memoryview(memory)
        self._words = self._octets.cast("Q")
        places = layout.places_for(schema)
        self._names_at = places.names
        self._cells: memoryview[int] = self._words[places.cells // 8 : places.cells // 8 + places.cell_count]
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, int]] = {}
        self.read_rows()

    @classmethod
    def private(cls, schema: Schema) -> Self:
        """A page that nobody else sees."""
        memory = bytearray(layout.places_for(schema).page_bytes)
        page = cls("", schema, memory)
        page.name_last_rows()
        return page

    @classmethod
    def open(cls, name: str, schema: Schema) -> Self:
        """Map a published page in order to write it; begin() makes this process its writer.

        Raises:
            NameMissing, AccessDenied: there is none, or it is another user's.
            LayoutMismatch: it is not published, or has another layout or schema.
        """
        with os_errors(f"open stats page {name}"):
            memory = posix_ipc.SharedMemory(name)
            try:
                status = os.fstat(memory.fd)
                if status.st_uid != os.geteuid():
                    raise AccessDenied(f"stats page {name} belongs to uid {status.st_uid}", errno.EACCES)
                if status.st_size != layout.places_for(schema).page_bytes:
                    raise LayoutMismatch(f"stats page {name} of {status.st_size} bytes has another schema")
                mapping = mmap.mmap(memory.fd, status.st_size)
            finally:
                memory.close_fd()
        _check_same(name, mapping, schema)
        return cls(name, schema, mapping)

    def begin(self, identity: ProcessIdentity | None = None, started_ns: int | None = None) -> None:
        """This process writes the page from now on, or the one of `identity` (for tests); before any thread counts."""
        identity = identity or own_identity()
        words, now = self._words, started_ns or monotonic_ns()
        words[layout.WRITER_PID] = 0  # until all is written: a reader sees a page without a writer
        for metric in self.schema.metrics:
            if metric.kind is MetricKind.GAUGE:
                first = self.schema.first_cells[metric.name]
                for at in range(first, first + self.schema.row_count(metric)):
                    self._cells[at] = 0
        words[layout.WRITER_START] = identity.start_time
        words[layout.STARTED] = words[layout.HEARTBEAT] = now
        words[layout.WRITER_COUNT] += 1
        words[layout.WRITER_PID] = identity.pid

    def end(self, pid: int) -> None:
        """The writer with this pid has ended, which the owner says: the page has none until the next begin()."""
        if self._words[layout.WRITER_PID] == pid:
            self._words[layout.WRITER_PID] = 0

    def beat(self, now_ns: int | None = None) -> None:
        """The writer makes progress: to be called about once a second, while it does."""
        self._words[layout.HEARTBEAT] = now_ns or monotonic_ns()

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter of this row.

        Raises:
            UsageError: there is no such counter or row.
        """
        return Counter(self._cells, self._cell(self._metric(name, MetricKind.COUNTER), labels))

    def sampled(self, name: str, *labels: str) -> SampledTotal:
        """As counter(), for events that somebody else counts."""
        return SampledTotal(self._cells, self._cell(self._metric(name, MetricKind.COUNTER), labels))

    def gauge(self, name: str, *labels: str) -> Gauge:
        """As counter(), of a gauge."""
        return Gauge(self._cells, self._cell(self._metric(name, MetricKind.GAUGE), labels))

    def histogram(self, name: str, *labels: str) -> HistogramCells:
        """As counter(), of a histogram."""
        metric = self._metric(name, MetricKind.HISTOGRAM)
        return HistogramCells(self._cells, self._cell(metric, labels), metric.buckets)

    def timed_event(self, count: Row, amount: Row, times: Row, *also: Row) -> TimedEvent:
        """An event over two counters and a histogram, each given as its name and labels; errors as counter().

        `also` are counters for the count, and for the amount, that other events have a part in.
        """
        metric = self._metric(times[0], MetricKind.HISTOGRAM)
        return TimedEvent(
            self._cells,
            self._counter_cell(count),
            self._counter_cell(amount),
            self._cell(metric, times[1:]),
            metric.buckets,
            tuple(map(self._counter_cell, also)),
        )

    def _counter_cell(self, row: Row) -> int:
        return self._cell(self._metric(row[0], MetricKind.COUNTER), row[1:])

    def value(self, name: str, *labels: str) -> int:
        """The value of a counter or gauge now; errors as counter()."""
        return self._cells[self._cell(self.schema.metric(name), labels)]

    def row(self, table: str, name: str) -> str:
        """The label of a table's row for this name: the name itself, made now if there is room, or `other`.

        Raises:
            UsageError: there is no such table.
        """
        rows = self._rows.get(table)
        if rows is None:
            raise UsageError(f"no table {table!r}")
        label = layout.row_name(name).decode()
        if label in rows:
            return label
        with self._lock:
            if label not in rows:
                size = self.schema.table(table).rows
                free = self._free_row(rows, size)
                if free is None:
                    return OTHER
                self._write_name(self.schema.first_rows[table] + free, label)
                rows[label] = free
        return label

    @staticmethod
    def _free_row(rows: dict[str, int], size: int) -> int | None:
        """The first row without a name; the last one is that of all others."""
        if len(rows) >= size:  # for a table of names that anybody chooses this is asked for nearly every one
            return None
        taken = set(rows.values())
        return next((row for row in range(size - 1) if row not in taken), None)

    def rename_row(self, table: str, old: str, new: str) -> str:
        """Give the row of one name to another one, with all its counts at 0; returns the label, as row() does.

        For one thread, which sees to it that nobody counts in the row: a reader may find the new name with old counts.

        Raises:
            UsageError: the names of this table do not change, there is no such row, or the new name has one.
        """
        label, rows = layout.row_name(new).decode(), self._rows.get(table, {})
        if not self.schema.table(table).names_change or old not in rows or old == OTHER or label in rows:
            raise UsageError(f"the row {old!r} of table {table!r} cannot become {label!r}")
        with self._lock:
            row = rows[old]
            self._words[self._name_at(table, row) // 8] = 0
            for metric in self.schema.metrics:
                if metric.table == table:
                    first = self.schema.first_cells[metric.name] + row * metric.row_cells
                    for at in range(first, first + metric.row_cells):
                        self._cells[at] = 0
            self._write_name(self.schema.first_rows[table] + row, label)
            del rows[old]
            rows[label] = row
        return label

    def named(self, table: str) -> list[str]:
        """The names of a table's rows now, `other` among them."""
        return list(self._rows[table])

    def _metric(self, name: str, kind: MetricKind) -> Metric:
        metric = self.schema.metric(name)
        if metric.kind is not kind:
            raise UsageError(f"metric {name!r} is a {metric.kind}, not a {kind}")
        return metric

    def _cell(self, metric: Metric, labels: tuple[str, ...]) -> int:
        if metric.table:
            row = self._rows[metric.table].get(labels[0], -1) if len(labels) == 1 else -1
        else:
            row = metric.rows.index(labels) if labels in metric.rows else -1
        if row < 0:
            raise UsageError(f"metric {metric.name!r} has no row {labels}")
        return self.schema.first_cells[metric.name] + row * metric.row_cells

    def _name_at(self, table: str, row: int) -> int:
        return self._names_at + (self.schema.first_rows[table] + row) * layout.ROW_NAME_BYTES

    # -- the names of rows ---------------------------------------------------------------------------------------
    def _write_name(self, row: int, label: str) -> None:
        at, text = self._names_at + row * layout.ROW_NAME_BYTES, label.encode()
        self._octets[at + 8 : at + 8 + len(text)] = text
        self._words[at // 8] = len(text)

    def name_last_rows(self) -> None:
        """Name the last row of each table: for whoever makes a page."""
        for table in self.schema.tables:
            self._write_name(self.schema.first_rows[table.name] + table.rows - 1, OTHER)
        self.read_rows()

    def read_rows(self) -> None:
        """Look up which rows have names already."""
        for table in self.schema.tables:
            names = row_names(self._octets, self._names_at, self.schema.first_rows[table.name], table.rows)
            self._rows[table.name] = dict(names)


def row_names(octets: memoryview, names_at: int, first_row: int, count: int) -> Iterator[tuple[str, int]]:
    """The names in a page, each with its row in the table; rows without a (valid) name are left out."""
    for row in range(count):
        at = names_at + (first_row + row) * layout.ROW_NAME_BYTES
        length = int.from_bytes(octets[at : at + 8], "little")
        if 0 < length <= layout.ROW_TEXT_BYTES:
            yield bytes(octets[at + 8 : at + 8 + length]).decode(errors="replace"), row


def _check_same(name: str, mapping: mmap.mmap, schema: Schema) -> None:
    with memoryview(mapping) as octets, octets.cast("Q") as words:
        same = words[layout.MAGIC_WORD] == layout.MAGIC and all(
            words[index] == value for index, value in layout.header_words(schema).items()
        )
        start = layout.HEADER_BYTES
        same = same and bytes(octets[start : start + len(schema.encoded)]) == schema.encoded
    if not same:
        mapping.close()
        raise LayoutMismatch(f"stats page {name} is not published, or has another layout or schema")


class StatsPages:
    """The owner's side: makes pages and removes their names. For one thread."""

    def __init__(self, name: str, role: str, instance: str, guard: ProcessGuard) -> None:
        """Take over the guard; use create()."""
        self.name = name
        self._role = role
        self._instance = instance
        self._guard = guard
        self._names: dict[int, str] = {}
        self._made = 0

    @classmethod
    def create(cls, role: str, instance: str = "") -> Self:
        """Become the owner of pages of this role (`proxy`, `cache`); `instance` tells it from others, to people.

        Raises:
            LimitReached, AccessDenied: the system refused.
        """
        name = stats_set_name(os.getpid(), secrets.token_hex(4))
        return cls(name, role, instance, ProcessGuard.acquire(stats_guard_path(name)))

    def add(self, slot: int, schema: Schema) -> StatsPage:
        """Make the page of a slot, and remove the name of the one it had; nobody writes it yet.

        Raises:
            UsageError: the schema is too large.
            LimitReached, AccessDenied: the system refused; the slot keeps what it had.
        """
        name = stats_page_name(self.name, self._made)
        self._made += 1
        places = layout.places_for(schema)
        with ExitStack() as undo:
            mapping = create_block(f"stats page {name}", name, places.page_bytes, undo)
            page = StatsPage(name, schema, mapping)
            self._describe(mapping, slot, schema)
            page.name_last_rows()
            with _words_of(mapping) as words:
                words[layout.MAGIC_WORD] = layout.MAGIC
            undo.pop_all()
        old = self._names.get(slot)
        self._names[slot] = name
        if old is not None:
            unlink_memory(old)
        return page

    def _describe(self, mapping: mmap.mmap, slot: int, schema: Schema) -> None:
        owner, places = own_identity(), layout.places_for(schema)
        mapping[places.schema : places.schema + places.schema_bytes] = schema.encoded
        for at, room, text in (
            (layout.ROLE_OFFSET, layout.ROLE_BYTES, self._role),
            (layout.INSTANCE_OFFSET, layout.INSTANCE_BYTES, self._instance),
        ):
            mapping[at : at + room] = layout.padded(text, room)
        facts = layout.header_words(schema) | {
            layout.OWNER_PID: owner.pid,
            layout.OWNER_START: owner.start_time,
            layout.BOOT_LOW: owner.boot_id & _LOW_64,
            layout.BOOT_HIGH: owner.boot_id >> 64,
            layout.SLOT_WORD: slot,
        }
        with _words_of(mapping) as words:
            for index, value in facts.items():
                words[index] = value

    def remove(self, slot: int) -> None:
        """Remove the name of a slot's page: there will be no other writer. Whoever has it mapped keeps it."""
        name = self._names.pop(slot, None)
        if name is not None:
            unlink_memory(name)

    def close(self) -> None:
        """Remove all names; may be called twice."""
        for slot in list(self._names):
            self.remove(slot)
        self._guard.close()


@contextmanager
def _words_of(mapping: mmap.mmap) -> Iterator[memoryview[int]]:
    with memoryview(mapping) as octets, octets.cast("Q") as words:
        yield words


class SlotPages:
    """The pages of a supervisor's workers, made when a slot has its first; without them the workers have their own.

    For one thread.
    """

    def __init__(self, role: str, instance: str, schema: Schema) -> None:
        self._role = role
        self._instance = instance
        self._schema = schema
        self._pages: StatsPages | None = None
        self._by_slot: dict[int, StatsPage] = {}

    def name_of(self, slot: int) -> str:
        """The name of the page for the worker of this slot, which is the only one; empty if the system refuses one."""
        page = self._by_slot.get(slot)
        if page is None:
            try:
                self._pages = self._pages or StatsPages.create(self._role, self._instance)
                page = self._by_slot[slot] = self._pages.add(slot, self._schema)
            except ShmChannelError as error:
                log.warning("no stats page", extra={"role": self._role, "slot": slot, "reason": str(error)})
                return ""
        return page.name

    def ended(self, slot: int, pid: int) -> None:
        """The worker of this slot has ended, and its owner knows: nobody is to be found missing on its page."""
        page = self._by_slot.get(slot)
        if page is not None:
            page.end(pid)

    def close(self) -> None:
        """Remove all names; may be called twice."""
        if self._pages is not None:
            self._pages.close()


def own_page(role: str, instance: str, schema: Schema, resources: ExitStack, *, given: str = "") -> StatsPage:
    """A page that this process writes from now on: the one it was `given`, or its own, with a name until `resources`.

    A page that was made for another schema, by a supervisor of another release, is left alone. If the system refuses
    one, that is logged, and the process counts where nobody else sees it: it has other things to do than to be watched.
    """
    try:
        page = StatsPage.open(given, schema) if given else None
    except ShmChannelError as error:
        log.info("stats page not taken over", extra={"role": role, "reason": str(error)})
        page = None
    if page is None:
        page = _made_page(role, instance, schema, resources)
    page.begin()
    return page


def _made_page(role: str, instance: str, schema: Schema, resources: ExitStack) -> StatsPage:
    try:
        pages = StatsPages.create(role, instance)
        resources.callback(pages.close)
        return pages.add(0, schema)
    except ShmChannelError as error:
        log.warning("no stats page", extra={"role": role, "reason": str(error)})
        return StatsPage.private(schema)
