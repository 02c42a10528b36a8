"""TopCounts: a bounded number of paths, and of what is noted in between."""

from __future__ import annotations

from shmchannel.stats_pages import OTHER, StatsPage
from webproxy.telemetry import top_counts
from webproxy.telemetry.metrics import (
    CLIENT_REQUESTS,
    CLIENT_SAVED,
    CLIENT_SAVED_BYTES,
    CLIENT_SENT_BYTES,
    CLIENTS,
    MISSED,
    PATHS,
    SCHEMA,
    TOP_ROWS,
)
from webproxy.telemetry.top_counts import EXACT_MAX, LIGHT_SHARE, TopCounts


def test_however_many_paths_come_the_page_has_those_that_come_often() -> None:
    page = StatsPage.private(SCHEMA)
    top = TopCounts(page, lambda _fd: b"")
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
    top = TopCounts(page, lambda _fd: b"")
    for _ in range(top_counts.NOTED_MAX + 100):
        top.note_missed(b"/a", 1)
    top.flush()
    top.flush()
    assert page.value(MISSED, "/a") == top_counts.NOTED_MAX


NAMES = CLIENT_SENT_BYTES, CLIENT_REQUESTS, CLIENT_SAVED, CLIENT_SAVED_BYTES


def test_few_connections_are_all_counted() -> None:
    page = StatsPage.private(SCHEMA)
    top = TopCounts(page, lambda fd: b"192.0.2.%d" % fd)
    for _ in range(3):
        for _ in range(EXACT_MAX):
            top.note_connection(3, 100, 2, 1, 40)
        top.flush()
    assert [page.value(name, "192.0.2.3") for name in NAMES] == [3 * EXACT_MAX * amount for amount in (100, 2, 1, 40)]


def test_of_many_a_connection_with_much_is_counted_and_one_of_the_others_stands_for_all() -> None:
    page = StatsPage.private(SCHEMA)
    top = TopCounts(page, lambda fd: b"192.0.2.%d" % fd)
    for _ in range(EXACT_MAX):
        top.note_connection(4, 100, 1, 1, 100)
    top.note_connection(1, 1 << 20, 1, 0, 0)
    top.note_connection(2, 10, 64, 60, -5)
    for _ in range(10 * LIGHT_SHARE):
        top.note_connection(3, 100, 2, 1, 40)
    top.note_connection(0, 1 << 20, 1, 1, 0, client=b"192.0.2.1")
    top.flush()
    assert [page.value(name, "192.0.2.1") for name in NAMES] == [1 << 21, 2, 1, 0]
    assert [page.value(name, "192.0.2.2") for name in NAMES] == [10, 64, 60, 0]
    light = [LIGHT_SHARE * 10 * amount for amount in (100, 2, 1, 40)]
    assert [page.value(name, "192.0.2.3") for name in NAMES] == light


def test_a_client_that_is_gone_has_no_row() -> None:
    page = StatsPage.private(SCHEMA)
    top = TopCounts(page, lambda _fd: b"")
    top.note_connection(1, 1 << 20, 1, 0, 0)
    top.flush()
    assert page.named(CLIENTS) == [OTHER]
