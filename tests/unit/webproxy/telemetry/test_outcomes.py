"""Outcomes: counted by many threads, and none is lost."""

from __future__ import annotations

import threading

from webproxy.telemetry.outcomes import Outcomes


def test_none_is_lost() -> None:
    outcomes = Outcomes()
    threads = [
        threading.Thread(target=lambda: [outcomes.note(kind) for kind in ("hit", "miss", "hit") for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.totals() == {"hit": 4000, "miss": 2000}
