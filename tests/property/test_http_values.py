"""Dates, ranges and lists of HTTP against slow models of them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from webproxy.http.dates import format_http_date, parse_http_date
from webproxy.http.ranges import multipart_parts, parse_range
from webproxy.http.syntax import split_list

moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)).map(  # noqa: DTZ001 - made aware here
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
todays = st.integers(0, 4_102_444_800)
asked = st.lists(
    st.tuples(st.integers(0, 30), st.none() | st.integers(0, 30)) | st.tuples(st.none(), st.integers(0, 30)),
    min_size=1,
    max_size=16,
)


def _seconds(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())


@given(moments, todays)
def test_dates_go_there_and_back(moment: datetime, now: int) -> None:
    written = format_http_date(_seconds(moment))
    assert written == format_datetime(moment, usegmt=True).encode()
    assert parse_http_date(written, now) == _seconds(moment)
    assert parse_http_date(
        moment.strftime("%a %b ").encode()
        + b"%2d %s %04d" % (moment.day, moment.strftime("%H:%M:%S").encode(), moment.year),
        now,
    ) == _seconds(moment)


@given(st.datetimes(datetime(1930, 1, 1), datetime(2150, 1, 1)), todays)  # noqa: DTZ001 - made aware below
def test_years_of_two_digits_lie_in_the_hundred_years_that_end_fifty_years_ahead(naive: datetime, now: int) -> None:
    moment = naive.replace(microsecond=0, tzinfo=UTC)
    read = parse_http_date(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode(), now)
    if read is not None:  # None: 29 February of a century that has none
        found, today = datetime.fromtimestamp(read, UTC), datetime.fromtimestamp(now, UTC)
        assert (found.year % 100, found.month, found.day, found.time()) == (
            moment.year % 100,
            moment.month,
            moment.day,
            moment.time(),
        )
        assert (
            (found.year - 50, found.month, found.day, found.time())
            <= (today.year, today.month, today.day, today.time())
            < (found.year + 50, found.month, found.day, found.time())
        )


@given(st.binary(max_size=40), todays)
def test_any_bytes_are_a_date_or_none(value: bytes, now: int) -> None:
    assert parse_http_date(value, now) is None


def _positions(first: int | None, last: int | None, size: int) -> set[int]:
    """The bytes that one range names, counted one by one."""
    if first is None:
        assert last is not None
        return {place for place in range(size) if place >= size - last}
    return {place for place in range(size) if place >= first and (last is None or place <= last)}


@given(asked, st.integers(1, 30))
def test_ranges_name_the_bytes_that_were_asked_for_each_once(
    specs: list[tuple[int | None, int | None]], size: int
) -> None:
    words = [
        b"%s-%s" % (b"" if first is None else b"%d" % first, b"" if last is None else b"%d" % last)
        for first, last in specs
    ]
    ranges = parse_range(b"bytes=" + b",".join(words), size)
    if any(first is not None and last is not None and last < first for first, last in specs):
        assert ranges is None
        return
    assert ranges is not None
    places = [place for first, end in ranges for place in range(first, end)]
    assert len(places) == len(set(places))
    assert set(places) == set().union(*(_positions(first, last, size) for first, last in specs))
    assert all(first < end for first, end in ranges)
    if ranges:
        parts, tail, length = multipart_parts(ranges, size, b"text/plain", b"B")
        assert length == sum(len(head) + end - first for head, first, end in parts) + len(tail)


@given(st.lists(st.sampled_from([b",", b'"', b"\\", b" ", b"a", b"b"]), max_size=20).map(b"".join))
def test_lists_part_at_commas_that_no_quotation_holds(value: bytes) -> None:
    parts, quoted, escaped = [b""], False, False
    for byte in value:
        sign = bytes([byte])
        if sign == b"," and not quoted:
            parts.append(b"")
            continue
        parts[-1] += sign
        if escaped:
            escaped = False
        elif quoted and sign == b"\\":
            escaped = True
        elif sign == b'"':
            quoted = not quoted
    assert split_list(value) == [part.strip() for part in parts if part.strip()]
