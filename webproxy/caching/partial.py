"""PURE: what a range request gets of a stored response, and which parts belong together (RFC 9111 3.3 and 3.4)."""

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
    """How much of a stored response answers a request."""

    WHOLE = "all of it, with its own status"
    ONE = "206 with one part"
    SEVERAL = "206 with multipart/byteranges"
    UNSATISFIABLE = "416"


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """The parts to send, each [first, end) in bytes of the body; there are some for ONE and SEVERAL only."""

    kind: RangeKind
    ranges: tuple[tuple[int, int], ...] = ()


CONTENT_DIGESTS: Final = frozenset((b"content-digest", b"content-md5"))
"""Fields that are right for the content of one message only, unlike Repr-Digest (RFC 9530 section 2)."""
PART_BYTES_MIN: Final = 65_536
"""What is shorter is asked for again sooner than it is kept."""

WHOLE: Final = RangeAnswer(RangeKind.WHOLE)
UNSATISFIABLE: Final = RangeAnswer(RangeKind.UNSATISFIABLE)


def answer_range(request: RequestHead, stored: StoredResponse, now: float) -> RangeAnswer:
    """What of a complete stored response answers `request`, whose other conditions hold already.

    Range counts only for GET, for a 200, and when If-Range holds (RFC 9110 sections 14.2, 13.1.5); one that is
    malformed, of another unit or excessive is as if it were not there.
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
    """The fields of a 206 made of a stored response: its own but those that are right for all of it only."""
    names = stored_fields.names()
    return stored_fields if CONTENT_DIGESTS.isdisjoint(names) else stored_fields.without(CONTENT_DIGESTS)


def lies_within(answer: RangeAnswer, held_bytes: int) -> bool:
    """True when the parts to send all lie in the first `held_bytes`: an incomplete response may give them (3.3)."""
    return bool(answer.ranges) and max(end for _, end in answer.ranges) <= held_bytes


def is_worth_keeping(held_bytes: int, size_bytes: int) -> bool:
    """Whether the beginning of a body is stored as an incomplete response, if the rules of storing allow it."""
    return PART_BYTES_MIN <= held_bytes < size_bytes


def as_incomplete(stored: StoredResponse, size_bytes: int) -> StoredResponse:
    """What is stored of a response of which only the beginning has come (section 3.3).

    It serves nobody before its origin has confirmed it once: a purge that came while it was fetched had nothing to
    remove yet. The confirmation brings its freshness back.
    """
    return replace(
        stored,
        body_bytes=size_bytes,
        incomplete=True,
        always_validate=True,
        lifetime_s=0,
        heuristic=False,
        marked=False,
    )


def may_combine(one: Fields, other: Fields, now: float) -> bool:
    """True when parts of responses with these fields are parts of one representation (RFC 9111 section 3.4).

    They share a strong validator: the ETag, and where neither has one, Last-Modified when it is strong in both.
    That they have the same complete length, and that together they leave no gap, is for the caller to see.
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
