"""freshness: lifetimes and ages as numbers; the rules behind them are in tests/rfc9111."""

from dataclasses import replace

import pytest

from tests.support.http_values import NOW, fields, response, stored_response
from webproxy.caching.directives import DELTA_MAX_S, response_directives
from webproxy.caching.freshness import (
    HEURISTICALLY_CACHEABLE,
    Lifetime,
    age_value,
    corrected_initial_age,
    current_age,
    date_value,
    freshness_lifetime,
)
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions

DATE = b"Date: Sat, 21 Nov 2026 10:00:00 GMT"
HOUR_AGO = b"Sat, 21 Nov 2026 09:00:00 GMT"
IN_AN_HOUR = b"Sat, 21 Nov 2026 11:00:00 GMT"


def lifetime(*lines: bytes, status: int = 200, options: CachingOptions = DEFAULT_OPTIONS) -> Lifetime:
    answer = response(*lines, status=status)
    directives = response_directives(answer.fields, targeted_control=options.targeted_control)
    return freshness_lifetime(answer, directives, NOW, options)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((DATE,), NOW),
        ((b"Date: Sat, 21 Nov 2026 09:00:00 GMT",), NOW - 3600),
        ((), NOW),
        ((b"Date: yesterday",), NOW),
        ((b"Date: " + HOUR_AGO, DATE), NOW - 3600),
    ],
)
def test_date_value(lines: tuple[bytes, ...], expected: float) -> None:
    assert date_value(fields(*lines), NOW + 0.75) == int(expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), 0),
        ((b"Age: 30",), 30),
        ((b"Age: 030",), 30),
        ((b"Age: 7200, 0",), 7200),
        ((b"Age: 0,7200",), 0),
        ((b"Age: 7200", b"Age: 0"), 7200),
        ((b"Age: abc",), 0),
        ((b"Age: abc, 30",), 0),
        ((b"Age: -30",), 0),
        ((b"Age: 30.5",), 0),
        ((b'Age: "30"',), 0),
        ((b"Age: 30;x",), 0),
        ((b"Age: 99999999999999999999",), DELTA_MAX_S),
    ],
)
def test_age_value(lines: tuple[bytes, ...], expected: int) -> None:
    assert age_value(fields(*lines)) == expected


@pytest.mark.parametrize(
    ("age_s", "date_age_s", "delay_s", "expected"),
    [
        (0, 0, 0.0, 0),
        (30, 0, 0.0, 30),
        (30, 100, 0.0, 100),
        (30, -100, 0.0, 30),
        (0, 0, 2.9, 2),
        (30, 0, 2.9, 32),
        (30, 31, 2.0, 32),
        (30, 0, -5.0, 30),
        (DELTA_MAX_S, 0, 5.0, DELTA_MAX_S),
    ],
)
def test_corrected_initial_age(age_s: int, date_age_s: int, delay_s: float, expected: int) -> None:
    lines = fields(b"Age: %d" % age_s, DATE)
    arrival = NOW + date_age_s
    assert corrected_initial_age(lines, arrival - delay_s, arrival) == expected


def test_a_response_without_date_and_age_is_as_old_as_its_journey() -> None:
    assert corrected_initial_age(fields(), NOW + 0.2, NOW + 0.9) == 0
    assert corrected_initial_age(fields(), NOW - 1.5, NOW) == 1


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 7), (0.99, 7), (1.0, 8), (60.0, 67), (-50.0, 7)])
def test_current_age(seconds: float, expected: int) -> None:
    stored = stored_response(initial_age_s=7, response_time=NOW)
    assert current_age(stored, NOW + seconds) == expected


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ((b"Cache-Control: s-maxage=5, max-age=60", b"Expires: " + IN_AN_HOUR), 5),
        ((b"Cache-Control: max-age=60", b"Expires: " + IN_AN_HOUR), 60),
        ((b"Cache-Control: max-age=0", b"Expires: " + IN_AN_HOUR), 0),
        ((b"Expires: " + IN_AN_HOUR, DATE), 3600),
        ((b"Expires: " + IN_AN_HOUR,), 3600),
        ((b"Expires: " + IN_AN_HOUR, b"Date: " + HOUR_AGO), 7200),
        ((b"Expires: " + HOUR_AGO, DATE), 0),
        ((b"Expires: 0", DATE), 0),
        ((b"Expires: ", DATE), 0),
        ((b"Expires: " + IN_AN_HOUR, b"Expires: 0", DATE), 3600),
        ((b"Expires: 0", b"Expires: " + IN_AN_HOUR, DATE), 0),
        ((b"Expires: " + IN_AN_HOUR, b"Date: x"), 3600),
    ],
)
def test_explicit_lifetimes(lines: tuple[bytes, ...], seconds: int) -> None:
    assert lifetime(*lines) == Lifetime(seconds)


