"""Short forms of `scripts/soak`: after a mixed load both daemons hold what they held, and no byte was wrong."""

import pytest

from scripts.stress.soak import STORES, Pace, run

pytestmark = pytest.mark.slow

WARMING_UP_MB = 12.0
"""So short a run is all warm-up; what a request leaks shows in minutes, which are for the command."""


@pytest.mark.parametrize("store", STORES)
def test_a_mixed_load_leaves_nothing(tmp_path, store):
    """The last pause takes most of the time: the cache keeps what slow readers left for half a minute."""
    pace = Pace(load_s=6.0, period_s=1.5, settle_s=1.0, memory_allowed_mb=WARMING_UP_MB)
    ended = run(5, pace, store, str(tmp_path))
    assert ended.record.details == []
    assert ended.grown == []
    assert (ended.left, ended.tracebacks) == ([], 0)
    assert ended.record.all_counts["whole"] > 0
