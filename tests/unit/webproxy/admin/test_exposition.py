"""The metrics of the daemons as a scraper gets them: named by the rules, and each with its meaning."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

import simplecached.telemetry.metrics
import webproxy.telemetry.metrics
from shmchannel.stats_pages import Metric, MetricKind, PageReading, StatsPages, read_pages
from webproxy.admin.exposition import ADDED, exposition
from webproxy.admin.overview import Overview, ProcessView

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = {"proxy": webproxy.telemetry.metrics.SCHEMA, "cache": simplecached.telemetry.metrics.SCHEMA}
_CHANGING = {table.name for schema in SCHEMAS.values() for table in schema.tables if table.names_change}
METRICS = [
    *(metric for schema in SCHEMAS.values() for metric in schema.metrics if metric.table not in _CHANGING),
    *ADDED,
]


@pytest.fixture
def text() -> Iterator[str]:
    """What a scraper gets of a proxy and a cache, each histogram with a value."""
    owners = [StatsPages.create(role) for role in SCHEMAS]
    try:
        for owner, schema in zip(owners, SCHEMAS.values(), strict=True):
            page = owner.add(0, schema)
            page.begin()
            for table in schema.tables:
                page.row(table.name, "http://origin.example")
            for metric in schema.metrics:
                if metric.kind is MetricKind.HISTOGRAM:
                    labels = ("http://origin.example",) if metric.table else metric.rows[0]
                    page.histogram(metric.name, *labels).observe(5_000_000)
        process = ProcessView(role="proxy", name="127.0.0.1:1", pid=1, state="live")
        yield exposition(Overview(taken_s=1.0, processes=(process,), pages=_own_pages(), segments=())).decode()
    finally:
        for owner in owners:
            owner.close()


def _own_pages() -> tuple[PageReading, ...]:
    own = os.getpid()
    return tuple(page for page in read_pages() if page.owner is not None and page.owner.pid == own)


def test_what_clients_choose_is_no_label(text: str) -> None:
    assert _CHANGING
    assert "missed" not in text
    assert not [label for label in ('path="', 'client="') if label in text]


def test_every_metric_is_there_with_its_kind_and_meaning(text: str) -> None:
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(found) == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (str(metric.kind), metric.help)
        assert family.samples
        for sample in family.samples:
            assert set(metric.labels) <= set(sample.labels)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_rules(metric: Metric) -> None:
    """https://prometheus.io/docs/practices/naming/: a prefix, the base unit at the end, `_total` of counters only."""
    assert metric.name.startswith("gfcache_")
    base = metric.name.removesuffix("_total")
    assert metric.unit in ("", "seconds", "bytes")
    assert not metric.unit or base.endswith(f"_{metric.unit}")
    assert not base.endswith(("_count", "_sum", "_bucket", "_info"))
    assert not set(metric.labels) & {"le", "quantile", "job"}
    assert metric.help.endswith(".")
    assert metric.advice.endswith("."), "what an operator does about it"


def test_promtool_finds_nothing(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool is installed")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
