"""PURE: how a body that broke off goes on: what is asked for, and which answer is its rest (RFC 9111 section 3.4).

The rest is asked for with Range and If-Range (RFC 9110 section 13.1.5), so that an origin which has something else by
now sends all of that. What it answers is believed only when everything fits: one wrong byte would be everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.partial import CONTENT_DIGESTS, may_combine
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validators import is_strong, last_modified_is_strong
from webproxy.http.fields import Fields
from webproxy.http.ranges import ContentRange, parse_content_range

AGAIN_MAY_HELP: Final = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses that say nothing of the representation: it may be asked for its rest once more."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What must be known of a body so that a later answer can be its rest."""

    fields: Fields
    """Of the response that it began with."""
    size_bytes: int
    """The complete length."""
    validator: bytes
    """What If-Range says: a strong ETag, or a Last-Modified that is strong."""


def continuation(status: int, fields: Fields, size_bytes: int | None, now: float) -> Continuation | None:
    """What a response says of how its body could go on after a break; None when it could not.

    It takes a 200 of known length with a strong validator. A date counts only without any ETag (RFC 9110 section
    13.1.5: what has a weak one may change without its date). An origin that says `Accept-Ranges: none` is believed.
    """
    if status != 200 or size_bytes is None or (fields.get(b"accept-ranges") or b"").lower() == b"none":
        return None
    validator = _strong_validator(fields, now)
    return None if validator is None else Continuation(fields, size_bytes, validator)


def rest_request(fields: Fields, known: Continuation, position: int) -> Fields:
    """The fields of a request for what follows `position` bytes, made of those of a request for all of it."""
    plain = fields.without((b"range", b"if-range"))
    return plain.with_line(b"Range", b"bytes=%d-" % position).with_line(b"If-Range", known.validator)


def is_rest(known: Continuation, position: int, status: int, fields: Fields, length: int | None, now: float) -> bool:
    """True when an answer brings exactly what follows `position` bytes of the body, up to its end.

    The validator alone is not trusted: a 206 of another coding under the same ETag is a fault that servers do have.
    """
    if status != 206 or len(fields.get_all(b"content-range")) != 1:
        return False
    said = parse_content_range(fields.get(b"content-range") or b"")
    if said != ContentRange(position, known.size_bytes, known.size_bytes):
        return False
    if length not in (None, known.size_bytes - position):
        return False
    if fields.get(b"content-encoding") != known.fields.get(b"content-encoding"):
        return False
    return may_combine(known.fields, fields, now)


def shown_fields(stored: StoredResponse, rest: Fields) -> Fields:
    """The fields of a combined response for who asked for it: also what its rest has, and is not stored for others."""
    own = stored.fields
    dropped = {*own.names(), *CONTENT_DIGESTS, b"content-range", b"content-length"}
    return Fields((*own.lines, *end_to_end(rest).without(dropped).lines))


def _strong_validator(fields: Fields, now: float) -> bytes | None:
    etag = fields.get(b"etag")
    if etag is not None:
        return etag if is_strong(etag) else None
    return fields.get(b"last-modified") if last_modified_is_strong(fields, now) else None
