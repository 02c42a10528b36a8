"""A short form of `scripts/reload_under_load`; how long a start takes is for the command."""

import pytest

from scripts.stress.processes import Kill
from scripts.stress.reload_under_load import Pace, run, was_inside
from scripts.stress.steady import Failure

SHORT = Pace(
    workers=2,
    requests_per_s=60.0,
    downloads=4,
    reloads=2,
    kills=4,
    upgrades=1,
    upgrade_interval_s=3.0,
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_reloads_and_upgrades_fail_nothing_and_a_killed_worker_only_what_it_had(tmp_path):
    ended = run(SHORT, str(tmp_path), measures=False)
    assert [row.details for row in ended.rows] == [(), (), ()]
    assert [row.holds for row in ended.rows] == [True, True, True], ended.rows
    assert (ended.left, ended.tracebacks) == ([], 0)


@pytest.mark.parametrize(
    ("port", "began_s", "ended_s", "inside"),
    [
        (7, 1.0, 5.0, True),
        (7, 4.05, 5.0, True),
        (8, 1.0, 5.0, False),
        (7, 4.2, 5.0, False),
        (7, 1.0, 3.9, False),
        (0, 1.0, 5.0, False),
    ],
)
def test_a_failure_is_due_to_a_kill_only_on_a_connection_that_was_inside_then(port, began_s, ended_s, inside):
    kill = Kill(began_s=4.0, ended_s=4.1, inside=frozenset({7}))
    failure = Failure(kind="", target="", reason="", port=port, began_s=began_s, ended_s=ended_s)
    assert was_inside(failure, [kill]) is inside
