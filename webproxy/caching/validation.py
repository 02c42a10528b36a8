"""PURE: validating a stored response, and updating it from the origin's response (RFC 9111 section 4.3)."""

from __future__ import annotations

from dataclasses import replace

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.caching.partial import CONTENT_DIGESTS
from webproxy.caching.storability import store_response, storing_refused
from webproxy.caching.stored import Selecting, StoredResponse
from webproxy.caching.validators import CONDITIONS, is_strong, last_modified_is_strong, strong_match, weak_match
from webproxy.caching.variants import selecting_fields
from webproxy.http.dates import format_http_date, parse_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead

# The client's own conditions are evaluated after the response, against the updated stored response. So is its Range: if
# the stored response turns out to be outdated, its replacement has to be complete.
_REQUEST_DROPPED = CONDITIONS | {b"if-range", b"range"}

# They describe the stored bytes, which other values would make unreadable (section 3.2 excludes them). Content-Type
# does not: a 304 may correct a wrong one.
_KEPT = CONTENT_DIGESTS | {b"content-encoding", b"content-length"}


def conditional_request(request_fields: Fields, stored: StoredResponse | None) -> Fields:
    """The fields of a request that validates `stored` by its ETag and Last-Modified (section 4.3.1).

    Without any validator it is an unconditional request, without the client's conditions and Range.
    """
    fields = request_fields.without(_REQUEST_DROPPED)
    own = stored.fields.get(b"etag") if stored else None
    if own:  # it is sent as received, well-formed or not: it is the origin's own
        fields = fields.with_line(b"If-None-Match", own)
    if stored:
        modified = stored.fields.get(b"last-modified")
        if modified and parse_http_date(modified, stored.response_time) is not None:
            fields = fields.with_line(b"If-Modified-Since", modified)
    return fields


def selects(not_modified: ResponseHead, stored: StoredResponse) -> bool:
    """True if a 304 selects this stored response, by the strongest validator in it (section 4.3.4).

    A strong ETag selects the same ETag, a weak one the same opaque tag; without an ETag, Last-Modified selects the same
    date. A strong ETag also selects its weak form if a Last-Modified that is strong on both sides agrees: nginx weakens
    the ETag of a response it compresses, but not in the 304. A 304 without any validator selects the stored response,
    because only one is validated at a time.
    """
    etag = not_modified.fields.get(b"etag")
    if etag is not None:
        own = stored.fields.get(b"etag") or b""
        if not is_strong(etag):
            return own == etag or weak_match(own, etag)
        return strong_match(own, etag) or (weak_match(own, etag) and _have_one_strong_date(not_modified, stored))
    modified = not_modified.fields.get(b"last-modified")
    return modified is None or modified == stored.fields.get(b"last-modified")


def _have_one_strong_date(not_modified: ResponseHead, stored: StoredResponse) -> bool:
    one, other = not_modified.fields, stored.fields
    return one.get(b"last-modified") == other.get(b"last-modified") and all(
        last_modified_is_strong(fields, stored.response_time) for fields in (one, other)
    )


def freshen(
    request: RequestHead,
    stored: StoredResponse,
    response: ResponseHead,
    *,
    request_time: float,
    response_time: float,
    options: CachingOptions = DEFAULT_OPTIONS,
) -> StoredResponse:
    """The stored response as updated by a 304 that selects it: new fields, times and lifetime (section 3.2).

    Each field of the 304 replaces the stored one, except those that describe the stored bytes and hop-by-hop fields.
    The result answers `request` in any case; may_keep() tells whether it may stay stored, since the 304 may contain
    `no-store`.
    """
    fields = _updated(stored.fields, response, response_time, options)
    freshened = store_response(
        ResponseHead(stored.status, fields, stored.reason),
        request_time=request_time,
        response_time=response_time,
        options=options,
        selecting=_selecting(request, stored, fields),
        body_bytes=stored.body_bytes,
    )
    return replace(freshened, incomplete=True) if stored.incomplete else freshened


def varies_otherwise(stored: StoredResponse, freshened: StoredResponse) -> bool:
    """True if a 304 or a HEAD has changed which requests select the stored response (section 4.1).

    It cannot remain stored for the requests it was stored for; and the response to one request cannot tell which others
    the body received for another one is valid for.
    """
    return stored.selecting != freshened.selecting


def may_keep(request: RequestHead, freshened: StoredResponse, options: CachingOptions = DEFAULT_OPTIONS) -> bool:
    """True if the result of freshen() may stay stored; otherwise it answers `request` only, and barred() is stored."""
    # The stored response came by GET, even if a HEAD validates it.
    head = ResponseHead(freshened.status, freshened.fields, freshened.reason)
    return not storing_refused(replace(request, method=b"GET"), head, freshened.response_time, options)


def barred(stored: StoredResponse) -> StoredResponse:
    """What stays stored if a 304 forbids to store its update; the body is still needed to answer the request.

    For all other requests it counts as `no-cache`: used only after another validation, and not while the origin cannot
    be reached. Nothing from the 304 is stored.
    """
    return replace(stored, lifetime_s=0, always_validate=True)


def head_update(
    request: RequestHead,
    stored: StoredResponse,
    response: ResponseHead,
    *,
    request_time: float,
    response_time: float,
    options: CachingOptions = DEFAULT_OPTIONS,
) -> StoredResponse | None:
    """The stored response as updated by a 200 to a HEAD that it could have answered (section 4.3.5).

    None if a validator or the Content-Length differs, or if the update may not be stored: the stored response is then
    stale and validated before its next use.
    """
    fields, own = response.fields, stored.fields
    if stored.status != 200:
        return None
    if any(name in fields and fields.get(name) != own.get(name) for name in (b"etag", b"last-modified")):
        return None
    if fields.get(b"content-length") not in (None, b"%d" % stored.body_bytes):
        return None
    updated = freshen(
        request, stored, response, request_time=request_time, response_time=response_time, options=options
    )
    return updated if may_keep(request, updated, options) else None


def _updated(own: Fields, response: ResponseHead, response_time: float, options: CachingOptions) -> Fields:
    # A cookie is for the client that triggered the validation, unless the operator shares cookies (storing_refused()).
    kept = _KEPT if options.store_set_cookie else _KEPT | {b"set-cookie"}
    if b"etag" in own:  # equal, or weak and must not become strong: the body may have another coding
        kept |= {b"etag"}
    new = end_to_end(response.fields).without(kept)
    if b"date" not in new:  # else its age would be computed from the previous Date
        new = new.with_line(b"Date", format_http_date(int(response_time)))
    return Fields((*own.without(new.names()).lines, *new.lines))


def _selecting(request: RequestHead, stored: StoredResponse, fields: Fields) -> Selecting:
    """Unchanged unless Vary has changed; for `*` it is empty, and may_keep() is False."""
    if fields.get(b"vary") == stored.fields.get(b"vary"):
        return stored.selecting
    return selecting_fields(fields, request) or ()
