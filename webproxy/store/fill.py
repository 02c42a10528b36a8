"""Fill: hand a body to the cache while it comes from the origin, without slowing the fetch or starving a hit.

The fill moves when bytes and a free segment are there. It holds segments, and a worker of the cache, so it gives way
when somebody waits for a segment, or when the origin or the cache lets it stand still: it is aborted, and begun anew
from the spool when the body is complete. Whatever goes wrong here costs no more than that the object is not stored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol

from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.objects.transfers import OutgoingTransfer
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import MetadataError, encode
from webproxy.errors import CacheUnavailable
from webproxy.store.store import Store
from webproxy.store.store_token import StoreToken

log = logging.getLogger(__name__)

FILL_SEGMENTS = 2
START_SECONDS = 2.0
YIELD_SECONDS = 0.1
LOOK_SECONDS = 1.0
STILL_SECONDS = 0.25


def metadata_of(stored: StoredResponse) -> Callable[[int], bytes]:
    """What a fill needs to write the metadata of a response as soon as it knows how long the body is.

    Raises MetadataError when that cannot be done, whatever the length.
    """
    encoded = encode(stored)
    return lambda size: encoded if size == stored.body_bytes else encode(replace(stored, body_bytes=size))


class Source(Protocol):
    """Where the body lies: a file whose first `written` bytes never change."""

    @property
    def fd(self) -> int:
        """The file; while nothing is written it may be none."""

    @property
    def written(self) -> int:
        """So many bytes are there."""


class Fill:
    """One object on its way into the cache; used by the fetch's thread only. No method raises for what a cache does."""

    def __init__(self, store: Store, key: bytes, spool: Source) -> None:
        self._store = store
        self.key = key
        """May still be changed until the size is set."""
        self._spool = spool
        self._size: int | None = None
        self._transfer: OutgoingTransfer | None = None
        self._next_look = self._moved_at = 0.0
        self._gave_way = False
        self.given_up = not store.keeps
        self.stored = False
        self.token = StoreToken()
        """The fetch's; the fill ends when it is withdrawn, and has not stored anything then."""
        self.metadata_for: Callable[[int], bytes] = lambda _: b""
        """The object's metadata, by its size in bytes; to be set before the size is."""
        self.confirm: Callable[[], bool] | None = None
        """Asked before the last chunk is handed over, when a cache that took one before it knows of the object (a purge
        finds it from then on); False drops it."""

    @property
    def position(self) -> int | None:
        """How much of the body the cache has got, or None when nothing is under way."""
        return self._transfer.position if self._transfer is not None else None

    @property
    def is_coming(self) -> bool:
        """True when the cache gets the body now, or will when it is complete."""
        if self.given_up or self._size is None:
            return False
        return self._transfer is not None or self._store.connected

    @property
    def chunk_bytes(self) -> int:
        """The fill moves in whole chunks, which are smaller than this."""
        return self._store.chunk_bytes

    def describe(self, stored: StoredResponse) -> None:
        """The object is the body of this response; it is given up when that is more than its metadata can hold."""
        try:
            self.metadata_for = metadata_of(stored)
        except MetadataError as error:
            log.info("object not stored", extra={"key": self.key, "reason": str(error)})
            self.given_up = True

    def set_size(self, size_bytes: int) -> None:
        """The body's length is known: the fill may begin."""
        self._size = size_bytes

    def pump(self) -> None:
        """Hand over what can be handed over now; never waits for the cache, except for room in its queue.

        The last chunk stays here until finish(): with it the cache would store the object.
        """
        if self.token.withdrawn:
            self.cancel()
        if self.given_up or self._size is None:
            return
        try:
            if self._transfer is None and self._may_begin() and self._cache_is_there():
                self._begin(segments_max=FILL_SEGMENTS, wait=False)
            if self._transfer is not None:
                self._pump(self._transfer)
        except (ShmChannelError, CacheUnavailable, OSError) as error:
            self._drop(error)

    def _may_begin(self) -> bool:
        """Whether there is a whole chunk to begin with: a small body goes in one go, when it is complete."""
        return not self._gave_way and self._handed_early(self._spool.written) >= self.chunk_bytes

    def _pump(self, transfer: OutgoingTransfer) -> None:
        position = transfer.position
        transfer.pump(self._read_into, self._handed_early(self._spool.written), wait=False)
        if transfer.refused:
            self.given_up = True
            transfer.commit()
            self._close()
        elif transfer.position != position:
            self._moved_at = monotonic()
        elif self._stands_still():
            self._let_go()

    def _stands_still(self) -> bool:
        return monotonic() - self._moved_at > STILL_SECONDS

    def _handed_early(self, available_bytes: int) -> int:
        """How much may be handed over before finish(): not the last chunk, which makes it an object."""
        assert self._size is not None
        return min(available_bytes, self._size - 1)

    def _cache_is_there(self) -> bool:
        """Whether a cache lives, looked at once a second: a lease for one that is absent would only be retired."""
        if monotonic() < self._next_look:
            return False
        self._next_look = monotonic() + LOOK_SECONDS
        return self._store.connected

    def yield_turn(self) -> None:
        """Let go of the segment that a hit waits for, and of the cache's worker that has nothing to do.

        The body is handed over when it is complete.
        """
        if self._transfer is None or self._transfer.complete:
            return
        if self._store.others_wait or self._stands_still():
            self._let_go()

    def _let_go(self) -> None:
        self._gave_way = True
        self._abort()

    def finish(self) -> None:
        """The body is complete in the spool: hand the rest over and wait for the commit."""
        if self.token.withdrawn:
            self.cancel()
        if self.given_up or self._size is None:
            return
        try:
            if self._transfer is None:
                if not self._store.connected:
                    return
                self._begin(segments_max=1, wait=True)
            transfer = self._transfer
            if transfer is None:
                return
            transfer.pump(self._read_into, self._handed_early(self._size), wait=True)
            if self.confirm is not None and not self.confirm():
                log.info("object not stored", extra={"key": self.key, "reason": "its source is gone"})
                self.cancel()
                return
            with self.token.use() as granted:
                if not granted:
                    self.cancel()
                    return
                transfer.pump(self._read_into, self._size, wait=True)
                self.stored = transfer.commit()
            if not self.stored:
                log.info("object not stored by the cache", extra={"key": self.key, "size_bytes": self._size})
            self._close()
        except (ShmChannelError, CacheUnavailable, OSError) as error:
            self._drop(error)

    def cancel(self) -> None:
        """The fetch is over: what is not complete by now will not be."""
        self.given_up = True
        if self._transfer is not None:
            self._abort()

    def _begin(self, *, segments_max: int, wait: bool) -> None:
        assert self._size is not None
        try:
            metadata = self.metadata_for(self._size)
        except MetadataError as error:
            log.info("object not stored", extra={"key": self.key, "reason": str(error)})
            self.given_up = True
            return
        deadline = Deadline.after(START_SECONDS)
        self._transfer = self._store.put(self.key, self._size, metadata, deadline, segments_max=segments_max, wait=wait)
        self._moved_at = monotonic()

    def _read_into(self, views: Sequence[memoryview], offset: int) -> int:
        return os.preadv(self._spool.fd, views, offset)

    def _abort(self) -> None:
        assert self._transfer is not None
        try:
            self._transfer.abort(YIELD_SECONDS)
        except ShmChannelError as error:
            log.debug("fill abandoned", extra={"key": self.key, "reason": str(error)})
        self._close()

    def _drop(self, error: Exception) -> None:
        log.debug("fill broken", extra={"key": self.key, "reason": str(error)})
        self.given_up = True
        self._close()

    def _close(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is None:
            return
        try:
            transfer.close()
        except ShmChannelError as error:  # no new segment in place of a retired one: the pool logs and tries again
            log.debug("fill left", extra={"key": self.key, "reason": str(error)})
