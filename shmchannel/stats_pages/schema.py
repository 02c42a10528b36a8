"""PURE: what a stats page counts: metrics by name, kind, unit and labels, and where the cells of each lie.

A page carries its schema as JSON, so that a reader needs no other knowledge of the program that writes it
(docs/protocol.md 10). The labels of a metric are fixed in the schema, or those of a table: a bounded number of rows
that get their names while the writer runs, the last of which takes all that have none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.stats_pages.histogram import LATENCY, OCTAVES_MAX, Buckets

_NAME = re.compile(r"[a-z][a-z0-9_]*")
CELLS_MAX = 1 << 20
OTHER = "other"
"""The name of a table's last row."""
NANOSECONDS = 1_000_000_000
"""Cells of a unit that is counted in nanoseconds, the second."""


class MetricKind(StrEnum):
    """A counter only rises, also from one writer of the page to the next; a gauge has the value of now."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class OverPages(StrEnum):
    """What the values of one gauge in several pages are together; counters and histograms are always added."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, named by the rules of Prometheus; what its cells count is 1/`per_unit` of its unit.

    `rows` are the label values of each row, in the order of `labels`. With a `table` the rows are those of the table,
    and `labels` is its one label.
    """

    name: str
    kind: MetricKind
    help: str
    advice: str = ""
    """What an operator does about it."""
    unit: str = ""
    per_unit: int = 1
    labels: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ((),)
    table: str = ""
    over_pages: OverPages = OverPages.SUM
    """Of a gauge: a state is no sum."""
    buckets: Buckets = LATENCY
    """Of a histogram."""

    @property
    def row_cells(self) -> int:
        """How many cells a row has: of a histogram the sum and then the buckets."""
        return 1 + self.buckets.size if self.kind is MetricKind.HISTOGRAM else 1


@dataclass(frozen=True, slots=True)
class Namespace:
    """Declares metrics whose names begin alike and that have the same labels; adds `_total` and `_seconds` to names."""

    prefix: str
    labels: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ((),)
    table: str = ""

    def by(self, *labels: str, rows: Iterable[tuple[str, ...]]) -> Namespace:
        """The same names with these labels."""
        return replace(self, labels=labels, rows=tuple(rows))

    def counter(self, name: str, text: str, advice: str = "", unit: str = "") -> Metric:
        """A counter with this help and advice."""
        return self._metric(MetricKind.COUNTER, f"{name}_total", text, advice, unit)

    def gauge(
        self,
        name: str,
        text: str,
        advice: str = "",
        unit: str = "",
        *,
        per_unit: int = 1,
        over_pages: OverPages = OverPages.SUM,
    ) -> Metric:
        """A gauge, as counter()."""
        made = self._metric(MetricKind.GAUGE, name, text, advice, unit)
        return replace(made, per_unit=per_unit, over_pages=over_pages)

    def times(self, name: str, text: str, advice: str) -> Metric:
        """A histogram of times that are counted in nanoseconds, as counter()."""
        made = self._metric(MetricKind.HISTOGRAM, f"{name}_seconds", text, advice, "seconds")
        return replace(made, per_unit=NANOSECONDS)

    def _metric(self, kind: MetricKind, name: str, text: str, advice: str, unit: str) -> Metric:
        return Metric(
            name=self.prefix + name,
            kind=kind,
            help=text,
            advice=advice,
            unit=unit,
            labels=self.labels,
            rows=self.rows,
            table=self.table,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that are named while the writer runs, by the values of one label."""

    name: str
    label: str
    rows: int
    """Including the last, which takes what has no row of its own."""
    names_change: bool = False
    """A row can pass to another name: it shows who is heaviest, and anybody can choose the names (heaviest.py)."""


