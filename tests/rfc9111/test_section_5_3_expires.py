"""RFC 9111 section 5.3: the Expires field."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, HOUR_AGO, IN_AN_HOUR, action_after, kept, refusal
from webproxy.caching.decision import Action

EXPIRES = b"Expires: " + IN_AN_HOUR


@pytest.mark.parametrize(
    ("lines", "lifetime_s"),
    [
        pytest.param((EXPIRES, DATE), 3600, id="less Date"),
        pytest.param((EXPIRES, b"Date: " + HOUR_AGO), 7200, id="less a Date an hour ago"),
        pytest.param((EXPIRES,), 3600, id="less the arrival, without Date"),
        pytest.param((EXPIRES, b"Date: soon"), 3600, id="less the arrival, when Date is none"),
        pytest.param((b"Expires: Saturday, 21-Nov-26 11:00:00 GMT", DATE), 3600, id="in an older notation"),
        pytest.param((b"Expires: Sat Nov 21 11:00:00 2026", DATE), 3600, id="in the oldest"),
        pytest.param((EXPIRES, b"Expires: " + HOUR_AGO, DATE), 3600, id="the first of two"),
        pytest.param((b"Expires: " + HOUR_AGO, EXPIRES, DATE), 0, id="the first of two, behind"),
        pytest.param((b"Expires: Sat, 21 Nov 2026 10:00:00 GMT", DATE), 0, id="now"),
        pytest.param((b"Expires: 0", DATE), 0, id="0"),
        pytest.param((b"Expires:", DATE), 0, id="empty"),
        pytest.param((b"Expires: never", DATE), 0, id="no date"),
        pytest.param((EXPIRES, DATE, b"Cache-Control: max-age=60"), 60, id="max-age goes before it"),
        pytest.param((EXPIRES, DATE, b"Cache-Control: s-maxage=60"), 60, id="s-maxage too"),
        pytest.param((EXPIRES, DATE, b"Cache-Control: max-age=x"), 0, id="also one that is none"),
        pytest.param((EXPIRES, DATE, b"Cache-Control: public"), 3600, id="other directives do not"),
        pytest.param((b"Expires: 0", DATE, b"Last-Modified: " + HOUR_AGO), 0, id="nothing is guessed beside it"),
    ],
)
def test_the_lifetime(lines: tuple[bytes, ...], lifetime_s: int) -> None:
    assert kept(*lines, ETAG).lifetime_s == lifetime_s


def test_it_is_explicit_freshness_for_any_status() -> None:
    assert refusal(EXPIRES, DATE, status=302) == b""
    assert refusal(b"Last-Modified: " + HOUR_AGO, DATE, status=302) == b"no explicit freshness"


def test_it_forbids_nothing_when_it_is_over() -> None:
    stored = kept(EXPIRES, DATE, ETAG)
    assert action_after(3599, stored) is Action.HIT
    assert action_after(3600, stored) is Action.REVALIDATE
    assert action_after(3601, stored, b"Cache-Control: max-stale=10") is Action.HIT
