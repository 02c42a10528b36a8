"""OriginCounts and the gate that reports to them: requests, failures, refusals and states, by origin."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from shmchannel.stats_pages import OTHER, StatsPage, own_page, read_page
from webproxy.errors import OriginBusy, OriginFailing
from webproxy.origin.gate import OriginGate
from webproxy.origin.health import Failure, HealthSettings
from webproxy.origin.shares import ShareSettings
from webproxy.telemetry.metrics import ORIGINS_MAX, SCHEMA
from webproxy.telemetry.origin_counts import OriginCounts

ORIGIN = "http://o:80"
EAGER = HealthSettings(failures_to_open=1, pause_s=1000.0, pause_max_s=1000.0)


@pytest.fixture
def page() -> StatsPage:
    return StatsPage.private(SCHEMA)


def value(page: StatsPage, name: str, origin: str = ORIGIN) -> int:
    """Of a counter or gauge of an origin."""
    return page.value(f"gfcache_proxy_origin_{name}", origin)


def test_origins_beyond_the_table_share_a_row(page: StatsPage) -> None:
    counts = OriginCounts(page)
    for number in range(ORIGINS_MAX + 3):
        counts.asked(f"http://o{number}")
        counts.asked(f"http://o{number}")
    assert value(page, "requests_total", "http://o0") == 2
    assert value(page, "requests_total", OTHER) == 6
    assert len(counts.named) == ORIGINS_MAX


def test_the_gate_reports(page: StatsPage) -> None:
    refused: list[str] = []
    gate: OriginGate[str] = OriginGate(
        ShareSettings(origin_connections_max=1, line_max=1),
        lambda holder: None,
        lambda holder, error: refused.append(holder),
        OriginCounts(page),
    )
    first = gate.enter("first", ORIGIN, EAGER)
    gate.admit(first)
    gate.enter("waits", ORIGIN, EAGER)
    with pytest.raises(OriginBusy):
        gate.enter("too many", ORIGIN, EAGER)
    gate.report()
    assert [value(page, name) for name in ("requests_total", "refused_total", "state", "connections", "line")] == [
        1, 1, 0, 1, 1,
    ]  # fmt: skip
    gate.failed(first, Failure.RESET)
    gate.leave(first)
    assert refused == ["waits"]
    with pytest.raises(OriginFailing):
        gate.enter("later", ORIGIN, EAGER)
    gate.report()
    assert [value(page, name) for name in ("failures_total", "refused_total", "state", "connections", "line")] == [
        1, 3, 2, 0, 0,
    ]  # fmt: skip


def test_an_answer_is_timed_once() -> None:
    with ExitStack() as resources:
        page = own_page("test", "", SCHEMA, resources)
        gate: OriginGate[str] = OriginGate(
            ShareSettings(), lambda holder: None, lambda holder, error: None, OriginCounts(page)
        )
        passage = gate.enter("x", ORIGIN, HealthSettings())
        gate.admit(passage)
        gate.answered(passage, 200)
        gate.answered(passage, 200)
        found = read_page(page.name)
    assert found is not None
    times = found.histogram("gfcache_proxy_origin_head_seconds", ORIGIN)
    assert times is not None
    assert times.count == 1