@dataclass(frozen=True)
class Schema:
    """All metrics of a page; the order of metrics and tables decides where their cells and names lie."""

    metrics: tuple[Metric, ...]
    tables: tuple[Table, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def first_cells(self) -> dict[str, int]:
        """The index of each metric's first cell."""
        found, at = {}, 0
        for metric in self.metrics:
            found[metric.name] = at
            at += metric.row_cells * self.row_count(metric)
        return found

    @cached_property
    def cell_count(self) -> int:
        """How many cells all metrics have."""
        return sum(metric.row_cells * self.row_count(metric) for metric in self.metrics)

    @cached_property
    def first_rows(self) -> dict[str, int]:
        """The number of each table's first row, counted over all tables."""
        found, at = {}, 0
        for table in self.tables:
            found[table.name] = at
            at += table.rows
        return found

    @cached_property
    def name_count(self) -> int:
        """How many rows all tables have."""
        return sum(table.rows for table in self.tables)

    def metric(self, name: str) -> Metric:
        """The metric of this name.

        Raises:
            UsageError: there is none.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise UsageError(f"no metric {name!r}")

    def row_count(self, metric: Metric) -> int:
        """How many rows a metric has."""
        return self.table(metric.table).rows if metric.table else len(metric.rows)

    def table(self, name: str) -> Table:
        """The table of this name.

        Raises:
            UsageError: there is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise UsageError(f"no table {name!r}")

    @cached_property
    def encoded(self) -> bytes:
        """The JSON text that a page carries."""
        return json.dumps(_as_json(self), separators=(",", ":")).encode()


def _check(schema: Schema) -> None:
    names = [metric.name for metric in schema.metrics]
    tables = {table.name: table for table in schema.tables}
    if len(set(names)) != len(names) or len(tables) != len(schema.tables):
        raise UsageError("two metrics or two tables have one name")
    for table in schema.tables:
        if not _NAME.fullmatch(table.name) or not _NAME.fullmatch(table.label) or table.rows < 2:
            raise UsageError(f"{table} has no valid name or label, or too few rows")
    for metric in schema.metrics:
        if metric.table and (metric.table not in tables or metric.labels != (tables[metric.table].label,)):
            raise UsageError(
                f"metric {metric.name!r} has another label than its table {metric.table!r}, or there is none"
            )
        if not all(map(_NAME.fullmatch, (metric.name, *metric.labels))):
            raise UsageError(f"metric {metric.name!r} with labels {metric.labels} is not named by the rules")
        if (metric.kind is MetricKind.COUNTER) != metric.name.endswith("_total"):
            raise UsageError(f"the name of a counter ends in _total, and no other: {metric.name!r}")
        if not metric.table and (
            len(set(metric.rows)) != len(metric.rows) or any(len(row) != len(metric.labels) for row in metric.rows)
        ):
            raise UsageError(f"the rows of metric {metric.name!r} do not fit its labels {metric.labels}, or are equal")
        if (
            metric.per_unit < 1
            or metric.buckets.shift not in range(64)
            or metric.buckets.octaves not in range(OCTAVES_MAX)
        ):
            raise UsageError(f"metric {metric.name!r} is divided in no valid way")
    if schema.cell_count > CELLS_MAX:
        raise UsageError(f"{schema.cell_count} cells are more than {CELLS_MAX}")


def _as_json(schema: Schema) -> dict[str, Any]:
    return {
        "metrics": [_metric_as_json(metric, schema.first_cells[metric.name]) for metric in schema.metrics],
        "tables": [_table_as_json(table, schema.first_rows[table.name]) for table in schema.tables],
    }


def _table_as_json(table: Table, first_row: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": table.name, "label": table.label, "rows": table.rows, "first_row": first_row}
    return facts | ({"names_change": True} if table.names_change else {})


def _metric_as_json(metric: Metric, first_cell: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": metric.name,
        "kind": str(metric.kind),
        "unit": metric.unit,
        "per_unit": metric.per_unit,
        "help": metric.help,
        "advice": metric.advice,
        "labels": metric.labels,
        "first_cell": first_cell,
        "row_cells": metric.row_cells,
    }
    facts |= {"table": metric.table} if metric.table else {"rows": metric.rows}
    if metric.over_pages is not OverPages.SUM:
        facts["over_pages"] = str(metric.over_pages)
    if metric.kind is MetricKind.HISTOGRAM:
        facts |= {"shift": metric.buckets.shift, "octaves": metric.buckets.octaves}
    return facts


@lru_cache(maxsize=32)
def decode_schema(text: bytes) -> Schema:
    """The schema of a page, from its text. Members that are not known are ignored.

    Raises:
        LayoutMismatch: it is no schema, or its cells lie elsewhere than their order says.
    """
    try:
        said = json.loads(text)
        schema = Schema(
            tuple(_metric_of(facts) for facts in said["metrics"]),
            tuple(_table_of(facts) for facts in said["tables"]),
        )
        places = {facts["name"]: facts["first_cell"] for facts in said["metrics"]}
        first_rows = {facts["name"]: facts["first_row"] for facts in said["tables"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise LayoutMismatch(f"the schema of a stats page is not valid: {error!r}") from None
    if places != schema.first_cells or first_rows != schema.first_rows:
        raise LayoutMismatch("the cells of a stats page do not lie where its schema says")
    return schema


def _table_of(facts: dict[str, Any]) -> Table:
    return Table(
        name=facts["name"],
        label=facts["label"],
        rows=int(facts["rows"]),
        names_change=bool(facts.get("names_change", False)),
    )


def _metric_of(facts: dict[str, Any]) -> Metric:
    return Metric(
        name=str(facts["name"]),
        kind=MetricKind(facts["kind"]),
        help=str(facts["help"]),
        advice=str(facts.get("advice", "")),
        unit=str(facts["unit"]),
        per_unit=int(facts["per_unit"]),
        labels=tuple(map(str, facts["labels"])),
        rows=tuple(tuple(map(str, row)) for row in facts.get("rows", ((),))),
        table=str(facts.get("table", "")),
        over_pages=OverPages(facts.get("over_pages", OverPages.SUM)),
        buckets=Buckets(int(facts["shift"]), int(facts["octaves"])) if "shift" in facts else LATENCY,
    )
