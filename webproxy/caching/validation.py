"""PURE: asking the origin whether a stored response still holds, and what its answer makes of it (RFC 9111 4.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.caching.partial import CONTENT_DIGESTS
from webproxy.caching.storability import may_store, store_response
from webproxy.caching.stored import Selecting, StoredResponse
from webproxy.caching.validators import is_entity_tag, is_strong, last_modified_is_strong, strong_match, weak_match
from webproxy.caching.variants import selecting_fields
from webproxy.http.dates import format_http_date, parse_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead

# The client's own conditions are judged when the answer is there: against what it makes of the stored response. Its
# Range too: what comes when the stored response does not hold any more is to be whole, to take its place.
_REQUEST_DROPPED = (
    b"if-none-match",
    b"if-modified-since",
    b"if-match",
    b"if-unmodified-since",
    b"if-range",
    b"range",
)

CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))
"""Fields that a 304 can be the answer to."""

# The stored body was received by them: with other values it could not be read (section 3.2 lets them out). What the
# bytes are taken for is another thing: a Content-Type that was wrong is put right by a 304.
_KEPT = CONTENT_DIGESTS | {b"content-encoding", b"content-length"}


def conditional_request(request_fields: Fields, stored: StoredResponse | None, etags: Iterable[bytes] = ()) -> Fields:
    """The fields of a request that validates `stored`, and all variants that have these ETags (section 4.3.1).

    If-None-Match has the stored ETag first. If-Modified-Since is only there when nothing but `stored` is validated: a
    date could not say which of several still holds. With no validator at all it is a plain request, without the
    client's conditions and Range.
    """
    fields = request_fields.without(_REQUEST_DROPPED)
    own = stored.fields.get(b"etag") if stored else None
    others = [etag for etag in dict.fromkeys(etags) if etag != own and is_entity_tag(etag)]
    if others:
        listed = [own, *others] if own and is_entity_tag(own) else others
        return fields.with_line(b"If-None-Match", b", ".join(listed))
    if own:  # alone it goes as it came, well-formed or not: the origin made it
        fields = fields.with_line(b"If-None-Match", own)
    if stored:
        modified = stored.fields.get(b"last-modified")
        if modified and parse_http_date(modified, stored.response_time) is not None:
            fields = fields.with_line(b"If-Modified-Since", modified)
    return fields


def selects(not_modified: ResponseHead, stored: StoredResponse) -> bool:
    """True when a 304 means this stored response, by the strongest validator that it has (section 4.3.4).

    A strong ETag means the same one, a weak ETag the same opaque tag; without an ETag, Last-Modified means the same
    date. A strong ETag can also mean its weak form, where a date that is strong on both sides says so: nginx weakens
    the tag of what it compresses, but not in the 304. A 304 without any validator means the stored response when that
    was validated alone: the condition that it answers named no other. The caller sees to that: after a request with
    several ETags, such a 304 means nothing.
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
    """The stored response as a 304 that selects it updates it: new fields, times and lifetime (section 3.2).

    Each field of the answer takes the place of the stored one, but for those that frame and code the stored body and
    those of one connection. It answers `request` in any case; whether it may stay stored, may_keep() tells: the answer
    may have brought `no-store`.
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
    """True when a 304 or a HEAD has changed which requests the stored response is for (section 4.1).

    It cannot stay under the requests that it was stored for; and for which it is, the answer to one of them cannot tell
    of the body that another one brought.
    """
    return stored.selecting != freshened.selecting


def may_keep(request: RequestHead, freshened: StoredResponse, options: CachingOptions = DEFAULT_OPTIONS) -> bool:
    """True when what freshen() made may still be stored; otherwise it serves `request`, and barred() is what stays."""
    # What is stored came by GET, also when it is a HEAD that validates it.
    head = ResponseHead(freshened.status, freshened.fields, freshened.reason)
    return may_store(replace(request, method=b"GET"), head, freshened.response_time, options).store


def barred(stored: StoredResponse) -> StoredResponse:
    """What stays of a stored response when a 304 says that it may not be kept: its body serves who asked.

    To everybody else it is as if it had come with `no-cache`: after another validation only, and not while the origin
    cannot be reached. Nothing of the 304 is kept.
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
    """What a 200 to HEAD makes of a stored response that could have answered it (section 4.3.5).

    The updated one when all validators of the answer and its Content-Length are the stored ones; None when one
    differs, or it may not be kept any more: the stored response is stale then, and is validated before its next use.
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
    # A cookie is for the client whose request brought it, unless the operator shares them; storing asks the same.
    kept = _KEPT if options.store_set_cookie else _KEPT | {b"set-cookie"}
    if b"etag" in own:  # it is the same, or a weak one that must not become strong: the body may be another coding
        kept |= {b"etag"}
    new = end_to_end(response.fields).without(kept)
    if b"date" not in new:  # else its age would be counted from the Date of the response before it
        new = new.with_line(b"Date", format_http_date(int(response_time)))
    return Fields((*own.without(new.names()).lines, *new.lines))


def _selecting(request: RequestHead, stored: StoredResponse, fields: Fields) -> Selecting:
    """As it was, unless Vary is another now; for `*` it is empty, and may_keep() says no."""
    if fields.get(b"vary") == stored.fields.get(b"vary"):
        return stored.selecting
    return selecting_fields(fields, request) or ()
