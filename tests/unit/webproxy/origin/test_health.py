"""health: each state and event with plain values; any history of them is in tests/stateful/test_origin_health.py."""

from __future__ import annotations

import pytest

from webproxy.origin.health import Admitted, Change, Failing, Failure, Health, HealthSettings, HealthTable, State

SETTINGS = HealthSettings(failures_to_open=3, silence_s=10.0, pause_s=1.0, pause_max_s=5.0)


def admitted(health: Health, now: float, *, is_probe: bool = False) -> Admitted:
    admission = health.admit(now)
    assert isinstance(admission, Admitted)
    assert admission.is_probe == is_probe
    return admission


def failing(health: Health, now: float) -> Failing:
    admission = health.admit(now)
    assert isinstance(admission, Failing)
    return admission


def opened(now: float = 100.0, failure: Failure = Failure.UNREACHABLE) -> Health:
    """A circuit that has just opened."""
    health = Health(SETTINGS)
    for _ in range(SETTINGS.failures_to_open):
        health.failed(admitted(health, now), failure, now)
    assert health.state is State.OPEN
    return health


def test_failures_in_a_row_open_it() -> None:
    health = Health(SETTINGS)
    admissions = [admitted(health, 0.0) for _ in range(3)]
    assert health.failed(admissions[0], Failure.RESET, 1.0) is None
    assert health.failed(admissions[1], Failure.SILENCE, 2.0) is None
    change = health.failed(admissions[2], Failure.BAD_GATEWAY, 3.0)
    assert change == Change(State.CLOSED, State.OPEN, Failure.BAD_GATEWAY, failures=3, refused=0, open_s=0.0)
    assert failing(health, 3.0) == Failing(Failure.BAD_GATEWAY, 1.0)
    assert failing(health, 3.75) == Failing(Failure.BAD_GATEWAY, 0.25)


def test_an_answer_between_failures_begins_the_row_again() -> None:
    health = Health(SETTINGS)
    for now in range(20):
        assert health.failed(admitted(health, now), Failure.RESET, now) is None
        assert health.failed(admitted(health, now), Failure.RESET, now) is None
        assert health.succeeded(now) is None
    assert health.state is State.CLOSED


def test_nothing_opens_it_when_that_is_the_setting() -> None:
    health = Health(HealthSettings(failures_to_open=0))
    for now in range(1000):
        assert health.failed(admitted(health, now), Failure.UNREACHABLE, now) is None


def test_after_the_pause_one_request_probes_and_the_others_are_refused() -> None:
    health = opened(100.0)
    failing(health, 100.999)
    admitted(health, 101.0, is_probe=True)
    assert health.state is State.HALF_OPEN
    for now in (101.0, 105.0, 120.999):
        assert failing(health, now).retry_after_s == SETTINGS.pause_s


def test_the_answer_to_the_probe_closes_it_with_the_counts_of_the_outage() -> None:
    health = opened(100.0)
    for now in (100.1, 100.2):
        failing(health, now)
    health.failed(admitted(health, 101.0, is_probe=True), Failure.RESET, 101.5)
    failing(health, 102.0)
    admitted(health, 103.5, is_probe=True)
    change = health.succeeded(104.0)
    assert change == Change(State.HALF_OPEN, State.CLOSED, Failure.RESET, failures=4, refused=3, open_s=4.0)
    admitted(health, 104.0)
    assert health.succeeded(104.0) is None


def test_each_failed_probe_doubles_the_pause_up_to_the_ceiling() -> None:
    health, now, pauses = opened(0.0), 0.0, []
    for _ in range(5):
        pauses.append(failing(health, now).retry_after_s)
        now += pauses[-1]
        change = health.failed(admitted(health, now, is_probe=True), Failure.SILENCE, now)
        assert change is not None
        assert (change.before, change.after, change.open_s) == (State.HALF_OPEN, State.OPEN, now)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_new_outage_begins_with_the_first_pause_and_counts_anew() -> None:
    health = opened(0.0)
    failing(health, 0.5)
    health.failed(admitted(health, 1.0, is_probe=True), Failure.RESET, 1.0)
    health.succeeded(2.0)
    for _ in range(2):
        health.failed(admitted(health, 10.0), Failure.UNREACHABLE, 10.0)
    change = health.failed(admitted(health, 10.0), Failure.UNREACHABLE, 10.0)
    assert change == Change(State.CLOSED, State.OPEN, Failure.UNREACHABLE, failures=3, refused=0, open_s=0.0)
    assert failing(health, 10.0).retry_after_s == SETTINGS.pause_s


