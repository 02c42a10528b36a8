"""PURE: range requests answered from a stored response, and completing partial ones (RFC 9111 sections 3.3 and 3.4).

The rest of an interrupted body is requested with Range and If-Range (RFC 9110 section 13.1.5), so that an origin with a
different representation sends all of that. Its response is accepted only if everything matches: a wrong byte would be
served to everyone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validators import if_range_holds, strong_validator
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.http.ranges import ContentRange, parse_content_range, parse_range


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
    validator = strong_validator(one, now)
    return validator is not None and validator == strong_validator(other, now)


AGAIN_MAY_HELP: Final = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses that say nothing about the representation: the rest may be requested again."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What must be known about a body so that a later response can complete it."""

    fields: Fields
    """Of the response that the body started with."""
    size_bytes: int
    """The complete length."""
    validator: bytes
    """The value for If-Range: a strong ETag, or a Last-Modified that is a strong validator."""


def continuation(status: int, fields: Fields, size_bytes: int | None, now: float) -> Continuation | None:
    """What is needed to resume the body of this response after an interruption; None if it cannot be resumed.

    Only a 200 of known length with a strong validator can be. A date counts only without an ETag (RFC 9110 section
    13.1.5: a representation with a weak ETag may change without its date). `Accept-Ranges: none` is respected.
    """
    if status != 200 or size_bytes is None or (fields.get(b"accept-ranges") or b"").lower() == b"none":
        return None
    validator = strong_validator(fields, now)
    return None if validator is None else Continuation(fields, size_bytes, validator)


def rest_request(fields: Fields, known: Continuation, position: int, end: int | None = None) -> Fields:
    """The fields of a request for [position, end), by default to the end of the body, based on one for the whole."""
    plain = fields.without((b"range", b"if-range"))
    last = b"" if end in (None, known.size_bytes) else b"%d" % (end - 1)
    return plain.with_line(b"Range", b"bytes=%d-%s" % (position, last)).with_line(b"If-Range", known.validator)


def is_rest(
    known: Continuation,
    position: int,
    status: int,
    fields: Fields,
    length: int | None,
    now: float,
    end: int | None = None,
) -> bool:
    """True if a response contains exactly the bytes [position, end) of the body, by default to its end.

    The validator alone is not trusted: some servers send a 206 of another content coding under the same ETag.
    """
    if status != 206 or len(fields.get_all(b"content-range")) != 1:
        return False
    said = parse_content_range(fields.get(b"content-range") or b"")
    end = known.size_bytes if end is None else end
    if said != ContentRange(position, end, known.size_bytes):
        return False
    if length not in (None, end - position):
        return False
    if fields.get(b"content-encoding") != known.fields.get(b"content-encoding"):
        return False
    return may_combine(known.fields, fields, now)


def shown_fields(stored: StoredResponse, rest: Fields) -> Fields:
    """The fields of a combined response for its requester: also those of the rest that are not stored for others."""
    own = stored.fields
    dropped = {*own.names(), *CONTENT_DIGESTS, b"content-range", b"content-length"}
    return Fields((*own.lines, *end_to_end(rest).without(dropped).lines))
