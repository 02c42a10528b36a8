"""TopCounts: a bounded number of paths, and of what is noted in between."""

from __future__ import annotations

from shmchannel.stats_pages import OTHER, StatsPage
from webproxy.telemetry import top_counts
from webproxy.telemetry.metrics import MISSED, PATHS, SCHEMA, TOP_ROWS
from webproxy.telemetry.top_counts import TopCounts


def test_however_many_paths_come_the_page_has_those_that_come_often() -> None:
    page = StatsPage.private(SCHEMA)
    top = TopCounts(page)
    for number in range(2000):
        top.note_missed(b"/often", 10)
        top.note_missed(b"/scan/%d" % number, 10)
        if number % 100 == 99:
            top.flush()
    assert page.value(MISSED, "/often") == 2000
    assert len(page.named(PATHS)) == TOP_ROWS
    assert sum(page.value(MISSED, path) for path in page.named(PATHS)) == 4000
    assert page.value(MISSED, OTHER) > 0


def test_what_is_noted_between_two_flushes_is_bounded() -> None:
    page = StatsPage.private(SCHEMA)
    top = TopCounts(page)
    for _ in range(top_counts.NOTED_MAX + 100):
        top.note_missed(b"/a", 1)
    top.flush()
    top.flush()
    assert page.value(MISSED, "/a") == top_counts.NOTED_MAX
