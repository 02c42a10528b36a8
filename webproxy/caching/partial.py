"""PURE: range requests answered from a stored response, and combining partial ones (RFC 9111 sections 3.3 and 3.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from webproxy.caching.stored import StoredResponse
from webproxy.caching.validators import if_range_holds, last_modified_is_strong, strong_match
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.http.ranges import parse_range


class RangeKind(Enum):
    """How a stored response answers a request."""

    WHOLE = "the whole response with its own status"
    ONE = "206 with one part"
    SEVERAL = "206 with multipart/byteranges"
    UNSATISFIABLE = "416"


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """The ranges to send, each [first, end) in bytes of the body; only for ONE and SEVERAL."""

    kind: RangeKind
    ranges: tuple[tuple[int, int], ...] = ()


CONTENT_DIGESTS: Final = frozenset((b"content-digest", b"content-md5"))
"""Fields that are valid for the content of one message only, unlike Repr-Digest (RFC 9530 section 2)."""
PART_BYTES_MIN: Final = 65_536
"""Fetching less than this again is cheaper than storing it."""

WHOLE: Final = RangeAnswer(RangeKind.WHOLE)
UNSATISFIABLE: Final = RangeAnswer(RangeKind.UNSATISFIABLE)


def answer_range(request: RequestHead, stored: StoredResponse, now: float) -> RangeAnswer:
    """How a complete stored response answers `request`, whose other conditions are already met.

    Range counts only in a GET, for a 200, and if If-Range holds (RFC 9110 sections 14.2, 13.1.5). A malformed or
    excessive one, or one in another unit, is ignored.
    """
    value = request.fields.get(b"range")
    if value is None or request.method != b"GET" or stored.status != 200 or not if_range_holds(request, stored, now):
        return WHOLE
    ranges = parse_range(value, stored.body_bytes)
    if ranges is None:
        return WHOLE
    if not ranges:
        return UNSATISFIABLE
    return RangeAnswer(RangeKind.ONE if len(ranges) == 1 else RangeKind.SEVERAL, tuple(ranges))


def part_fields(stored_fields: Fields) -> Fields:
    """The fields of a 206 made from a stored response: its own, except those valid only for the complete content."""
    names = stored_fields.names()
    return stored_fields if CONTENT_DIGESTS.isdisjoint(names) else stored_fields.without(CONTENT_DIGESTS)


def lies_within(answer: RangeAnswer, held_bytes: int) -> bool:
    """True if all ranges to send lie within the first `held_bytes`: an incomplete response suffices (section 3.3)."""
    return bool(answer.ranges) and max(end for _, end in answer.ranges) <= held_bytes


def is_worth_keeping(held_bytes: int, size_bytes: int) -> bool:
    """Whether a prefix of a body is worth storing as an incomplete response, provided that storing is allowed."""
    return PART_BYTES_MIN <= held_bytes < size_bytes


def as_incomplete(stored: StoredResponse, size_bytes: int) -> StoredResponse:
    """What is stored of a response whose body was received only in part (section 3.3).

    It is not served before the origin has confirmed it once: a purge during the fetch had nothing to remove yet. The
    confirmation restores its freshness.
    """
    return replace(
        stored,
        body_bytes=size_bytes,
        incomplete=True,
        always_validate=True,
        lifetime_s=0,
        heuristic=False,
        invalidated=False,
    )


def may_combine(one: Fields, other: Fields, now: float) -> bool:
    """True if partial responses with these fields belong to one representation (RFC 9111 section 3.4).

    They share a strong validator: the ETag or, if neither has one, a Last-Modified that is strong in both. The caller
    checks that their complete lengths agree and that there is no gap between them.
    """
    etag, other_etag = one.get(b"etag"), other.get(b"etag")
    if etag is not None or other_etag is not None:
        return strong_match(etag or b"", other_etag or b"")
    modified = one.get(b"last-modified")
    return (
        modified is not None
        and modified == other.get(b"last-modified")
        and last_modified_is_strong(one, now)
        and last_modified_is_strong(other, now)
    )
