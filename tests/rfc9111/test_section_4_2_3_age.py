"""RFC 9111 sections 4.2.3 and 5.1: how old a response is counts in its freshness, and is told by the decision."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, HOUR_AGO, IN_AN_HOUR, action_after, decision_after, kept
from webproxy.caching.decision import Action

TWO_HOURS = b"Cache-Control: max-age=7200"


@pytest.mark.parametrize(
    ("lines", "delay_s", "age_s"),
    [
        pytest.param((DATE,), 0.0, 0, id="just made"),
        pytest.param((), 0.0, 0, id="no Date: made when it came"),
        pytest.param((b"Date: soon",), 0.0, 0, id="a Date that is none: made when it came"),
        pytest.param((b"Date: " + HOUR_AGO,), 0.0, 3600, id="apparent age"),
        pytest.param((b"Date: " + IN_AN_HOUR,), 0.0, 0, id="a clock that is ahead of ours"),
        pytest.param((DATE, b"Age: 600"), 0.0, 600, id="Age"),
        pytest.param((b"Date: " + HOUR_AGO, b"Age: 600"), 0.0, 3600, id="the greater one: Date"),
        pytest.param((b"Date: " + HOUR_AGO, b"Age: 5000"), 0.0, 5000, id="the greater one: Age"),
        pytest.param((DATE, b"Age: 600"), 3.0, 603, id="Age and the delay"),
        pytest.param((b"Date: " + HOUR_AGO,), 3.0, 3600, id="Date has the delay in it"),
        pytest.param((DATE,), 3.0, 3, id="the delay alone"),
        pytest.param((DATE, b"Age: 600, 7000"), 0.0, 600, id="the first of a list"),
        pytest.param((DATE, b"Age: 600", b"Age: 7000"), 0.0, 600, id="the first of two lines"),
        pytest.param((DATE, b"Age: -600"), 0.0, 0, id="negative: ignored"),
        pytest.param((DATE, b"Age: 600.0"), 0.0, 0, id="a fraction: ignored"),
        pytest.param((DATE, b"Age: abc"), 0.0, 0, id="no number: ignored"),
    ],
)
def test_the_age_on_arrival(lines: tuple[bytes, ...], delay_s: float, age_s: int) -> None:
    stored = kept(TWO_HOURS, ETAG, *lines, delay_s=delay_s)
    assert decision_after(0, stored).age_s == age_s
    assert decision_after(90.5, stored).age_s == age_s + 90


@pytest.mark.parametrize(
    ("lines", "fresh_s"),
    [
        ((b"Cache-Control: max-age=3600", b"Age: 3000"), 600),
        ((b"Cache-Control: s-maxage=3600", b"Age: 3000"), 600),
        ((b"Expires: " + IN_AN_HOUR, b"Age: 3000"), 600),
        ((b"Last-Modified: Thu, 12 Nov 2026 00:00:00 GMT", b"Age: 80000"), 1360),
    ],
)
def test_age_counts_in_every_kind_of_freshness(lines: tuple[bytes, ...], fresh_s: int) -> None:
    stored = kept(DATE, ETAG, *lines)
    assert action_after(fresh_s - 1, stored) is Action.HIT
    assert action_after(fresh_s, stored) is Action.REVALIDATE


@pytest.mark.parametrize("age", [b"7200", b"7201", b"99999999999999999999"])
def test_stale_on_arrival(age: bytes) -> None:
    assert action_after(0, kept(TWO_HOURS, ETAG, DATE, b"Age: " + age)) is Action.REVALIDATE


def test_an_age_of_2_to_31_is_more_than_any_lifetime() -> None:
    stored = kept(b"Cache-Control: max-age=99999999999", ETAG, DATE, b"Age: 99999999999")
    assert action_after(0, stored) is Action.REVALIDATE


def test_a_clock_that_is_set_back_makes_nothing_younger() -> None:
    stored = kept(TWO_HOURS, ETAG, DATE, b"Age: 600")
    assert decision_after(-1000, stored).age_s == 600
    assert action_after(-1000, stored, b"Cache-Control: max-age=600") is Action.HIT
    assert action_after(-1000, stored, b"Cache-Control: max-age=599") is Action.REVALIDATE
