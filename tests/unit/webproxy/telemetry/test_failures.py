"""failures: one line a minute for each kind of error, whatever the number of requests; every one is counted."""

from __future__ import annotations

import logging

import pytest

from webproxy.errors import CacheUnavailable, OriginTimeout
from webproxy.telemetry.outcomes import QUIET_SECONDS, RequestFailures


def test_one_line_a_minute_for_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    failures = RequestFailures(lambda: now)
    caplog.set_level(logging.DEBUG, "webproxy.telemetry.outcomes")
    for _ in range(3):
        failures.note(b"/a", CacheUnavailable("gone"))
        failures.note(b"/b", OriginTimeout("late"))
    now += QUIET_SECONDS
    failures.note(b"/c", CacheUnavailable("still gone"))
    assert {record.message for record in caplog.records} == {"request failed"}
    told = [vars(record) for record in caplog.records if record.levelno == logging.WARNING]
    assert [(facts["path"], facts["reason"], facts["kind"], facts["failed"]) for facts in told] == [
        (b"/a", "gone", "CacheUnavailable", 1),
        (b"/b", "late", "OriginTimeout", 1),
        (b"/c", "still gone", "CacheUnavailable", 4),
    ]
    assert len(caplog.records) == 7
    assert failures.totals() == {"CacheUnavailable": 4, "OriginTimeout": 3}
