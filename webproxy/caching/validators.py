"""PURE: validators of a stored response, and conditions of a request that are judged by them (RFC 9110 section 13).

A cache judges If-None-Match, If-Modified-Since and If-Range. If-Match and If-Unmodified-Since are for the origin
(RFC 9111 section 4.3.2). A cache may ignore them, but clients resume downloads with them: what the stored response
meets is served, and what it does not meet is left to the origin, which may have something else by now.
"""

from __future__ import annotations

import re
from enum import Enum

from webproxy.caching.stored import StoredResponse
from webproxy.http.dates import parse_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead

_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since"))
_TAG = rb'(?:W/)?"[!#-~\x80-\xff]*"'
_is_tag = re.compile(_TAG).fullmatch
_is_tag_list = re.compile(rb"[ \t,]*(?:%s[ \t]*(?:,[ \t,]*|$))+" % _TAG).fullmatch
_find_tags = re.compile(_TAG).findall

# What a 200 says about its body: a 304 has none, and would only overwrite what the client knows (RFC 9110 section
# 15.4.5). Content-Location stays, and so does all that is not about the representation: cookies, CORS, policies.
_REPRESENTATION = frozenset(
    (
        b"accept-ranges",
        b"content-digest",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"repr-digest",
    )
)


class Condition(Enum):
    """What the conditions of a request make of a stored response that could answer it."""

    PROCEED = "send it, or the part that Range asks for"
    NOT_MODIFIED = "304: the client has it"
    ASK_ORIGIN = "it fails a condition that only the origin may judge: pass the request on as it is"


PROCEED, NOT_MODIFIED, ASK_ORIGIN = Condition


def is_strong(etag: bytes) -> bool:
    """True for a well-formed entity tag that is not weak (RFC 9110 section 8.8.3)."""
    return etag[:1] == b'"' and _is_tag(etag) is not None


def is_entity_tag(etag: bytes) -> bool:
    """True for a well-formed entity tag, strong or weak."""
    return _is_tag(etag) is not None


def strong_match(one: bytes, other: bytes) -> bool:
    """Strong comparison: both strong, and the same (RFC 9110 section 8.8.3.2)."""
    return one == other and is_strong(one)


def weak_match(one: bytes, other: bytes) -> bool:
    """Weak comparison: the same opaque tag, whichever is weak (RFC 9110 section 8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/") and is_entity_tag(one)


def evaluate_conditions(request: RequestHead, stored: StoredResponse, now: float) -> Condition:
    """What the conditions of a GET or HEAD make of a stored response, fresh or just validated.

    In the order of RFC 9110 section 13.2.2. Only an answer that would be a success without them is subject to them
    (section 13.2.1). Range comes after this: partial.answer_range().
    """
    fields = request.fields
    if _CONDITIONS.isdisjoint(fields.names()) or not 200 <= stored.status <= 299:
        return PROCEED
    if not _origin_conditions_hold(fields, stored, now):
        return ASK_ORIGIN
    if_none_match = fields.get(b"if-none-match")
    if if_none_match is not None:  # If-Modified-Since is not looked at then, section 13.1.3
        return NOT_MODIFIED if _lists(if_none_match, stored.fields.get(b"etag"), weak=True) else PROCEED
    since = _date(fields, b"if-modified-since", now)
    if since is None:
        return PROCEED
    return NOT_MODIFIED if _modified(stored, now) <= since else PROCEED


def if_range_holds(request: RequestHead, stored: StoredResponse, now: float) -> bool:
    """True when Range may be heeded: there is no If-Range, or its validator is strong and the stored one's.

    A date must be the stored Last-Modified, byte for byte, and that must be a strong validator (RFC 9110 section
    13.1.5). Anything else, several values also, does not hold: the whole is sent.
    """
    value = request.fields.get(b"if-range")
    if value is None:
        return True
    if b'"' in value:
        return strong_match(value, stored.fields.get(b"etag") or b"")
    return value == stored.fields.get(b"last-modified") and last_modified_is_strong(stored.fields, now)


def last_modified_is_strong(fields: Fields, now: float) -> bool:
    """True when a response's Last-Modified is at least one second before its Date (RFC 9110 section 8.8.2.2).

    A representation that changes twice in one second has one Last-Modified for both; then the origin could not yet
    have sent the first with a later Date.
    """
    modified, date = _date(fields, b"last-modified", now), _date(fields, b"date", now)
    return modified is not None and date is not None and date >= modified + 1


def not_modified_fields(stored_fields: Fields) -> Fields:
    """The fields of a 304 in place of a stored response: its own but those about the body (RFC 9110 section 15.4.5).

    Last-Modified goes with a response that has an ETag, for it is the weaker of two validators.
    """
    dropped = _REPRESENTATION | {b"last-modified"} if b"etag" in stored_fields else _REPRESENTATION
    return stored_fields.without(dropped)


def _origin_conditions_hold(fields: Fields, stored: StoredResponse, now: float) -> bool:
    if_match = fields.get(b"if-match")
    if if_match is not None:  # If-Unmodified-Since is not looked at then, section 13.1.4
        return _lists(if_match, stored.fields.get(b"etag"), weak=False)
    limit = _date(fields, b"if-unmodified-since", now)
    if limit is None:
        return True
    modified = _date(stored.fields, b"last-modified", now)
    return modified is not None and modified <= limit


def _lists(value: bytes, etag: bytes | None, *, weak: bool) -> bool:
    """True when `*`, or a list of entity tags with the stored one in it."""
    if value == b"*":
        return True
    if not etag:
        return False
    if value == etag:  # an ETag that is none, say without quotes, can still be handed back as it was
        return weak or is_strong(etag)
    if _is_tag_list(value) is None:
        return False
    match = weak_match if weak else strong_match
    return any(match(etag, listed) for listed in _find_tags(value))


def _modified(stored: StoredResponse, now: float) -> float:
    """When it was last modified, as far as is known: Last-Modified, else Date, else when it came (RFC 9111 4.3.2)."""
    modified = _date(stored.fields, b"last-modified", now)
    if modified is None:
        modified = _date(stored.fields, b"date", now)
    return stored.response_time if modified is None else modified


def _date(fields: Fields, name: bytes, now: float) -> int | None:
    value = fields.get(name)
    return None if value is None else parse_http_date(value, now)
