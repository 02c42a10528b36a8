"""log_limit: which of many equal events are written, and what is told of the others."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shmchannel.daemonkit import logs
from shmchannel.daemonkit.log_limit import KINDS_MAX, TRACEBACKS, LineLimit


def test_one_in_a_period_and_the_next_says_how_many_were_left_out() -> None:
    limit = LineLimit(60.0)
    assert [limit.admit("a", None, now) for now in (0.0, 1.0, 59.9, 60.0, 61.0, 200.0)] == [0, None, None, 2, None, 1]
    assert limit.rest() == {}


def test_kinds_are_limited_apart() -> None:
    limit = LineLimit(60.0)
    assert [limit.admit("a", kind, 0.0) for kind in ("x", "y", None, "x")] == [0, 0, 0, None]
    assert limit.admit("b", "x", 0.0) == 0
    assert limit.rest() == {"a": 1}
    assert limit.rest() == {}


def test_a_period_of_nothing_limits_nothing() -> None:
    limit = LineLimit(0.0)
    assert [limit.admit("a", None, 0.0) for _ in range(3)] == [0, 0, 0]


def test_kinds_without_end_share_the_count_of_their_event() -> None:
    limit = LineLimit(60.0)
    admitted = [limit.admit("a", kind, 0.0) for kind in range(10 * KINDS_MAX)]
    assert admitted.count(0) == KINDS_MAX + 1
    assert limit.rest() == {"a": 9 * KINDS_MAX - 1}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([None, "x"]), st.floats(0, 50)), max_size=60))
def test_every_line_is_written_or_counted_once(steps: list[tuple[str, str | None, float]]) -> None:
    limit, now, told = LineLimit(60.0), 0.0, Counter[str]()
    for event, kind, pause in steps:
        now += pause
        suppressed = limit.admit(event, kind, now)
        told[event] += 0 if suppressed is None else 1 + suppressed
    told.update(limit.rest())
    assert told == Counter(event for event, _, _ in steps)


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_log_of_a_daemon() -> None:
    stream, log = io.StringIO(), logging.getLogger("test_log_limit")
    root = logging.getLogger()
    level = root.level
    handler = logs.configure(
        "debug", prog="x", form="json", stream=stream, limit_s=60.0, unlimited=frozenset({"state"})
    )
    try:
        for _ in range(3):
            log.warning("fetch failed", extra={"url": "http://h/" + "x" * 9000 + "?token=secret"})
            log.warning("state")
            log.debug("detail")
        for _ in range(TRACEBACKS + 5):
            log.error("broken", exc_info=ValueError("x"))
        events = [line["event"] for line in _lines(stream)]
        assert Counter(events) == {"fetch failed": 1, "state": 3, "detail": 3, "broken": TRACEBACKS}
        assert logs.suppressed() == {"fetch failed": 2, "broken": 5}
        url = str(_lines(stream)[0]["url"])
        assert len(url) < 600
        assert url.endswith("characters)")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
