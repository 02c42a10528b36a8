"""PURE: validators of a stored response, and evaluating a request's conditions against them (RFC 9110 section 13).

A cache evaluates If-None-Match, If-Modified-Since and If-Range. If-Match and If-Unmodified-Since are for the origin
(RFC 9111 section 4.3.2). A cache may ignore those, but clients resume downloads with them: if the stored response meets
the condition it is served, otherwise the origin decides, which may have a newer representation.
"""

from __future__ import annotations

import re
from enum import Enum

from webproxy.caching.stored import StoredResponse
from webproxy.http.dates import parse_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead

CACHE_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))
"""Conditions that a cache evaluates, and that a 304 can be the response to."""
CONDITIONS = CACHE_CONDITIONS | {b"if-match", b"if-unmodified-since"}
"""All conditions. If-Range is not one: it only qualifies Range (RFC 9110 section 13.1.5)."""

_TAG = rb'(?:W/)?"[!#-~\x80-\xff]*"'
_is_tag = re.compile(_TAG).fullmatch
_is_tag_list = re.compile(rb"[ \t,]*(?:%s[ \t]*(?:,[ \t,]*|$))+" % _TAG).fullmatch
_find_tags = re.compile(_TAG).findall

# Fields that describe the body: a 304 has none, and would only overwrite what the client has (RFC 9110 section 15.4.5).
# Content-Location stays, as does everything not about the representation: cookies, CORS, policies.
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
    """The result of evaluating a request's conditions against a stored response."""

    PROCEED = "send it, or the requested range"
    NOT_MODIFIED = "answer 304: the client has it"
    ASK_ORIGIN = "a condition fails that only the origin may evaluate: pass the request through"


PROCEED, NOT_MODIFIED, ASK_ORIGIN = Condition


def is_strong(etag: bytes) -> bool:
    """True for a well-formed strong entity tag (RFC 9110 section 8.8.3)."""
    return etag[:1] == b'"' and _is_tag(etag) is not None


def is_entity_tag(etag: bytes) -> bool:
    """True for a well-formed entity tag, strong or weak."""
    return _is_tag(etag) is not None


def strong_match(one: bytes, other: bytes) -> bool:
    """Strong comparison: both strong and equal (RFC 9110 section 8.8.3.2)."""
    return one == other and is_strong(one)


def weak_match(one: bytes, other: bytes) -> bool:
    """Weak comparison: equal opaque tags, weak or not (RFC 9110 section 8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/") and is_entity_tag(one)


def evaluate_conditions(request: RequestHead, stored: StoredResponse, now: float) -> Condition:
    """Evaluate the conditions of a GET or HEAD against a stored response that is fresh or has just been validated.

    In the order of RFC 9110 section 13.2.2. Only responses that would be successful without them are subject to
    conditions (section 13.2.1). Range is evaluated afterwards, by partial.answer_range().
    """
    fields = request.fields
    if CONDITIONS.isdisjoint(fields.names()) or not 200 <= stored.status <= 299:
        return PROCEED
    if not _origin_conditions_hold(fields, stored, now):
        return ASK_ORIGIN
    if_none_match = fields.get(b"if-none-match")
    if if_none_match is not None:  # If-Modified-Since is ignored then, section 13.1.3
        return NOT_MODIFIED if _lists(if_none_match, stored.fields.get(b"etag"), weak=True) else PROCEED
    since = _date(fields, b"if-modified-since", now)
    if since is None:
        return PROCEED
    return NOT_MODIFIED if _modified(stored, now) <= since else PROCEED


def if_range_holds(request: RequestHead, stored: StoredResponse, now: float) -> bool:
    """True if Range may be honoured: there is no If-Range, or it contains the stored validator, and that is strong.

    A date must equal the stored Last-Modified byte for byte, and that must be a strong validator (RFC 9110 section
    13.1.5). Anything else, including multiple values, is False: the whole representation is sent.
    """
    value = request.fields.get(b"if-range")
    if value is None:
        return True
    if b'"' in value:
        return strong_match(value, stored.fields.get(b"etag") or b"")
    return value == stored.fields.get(b"last-modified") and last_modified_is_strong(stored.fields, now)


def last_modified_is_strong(fields: Fields, now: float) -> bool:
    """True if a response's Last-Modified is at least one second before its Date (RFC 9110 section 8.8.2.2).

    Two changes within one second share a Last-Modified, but a response sent between them has the same second in Date.
    """
    modified, date = _date(fields, b"last-modified", now), _date(fields, b"date", now)
    return modified is not None and date is not None and date >= modified + 1


def strong_validator(fields: Fields, now: float) -> bytes | None:
    """A response's ETag if it is strong; without an ETag, its Last-Modified if that is strong; else None.

    A representation with a weak ETag may change without its date (RFC 9110 section 13.1.5).
    """
    etag = fields.get(b"etag")
    if etag is not None:
        return etag if is_strong(etag) else None
    return fields.get(b"last-modified") if last_modified_is_strong(fields, now) else None


def not_modified_fields(stored_fields: Fields) -> Fields:
    """The fields of a 304 for a stored response: its own, except those about the body (RFC 9110 section 15.4.5).

    Last-Modified is dropped as well if there is an ETag, the stronger validator.
    """
    dropped = _REPRESENTATION | {b"last-modified"} if b"etag" in stored_fields else _REPRESENTATION
    return stored_fields.without(dropped)


def _origin_conditions_hold(fields: Fields, stored: StoredResponse, now: float) -> bool:
    if_match = fields.get(b"if-match")
    if if_match is not None:  # If-Unmodified-Since is ignored then, section 13.1.4
        return _lists(if_match, stored.fields.get(b"etag"), weak=False)
    limit = _date(fields, b"if-unmodified-since", now)
    if limit is None:
        return True
    modified = _date(stored.fields, b"last-modified", now)
    return modified is not None and modified <= limit


def _lists(value: bytes, etag: bytes | None, *, weak: bool) -> bool:
    """True for `*`, or a list of entity tags that contains the stored one."""
    if value == b"*":
        return True
    if not etag:
        return False
    if value == etag:  # even a malformed ETag, say without quotes, may be returned as it was
        return weak or is_strong(etag)
    if _is_tag_list(value) is None:
        return False
    match = weak_match if weak else strong_match
    return any(match(etag, listed) for listed in _find_tags(value))


def _modified(stored: StoredResponse, now: float) -> float:
    """The best known modification time: Last-Modified, else Date, else the time of receipt (RFC 9111 section 4.3.2)."""
    modified = _date(stored.fields, b"last-modified", now)
    if modified is None:
        modified = _date(stored.fields, b"date", now)
    return stored.response_time if modified is None else modified


def _date(fields: Fields, name: bytes, now: float) -> int | None:
    value = fields.get(name)
    return None if value is None else parse_http_date(value, now)
