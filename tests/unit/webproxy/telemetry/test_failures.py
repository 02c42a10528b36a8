"""failures: every one is counted; the log has one line for each kind of error in its period, with a count."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from shmchannel.daemonkit.logs import LogForm, configure
from webproxy.errors import CacheUnavailable, OriginTimeout
from webproxy.telemetry.outcomes import RequestFailures


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a daemon's log has, limited as by default."""
    root = logging.getLogger()
    level, stream = root.level, io.StringIO()
    handler = configure("info", prog="webproxy", form=LogForm.JSON, stream=stream, limit_s=60.0)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def test_each_is_counted_and_one_of_a_kind_written(written: io.StringIO) -> None:
    failures = RequestFailures()
    for _ in range(3):
        failures.note(b"/a", CacheUnavailable("gone"))
        failures.note(b"/b", OriginTimeout("late"))
    told = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(facts["event"], facts["path"], facts["reason"], facts["kind"], facts["failed"]) for facts in told] == [
        ("request failed", "/a", "gone", "CacheUnavailable", 1),
        ("request failed", "/b", "late", "OriginTimeout", 1),
    ]
    assert failures.totals() == {"CacheUnavailable": 3, "OriginTimeout": 3}
