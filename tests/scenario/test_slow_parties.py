"""Nothing that waits holds a worker: short forms of the rows of `scripts/slow_parties`, 12 parties on 8 workers."""

import pytest

from scripts.stress.measure import Pace, measure_row
from scripts.stress.rows import ROWS, Kind, Row

pytestmark = pytest.mark.slow

PARTIES = 12
PACE = Pace(parties=PARTIES, windows=1, idle_s=0.3, beside_s=0.5, load_s=3.0, tries=3)

HELD = [row for row in ROWS if row.kind in (Kind.CROWD, Kind.RUNNERS)]
SOME = (
    "killed-http-not-hot-memory",
    "killed-range-not-hot-directory",
    "killed-getfile-hot-directory",
    "killed-getfile-not-hot-memory",
)
KILLED = [row for row in ROWS if row.name in SOME]


ANSWERED = {"upload-expect": [f"{PARTIES} x 100"], "upload-purge": [f"{PARTIES} x 200"]}
"""What parties have been told by now: a PURGE is done before its body is here. All others wait, or show nothing."""


def by_name(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", HELD, ids=by_name)
def test_a_hit_comes_beside(tmp_path, row):
    """All of them, exact and within the limit: how soon is for a quiet machine to measure."""
    result = measure_row(row, str(tmp_path), PACE)
    assert result.beside is not None
    assert result.beside.count > 0
    assert result.beside.failed == 0, result
    assert not [reason for reason in result.reasons if "p99" not in reason], result
    if row.parties is not None and row.parties.arrivals_per_s is None:
        assert result.refused == 0, result
        assert [note for note in result.notes if " x " in note] == ANSWERED.get(row.name, []), result
        assert not [note for note in result.notes if "not asked" in note], result


@pytest.mark.alone
def test_overload_is_refused_quickly_and_the_rest_is_done(tmp_path):
    result = measure_row(next(row for row in ROWS if row.kind is Kind.OVERLOAD), str(tmp_path), PACE)
    assert not [reason for reason in result.reasons if "refusals" not in reason], result


@pytest.mark.alone
def test_a_cache_that_hangs_fails_nobody(tmp_path):
    """How fast it is compared with a dead one is for a quiet machine to measure."""
    result = measure_row(next(row for row in ROWS if row.kind is Kind.STOPPED_CACHE), str(tmp_path), PACE)
    assert not [reason for reason in result.reasons if "dead cache" not in reason], result


@pytest.mark.parametrize("row", KILLED, ids=by_name)
def test_a_body_outlives_its_cache(tmp_path, row):
    result = measure_row(row, str(tmp_path), PACE)
    assert result.notes == [f"{PACE.tries} of {PACE.tries} complete and exact"]
    assert result.reasons == [], result
