"""PartialResponse: the incomplete response of a fetch's key: found, continued from the origin, left behind.

It says what to ask for and reads what is there; what the answer means to the readers is the fetch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from webproxy.caching.continuation import Continuation, continuation, is_rest, rest_request, shown_fields
from webproxy.caching.storability import takes_the_place
from webproxy.caching.stored import StoredResponse
from webproxy.errors import CacheUnavailable
from webproxy.fetch.partial_store import PartialStore
from webproxy.fetch.spool import SpooledPrefix
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import StoredHit


class PartialResponse:
    """Used by the fetch's thread only."""

    def __init__(
        self,
        store: PartialStore,
        key: bytes,
        request: RequestHead,
        validates: StoredHit | None,
        *,
        is_absent: bool = False,
    ) -> None:
        """`validates`: what the fetch asks about first, an incomplete response or another one; there is no look-up.

        `is_absent`: it is known that there is none.
        """
        self._store = store
        self._key = key
        self._request = request
        self._found = validates if validates is not None and validates.stored.incomplete else None
        self._has_looked = is_absent or validates is not None
        self._known: Continuation | None = None
        self._is_useless = False

    @property
    def is_asked_for(self) -> bool:
        """Whether its rest is what the origin was asked for, or sends."""
        return self._known is not None

    @property
    def held_bytes(self) -> int:
        """How much of the body is there; 0 without a part."""
        return self._found.size_bytes if self._found is not None else 0

    def rest_of(self, fields: Fields, now: float) -> Fields:
        """The fields of a request for its rest; as they are when there is none. The cache is asked once."""
        if not self._has_looked:
            self._has_looked = True
            self._found = self._store.find(self._key, self._request)
        if self._found is None:
            return fields
        stored = self._found.stored
        self._known = continuation(stored.status, stored.fields, stored.body_bytes, now)
        return fields if self._known is None else rest_request(fields, self._known, self._found.size_bytes)

    def is_continued_by(self, response: OriginResponse, now: float) -> StoredResponse | None:
        """What is stored of it, when this answer is exactly its rest."""
        known, found = self._known, self._found
        if known is None or found is None:
            return None
        fits = is_rest(known, found.size_bytes, response.status, response.fields, response.length, now)
        return found.stored if fits else None

    def copy(self, offset: int, take: Callable[[memoryview], None]) -> bool:
        """Give the next piece of it to `take`; False when it is gone, a part of the piece may have been taken then."""
        assert self._found is not None
        try:
            self._store.copy(self._found, offset, take)
        except CacheUnavailable:
            return False
        return True

    def is_replaced_by(self, response: OriginResponse) -> None:
        """An answer has come that is not its rest: one that says what the origin has now makes it useless."""
        self._known = None
        if takes_the_place(response.status):
            self.forget()

    def drop(self) -> None:
        """It may not stay stored: remove it at the end, when it was read."""
        self._is_useless = self._is_useless or self._found is not None

    def forget(self) -> None:
        """It is of no use any more, and is removed at the end."""
        self.drop()
        self._known = self._found = None

    def is_as_found(self) -> bool:
        """Whether the cache still has it, or the body did not begin with it: asked before what it became is kept."""
        if self._found is None or self._known is None:
            return True
        return self._store.is_as_found(self._found)

    def leave_behind(self, prefix: SpooledPrefix, stored: StoredResponse, size_bytes: int) -> None:
        """Store what has come of a body of `size_bytes`, unless it began with a part that was purged since."""
        if not self.is_as_found() or not self._store.keep(self._key, prefix, stored, size_bytes):
            self.clear(is_complete=False)

    def clear(self, *, is_complete: bool) -> None:
        """The fetch is over, and leaves no part of its own: remove one that is of no use, or that is `is_complete`."""
        if self._is_useless or (is_complete and self._found is not None):
            self._store.drop(self._key)


def whole_response(rest: OriginResponse, stored: StoredResponse) -> OriginResponse:
    """The head that readers are told in place of a 206's: that of the whole, with what it was combined to."""
    fields, length = shown_fields(stored, rest.fields), stored.body_bytes
    return replace(rest, status=stored.status, reason=stored.reason, fields=fields, length=length)
