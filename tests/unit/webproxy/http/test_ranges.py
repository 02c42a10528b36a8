"""ranges: what a Range field asks for, Content-Range both ways, and the frame of several parts."""

import pytest

from webproxy.http.ranges import (
    RANGES_MAX,
    ContentRange,
    content_range,
    multipart_parts,
    parse_content_range,
    parse_range,
    single_range,
    unsatisfied_range,
)


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        pytest.param(b"bytes=0-499", [(0, 500)], id="first-bytes"),
        pytest.param(b"bytes=0-0", [(0, 1)], id="one-byte"),
        pytest.param(b"bytes=500-", [(500, 1000)], id="to-the-end"),
        pytest.param(b"bytes=-1", [(999, 1000)], id="last-byte"),
        pytest.param(b"bytes=-2000", [(0, 1000)], id="suffix-longer-than-all"),
        pytest.param(b"bytes=999-5000", [(999, 1000)], id="clipped"),
        pytest.param(b"bytes=0-99999999999999999999", [(0, 1000)], id="clipped-beyond-64-bits"),
        pytest.param(b"BYTES=0-1", [(0, 2)], id="unit-in-capitals"),
        pytest.param(b"bytes= 0-1 ,\t3-4 , ", [(0, 2), (3, 5)], id="blanks-and-empty-elements"),
        pytest.param(b"bytes=5-6,0-1", [(5, 7), (0, 2)], id="order-kept"),
        pytest.param(b"bytes=0-1,2-3", [(0, 2), (2, 4)], id="neighbours-stay-two"),
        pytest.param(b"bytes=2-3,0-2", [(0, 4)], id="overlapping"),
        pytest.param(b"bytes=0-,5-9,-1", [(0, 1000)], id="within-another"),
        pytest.param(b"bytes=7-8,0-1,1-2", [(0, 3), (7, 9)], id="overlapping-come-in-ascending-order"),
        pytest.param(b"bytes=0-1,1000-,2000-3000", [(0, 2)], id="unsatisfiable-beside-others"),
        pytest.param(b"bytes=" + b"0-0," * 15 + b"0-0", [(0, 1)], id="sixteen"),
        pytest.param(b"bytes=1000-", [], id="behind-the-end"),
        pytest.param(b"bytes=-0", [], id="suffix-of-nothing"),
        pytest.param(b"bytes=5000-6000,-0", [], id="none-satisfiable"),
        pytest.param(b"bytes=" + b"0-0," * 16 + b"0-0", None, id="seventeen"),
        pytest.param(b"bytes=5-4", None, id="last-before-first"),
        pytest.param(b"bytes=0-1,5-4", None, id="one-not-valid"),
        pytest.param(b"bytes=2000-1999", None, id="last-before-first-behind-the-end"),
        pytest.param(b"bytes=", None, id="nothing"),
        pytest.param(b"bytes=,", None, id="empty-elements-only"),
        pytest.param(b"bytes=-", None, id="dash-only"),
        pytest.param(b"bytes", None, id="no-sign"),
        pytest.param(b"bytes 0-1", None, id="blank-for-the-sign"),
        pytest.param(b"bytes=0", None, id="no-dash"),
        pytest.param(b"bytes=a-b", None, id="letters"),
        pytest.param(b"bytes=+0-1", None, id="plus"),
        pytest.param(b"bytes=0 - 1", None, id="blanks-inside"),
        pytest.param(b"bytes=0-1-2", None, id="two-dashes"),
        pytest.param(b"bytes=0-%s" % (b"9" * 5000), None, id="digits-without-end"),
        pytest.param(b"lines=0-1", None, id="other-unit"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_ranges_of_a_thousand_bytes(value: bytes, ranges: list[tuple[int, int]] | None) -> None:
    assert parse_range(value, 1000) == ranges


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        pytest.param(b"bytes=0-", [], id="from-the-beginning"),
        pytest.param(b"bytes=0-0", [], id="first-byte"),
        pytest.param(b"bytes=-5", None, id="suffix-has-no-name-for-its-answer"),
        pytest.param(b"bytes=-0", [], id="suffix-of-nothing"),
    ],
)
def test_ranges_of_nothing(value: bytes, ranges: list[tuple[int, int]] | None) -> None:
    assert parse_range(value, 0) == ranges


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b"bytes=0-99", (0, 100)),
        (b"BYTES= 5-5 ", (5, 1)),
        (b"bytes=100-", (100, 0)),
        (b"bytes=-500", (-500, 0)),
        (b"bytes=-0", None),
        (b"bytes=5-4", None),
        (b"bytes=-", None),
        (b"bytes=0-1,3-4", None),
        (b"bytes=", None),
        (b"lines=0-1", None),
        (b"bytes=a-b", None),
        (b"bytes=18446744073709551616-", None),
        (b"bytes=-18446744073709551616", None),
        (b"bytes=0-18446744073709551616", (0, 0)),
    ],
)
def test_one_range_before_the_size_is_known(value: bytes, part: tuple[int, int] | None) -> None:
    assert single_range(value) == part


def test_sixteen_ranges_are_the_most() -> None:
    specs = [b"%d-%d" % (first, first) for first in range(0, 2 * RANGES_MAX + 2, 2)]
    assert parse_range(b"bytes=" + b",".join(specs[:-1]), 1000) == [(n, n + 1) for n in range(0, 2 * RANGES_MAX, 2)]
    assert parse_range(b"bytes=" + b",".join(specs), 1000) is None


def test_content_range_is_written() -> None:
    assert content_range(0, 500, 1000) == b"bytes 0-499/1000"
    assert unsatisfied_range(1000) == b"bytes */1000"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        pytest.param(b"bytes 0-499/1000", ContentRange(0, 500, 1000), id="plain"),
        pytest.param(b"bytes 999-999/1000", ContentRange(999, 1000, 1000), id="last-byte"),
        pytest.param(b"bytes 5-9/*", ContentRange(5, 10, None), id="size-not-known"),
        pytest.param(b"Bytes 0-0/1", ContentRange(0, 1, 1), id="unit-with-a-capital"),
        pytest.param(b"bytes */1000", None, id="unsatisfied"),
        pytest.param(b"bytes 5-4/1000", None, id="last-before-first"),
        pytest.param(b"bytes 0-1000/1000", None, id="last-behind-the-end"),
        pytest.param(b"bytes=0-1/2", None, id="sign-of-range"),
        pytest.param(b"bytes 0-1", None, id="no-size"),
        pytest.param(b"bytes 0-1/2, bytes 0-1/2", None, id="two"),
        pytest.param(b"lines 0-1/2", None, id="other-unit"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_content_range_is_read(value: bytes, read: ContentRange | None) -> None:
    assert parse_content_range(value) == read


def test_the_frame_of_several_parts() -> None:
    content = b"0123456789"
    parts, tail, length = multipart_parts([(0, 2), (7, 10)], 10, b"text/plain", b"B")
    body = b"".join(head + content[first:end] for head, first, end in parts) + tail
    assert body == (
        b"--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
        b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789"
        b"\r\n--B--\r\n"
    )
    assert length == len(body)


def test_parts_of_an_unknown_type_name_none() -> None:
    parts, _, _ = multipart_parts([(0, 1)], 10, None, b"B")
    assert parts == [(b"--B\r\nContent-Range: bytes 0-0/10\r\n\r\n", 0, 1)]
