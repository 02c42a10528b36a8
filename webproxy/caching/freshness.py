"""PURE: the freshness lifetime and the age of a response (RFC 9111 section 4.2). Seconds; times since the epoch.

Ages and lifetimes are whole seconds, rounded down, as Age and max-age are.
"""

from __future__ import annotations

from typing import NamedTuple

from webproxy.caching.directives import DELTA_MAX_S, ResponseDirectives, delta_seconds
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.http.dates import parse_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import ResponseHead

HEURISTICALLY_CACHEABLE = frozenset((200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501))
"""Statuses that may be given a heuristic lifetime (RFC 9110 section 15.1)."""
NEGATIVE = frozenset((404, 405, 410, 414, 501))
"""Those of them that report an absence."""


class Lifetime(NamedTuple):
    """freshness_lifetime, and whether it is heuristic."""

    seconds: int
    heuristic: bool = False


def date_value(fields: Fields, response_time: float) -> int:
    """The time in Date, or that of arrival if Date is missing or invalid (RFC 9110 section 6.6.1)."""
    line = _first_line(fields, b"date")
    date = None if line is None else parse_http_date(line, response_time)
    return int(response_time) if date is None else date


def freshness_lifetime(
    response: ResponseHead, directives: ResponseDirectives, response_time: float, options: CachingOptions
) -> Lifetime:
    """How many seconds the response is fresh, by the first of these that applies (section 4.2.1).

    s-maxage; max-age; Expires minus Date, where an invalid date such as "0" is in the past (section 5.3) and the first
    of several lines counts; a heuristic. A targeted field overrides Expires (RFC 9213 section 2.2).
    """
    if directives.s_maxage is not None:
        return Lifetime(directives.s_maxage)
    if directives.max_age is not None:
        return Lifetime(directives.max_age)
    fields = response.fields
    line = None if directives.targeted else _first_line(fields, b"expires")
    if line is not None:
        expires = parse_http_date(line, response_time)
        return Lifetime(0 if expires is None else _clipped(expires - date_value(fields, response_time)))
    if response.status in HEURISTICALLY_CACHEABLE or directives.public:
        return Lifetime(_heuristic_lifetime(response, response_time, options), heuristic=True)
    return Lifetime(0)


def _heuristic_lifetime(response: ResponseHead, response_time: float, options: CachingOptions) -> int:
    """A fraction of the time since the last modification (section 4.2.2); none without Last-Modified.

    What reports an absence has no floor: a newly published file should not stay missing.
    """
    line = _first_line(response.fields, b"last-modified")
    modified = None if line is None else parse_http_date(line, response_time)
    if modified is None:
        return options.negative_lifetime_s if response.status in NEGATIVE else 0
    unchanged_s = date_value(response.fields, response_time) - modified
    has_floor = unchanged_s >= 0 and options.heuristic_fraction > 0 and response.status not in NEGATIVE
    floor_s = options.heuristic_floor_s if has_floor else 0
    lifetime_s = max(floor_s, _clipped(int(unchanged_s * options.heuristic_fraction)))
    return min(lifetime_s, options.heuristic_ceiling_s)


def corrected_initial_age(fields: Fields, request_time: float, response_time: float) -> int:
    """The age of a response on arrival (section 4.2.3): by Date or by Age, whichever is greater."""
    apparent_age = response_time - date_value(fields, response_time)
    response_delay = max(0.0, response_time - request_time)
    return _clipped(int(max(apparent_age, age_value(fields) + response_delay)))


def age_value(fields: Fields) -> int:
    """The first member of Age; 0 if there is none or it is not a number of seconds (section 5.1)."""
    value = fields.get(b"age")
    if value is None:
        return 0
    return delta_seconds(value.partition(b",")[0].strip()) or 0


def current_age(stored: StoredResponse, now: float) -> int:
    """The age of a stored response (section 4.2.3); never below its age on arrival, even if the clock was set back."""
    resident_s = int(now - stored.response_time)
    return stored.initial_age_s + resident_s if resident_s > 0 else stored.initial_age_s


def _first_line(fields: Fields, name: bytes) -> bytes | None:
    """The first of several lines: joined, dates would be invalid."""
    lines = fields.get_all(name)
    return lines[0] if lines else None


def _clipped(seconds: int) -> int:
    return max(0, min(seconds, DELTA_MAX_S))
