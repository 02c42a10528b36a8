"""Which changed settings a running cache takes over."""

from __future__ import annotations

from simplecached.daemon.config import CacheConfig
from simplecached.daemon.reload import TAKEN_OVER, needing_restart, taken_over

RUNNING = CacheConfig(worker_threads=4, store_bytes=1000)


def test_what_can_be_is_taken_over_and_the_rest_needs_a_restart() -> None:
    wanted = CacheConfig(worker_threads=5, store_bytes=2000, between_bytes_timeout_s=1.0)
    assert taken_over(RUNNING, wanted) == CacheConfig(worker_threads=4, store_bytes=2000)
    assert needing_restart(RUNNING, wanted) == ["between_bytes_timeout_s", "worker_threads"]


def test_without_changes_nothing_happens() -> None:
    assert taken_over(RUNNING, RUNNING) == RUNNING
    assert needing_restart(RUNNING, RUNNING) == []


def test_the_names_are_settings() -> None:
    assert set(CacheConfig.__dataclass_fields__) >= TAKEN_OVER
