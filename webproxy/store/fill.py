"""CacheFill: hand a body to the cache while it comes from the origin, without slowing the fetch or starving a hit.

Theory of operation
===================

A fill holds segments, and a worker of the cache, so it may only hold them while bytes move:

    EARLY    the body is coming. Once a whole chunk is there, segments are free and a cache lives, a PUT begins, and
             pump() hands over whatever is there. A small body never gets that far: it goes in one piece at the end.
    LATE     the PUT was aborted, because somebody waited for a segment, or because the origin or the cache let it
             stand still. It begins anew from the spool when the body is complete.
    OVER     stored, refused, revoked or broken: nothing is handed over any more.

The last chunk is never handed over before finish(), because with it the cache makes an object of what it has. Between
the two lies the place where a purge can still stop it: finish() asks for the token, and holds it until the cache has
answered. What the object was made of (a partial response) is looked at before the last chunk, and after a chunk that
the cache has taken, so that it knows of the object: a purge finds either the one or the other.

No method raises for what a cache does. Whatever goes wrong here costs no more than that the object is not stored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from time import monotonic
from typing import Final, Protocol, TypeAlias

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, ShmChannelError
from shmchannel.objects.transfers import OutgoingTransfer
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import MetadataError, encode
from webproxy.errors import CacheUnavailable
from webproxy.store.store import NoStore, OneStore, Store

log = logging.getLogger(__name__)

FILL_SEGMENTS = 2
START_SECONDS = 2.0
_NO_CACHE = b"no cache connected"
YIELD_SECONDS = 0.1
LOOK_SECONDS = 1.0
STILL_SECONDS = 0.25


class Source(Protocol):
    """The source of the body, whose first `written` bytes never change."""

    def read_into(self, views: Sequence[memoryview], offset: int) -> int:
        """Read from the offset on; returns how many bytes. As os.preadv()."""
        ...

    @property
    def written(self) -> int:
        """The number of bytes available."""


class Ingredient(Protocol):
    """What an object is made of, apart from the origin's bytes."""

    def is_as_found(self) -> bool:
        """Whether it may still be stored in another object."""


