"""dates: the three forms that must be read, two-digit years, what is no date, and the form that is written."""

import pytest

from webproxy.http.dates import format_http_date, parse_http_date

NOW = 1_792_108_800.0
"""2026-10-16."""
EXAMPLE = 784_111_777
"""The moment that the RFC's examples name."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE, id="imf-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE, id="rfc-850"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", EXAMPLE, id="asctime"),
        pytest.param(b"Wed Nov 16 08:49:37 1994", EXAMPLE + 10 * 86_400, id="asctime-with-two-digits"),
        pytest.param(b"Thu, 01 Jan 1970 00:00:00 GMT", 0, id="epoch"),
        pytest.param(b"Wed, 31 Dec 1969 23:59:59 GMT", -1, id="before-the-epoch"),
        pytest.param(b"Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400, id="leap-day"),
        pytest.param(b"Tue, 19 Jan 2038 03:14:08 GMT", 2**31, id="more-than-31-bits"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799, id="last"),
        pytest.param(b"Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800, id="leap-second"),
        pytest.param(b"Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE, id="wrong-day-of-the-week"),
    ],
)
def test_dates_are_read(value: bytes, seconds: int) -> None:
    assert parse_http_date(value, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "now", "seconds"),
    [
        pytest.param(b"Friday, 16-Oct-76 00:00:00 GMT", NOW, 3_370_032_000, id="fifty-years-ahead-to-the-second"),
        pytest.param(b"Friday, 16-Oct-76 00:00:01 GMT", NOW, 214_272_001, id="a-second-more"),
        pytest.param(b"Friday, 15-Oct-77 00:00:00 GMT", NOW, 245_721_600, id="a-year-more"),
        pytest.param(b"Friday, 16-Oct-26 00:00:00 GMT", NOW, 1_792_108_800, id="now"),
        pytest.param(b"Friday, 01-Jan-05 00:00:00 GMT", 4_070_908_800.0, 4_260_211_200, id="over-the-century"),
        pytest.param(b"Friday, 01-Jan-99 00:00:00 GMT", 4_102_444_800.0, 4_070_908_800, id="back-over-the-century"),
        pytest.param(b"Saturday, 29-Feb-00 00:00:00 GMT", 951_782_400.0, 951_782_400, id="on-a-leap-day"),
    ],
)
def test_years_of_two_digits_are_at_most_fifty_years_ahead(value: bytes, now: float, seconds: int) -> None:
    assert parse_http_date(value, now) == seconds


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"0", id="zero"),
        pytest.param(b"-1", id="minus-one"),
        pytest.param(b"784111777", id="seconds"),
        pytest.param(b"1994-11-06T08:49:37Z", id="iso"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 UTC", id="utc"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 +0000", id="offset"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37", id="no-zone"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 gmt", id="zone-in-lower-case"),
        pytest.param(b"SUN, 06 Nov 1994 08:49:37 GMT", id="day-in-capitals"),
        pytest.param(b"Sun, 06 NOV 1994 08:49:37 GMT", id="month-in-capitals"),
        pytest.param(b"Sun 06 Nov 1994 08:49:37 GMT", id="no-comma"),
        pytest.param(b"Sun,06 Nov 1994 08:49:37 GMT", id="no-blank"),
        pytest.param(b"Sun, 06  Nov 1994 08:49:37 GMT", id="two-blanks"),
        pytest.param(b"Sun, 6 Nov 1994 08:49:37 GMT", id="one-digit-day"),
        pytest.param(b"Sun, 06 Nov 94 08:49:37 GMT", id="two-digit-year"),
        pytest.param(b"Sun, 06-Nov-1994 08:49:37 GMT", id="dashes"),
        pytest.param(b"Sun, 06-Nov-94 08:49:37 GMT", id="short-day-with-dashes"),
        pytest.param(b"Sun, 06 Nov 1994 8:49:37 GMT", id="one-digit-hour"),
        pytest.param(b"Sun, 06 Nov 1994 08.49.37 GMT", id="periods"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT\n", id="line-end"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", id="two"),
        pytest.param(b"Sun, 31 Nov 1994 08:49:37 GMT", id="day-that-is-not"),
        pytest.param(b"Sun, 00 Nov 1994 08:49:37 GMT", id="day-zero"),
        pytest.param(b"Thu, 29 Feb 1900 08:49:37 GMT", id="no-leap-year"),
        pytest.param(b"Sun, 06 Nov 0000 08:49:37 GMT", id="year-zero"),
        pytest.param(b"Sun, 06 Nov 1994 24:00:00 GMT", id="hour-24"),
        pytest.param(b"Sun, 06 Nov 1994 08:60:37 GMT", id="minute-60"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:61 GMT", id="second-61"),
        pytest.param(b"Sunday, 31-Nov-94 08:49:37 GMT", id="rfc-850-day-that-is-not"),
        pytest.param(b"Sun Nov 6 08:49:37 1994", id="asctime-without-its-blank"),
        pytest.param(b"Sun Nov 06 08:49:37 94", id="asctime-with-two-digits"),
    ],
)
def test_anything_else_is_no_date(value: bytes) -> None:
    assert parse_http_date(value, NOW) is None


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        pytest.param(EXAMPLE, b"Sun, 06 Nov 1994 08:49:37 GMT", id="example"),
        pytest.param(0, b"Thu, 01 Jan 1970 00:00:00 GMT", id="epoch"),
        pytest.param(-1, b"Wed, 31 Dec 1969 23:59:59 GMT", id="before-the-epoch"),
        pytest.param(253_402_300_799, b"Fri, 31 Dec 9999 23:59:59 GMT", id="last"),
    ],
)
def test_dates_are_written_as_imf_fixdates(seconds: int, written: bytes) -> None:
    assert format_http_date(seconds) == written


def test_beyond_the_year_9999_is_no_date() -> None:
    with pytest.raises(ValueError, match="out of range"):
        format_http_date(253_402_300_800)