def test_a_lifetime_is_clipped() -> None:
    assert lifetime(b"Expires: Fri, 31 Dec 9999 23:59:59 GMT") == Lifetime(DELTA_MAX_S)


@pytest.mark.parametrize("status", sorted(HEURISTICALLY_CACHEABLE))
def test_statuses_whose_lifetime_is_guessed(status: int) -> None:
    assert lifetime(b"Last-Modified: " + HOUR_AGO, DATE, status=status) == Lifetime(360, heuristic=True)


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 401, 403, 500, 502, 503, 504, 599])
def test_statuses_whose_lifetime_is_not_guessed(status: int) -> None:
    assert lifetime(b"Last-Modified: " + HOUR_AGO, DATE, status=status) == Lifetime(0)
    invalidated = lifetime(b"Last-Modified: " + HOUR_AGO, DATE, b"Cache-Control: public", status=status)
    assert invalidated == Lifetime(360, heuristic=True)


@pytest.mark.parametrize(
    ("lines", "options", "seconds"),
    [
        ((b"Last-Modified: " + HOUR_AGO, DATE), CachingOptions(heuristic_fraction=0.5), 1800),
        ((b"Last-Modified: " + HOUR_AGO, DATE), CachingOptions(heuristic_fraction=0.0), 0),
        ((b"Last-Modified: " + HOUR_AGO, DATE), CachingOptions(heuristic_ceiling_s=100), 100),
        ((b"Last-Modified: Mon, 21 Nov 1994 10:00:00 GMT", DATE), CachingOptions(), 86_400),
        ((b"Last-Modified: " + IN_AN_HOUR, DATE), CachingOptions(), 0),
        ((b"Last-Modified: " + DATE.removeprefix(b"Date: "), DATE), CachingOptions(), 5),
        ((b"Last-Modified: " + DATE.removeprefix(b"Date: "), DATE), CachingOptions(heuristic_fraction=0.0), 0),
        ((b"Last-Modified: " + DATE.removeprefix(b"Date: "), DATE), CachingOptions(heuristic_floor_s=0), 0),
        ((b"Last-Modified: " + DATE.removeprefix(b"Date: "), DATE), CachingOptions(heuristic_floor_s=7), 7),
        ((b"Last-Modified: " + HOUR_AGO, DATE), CachingOptions(heuristic_floor_s=400), 400),
        ((b"Last-Modified: " + HOUR_AGO, DATE), CachingOptions(heuristic_floor_s=400, heuristic_ceiling_s=9), 9),
        ((b"Last-Modified: " + HOUR_AGO,), CachingOptions(), 360),
        ((b"Last-Modified: 0", DATE), CachingOptions(), 0),
        ((DATE,), CachingOptions(negative_lifetime_s=9), 0),
    ],
)
def test_guesses(lines: tuple[bytes, ...], options: CachingOptions, seconds: int) -> None:
    assert lifetime(*lines, options=options) == Lifetime(seconds, heuristic=True)


@pytest.mark.parametrize("status", [404, 405, 410, 414, 501])
def test_negative_answers(status: int) -> None:
    options = CachingOptions(negative_lifetime_s=9)
    assert lifetime(DATE, status=status) == Lifetime(0, heuristic=True)
    assert lifetime(b"Last-Modified: " + DATE[6:], DATE, status=status) == Lifetime(0, heuristic=True)
    assert lifetime(DATE, status=status, options=options) == Lifetime(9, heuristic=True)
    assert lifetime(DATE, b"Cache-Control: max-age=60", status=status, options=options) == Lifetime(60)


def test_a_targeted_field_puts_expires_out_of_force() -> None:
    lines = (b"CDN-Cache-Control: public", b"Expires: " + IN_AN_HOUR, DATE)
    assert lifetime(*lines, options=replace(DEFAULT_OPTIONS, targeted_control=True)) == Lifetime(0, heuristic=True)
    assert lifetime(*lines) == Lifetime(3600)
