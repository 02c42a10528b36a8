"""PURE: what a shared cache may store (RFC 9111 section 3), and the value that it stores."""

from __future__ import annotations

from webproxy.caching.directives import ResponseDirectives, request_directives, response_directives
from webproxy.caching.freshness import HEURISTICALLY_CACHEABLE, NEGATIVE, corrected_initial_age, freshness_lifetime
from webproxy.caching.hop_by_hop import hop_by_hop_names
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.caching.stored import Selecting, StoredResponse
from webproxy.http.dates import format_http_date, parse_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, RequestHead, ResponseHead
from webproxy.http.syntax import split_list

UNDERSTOOD = frozenset((200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 410, 414, 501))
"""Statuses whose caching requirements are implemented here, for must-understand (section 5.2.2.3)."""

# Responses to the condition (304, 412), range (416), expectation (417), proxy (407) or connection (421, 425) of one
# request, which need not apply to another; and those that RFC 6585 forbids to store.
_OF_ONE_REQUEST = frozenset((304, 407, 412, 416, 417, 421, 425, 428, 429, 431, 511))


def storing_refused(
    request: RequestHead, response: ResponseHead, response_time: float, options: CachingOptions = DEFAULT_OPTIONS
) -> bytes:
    """Why the final response to this request may not be stored and sent to others (section 3); empty if it may.

    In a few words, for the `detail` of Cache-Status.

    A response with Set-Cookie is stored only if it has `public` or `s-maxage`, or if the operator says so: the RFC
    allows more (section 7.3), but a page that opens a session and lacks `private` by oversight would hand that session
    to everyone. Nor is a response stored that could never be used: stale from the start and without a validator.
    """
    directives = response_directives(response.fields, targeted_control=options.targeted_control)
    return (
        _refused_by_request(request)
        or _refused_by_status(response, directives)
        or _refused_by_directives(request, directives)
        or _refused_by_fields(response.fields, directives, options)
        or _refused_as_useless(response, directives, response_time, options)
    )


def takes_the_place(status: int) -> bool:
    """Whether a final response to GET, stored or not, shows what the origin now has: no older response may be served.

    A failure of the origin, a refusal of this particular request, and partial content do not.
    """
    return 200 <= status < 500 and status not in _OF_ONE_REQUEST and status not in (206, 408)


def is_personal(request: RequestHead) -> bool:
    """Whether the response may be meant for this user alone, although nothing in it says so."""
    return b"authorization" in request.fields or b"cookie" in request.fields


def is_common_failure(request: RequestHead, response: ResponseHead, options: CachingOptions = DEFAULT_OPTIONS) -> bool:
    """Whether the response is a failure that everybody would meet, stored or not: it may serve who waited for it.

    That is less than reuse: their requests had come before it. What forbids storing for the sake of a user holds.
    """
    status, directives = (
        response.status,
        response_directives(response.fields, targeted_control=options.targeted_control),
    )
    if (status not in NEGATIVE and not 500 <= status <= 599) or status in _OF_ONE_REQUEST:
        return False
    return not (
        _refused_by_request(request)
        or _refused_by_directives(request, directives)
        or _refused_by_fields(response.fields, directives, options)
    )


def _refused_by_request(request: RequestHead) -> bytes:
    if request.method != b"GET":
        return b"method"
    if has_content(request):
        return b"request has content"
    return b"request says no-store" if request_directives(request.fields).no_store else b""  # section 5.2.1.5


def has_content(request: RequestHead) -> bool:
    """True if the request has a body: the response may depend on it, but the key does not."""
    return request.framing is not Framing.NONE and (request.framing is not Framing.LENGTH or request.content_length > 0)


def _refused_by_status(response: ResponseHead, directives: ResponseDirectives) -> bytes:
    status = response.status
    if status < 200:
        return b"interim response"
    if status > 599:  # RFC 9110 section 15: invalid
        return b"status"
    if status in _OF_ONE_REQUEST:
        return b"status"
    if status == 206:
        return b"partial content"
    if directives.must_understand and status not in UNDERSTOOD:
        return b"status not understood"
    explicit = directives.public or directives.max_age is not None or directives.s_maxage is not None
    if not explicit and not directives.targeted:
        explicit = b"expires" in response.fields
    return b"" if explicit or status in HEURISTICALLY_CACHEABLE else b"no explicit freshness"


