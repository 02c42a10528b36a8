"""What getfile stores and finds: metadata by which HTTP clients share its objects, and the variants it selects.

getfile itself ignores freshness: a stored object is served until it is purged or evicted. A response that varies must
not be stored at its key, which every request selects. getfile sends the same fields with every request, so it has one
variant of each object, shared with HTTP clients that send these fields too.
"""

from __future__ import annotations

import contextlib

from webproxy.caching.directives import response_directives
from webproxy.caching.options import CachingOptions
from webproxy.caching.storability import store_response, storing_refused
from webproxy.caching.stored import StoredResponse
from webproxy.caching.variants import selecting_fields
from webproxy.errors import CacheUnavailable
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead
from webproxy.origin.request import GETFILE_FIELDS
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import ObjectLookup, StoredHit
from webproxy.store.updates import WRITE_SECONDS, CacheUpdater, place_of

PLAIN_GET = RequestHead(b"GET", b"/", (1, 1), GETFILE_FIELDS)
"""A getfile request in terms of HTTP."""


def forbids_storing(response: OriginResponse, options: CachingOptions) -> bool:
    """Whether a 200 must not be stored for others at all (no-store, private)."""
    directives = response_directives(response.fields, targeted_control=options.targeted_control)
    # must-understand overrides no-store if the status is understood (RFC 9111 section 5.2.2.3), as 200 is.
    return directives.private or (directives.no_store and not directives.must_understand)


def stored_for_getfile(
    response: OriginResponse, request_time: float, response_time: float, options: CachingOptions
) -> StoredResponse:
    """The metadata of a 200.

    A response that varies becomes the variant for the fields of getfile's own request. A response that HTTP may not
    reuse for another reason gets no freshness and no validator here: an HTTP client's request goes to the origin.
    """
    head = ResponseHead(response.status, response.fields.without((b"content-length",)), response.reason)
    selecting = selecting_fields(response.fields, PLAIN_GET)
    if selecting is not None and not storing_refused(PLAIN_GET, head, response_time, options):
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


class GetfileVariants:
    """Shared by all threads."""

    def __init__(self, lookup: ObjectLookup, writer: CacheUpdater) -> None:
        self._lookup = lookup
        self._writer = writer

    def expects(self, key: bytes) -> bool:
        """Whether the key was seen to have variants: these are then looked up before the key itself."""
        return self._lookup.is_varying(key)

    def find(self, key: bytes, wait_s: float) -> StoredHit | None:
        """The variant of the key that getfile's request selects, if getfile can represent it.

        Raises:
            CacheUnavailable: no cache, or none that answers in time.
        """
        found = self._lookup.find_variant(key, PLAIN_GET, wait_s)
        if found is not None and found.stored.status != 200:
            found.cancel_quietly()
            return None
        return found

    def place(self, key: bytes, stored: StoredResponse) -> bytes | None:
        """The key for a response, as place_of()."""
        index = None
        if self._lookup.is_varying(key):
            with contextlib.suppress(CacheUnavailable):
                index = self._lookup.index_of(key, WRITE_SECONDS)
        return place_of(key, stored, PLAIN_GET, index)

    def enter(self, key: bytes, place: bytes, stored: StoredResponse) -> None:
        """The response is stored at `place`, as CacheUpdater.enter()."""
        self._writer.enter(key, place, stored, PLAIN_GET, had_index=self._lookup.is_varying(key))
