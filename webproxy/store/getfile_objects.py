"""PURE: the metadata of objects stored by getfile, so that HTTP clients share them by the rules of HTTP.

getfile itself ignores freshness: a stored object is served until it is purged or evicted.
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
"""A getfile request in terms of HTTP."""


def stored_for_getfile(
    response: OriginResponse, request_time: float, response_time: float, options: CachingOptions
) -> StoredResponse | None:
    """The metadata; None if the object must not be stored for others at all (no-store, private).

    A response that varies becomes the variant for the fields of getfile's own request. A response that HTTP may not
    reuse for another reason gets no freshness and no validator here: an HTTP client's request goes to the origin.
    """
    directives = response_directives(response.fields, targeted_control=options.targeted_control)
    # must-understand overrides no-store if the status is understood (RFC 9111 section 5.2.2.3), as 200 is.
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
