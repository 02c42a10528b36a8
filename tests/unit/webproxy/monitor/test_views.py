"""What each page says, as text."""

from __future__ import annotations

import pytest

from shmchannel.streams.survey import SegmentState
from tests.support.overviews import page, process, reading, segment
from webproxy.monitor.blocks import Cell, Column, Lines, Table, Tone, as_text, shown_text
from webproxy.monitor.figures import derive
from webproxy.monitor.rates import Reading
from webproxy.monitor.views import NO_DAEMON, PAGES, SEGMENT_ROWS_MAX, Frame, Page, tile
from webproxy.telemetry.metrics import REQUEST_TIMES, REQUESTS

ORIGIN = "http://origin"
BY_NAME = {page.name: page for page in PAGES}


def shown(name: str, now: Reading, earlier: Reading | None = None, width: int = 100) -> str:
    """The text of a page."""
    return as_text(BY_NAME[name].view(Frame(derive(earlier, now), width)))


def busy() -> Reading:
    """A proxy and a cache that have done something."""
    counts = {
        (REQUESTS, "http", "hit", "2xx"): 9,
        (REQUESTS, "http", "miss", "2xx"): 1,
        (REQUEST_TIMES, "http", "hit"): (2 * 10**6,) * 9,
        (REQUEST_TIMES, "http", "miss"): (80 * 10**6,),
        ("gfcache_proxy_origin_state", ORIGIN): 2,
        ("gfcache_proxy_origin_requests_total", ORIGIN): 1,
    }
    proxy = page(counts, origins=(ORIGIN,))
    cache = page({("gfcache_cache_queue_depth",): 4}, role="cache", name="/page-1", pid=5)
    return reading(8, proxy, cache, processes=(process(100), process(5, role="cache")), segments=[segment()])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_can_be_shown_of_nothing(page: Page) -> None:
    """And of much, in any width."""
    for now in (reading(0), busy()):
        for width in (1, 20, 200):
            assert as_text(page.view(Frame(derive(None, now), width, (None, 1.0))))


def test_keys_are_those_of_pages_and_help_names_them_all() -> None:
    assert len({page.key for page in PAGES}) == len(PAGES)
    assert all(page.name in shown("help", reading(0)) for page in PAGES)


def test_no_daemon_runs() -> None:
    assert shown("overview", reading(0)) == f"{NO_DAEMON}\n"
    assert NO_DAEMON in shown("processes", reading(0))


def test_the_overview() -> None:
    text = shown("overview", busy(), reading(6))
    assert "1 cache, 1 proxy; all make progress" in text
    assert "in the last 2 s" in text
    assert "since the start 90.0 %" in text
    assert "requests in all 10" in text
    assert any(line.split() == ["commands", "to", "/queue", "4", "0/s"] for line in text.splitlines())
    assert f"{ORIGIN}  failing" in text


def test_two_of_a_role_are_several() -> None:
    now = reading(0, processes=(process(1), process(2), process(3, role="supervisor"), process(4, role="supervisor")))
    assert "2 proxies, 2 supervisors" in shown("overview", now)


def test_a_process_that_hangs_is_said_to_hang() -> None:
    now = reading(0, processes=(process(1), process(2, state="stuck", heartbeat_age_s=7.0)))
    text = shown("overview", now)
    assert "proxy proxy-2 (pid 2) hangs: no heartbeat for 7 s." in text
    assert "all make progress" not in text
    assert "stuck (hangs)" in shown("processes", now)
    dead = reading(0, processes=(process(3, state="writer dead"),))
    assert "proxy proxy-3 (pid 3): writer dead" in shown("overview", dead)


def test_latency_is_relative_to_the_most_frequent() -> None:
    lines = [line.split() for line in shown("requests", busy()).splitlines()]
    bars = {" ".join(words[:3]): words[4] for words in lines if words[:1] == ["<"] and len(words) == 5}
    assert sorted(map(len, bars.values())) == [4, 30]
    outcomes = [words[0] for words in lines if words and words[0] in ("hit", "miss")]
    assert outcomes == ["miss", "hit"], "slowest first"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"state": SegmentState.UNUSED, "generation": 0}, ("·", Tone.DIM)),
        ({}, ("○", Tone.DIM)),
        ({"state": SegmentState.EMPTY, "done_bytes": 0}, ("▁", Tone.GOOD)),
        ({"state": SegmentState.IN_USE, "done_bytes": 50}, ("▄", Tone.GOOD)),
        ({"state": SegmentState.FULL}, ("█", Tone.WARNING)),
        ({"state": SegmentState.EMPTY, "object_bytes": 0}, ("▒", Tone.GOOD)),
        ({"owner_lives": False}, ("x", Tone.BAD)),
    ],
)
def test_a_segment_as_a_tile(facts: dict[str, object], expected: tuple[str, Tone]) -> None:
    assert tile(segment(**facts)) == Cell(*expected)


def test_segments_by_pool_and_those_that_move_first() -> None:
    many = [segment(number) for number in range(SEGMENT_ROWS_MAX + 20)]
    moving = segment(9999, state=SegmentState.FULL, done_bytes=25)
    orphan = segment(0, pool="gf-9-bb", name="gf-9-bb-0", owner_pid=9, owner_lives=False)
    text = shown("segments", reading(0, segments=[*many, moving, orphan]), width=54)
    lines = text.splitlines()
    assert f"Pool gf-7-aa of pid 7: {len(many) + 1} of 262 kB" in lines
    assert "Pool gf-9-bb of pid 9, dead: the next start of a daemon removes them: 1 of 262 kB" in lines
    tiles = [line.strip() for line in lines if line.strip() and set(line.strip()) <= set("○▂x")]
    assert [len(line) for line in tiles] == [*[50] * 10, 21, 1]
    assert f"Segments: {len(many) + 2}, of which 22 have no line here" in lines
    head = next(index for index, line in enumerate(lines) if line.startswith("  segment "))
    assert lines[head + 1].split()[:5] == ["gf-7-aa-9999", "pid", "7", "full", "8"]


def test_what_daemons_say_cannot_move_the_cursor() -> None:
    assert shown_text("a\x1b[2Jb\nc") == "a?[2Jb?c"
    evil = reading(0, processes=(process(1, name="\x1b[31mx"),))
    assert "\x1b" not in shown("processes", evil)


def test_blocks_as_text() -> None:
    table = Table("T", (Column("name"), Column("n", True)), ((Cell("a"), Cell("10")), (Cell("long"), Cell("1"))))
    assert as_text([table]) == "T\n  name   n\n  a     10\n  long   1\n"
    assert as_text([Table("T", (Column("x"),), (), "nothing")]) == "T\n  nothing\n"
    assert as_text([Lines("", ((Cell("a"), Cell("b ")),)), Lines("U", ())]) == "ab\n\nU\n"
