"""RequestCounts: every end of a request has its row, and the words of the log line come back from the page."""

from __future__ import annotations

import pytest

from shmchannel.stats_pages import OTHER, StatsPage
from webproxy.telemetry.metrics import (
    CLIENT_REQUESTS,
    CLIENT_SAVED,
    CLIENT_SAVED_BYTES,
    MISSED,
    MISSED_BYTES,
    ORIGINS_MAX,
    OUTCOMES,
    REQUESTS,
    SAVED,
    SAVED_BYTES,
    SCHEMA,
    SENT_BYTES,
    STATUSES,
)
from webproxy.telemetry.request_counts import RequestCounts, outcome_of, source_of, status_class
from webproxy.telemetry.requests import CacheResult, RequestRecord
from webproxy.telemetry.top_counts import TopCounts

HIT, MISS, COLLAPSED, NONE = CacheResult.HIT, CacheResult.MISS, CacheResult.COLLAPSED, CacheResult.NONE


@pytest.fixture
def page() -> StatsPage:
    return StatsPage.private(SCHEMA)


def record(outcome: str, cache: CacheResult = NONE, status: int = 200, first_byte_ns: int = 3_000_000) -> RequestRecord:
    """Of a request that took five milliseconds."""
    return RequestRecord(
        outcome=outcome,
        cache=cache,
        status=status,
        began_ns=1_000_000,
        first_byte_ns=first_byte_ns,
        ended_ns=6_000_000,
        sent_bytes=700,
    )


def requests_in(page: StatsPage, protocol: str = "http") -> dict[tuple[str, str], int]:
    """The rows that are not 0."""
    found = {
        (outcome, status): page.value(REQUESTS, protocol, outcome, status)
        for outcome in OUTCOMES
        for status in STATUSES
    }
    return {row: count for row, count in found.items() if count}


@pytest.mark.parametrize(
    ("outcome", "cache", "label", "source"),
    [
        ("hit", HIT, "hit", "cache"),
        ("fetched", MISS, "miss", "origin"),
        ("fetched", COLLAPSED, "collapsed", "origin"),
        ("validated", CacheResult.REVALIDATED, "revalidated", "cache"),
        ("stale", CacheResult.STALE, "stale", "cache"),
        ("passed", CacheResult.PASS, "pass", "origin"),
        ("purged", NONE, "purged", "proxy"),
        ("answered", NONE, "answered", "proxy"),
        ("not found", NONE, "not_found", "proxy"),
        ("uri-miss", NONE, "not_cached", "proxy"),
        ("request", NONE, "not_cached", "proxy"),
        ("refused", NONE, "refused", "proxy"),
        ("error", NONE, "error", "proxy"),
        ("given up", MISS, "given_up", "origin"),
        ("client gone", HIT, "client_gone", "cache"),
        ("cut short", CacheResult.STALE, "cut_short", "cache"),
    ],
)
def test_what_became_of_a_request(outcome: str, cache: CacheResult, label: str, source: str) -> None:
    assert outcome_of(record(outcome, cache)) == label
    assert source_of(label, cache) == source


@pytest.mark.parametrize(
    ("status", "told"),
    [(200, "2xx"), (304, "3xx"), (404, "4xx"), (599, "5xx"), (0, "none"), (100, "none"), (999, "none")],
)
def test_classes_of_statuses(status: int, told: str) -> None:
    assert STATUSES[status_class(status)] == told


def test_requests_with_a_record(page: StatsPage) -> None:
    counts = RequestCounts(page, "http")
    counts.note(record("hit", HIT))
    counts.note(record("hit", HIT, status=304))
    counts.note(record("fetched", MISS, status=503))
    counts.note(record("client gone", first_byte_ns=0, status=0))
    counts.flush()
    assert requests_in(page) == {("hit", "2xx"): 1, ("hit", "3xx"): 1, ("miss", "5xx"): 1, ("client_gone", "none"): 1}
    assert requests_in(page, "getfile") == {}
    assert (page.value(SENT_BYTES, "cache"), page.value(SENT_BYTES, "origin")) == (1400, 700)
    assert counts.totals() == {"hit": 2, "fetched": 1, "client gone": 1}


def test_requests_without_a_record(page: StatsPage) -> None:
    """What is hot, what has gone at once, and what is not looked at, which is no request of the line `stopped`."""
    counts = RequestCounts(page, "getfile")
    counts.note_hot[status_class(200)](90, 5_000)
    counts.note_hot[status_class(404)](10, 5_000)
    counts.note_unrecorded("client gone")
    counts.note_not_looked_at(503)
    counts.flush()
    assert requests_in(page, "getfile") == {
        ("hot", "2xx"): 1,
        ("hot", "4xx"): 1,
        ("client_gone", "none"): 1,
        ("not_looked_at", "5xx"): 1,
    }
    assert page.value(SENT_BYTES, "cache") == 100
    assert counts.totals() == {"hit": 2, "client gone": 1}


