"""RFC 9111 sections 4.2, 4.2.1 and 4.2.2: how long a stored response serves without being validated."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, HOUR_AGO, IN_AN_HOUR, action_after, kept
from webproxy.caching.decision import Action
from webproxy.caching.options import CachingOptions

HIT, REVALIDATE = Action.HIT, Action.REVALIDATE


@pytest.mark.parametrize(
    ("lines", "lifetime_s"),
    [
        pytest.param((b"Cache-Control: s-maxage=20, max-age=60",), 20, id="s-maxage before max-age"),
        pytest.param((b"Cache-Control: max-age=60, s-maxage=20",), 20, id="in any order"),
        pytest.param(
            (b"Cache-Control: s-maxage=20", b"Expires: " + IN_AN_HOUR, DATE), 20, id="s-maxage before Expires"
        ),
        pytest.param((b"Cache-Control: max-age=60", b"Expires: " + IN_AN_HOUR, DATE), 60, id="max-age before Expires"),
        pytest.param((b"Cache-Control: max-age=60", b"Expires: 0", DATE), 60, id="max-age before a bad Expires"),
        pytest.param((b"Expires: " + IN_AN_HOUR, DATE), 3600, id="Expires less Date"),
        pytest.param((b"Expires: " + IN_AN_HOUR,), 3600, id="Expires without Date"),
        pytest.param((DATE, b"Last-Modified: " + HOUR_AGO), 360, id="a tenth of the time since the last change"),
        pytest.param((b"Cache-Control: max-age=60, max-age=3600",), 60, id="the first of two"),
        pytest.param((b"Cache-Control: max-age=60", b"Cache-Control: max-age=3600"), 60, id="the first of two lines"),
        pytest.param((b"Cache-Control: max-age=003600",), 3600, id="leading zeros"),
        pytest.param((b"Cache-Control: MaX-aGe=60",), 60, id="any case"),
        pytest.param((b"Cache-Control: foobar, max-age=60",), 60, id="beside an extension"),
    ],
)
def test_the_lifetime_ends_at_its_second(lines: tuple[bytes, ...], lifetime_s: int) -> None:
    stored = kept(*lines, ETAG)
    assert action_after(lifetime_s - 0.001, stored) is HIT
    assert action_after(lifetime_s, stored) is REVALIDATE


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((b"Cache-Control: max-age=0",), id="max-age=0"),
        pytest.param((b"Cache-Control: max-age=0", b"Expires: " + IN_AN_HOUR), id="max-age=0, Expires ahead"),
        pytest.param((b"Cache-Control: s-maxage=0, max-age=60",), id="s-maxage=0"),
        pytest.param((b"Cache-Control: max-age=-1",), id="negative"),
        pytest.param((b"Cache-Control: max-age=3600.0",), id="a fraction"),
        pytest.param((b"Cache-Control: max-age='3600'",), id="single quotes"),
        pytest.param((b"Cache-Control: max-age=a3600",), id="no number"),
        pytest.param((b"Cache-Control: max-age=x", b"Last-Modified: " + HOUR_AGO), id="invalid, and no guess instead"),
        pytest.param((b"Cache-Control: max-age=x", b"Expires: " + IN_AN_HOUR), id="invalid, and no Expires instead"),
        pytest.param((b"Expires: 0", DATE), id="Expires: 0"),
        pytest.param((b"Expires: -1", DATE), id="Expires: -1"),
        pytest.param((b"Expires: " + HOUR_AGO, DATE), id="Expires behind"),
        pytest.param((b"Expires: Sat, 21 Nov 2026 11:00:00 UTC", DATE), id="another zone"),
        pytest.param((b"Expires: Sat, 21 Nov 2026 11.00.00 GMT", DATE), id="another notation"),
        pytest.param((b"Expires: 0", b"Last-Modified: " + HOUR_AGO, DATE), id="Expires: 0, and no guess instead"),
        pytest.param((DATE,), id="nothing to guess from"),
        pytest.param((b"Last-Modified: " + IN_AN_HOUR, DATE), id="changed in the future"),
        pytest.param((b"Cache-Control: no-cache, max-age=60",), id="no-cache"),
        pytest.param((b"Cache-Control: max-age=60, no-cache",), id="no-cache behind"),
    ],
)
def test_stale_from_the_beginning(lines: tuple[bytes, ...]) -> None:
    assert action_after(0, kept(*lines, ETAG)) is REVALIDATE


def test_seconds_beyond_2_to_31_are_that_many() -> None:
    """Section 1.2.2."""
    for value in (b"2147483648", b"99999999999", b"9" * 5_000):
        assert kept(b"Cache-Control: max-age=" + value).lifetime_s == 2**31


@pytest.mark.parametrize(
    ("status", "control", "action"),
    [
        (200, b"x", HIT),
        (204, b"x", HIT),
        (404, b"x", HIT),
        (410, b"x", HIT),
        (501, b"x", HIT),
        (599, b"x", REVALIDATE),
        (302, b"x", REVALIDATE),
        (599, b"public", HIT),
        (302, b"public", HIT),
    ],
)
def test_only_some_statuses_are_guessed_about(status: int, control: bytes, action: Action) -> None:
    """Section 4.2.2, RFC 9110 section 15.1: the heuristically cacheable ones, and what is marked public."""
    stored = kept(DATE, ETAG, b"Last-Modified: " + HOUR_AGO, b"Cache-Control: " + control, status=status)
    assert action_after(5, stored) is action


def test_a_guess_has_a_ceiling() -> None:
    lines = (DATE, ETAG, b"Last-Modified: Mon, 21 Nov 1994 10:00:00 GMT")
    assert kept(*lines).lifetime_s == 86_400
    assert kept(*lines, options=CachingOptions(heuristic_ceiling_s=7)).lifetime_s == 7


def test_a_missing_file_stays_missing_as_long_as_the_operator_says() -> None:
    assert action_after(0, kept(DATE, ETAG, status=404)) is REVALIDATE
    stored = kept(DATE, ETAG, status=404, options=CachingOptions(negative_lifetime_s=10))
    assert action_after(9, stored) is HIT
    assert action_after(10, stored) is REVALIDATE
