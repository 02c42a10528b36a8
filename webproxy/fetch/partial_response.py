"""Partial responses: prefixes of bodies whose rest is missing (RFC 9111 section 3.3), in the cache and in a fetch.

`PartialStore` keeps at most one per key, beside the object, where a purge of the key finds it too. `PartialResponse` is
the one of a fetch's key: found, completed with the origin's bytes, or left behind by a fetch that broke off. Nothing
here fails a fetch: what cannot be stored is not stored, and what cannot be read is requested again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.streams.transfer import TransferState
from webproxy.caching.partial import Continuation, as_incomplete, continuation, is_rest, rest_request, shown_fields
from webproxy.caching.stored import StoredResponse
from webproxy.errors import CacheUnavailable
from webproxy.fetch.spool import SpooledPrefix
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.response_head import OriginResponse
from webproxy.store.fill import FillRequest, Fills
from webproxy.store.lookup import PART_SUFFIX, ObjectLookup, StoredHit
from webproxy.store.store import Missing, Store
from webproxy.store.updates import CacheUpdater

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
PIECE_BYTES = 1 << 20
"""How much is read at once: between two pieces the reader may wait, without holding a segment."""


class PartialStore:
    """The partial responses in a cache; shared by all fetches."""

    def __init__(self, store: Store, lookup: ObjectLookup, updates: CacheUpdater, fills: Fills) -> None:
        self._store = store
        self._lookup = lookup
        self._updates = updates
        self._fills = fills

    def find(self, key: bytes, request: RequestHead) -> StoredHit | None:
        """The partial response of a key; None also without a cache."""
        with contextlib.suppress(CacheUnavailable):
            return self._lookup.find_part(key, request, WAIT_SECONDS)
        return None

    def copy(self, part: StoredHit, offset: int, take: Callable[[memoryview], None]) -> int:
        """Pass the next piece of its body to `take`, view by view; returns the number of bytes.

        Raises:
            CacheUnavailable: it was evicted or cannot be read; part of the piece may have been passed.
        """
        wanted, copied = min(PIECE_BYTES, part.size_bytes - offset), 0
        transfer = self._store.get(
            part.key, Deadline.after(WAIT_SECONDS), offset=offset, length=wanted, version=part.version
        )
        if isinstance(transfer, Missing):
            raise CacheUnavailable("a partial response was evicted")
        with transfer:
            try:
                if transfer.facts[:2] != (part.size_bytes, part.version):
                    transfer.cancel_quietly()
                    raise CacheUnavailable("a partial response was evicted")
                while True:
                    with transfer.chunk as view:
                        copied += len(view)
                        take(view)
                    if transfer.last:
                        break
                    transfer.advance()
                complete = transfer.state is TransferState.COMPLETE
                transfer.finish()
            except ShmChannelError as error:
                raise CacheUnavailable(str(error)) from error
        if copied != wanted or not complete:
            raise CacheUnavailable(f"{copied} of {wanted} bytes of a partial response could be read")
        return copied

    def keep(self, key: bytes, prefix: SpooledPrefix, stored: StoredResponse, size_bytes: int) -> bool:
        """Store the prefix of a body of `size_bytes`, replacing an earlier one; waits for the cache."""
        request = FillRequest(key + PART_SUFFIX, as_incomplete(stored, size_bytes))
        is_kept = bool(self._fills.begin(request, prefix).finish())
        if is_kept:
            extra = {"key": key, "held_bytes": prefix.written, "size_bytes": size_bytes}
            log.info("partial response stored", extra=extra)
        return is_kept

    def is_as_found(self, part: StoredHit) -> bool:
        """Whether it is still there and not invalidated since: purged content must not return in another object.

        One that was evicted, or cannot be checked, counts as purged.
        """
        # Without the version: a paused object can be read by version for a while after it was removed.
        with contextlib.suppress(CacheUnavailable):
            facts = self._store.facts(part.key, Deadline.after(WAIT_SECONDS))
            if not isinstance(facts, Missing):
                return facts.version == part.version and facts.invalidated <= part.stored.invalidated
        return False

    def drop(self, key: bytes) -> None:
        """Remove the partial response of a key."""
        self._updates.remove(key + PART_SUFFIX)


class PartialResponse:
    """The partial response of one fetch's key. Used by the fetch's thread only.

    It builds the request for the rest and reads the stored bytes; the meaning of a response is the fetch's. Two things
    change: which one was found (none once a response has replaced it), and whether it is useless.
    """

    def __init__(
        self, partials: PartialStore, key: bytes, request: RequestHead, validates: StoredHit | None = None
    ) -> None:
        """`validates`: what the fetch validates first, a partial response or another one; then it is not looked up."""
        self._partials = partials
        self._key = key
        self._request = request
        self._has_looked = validates is not None
        self._found = validates if validates is not None and validates.stored.incomplete else None
        self._is_useless = False

    @property
    def held_bytes(self) -> int:
        """The number of bytes available; 0 without one."""
        return self._found.size_bytes if self._found is not None else 0

    @property
    def stored(self) -> StoredResponse:
        """The stored response of the one that look() has found."""
        assert self._found is not None
        return self._found.stored

    def look(self, now: float) -> bool:
        """Whether there is one whose rest can be requested. The cache is asked unless this is known."""
        if not self._has_looked:
            self._found = self._partials.find(self._key, self._request)
        return self._known(now) is not None

    def _known(self, now: float) -> Continuation | None:
        if self._found is None:
            return None
        stored = self._found.stored
        return continuation(stored.status, stored.fields, stored.body_bytes, now)

    def rest_of(self, fields: Fields, now: float) -> Fields:
        """The fields of a request for its rest, derived from those of a request for the whole."""
        known = self._known(now)
        return fields if known is None else rest_request(fields, known, self.held_bytes)

    def is_continued_by(self, response: OriginResponse, now: float) -> bool:
        """Whether a response is exactly its rest."""
        known = self._known(now)
        return known is not None and is_rest(
            known, self.held_bytes, response.status, response.fields, response.length, now
        )

    def copy(self, offset: int, take: Callable[[memoryview], None]) -> bool:
        """Pass the next piece of it to `take`; False if it is gone, part of the piece may then have been passed."""
        assert self._found is not None
        try:
            self._partials.copy(self._found, offset, take)
        except CacheUnavailable:
            return False
        return True

    def discard(self) -> None:
        """It is useless now, and is removed when the fetch is over."""
        self._is_useless = self._is_useless or self._found is not None
        self._found = None

    def is_as_found(self) -> bool:
        """Whether the cache still has it: checked before its completion is stored."""
        return self._found is not None and self._partials.is_as_found(self._found)

    def leave_behind(
        self, prefix: SpooledPrefix, stored: StoredResponse, size_bytes: int, *, began_with_it: bool
    ) -> None:
        """Store the prefix of a body of `size_bytes`, unless it began with a partial response that was purged."""
        is_sound = not began_with_it or self.is_as_found()
        if not (is_sound and self._partials.keep(self._key, prefix, stored, size_bytes)):
            self.clear(is_replaced=False)

    def clear(self, *, is_replaced: bool) -> None:
        """The fetch leaves no partial response: remove one that is useless, or that `is_replaced` by the whole."""
        if self._is_useless or (is_replaced and self._found is not None):
            self._partials.drop(self._key)


def whole_response(rest: OriginResponse, stored: StoredResponse) -> OriginResponse:
    """The head for readers in place of a 206's: that of the whole, with the fields it was combined to."""
    fields, length = shown_fields(stored, rest.fields), stored.body_bytes
    return replace(rest, status=stored.status, reason=stored.reason, fields=fields, length=length)
