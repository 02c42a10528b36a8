"""Schemas: where cells lie, what a page's text says, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.stats_pages import Buckets, Metric, MetricKind, Schema, Table
from shmchannel.stats_pages.layout import SCHEMA_BYTES_MAX, places_for
from shmchannel.stats_pages.schema import NANOSECONDS, Namespace, decode_schema
from tests.support.stats_pages import SCHEMA


def metric(name: str = "a_total", kind: MetricKind = MetricKind.COUNTER, **facts: Any) -> Metric:
    """A valid counter, but for what is given."""
    return Metric(name=name, kind=kind, help="A.", **facts)


def changed(**facts: Any) -> bytes:
    """The text of the schema, with other members in its first metric."""
    said = json.loads(SCHEMA.encoded)
    said["metrics"][0] |= facts
    return json.dumps(said).encode()


def test_a_schema_survives_its_text() -> None:
    assert decode_schema(SCHEMA.encoded) == SCHEMA


def test_unknown_members_are_ignored() -> None:
    assert decode_schema(changed(colour="red")) == SCHEMA


def test_cells_follow_each_other() -> None:
    width = 1 + SCHEMA.metric("taken_seconds").buckets.size
    assert SCHEMA.first_cells == {
        "things_total": 0,
        "waiting": 3,
        "taken_seconds": 4,
        "of_place_total": 4 + width,
        "at_place_seconds": 8 + width,
    }
    assert SCHEMA.cell_count == 8 + 5 * width


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"metrics":[{}],"tables":[]}',
        b'{"metrics":1,"tables":[]}',
        b'{"metrics":[],"tables":[1]}',
        b"\xff",
        b"[" * 100_000,
        changed(first_cell=1),
        changed(kind="other"),
        changed(per_unit=0),
        changed(per_unit="many"),
        changed(rows=[["red"]]),
        changed(rows=7),
        changed(name="Bad name"),
        changed(table="nowhere"),
    ],
)
def test_a_text_that_is_no_schema(text: bytes) -> None:
    with pytest.raises(LayoutMismatch):
        decode_schema(text)


@pytest.mark.parametrize(
    "metrics",
    [
        (metric(), metric()),
        (metric("a"),),
        (metric("a_total", MetricKind.GAUGE),),
        (metric("A_total"),),
        (metric(labels=("x y",), rows=(("1",),)),),
        (metric(labels=("x",)),),
        (metric(labels=("x",), rows=(("1",), ("1",))),),
        (metric(table="rows"),),
        (metric(labels=("x",), table="rows"),),
        (metric("a", MetricKind.HISTOGRAM, buckets=Buckets(64, 3)),),
        (metric("a", MetricKind.HISTOGRAM, buckets=Buckets(0, 60)),),
        (metric(labels=("x",), rows=tuple((str(number),) for number in range(2**20 + 1))),),
    ],
)
def test_metrics_that_do_not_go_together(metrics: tuple[Metric, ...]) -> None:
    with pytest.raises(UsageError):
        Schema(metrics)


@pytest.mark.parametrize("table", [Table(name="t", label="x", rows=1), Table(name="", label="x", rows=2)])
def test_tables_that_are_none(table: Table) -> None:
    with pytest.raises(UsageError):
        Schema((), (table,))


def test_a_page_has_its_limit() -> None:
    with pytest.raises(UsageError, match="too large"):
        places_for(Schema((Metric(name="a", kind=MetricKind.GAUGE, help="x" * SCHEMA_BYTES_MAX),)))
    with pytest.raises(UsageError, match="too large"):
        places_for(Schema((), (Table(name="t", label="x", rows=100_000),)))


def test_a_metric_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no metric 'nothing'"):
        SCHEMA.metric("nothing")


def test_a_namespace_names_metrics_by_the_rules() -> None:
    names = Namespace("gf_", labels=("a",), rows=(("x",),))
    count, gauge, times = (
        names.counter("c", "help", "advice", "bytes"),
        names.gauge("g", "help"),
        names.times("t", "", ""),
    )
    assert [metric.name for metric in (count, gauge, times)] == ["gf_c_total", "gf_g", "gf_t_seconds"]
    assert (count.help, count.advice, count.unit, count.labels, count.rows) == (
        "help", "advice", "bytes", ("a",), (("x",),),
    )  # fmt: skip
    assert (times.unit, times.per_unit, times.kind) == ("seconds", NANOSECONDS, MetricKind.HISTOGRAM)
    other = names.by("b", "c", rows=[("y", "z")]).counter("c", "")
    assert (other.name, other.labels, other.rows) == (count.name, ("b", "c"), (("y", "z"),))
    Schema((count, gauge, times))