def _refused_by_directives(request: RequestHead, directives: ResponseDirectives) -> bytes:
    # must-understand, satisfied by the status at this point, overrides no-store (section 5.2.2.3).
    if directives.no_store and not directives.must_understand:
        return b"no-store"
    if directives.private:
        return b"private"
    if b"authorization" in request.fields:  # section 3.5
        shareable = directives.public or directives.must_revalidate or directives.s_maxage is not None
        return b"" if shareable else b"authorization"
    return b""


def _refused_by_fields(fields: Fields, directives: ResponseDirectives, options: CachingOptions) -> bytes:
    if b"*" in split_list(fields.get(b"vary") or b""):
        return b"vary *"  # no request can select it (section 4.1)
    if options.store_set_cookie or directives.public or directives.s_maxage is not None:
        return b""
    if b"set-cookie" in fields and b"set-cookie" not in _withheld_names(directives):
        return b"set-cookie"
    return b""


def _refused_as_useless(
    response: ResponseHead, directives: ResponseDirectives, response_time: float, options: CachingOptions
) -> bytes:
    if has_validator(response.fields, response_time):
        return b""
    if directives.no_cache:
        return b"no validator"
    if freshness_lifetime(response, directives, response_time, options).seconds > 0:
        return b""
    if not _is_never_stale(directives) and (
        directives.stale_while_revalidate or _stale_if_error_s(directives, options) > 0
    ):
        return b""
    return b"stale without validator"


def has_validator(fields: Fields, response_time: float) -> bool:
    """True if these fields allow a conditional request (section 4.3.1)."""
    if fields.get(b"etag"):
        return True
    modified = fields.get(b"last-modified")
    return modified is not None and parse_http_date(modified, response_time) is not None


def _withheld_names(directives: ResponseDirectives) -> frozenset[bytes]:
    """Fields that may not be reused without validation, or are for one user only: the others may be stored."""
    return directives.no_cache_fields | directives.private_fields  # sections 5.2.2.4 and 5.2.2.7


def _is_never_stale(directives: ResponseDirectives) -> bool:
    return directives.must_revalidate or directives.proxy_revalidate or directives.s_maxage is not None


def _stale_if_error_s(directives: ResponseDirectives, options: CachingOptions) -> int:
    return options.stale_if_error_default_s if directives.stale_if_error is None else directives.stale_if_error


def store_response(
    response: ResponseHead,
    *,
    request_time: float,
    response_time: float,
    options: CachingOptions = DEFAULT_OPTIONS,
    selecting: Selecting = (),
    body_bytes: int = 0,
) -> StoredResponse:
    """The value to store for a response that may be stored, or whose stored fields were updated by a 304.

    Dropped are hop-by-hop fields (section 3.1), fields withheld by `no-cache="..."` or `private="..."`, Age, which is
    computed from here on, and Content-Range, which has no meaning for a complete response (RFC 9110 section 14.4). Date
    is added if missing (section 6.6.1), and never changed.
    """
    fields = response.fields
    directives = response_directives(fields, targeted_control=options.targeted_control)
    lifetime = freshness_lifetime(response, directives, response_time, options)
    kept = fields.without(hop_by_hop_names(fields) | _withheld_names(directives) | {b"age", b"content-range"})
    if b"date" not in kept:
        kept = kept.with_line(b"Date", format_http_date(int(response_time)))
    return StoredResponse(
        status=response.status,
        fields=kept,
        reason=response.reason,
        request_time=request_time,
        response_time=response_time,
        initial_age_s=corrected_initial_age(fields, request_time, response_time),
        lifetime_s=0 if directives.no_cache else lifetime.seconds,
        heuristic=lifetime.heuristic,
        always_validate=directives.no_cache,
        never_stale=_is_never_stale(directives),
        stale_while_revalidate_s=directives.stale_while_revalidate or 0,
        stale_if_error_s=_stale_if_error_s(directives, options),
        selecting=selecting,
        body_bytes=body_bytes,
    )
