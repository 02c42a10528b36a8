"""PURE: resuming an interrupted body: what to request, and which response is its rest (RFC 9111 section 3.4).

The rest is requested with Range and If-Range (RFC 9110 section 13.1.5), so that an origin with a different
representation sends all of that. Its response is accepted only if everything matches: a wrong byte would be served to
everyone.
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
    validator = _strong_validator(fields, now)
    return None if validator is None else Continuation(fields, size_bytes, validator)


def rest_request(fields: Fields, known: Continuation, position: int) -> Fields:
    """The fields of a request for everything from `position` on, based on those of a request for the whole."""
    plain = fields.without((b"range", b"if-range"))
    return plain.with_line(b"Range", b"bytes=%d-" % position).with_line(b"If-Range", known.validator)


def is_rest(known: Continuation, position: int, status: int, fields: Fields, length: int | None, now: float) -> bool:
    """True if a response contains exactly the bytes of the body from `position` to its end.

    The validator alone is not trusted: some servers send a 206 of another content coding under the same ETag.
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
    """The fields of a combined response for its requester: also those of the rest that are not stored for others."""
    own = stored.fields
    dropped = {*own.names(), *CONTENT_DIGESTS, b"content-range", b"content-length"}
    return Fields((*own.lines, *end_to_end(rest).without(dropped).lines))


def _strong_validator(fields: Fields, now: float) -> bytes | None:
    etag = fields.get(b"etag")
    if etag is not None:
        return etag if is_strong(etag) else None
    return fields.get(b"last-modified") if last_modified_is_strong(fields, now) else None