class StoreToken:
    """Permission of a fetch to change stored objects, revoked by a purge.

    A fetch whose request was sent before a purge brings the content that the purge was meant to remove. The fetch
    continues for its readers, but the purge must be certain that nothing of it is stored, not merely that the fetch
    will learn of it in time. Therefore the fetch stores only within `use()`, and `revoke()` returns once that is over.
    One for each fetch: used by the fetch's thread, revoked by any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._is_revoked = False
        self._in_use = False

    @property
    def revoked(self) -> bool:
        """True from revoke() on."""
        return self._is_revoked

    @contextmanager
    def use(self) -> Iterator[bool]:
        """True if something may be stored inside the block; a revocation waits for its end."""
        granted = self.begin_use()
        try:
            yield granted
        finally:
            self.end_use()

    def begin_use(self) -> bool:
        """As use(), up to end_use()."""
        with self._lock:
            self._in_use = not self._is_revoked
            return self._in_use

    def end_use(self) -> None:
        """Nothing more is stored; may be called twice."""
        with self._lock:
            self._in_use = False
            if self._is_revoked:  # otherwise nobody waits
                self._change.notify_all()

    def revoke(self, limit_s: float) -> bool:
        """Nothing is stored from now on. Waits for a store in progress; False if that does not end in time."""
        with self._change:
            self._is_revoked = True
            return self._change.wait_for(lambda: not self._in_use, max(0.0, limit_s))


@dataclass(frozen=True, slots=True)
class FillRequest:
    """The object to store."""

    key: bytes
    stored: StoredResponse
    """Its `body_bytes` counts for an incomplete response only: a complete one has as many as have arrived."""
    size_bytes: int | None = None
    """None: as many as have arrived at the end."""
    token: StoreToken = field(default_factory=StoreToken)
    made_of: Ingredient | None = None
    fetched_under: int = 0
    """The number of the lease under which it was fetched, if any."""


class _Phase(Enum):
    EARLY = "handed over as it arrives"
    LATE = "handed over when it is complete"
    OVER = "stored, or not going to be"


class CacheFill:
    """One object being stored in the cache; used by one thread at a time, but any may look at `position`."""

    def __init__(self, store: OneStore, request: FillRequest, source: Source) -> None:
        self.chunk_bytes = store.chunk_bytes
        """The fill proceeds in whole chunks, which are smaller than this."""
        self._store = store
        self._request = request
        self._source = source
        self._size = request.size_bytes
        self._phase = _Phase.EARLY
        self._transfer: OutgoingTransfer | None = None
        self._is_bound = self._is_handed = False
        self._next_look = self._moved_at = 0.0
        self._refusal = b""
        self._metadata = self._encode()
        most = store.object_bytes_max
        if most is not None and self._size is not None and self._size > most:
            self._refuse(b"object too large", f"{self._size} bytes, and the cache stores at most {most}")

    def _refuse(self, refusal: bytes, reason: str) -> None:
        log.info("object not stored", extra={"key": self._request.key, "reason": reason})
        self._refusal = refusal
        self._phase = _Phase.OVER

    @property
    def position(self) -> int | None:
        """How much of the body the cache has received, or None if no PUT is under way."""
        transfer = self._transfer  # once: the thread that asks is not always the one that ends the PUT
        return transfer.position if transfer is not None else None

    @property
    def is_coming(self) -> bool:
        """Whether the cache receives the body now, or will once it is complete."""
        if self.given_up or self._size is None:
            return False
        return self._transfer is not None or self._store.connected

    @property
    def given_up(self) -> bool:
        """Whether the cache no longer needs the spool."""
        return self._phase is _Phase.OVER

    @property
    def may_begin_anew(self) -> bool:
        """Whether it may need all of the body once more."""
        return not (self._is_bound or self.given_up)

    @property
    def needs_from(self) -> int | None:
        """The first byte of the body that is still needed; None if the cache no longer needs it."""
        if self.given_up:
            return None
        return (self.position or 0) if self._is_bound else 0

    def bind(self) -> None:
        """Need nothing twice, because the spools are full: the PUT under way does not begin anew, and none begins."""
        if not self.given_up and self._transfer is None:
            self._refuse(b"spools full", "no room to spool it until the cache takes it")
        self._is_bound = True

    def drop(self, refusal: bytes, reason: str) -> None:
        """The body cannot be kept for the cache."""
        if not self.given_up:
            self._refuse(refusal, reason)
            self.cancel()

    @property
    def refusal(self) -> bytes:
        """Why nothing will be stored, as far as known, for Cache-Status; empty if nothing prevents it."""
        return self._refusal or (b"" if self._store.connected else _NO_CACHE)

    def pump(self) -> None:
        """Hand over what is available; never waits for the cache, except for space in its queue.

        The last chunk stays here until finish(): with it the cache would store the object.
        """
        if self._request.token.revoked:
            self.cancel()
        if self.given_up or self._size is None:
            return
        handed_early = self._handed_early(self._source.written)
        try:
            if self._transfer is None and self._may_begin(handed_early):
                self._begin(segments_max=FILL_SEGMENTS, wait=False)
            if self._transfer is not None:
                self._pump(self._transfer, handed_early)
        except (ShmChannelError, CacheUnavailable, OSError) as error:
            self._break(error)

    def _may_begin(self, handed_early: int) -> bool:
        """Whether there is a whole chunk to begin with, and a living cache.

        The latter is checked once a second: a lease for an absent cache would only be retired.
        """
        if self._phase is _Phase.LATE or handed_early < self.chunk_bytes or monotonic() < self._next_look:
            return False
        self._next_look = monotonic() + LOOK_SECONDS
        return self._store.connected

    def _pump(self, transfer: OutgoingTransfer, handed_early: int) -> None:
        position = transfer.position
        transfer.pump(self._read_into, handed_early, wait=False)
        if transfer.refused:
            self._phase = _Phase.OVER
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

    def yield_turn(self) -> None:
        """Release the segment that a hit waits for, or the cache's worker that has nothing to do.

        The body is handed over when it is complete.
        """
        if self._transfer is None or self._transfer.complete:
            return
        if self._store.others_wait or self._stands_still():
            self._let_go()

    def _let_go(self) -> None:
        self._phase = _Phase.OVER if self._is_bound else _Phase.LATE
        self._abort()

    def finish(self, limit_s: float | None = None) -> bool | None:
        """The body is complete: hand over the rest and wait for the cache; True if it has stored the object.

        With a limit it waits for nothing but the cache's last answer, and for that no longer. If there is none by then,
        or if it would have to wait for anything else, None: then it is to be called again, without a limit.
        """
        try:
            if not self._is_handed:
                is_handed = self._hand_over(wait=limit_s is None)
                if not is_handed:
                    return is_handed
            return self._await_answer(limit_s)
        except (ShmChannelError, CacheUnavailable, OSError) as error:
            self._break(error)
            return False

    def _hand_over(self, *, wait: bool) -> bool | None:
        """All that is left, with the token in use from then on; False if nothing will be stored, None as finish()."""
        request = self._request
        if request.token.revoked:
            self.cancel()
        if self.given_up:
            return False
        if self._size is None:
            self._size = self._source.written
            self._metadata = self._encode()
        if self._transfer is None and not self.given_up and self._store.connected:
            is_small = self._size < self.chunk_bytes  # with a second segment nothing has to be taken before it goes
            self._begin(segments_max=FILL_SEGMENTS if is_small else 1, wait=wait)
            if self._transfer is None and not wait:
                return None
        transfer = self._transfer
        if transfer is None:
            return False
        transfer.pump(self._read_into, self._handed_early(self._size), wait=wait)
        if request.made_of is not None and not request.made_of.is_as_found():
            log.info("object not stored", extra={"key": request.key, "reason": "its source is gone"})
            self.cancel()
            return False
        if not request.token.begin_use():
            self.cancel()
            return False
        self._is_handed = True
        transfer.pump(self._read_into, self._size, wait=wait)
        if not transfer.answered:  # the last chunk is still here
            self._end_use()
            return None
        return True

    def _await_answer(self, limit_s: float | None) -> bool | None:
        transfer, request = self._transfer, self._request
        assert transfer is not None
        try:
            stored = transfer.commit(limit_s)
        except ChannelTimeout:
            if limit_s is None:
                raise
            return None
        self._end_use()
        if not stored:
            extra = {"key": request.key, "size_bytes": self._size, "reason": "refused by the cache"}
            log.info("object not stored", extra=extra)
        self._phase = _Phase.OVER
        self._close()
        return stored

    def cancel(self) -> None:
        """The fetch is over: an incomplete body stays incomplete."""
        self._phase = _Phase.OVER
        if self._transfer is not None:
            self._abort()
        self._end_use()

    def _end_use(self) -> None:
        """A purge need not wait for it any longer."""
        if self._is_handed:
            self._is_handed = False
            self._request.token.end_use()

    def _begin(self, *, segments_max: int, wait: bool) -> None:
        assert self._size is not None
        self._transfer = self._store.put(
            self._request.key,
            self._size,
            self._metadata,
            Deadline.after(START_SECONDS),
            segments_max=segments_max,
            wait=wait,
            fetched_under=self._request.fetched_under,
        )
        self._moved_at = monotonic()

    def _encode(self) -> bytes:
        """The metadata for the size known by now; if they are too long, nothing is stored."""
        stored = self._request.stored
        if self._size is not None and not stored.incomplete and stored.body_bytes != self._size:
            stored = replace(stored, body_bytes=self._size)
        try:
            return encode(stored)
        except MetadataError as error:
            self._refuse(b"fields too long", str(error))
            return b""

    def _read_into(self, views: Sequence[memoryview], offset: int) -> int:
        return self._source.read_into(views, offset)

    def _abort(self) -> None:
        assert self._transfer is not None
        try:
            self._transfer.abort(YIELD_SECONDS)
        except ShmChannelError as error:
            log.debug("fill abandoned", extra={"key": self._request.key, "reason": str(error)})
        self._close()

    def _break(self, error: Exception) -> None:
        log.debug("fill broken", extra={"key": self._request.key, "reason": str(error)})
        self._phase = _Phase.OVER
        self._close()
        self._end_use()

    def _close(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is None:
            return
        try:
            transfer.close()
        except ShmChannelError as error:  # no new segment in place of a retired one: the pool logs and tries again
            log.debug("fill left", extra={"key": self._request.key, "reason": str(error)})


class NoFill:
    """As CacheFill, but stores nothing."""

    position: None = None
    needs_from: None = None
    may_begin_anew = False
    is_coming = False
    given_up = True
    chunk_bytes = 0
    refusal = _NO_CACHE

    def pump(self) -> None:
        """Nothing is handed over."""

    def bind(self) -> None:
        """Nothing is needed."""

    def drop(self, _refusal: bytes, _reason: str) -> None:
        """Nothing is needed."""

    def yield_turn(self) -> None:
        """Nothing is held."""

    def finish(self, _limit_s: float | None = None) -> bool | None:
        """Nothing is stored."""
        return False

    def cancel(self) -> None:
        """There is nothing to be cancelled."""


NO_FILL: Final = NoFill()
Fill: TypeAlias = CacheFill | NoFill


class Fills:
    """Begins fills of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, request: FillRequest, source: Source) -> Fill:
        """A fill from a source that may still be empty."""
        store = self._store.of(request.key)
        return NO_FILL if isinstance(store, NoStore) else CacheFill(store, request, source)
