"""PartialStore: incomplete responses in the cache: beginnings of bodies whose rest has not come (RFC 9111 section 3.3).

One for a key at most, beside the object, where a purge of the key finds it too. Nothing here fails a fetch: what cannot
be kept is not kept, and what cannot be read is asked for once more.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.streams.transfer import TransferState
from webproxy.caching.partial import as_incomplete
from webproxy.caching.stored import StoredResponse
from webproxy.errors import CacheUnavailable
from webproxy.fetch.spool import SpooledPrefix
from webproxy.http.messages import RequestHead
from webproxy.store.fill import metadata_of
from webproxy.store.lookup import PART_SUFFIX, ObjectLookup, StoredHit
from webproxy.store.store import Missing, Store
from webproxy.store.updates import CacheUpdater

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
PIECE_BYTES = 1 << 20
"""So much is read at once: who takes it may wait in between, and holds no segment then."""


class PartialStore:
    """Shared by all fetches."""

    def __init__(self, store: Store, lookup: ObjectLookup, writer: CacheUpdater) -> None:
        self._store = store
        self._lookup = lookup
        self._writer = writer

    def find(self, key: bytes, request: RequestHead) -> StoredHit | None:
        """The incomplete response of a key; None also when the cache cannot be asked."""
        with contextlib.suppress(CacheUnavailable):
            return self._lookup.find_part(key, request, WAIT_SECONDS)
        return None

    def copy(self, part: StoredHit, offset: int, take: Callable[[memoryview], None]) -> int:
        """Give the next piece of its body to `take`, view by view; returns how many bytes that were.

        Raises:
            CacheUnavailable: it has left the cache, or cannot be read; a part of the piece may have been taken.
        """
        wanted, copied = min(PIECE_BYTES, part.size_bytes - offset), 0
        transfer = self._store.get(
            part.key, Deadline.after(WAIT_SECONDS), offset=offset, length=wanted, version=part.version
        )
        if isinstance(transfer, Missing):
            raise CacheUnavailable("an incomplete response has left the cache")
        with transfer:
            try:
                if transfer.facts[:2] != (part.size_bytes, part.version):
                    transfer.cancel_quietly()
                    raise CacheUnavailable("an incomplete response has left the cache")
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
            raise CacheUnavailable(f"{copied} of {wanted} bytes of an incomplete response could be read")
        return copied

    def keep(self, key: bytes, prefix: SpooledPrefix, stored: StoredResponse, size_bytes: int) -> bool:
        """Store the beginning of a body of `size_bytes` in place of the part before; waits for the cache."""
        fill = self._writer.make_fill(key + PART_SUFFIX, prefix)
        incomplete = as_incomplete(stored, size_bytes)
        fill.metadata_for = lambda _held: metadata_of(incomplete)(size_bytes)
        fill.set_size(prefix.written)
        fill.finish()
        if fill.stored:
            extra = {"key": key, "held_bytes": prefix.written, "size_bytes": size_bytes}
            log.info("partial response stored", extra=extra)
        return fill.stored

    def is_as_found(self, part: StoredHit) -> bool:
        """Whether the part is still there, unmarked if it was: what was purged must not come back in another object.

        One that was evicted, or cannot be asked for, counts as purged.
        """
        # Without the version: what was paused can be read by it for a while after it was removed.
        with contextlib.suppress(CacheUnavailable):
            facts = self._store.facts(part.key, Deadline.after(WAIT_SECONDS))
            if isinstance(facts, Missing):
                return False
            return facts.version == part.version and facts.invalidated <= part.stored.invalidated
        return False

    def drop(self, key: bytes) -> None:
        """Remove the part of a key: all of it is stored, or it is of no use any more."""
        self._writer.remove(key + PART_SUFFIX)
