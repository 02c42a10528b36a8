"""PURE: HTTP dates ↔ seconds since the epoch (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import functools
import re
from datetime import UTC, date, datetime

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH_NUMBERS = {name: number for number, name in enumerate(_MONTHS, start=1)}
_EPOCH = date(1970, 1, 1).toordinal()

_DAY = rb"(?:%s)" % b"|".join(_DAYS)
_LONG_DAY = rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH = rb"(%s)" % b"|".join(_MONTHS)
_TIME = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_imf_fixdate = re.compile(rb"%s, ([0-9]{2}) %s ([0-9]{4}) %s GMT" % (_DAY, _MONTH, _TIME)).fullmatch
_rfc850_date = re.compile(rb"%s, ([0-9]{2})-%s-([0-9]{2}) %s GMT" % (_LONG_DAY, _MONTH, _TIME)).fullmatch
_asctime_date = re.compile(rb"%s %s ((?:[0-9]| )[0-9]) %s ([0-9]{4})" % (_DAY, _MONTH, _TIME)).fullmatch


def parse_http_date(value: bytes, now: float) -> int | None:
    """Seconds since the epoch for a date in one of the three forms that recipients must accept; None for anything else.

    `now`, in seconds since the epoch, decides the century of two-digit years. Names are case-sensitive; the day of the
    week is not checked against the date. Second 60 is a leap second and counts as the start of the next minute.
    """
    if (found := _imf_fixdate(value)) is not None:
        day, month, year, *clock = found.groups()
        return _seconds(int(year), month, day, clock)
    if (found := _rfc850_date(value)) is not None:
        day, month, short_year, *clock = found.groups()
        return _seconds_in_century(int(short_year), month, day, clock, now)
    if (found := _asctime_date(value)) is not None:
        month, day, *clock, year = found.groups()
        return _seconds(int(year), month, day, clock)
    return None


def _seconds(year: int, month: bytes, day: bytes, clock: list[bytes]) -> int | None:
    hour, minute, second = map(int, clock)
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, _MONTH_NUMBERS[month], int(day)).toordinal() - _EPOCH
    except ValueError:  # no such day in that month, or year 0
        return None
    return days * 86_400 + hour * 3600 + minute * 60 + second


def _seconds_in_century(short_year: int, month: bytes, day: bytes, clock: list[bytes], now: float) -> int | None:
    """The latest such date that is at most 50 years after `now` (RFC 9110 section 5.6.7)."""
    today = datetime.fromtimestamp(now, UTC)
    year = today.year - today.year % 100 + 100 + short_year
    this_day = (today.month, today.day, today.hour, today.minute, today.second)
    that_day = (_MONTH_NUMBERS[month], int(day), *map(int, clock))
    while (year - 50, *that_day) > (today.year, *this_day):
        year -= 100
    return _seconds(year, month, day, clock)


@functools.lru_cache(maxsize=16)
def format_http_date(seconds: int) -> bytes:
    """The IMF-fixdate for a number of seconds since the epoch; raises ValueError outside the years 1 to 9999.

    Recent results are cached: all responses sent in the same second carry the same Date.
    """
    days, rest = divmod(seconds, 86_400)
    day = date.fromordinal(_EPOCH + days)
    hour, rest = divmod(rest, 3600)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        _DAYS[day.weekday()],
        day.day,
        _MONTHS[day.month - 1],
        day.year,
        hour,
        *divmod(rest, 60),
    )
