"""PURE: byte ranges: Range, Content-Range and the framing of multipart/byteranges (RFC 9110 section 14).

Ranges in our code are pairs `[first, end)`; on the wire the last byte is given, not the one after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from webproxy.http.syntax import BLANKS

RANGES_MAX = 16
"""No client needs more ranges in one request (RFC 9110 section 14.2 allows a server to ignore them)."""
SIZE_LIMIT = 1 << 63
"""No body has as many bytes as this."""
_DIGITS_MAX = 30

_is_unit_bytes = re.compile(rb"bytes=(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_range_spec = re.compile(rb"([0-9]{0,%d})-([0-9]{0,%d})" % (_DIGITS_MAX, _DIGITS_MAX)).fullmatch
_content_range = re.compile(
    rb"bytes ([0-9]{1,%d})-([0-9]{1,%d})/([0-9]{1,%d}|\*)" % (_DIGITS_MAX, _DIGITS_MAX, _DIGITS_MAX), re.IGNORECASE
).fullmatch


@dataclass(frozen=True, slots=True)
class ContentRange:
    """The bytes `[first, end)` of a representation of `size` bytes; size is None if the sender did not know it."""

    first: int
    end: int
    size: int | None


def parse_range(value: bytes, size: int) -> list[tuple[int, int]] | None:
    """The satisfiable ranges of a Range field for a representation of `size` bytes, in the order requested.

    None: ignore the field and send everything, because it is invalid, in another unit, or lists more than 16 ranges
    (sections 14.1.1, 14.2). An empty list: no range is satisfiable, answer 416 (section 15.5.17). Overlapping
    ranges are merged, and all are sorted then (section 15.3.7.2): no byte is sent twice.
    """
    unit = _is_unit_bytes(value)
    if unit is None:
        return None
    specs = [spec for part in unit[1].split(b",") if (spec := part.strip(BLANKS))]
    if not 0 < len(specs) <= RANGES_MAX:
        return None
    ranges: list[tuple[int, int]] = []
    for spec in specs:
        found = _range_spec(spec)
        if found is None:
            return None
        if found[1]:
            first = int(found[1])
            end = int(found[2]) + 1 if found[2] else max(size, first + 1)
            if end <= first:  # the last byte precedes the first: invalid (section 14.1.1)
                return None
        elif found[2]:
            length = int(found[2])
            if length and not size:  # satisfiable, but not expressible in Content-Range (section 14.1.2)
                return None
            first, end = (max(size - length, 0), size) if length else (size, size)
        else:
            return None
        if first < size:
            ranges.append((first, min(end, size)))
    return _coalesced(ranges)


def single_range(value: bytes) -> tuple[int, int] | None:
    """What a Range field asks for that names one range, as offset and length, before the size is known.

    A negative offset counts back from the end; length 0 means to the end. None for any other field.
    """
    unit = _is_unit_bytes(value)
    found = _range_spec(unit[1].strip(BLANKS)) if unit is not None else None
    if found is None:
        return None
    first, last = int(found[1] or b"0"), int(found[2] or b"0")
    if not found[1]:
        return (-last, 0) if 0 < last < SIZE_LIMIT else None
    if first >= SIZE_LIMIT or (found[2] and last < first):
        return None
    return first, last + 1 - first if found[2] and last < SIZE_LIMIT else 0


def _coalesced(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    ascending = sorted(ranges)
    merged = ascending[:1]
    for first, end in ascending[1:]:
        last_first, last_end = merged[-1]
        if first < last_end:
            merged[-1] = (last_first, max(end, last_end))
        else:
            merged.append((first, end))
    return merged if len(merged) < len(ranges) else ranges


def content_range(first: int, end: int, size: int) -> bytes:
    """The Content-Range of bytes `[first, end)` (section 14.4)."""
    return b"bytes %d-%d/%d" % (first, end - 1, size)


def unsatisfied_range(size: int) -> bytes:
    """The Content-Range of a 416 response (section 14.4)."""
    return b"bytes */%d" % size


def parse_content_range(value: bytes) -> ContentRange | None:
    """The range of a single-part 206 response; None if the field is invalid, in another unit or without a range."""
    found = _content_range(value)
    if found is None:
        return None
    first, end = int(found[1]), int(found[2]) + 1
    size = None if found[3] == b"*" else int(found[3])
    if end <= first or (size is not None and size < end):  # section 14.4: to be ignored
        return None
    return ContentRange(first, end, size)


def multipart_parts(
    ranges: Sequence[tuple[int, int]], size: int, content_type: bytes | None, boundary: bytes
) -> tuple[list[tuple[bytes, int, int]], bytes, int]:
    """The framing of a multipart/byteranges body (section 14.6).

    Returns, for each range, the bytes to send before it and the range itself; the bytes to send after the last; and the
    total length. `boundary` is a token of at most 70 bytes that does not occur in the content.
    """
    kind = b"" if content_type is None else b"Content-Type: %s\r\n" % content_type
    parts: list[tuple[bytes, int, int]] = []
    length = 0
    for first, end in ranges:
        line_end = b"\r\n" if parts else b""
        head = b"%s--%s\r\n%sContent-Range: %s\r\n\r\n" % (
            line_end,
            boundary,
            kind,
            content_range(first, end, size),
        )
        parts.append((head, first, end))
        length += len(head) + end - first
    tail = b"\r\n--%s--\r\n" % boundary
    return parts, tail, length + len(tail)
