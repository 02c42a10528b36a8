"""PURE: what is kept beside an object that getfile fills, so that HTTP clients share it by the rules of HTTP.

getfile itself knows no freshness: what is stored serves until it is purged or evicted.
"""

from __future__ import annotations

from webproxy.caching.directives import response_directives
from webproxy.caching.options import CachingOptions
from webproxy.caching.storability import may_store, store_response
from webproxy.caching.stored import StoredResponse
from webproxy.caching.variants import selecting_fields
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead
from webproxy.origin.request import GETFILE_FIELDS
from webproxy.origin.response_head import OriginResponse

PLAIN_GET = RequestHead(b"GET", b"/", (1, 1), GETFILE_FIELDS)
"""What a getfile request is in HTTP's words."""


def stored_for_getfile(
    response: OriginResponse, request_time: float, response_time: float, options: CachingOptions
) -> StoredResponse | None:
    """What is kept beside the body; None when the object is not to be kept for others at all (no-store, private).

    An answer that varies is the variant for the fields that getfile's own request has. What HTTP may not reuse for
    another reason is never fresh and has no validator here: an HTTP client's request asks the origin anew.
    """
    directives = response_directives(response.fields, targeted_control=options.targeted_control)
    # must-understand puts no-store out of force where the status is understood (RFC 9111 section 5.2.2.3), as 200 is.
    if directives.private or (directives.no_store and not directives.must_understand):
        return None
    head = ResponseHead(response.status, response.fields.without((b"content-length",)), response.reason)
    selecting = selecting_fields(response.fields, PLAIN_GET)
    if may_store(PLAIN_GET, head, response_time, options).store and selecting is not None:
        return store_response(
            head, request_time=request_time, response_time=response_time, options=options, selecting=selecting
        )
    return StoredResponse(
        status=200,
        fields=Fields(),
        request_time=request_time,
        response_time=response_time,
        initial_age_s=0,
        lifetime_s=0,
        always_validate=True,
    )