def test_words_of_the_log_line_are_those_of_this_process(page: StatsPage) -> None:
    """The page goes on where the last writer ended; the line does not."""
    RequestCounts(page, "http").note(record("passed", CacheResult.PASS))
    counts = RequestCounts(page, "http")
    assert counts.totals() == {}
    counts.note(record("fetched", COLLAPSED))
    counts.note(record("fetched", MISS))
    assert counts.totals() == {"fetched": 2}
    assert requests_in(page)["pass", "2xx"] == 1


def test_what_only_the_cache_may_answer(page: StatsPage) -> None:
    """All reasons have one row, which the line calls http_not_cached."""
    counts = RequestCounts(page, "http")
    for reason in ("uri-miss", "vary-miss", "request"):
        counts.note(record(reason, status=504))
    assert {f"http_{word}": count for word, count in counts.totals().items()} == {"http_not_cached": 3}


def saved_in(page: StatsPage, origin: str) -> tuple[int, int]:
    """Requests and bytes that an origin was spared."""
    return page.value(SAVED, origin), page.value(SAVED_BYTES, origin)


def of_origin(origin: str, outcome: str, cache: CacheResult) -> RequestRecord:
    found = record(outcome, cache)
    found.origin = origin
    return found


def test_what_an_origin_was_spared(page: StatsPage) -> None:
    """Hot or not; revalidated its bytes, and collapsed the request."""
    counts = RequestCounts(page, "http")
    counts.noting_hot("http://a", 0)(90, 5_000)
    counts.noting_hot("http://a", status_class(304))(10, 5_000)
    counts.noting_hot("http://b", 0)(1, 5_000)
    counts.note(of_origin("http://a", "hit", HIT))
    counts.note(of_origin("http://a", "stale", CacheResult.STALE))
    counts.note(of_origin("http://a", "validated", CacheResult.REVALIDATED))
    counts.note(of_origin("http://a", "fetched", COLLAPSED))
    counts.note(of_origin("http://a", "fetched", MISS))
    counts.note(of_origin("http://a", "passed", CacheResult.PASS))
    counts.note(record("hit", HIT))
    counts.flush()
    assert saved_in(page, "http://a") == (2 + 1 + 1 + 1, 100 + 3 * 700)
    assert saved_in(page, "http://b") == (1, 1)
    assert saved_in(page, OTHER) == (0, 0), "one hit was of no origin"
    assert requests_in(page)["hot", "2xx"] == 2, "the requests are counted all the same"


def test_where_records_name_no_origin_it_is_the_one_there_is(page: StatsPage) -> None:
    counts = RequestCounts(page, "getfile", "http://a")
    counts.note_hot[0](50, 5_000)
    counts.note(record("hit", HIT))
    counts.flush()
    assert saved_in(page, "http://a") == (2, 750)


def test_origins_without_a_row_share_one(page: StatsPage) -> None:
    counts = RequestCounts(page, "http")
    for number in range(ORIGINS_MAX + 3):
        counts.note(of_origin(f"http://{number}", "hit", HIT))
        counts.noting_hot(f"http://{number}", 0)(1, 1)
    counts.flush()
    assert saved_in(page, OTHER) == (6, 3 * 701)


def test_paths_that_are_missed(page: StatsPage) -> None:
    """GETs that an origin has answered, of both protocols, without what may be secret."""
    counts = RequestCounts(page, "http", top=TopCounts(page, lambda _fd: b""))
    for outcome, cache, method, target in (
        ("fetched", MISS, b"GET", b"/a?token=x"),
        ("passed", CacheResult.PASS, b"GET", b"/a"),
        ("passed", CacheResult.PASS, b"POST", b"/a"),
        ("hit", HIT, b"GET", b"/hit"),
        ("error", NONE, b"GET", b"/error"),
        ("fetched", COLLAPSED, b"GET", b"/b"),
    ):
        found = record(outcome, cache)
        found.method, found.target = method, target
        counts.note(found)
    counts.flush()
    assert {path: page.value(MISSED, path) for path in page.named("paths")} == {"/a": 2, "/b": 1, OTHER: 0}
    assert page.value(MISSED_BYTES, "/a") == 1400


def test_connections_of_one_request_are_those_of_their_clients(page: StatsPage) -> None:
    counts = RequestCounts(page, "getfile", top=TopCounts(page, lambda fd: b"192.0.2.%d" % fd))
    for outcome, cache in (
        ("hit", HIT),
        ("fetched", MISS),
        ("fetched", COLLAPSED),
        ("validated", CacheResult.REVALIDATED),
    ):
        found = record(outcome, cache)
        found.sent_bytes = 1 << 20
        counts.note(found, 1)
    counts.flush()
    assert page.value(CLIENT_REQUESTS, "192.0.2.1") == 4
    assert page.value(CLIENT_SAVED, "192.0.2.1") == 2
    assert page.value(CLIENT_SAVED_BYTES, "192.0.2.1") == 2 << 20