def test_what_was_under_way_when_it_opened_does_not_count() -> None:
    """64 requests of a silent origin time out together; and again after it has recovered."""
    health = Health(SETTINGS)
    admissions = [admitted(health, 0.0) for _ in range(64)]
    changes = [health.failed(admission, Failure.SILENCE, 10.0) for admission in admissions[:32]]
    assert [change is None for change in changes] == [True, True, False] + [True] * 29
    assert failing(health, 10.5).retry_after_s == 0.5
    admitted(health, 11.0, is_probe=True)
    health.succeeded(12.0)
    assert [health.failed(admission, Failure.RESET, 13.0) for admission in admissions[32:]] == [None] * 32
    assert health.state is State.CLOSED


def test_a_late_answer_closes_it_whoever_asked() -> None:
    health = opened(100.0)
    change = health.succeeded(100.5)
    assert change is not None
    assert (change.before, change.after) == (State.OPEN, State.CLOSED)

    health = opened(100.0)
    probe = admitted(health, 101.0, is_probe=True)
    assert health.succeeded(101.5) is not None
    assert health.failed(probe, Failure.SILENCE, 111.0) is None, "its period is over"
    admitted(health, 111.0)


def test_an_abandoned_probe_gives_its_place_to_the_next() -> None:
    health = opened(100.0)
    probe = admitted(health, 101.0, is_probe=True)
    health.abandoned(probe, 102.0)
    assert health.state is State.OPEN
    successor = admitted(health, 102.0, is_probe=True)
    health.abandoned(probe, 102.0)
    assert health.failed(probe, Failure.RESET, 102.0) is None
    assert health.state is State.HALF_OPEN, "only its successor counts now"
    assert health.failed(successor, Failure.RESET, 103.0) is not None
    assert failing(health, 103.0).retry_after_s == 2.0


def test_an_abandoned_request_tells_nothing() -> None:
    health = Health(SETTINGS)
    health.failed(admitted(health, 0.0), Failure.RESET, 0.0)
    health.failed(admitted(health, 0.0), Failure.RESET, 0.0)
    health.abandoned(admitted(health, 0.0), 0.0)
    assert health.state is State.CLOSED
    assert health.failed(admitted(health, 0.0), Failure.RESET, 0.0) is not None


def test_a_probe_that_never_reports_is_replaced() -> None:
    health = opened(100.0)
    lost = admitted(health, 101.0, is_probe=True)
    failing(health, 120.9)
    admitted(health, 121.0, is_probe=True)
    assert health.failed(lost, Failure.SILENCE, 121.0) is None
    failing(health, 121.0)


def test_the_cache_is_absent_for_a_second_after_two_silences() -> None:
    """The same machine, with the settings of the cache."""
    health = Health(HealthSettings(failures_to_open=2, silence_s=2.0, pause_s=1.0, pause_max_s=1.0))
    first, second = admitted(health, 0.0), admitted(health, 0.0)
    health.failed(first, Failure.SILENCE, 2.0)
    assert health.failed(second, Failure.SILENCE, 2.0) is not None
    for now in (3.0, 6.0, 9.0):
        health.failed(admitted(health, now, is_probe=True), Failure.SILENCE, now + 2.0)
        assert failing(health, now + 2.0).retry_after_s == 1.0


# -- the table -------------------------------------------------------------------------------------------------------
def test_a_table_has_one_health_for_each_authority() -> None:
    table = HealthTable()
    one, other = table.find("http://a", SETTINGS, 0.0), table.find("http://b", SETTINGS, 0.0)
    assert one is not other
    assert table.find("http://a", SETTINGS, 1.0) is one
    assert len(table) == 2


def test_a_row_is_forgotten_when_nobody_looks_for_it() -> None:
    table = HealthTable(idle_s=60.0)
    one, other = table.find("a", SETTINGS, 0.0), table.find("b", SETTINGS, 0.0)
    assert table.find("a", SETTINGS, 59.0) is one
    assert table.find("a", SETTINGS, 60.0) is one
    assert len(table) == 1
    assert table.find("b", SETTINGS, 61.0) is not other
    assert table.find("a", SETTINGS, 120.0) is not one


@pytest.mark.parametrize("rows_max", [1, 2, 5])
def test_a_table_is_bounded_and_keeps_what_is_used(rows_max: int) -> None:
    table = HealthTable(rows_max=rows_max)
    used = table.find("used", SETTINGS, 0.0)
    for number in range(100):
        table.find(f"host-{number}", SETTINGS, 0.0)
        assert len(table) <= rows_max
        assert (table.find("used", SETTINGS, 0.0) is used) == (rows_max > 1)
        used = table.find("used", SETTINGS, 0.0)
