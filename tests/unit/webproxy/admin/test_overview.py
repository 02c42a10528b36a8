"""The overview adds up what pages say, and the exposition says the same in Prometheus' words."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shmchannel.stats_pages import (
    NANOSECONDS,
    Metric,
    MetricKind,
    OverPages,
    PageReading,
    PageState,
    Schema,
    StatsPages,
    read_pages,
)
from webproxy.admin.exposition import exposition
from webproxy.admin.overview import Overview, as_json, take, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = Schema(
    (
        Metric(
            name="gfcache_sample_things_total",
            kind=MetricKind.COUNTER,
            help="Things.",
            labels=("kind",),
            rows=(("red",), ("blue",)),
        ),
        Metric(
            name="gfcache_sample_age_seconds",
            kind=MetricKind.GAUGE,
            help="Age.",
            unit="seconds",
            per_unit=NANOSECONDS,
        ),
        *(
            Metric(name=f"gfcache_sample_{of}", kind=MetricKind.GAUGE, help="State.", over_pages=of)
            for of in (OverPages.MAX, OverPages.MIN)
        ),
        Metric(
            name="gfcache_sample_seconds",
            kind=MetricKind.HISTOGRAM,
            help="Time.",
            unit="seconds",
            per_unit=NANOSECONDS,
        ),
    )
)


@pytest.fixture
def pages() -> Iterator[list[PageReading]]:
    """Two pages of one role with values."""
    owner = StatsPages.create("sample")
    try:
        for slot in (0, 1):
            page = owner.add(slot, SCHEMA)
            page.begin()
            page.counter("gfcache_sample_things_total", "red").add(2 + slot)
            page.gauge("gfcache_sample_age_seconds").set(1_500_000_000)
            for of in (OverPages.MAX, OverPages.MIN):
                page.gauge(f"gfcache_sample_{of}").set(1 + slot)
            for took_ns in (1_000_000, 3_000_000):
                page.histogram("gfcache_sample_seconds").observe(took_ns)
        own = os.getpid()
        yield [page for page in read_pages("sample") if page.owner is not None and page.owner.pid == own]
    finally:
        owner.close()


def overview_of(pages: list[PageReading]) -> Overview:
    return Overview(taken_s=1.0, processes=(), pages=tuple(pages), segments=())


def test_totals_are_sums(pages: list[PageReading]) -> None:
    totals = totals_of(pages)
    assert totals["gfcache_sample_things_total"].numbers == {("red",): 5, ("blue",): 0}
    assert totals["gfcache_sample_age_seconds"].numbers == {(): 3.0}
    assert totals["gfcache_sample_seconds"].histograms[()].count == 4


def test_a_state_is_no_sum(pages: list[PageReading]) -> None:
    totals = totals_of(pages)
    assert totals["gfcache_sample_max"].numbers == {(): 2}
    assert totals["gfcache_sample_min"].numbers == {(): 1}


def test_each_page_has_its_own_numbers_in_the_statistics(pages: list[PageReading]) -> None:
    numbers = [page["numbers"] for page in as_json(overview_of(pages))["pages"]]
    assert [own["gfcache_sample_max"] for own in numbers] == [1, 2]
    assert numbers[0]["gfcache_sample_age_seconds"] == 1.5


def test_the_statistics_have_what_percentiles_between_two_readings_need(pages: list[PageReading]) -> None:
    row = as_json(overview_of(pages))["metrics"]["gfcache_sample_seconds"]["rows"][0]
    assert sum(count for _, count in row["buckets"]) == row["count"] == 4
    assert [count for _, count in row["buckets"]] == [2, 2]
    assert [at < took <= 1.13 * at for (at, _), took in zip(row["buckets"], (0.001, 0.003), strict=True)] == [True] * 2


def test_of_the_dead_only_what_has_happened_counts(pages: list[PageReading]) -> None:
    dead = replace(pages[1], state=PageState.WRITER_DEAD)
    totals = totals_of([pages[0], dead])
    assert totals["gfcache_sample_things_total"].numbers[("red",)] == 5
    assert totals["gfcache_sample_age_seconds"].numbers == {(): 1.5}


def test_the_exposition_agrees_with_the_statistics(pages: list[PageReading]) -> None:
    overview = overview_of(pages)
    stats = as_json(overview)["metrics"]
    families = {family.name: family for family in text_string_to_metric_families(exposition(overview).decode())}
    things = families["gfcache_sample_things"].samples
    rows = stats["gfcache_sample_things_total"]["rows"]
    red = sum(sample.value for sample in things if sample.labels["kind"] == "red")
    assert red == next(row["value"] for row in rows if row["labels"] == {"kind": "red"})
    counts = [sample for sample in families["gfcache_sample_seconds"].samples if sample.name.endswith("_count")]
    assert sum(sample.value for sample in counts) == stats["gfcache_sample_seconds"]["rows"][0]["count"] == 4
    assert {sample.labels["slot"] for sample in counts} == {"0", "1"}


def test_cumulated_buckets_never_fall_and_end_with_all(pages: list[PageReading]) -> None:
    text = exposition(overview_of(pages[:1])).decode()
    family = next(f for f in text_string_to_metric_families(text) if f.name == "gfcache_sample_seconds")
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == (float("inf"), 2)
    assert next(count for bound, count in buckets if bound >= 0.003) == 2
    assert [count for bound, count in buckets if bound < 0.0009][-1] == 0


def test_of_this_process_and_its_owner() -> None:
    """Whatever else runs on the machine: an owner without pages and processes has none."""
    nothing = take(owner_pid=0)
    assert (nothing.processes, nothing.pages, nothing.segments) == ((), (), ())
