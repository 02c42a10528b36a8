"""FetchJob: one fetch from an origin into a spool and, chunk by chunk, into the cache; what getfile and HTTP share."""

from __future__ import annotations

import threading
from time import time

from webproxy.caching.continuation import AGAIN_MAY_HELP, Continuation, continuation, is_rest, rest_request
from webproxy.errors import OriginBadReply, OriginError
from webproxy.fetch.spool import Spool
from webproxy.http.fields import Fields
from webproxy.origin.client import Sink
from webproxy.origin.response_head import OriginResponse
from webproxy.store.fill import Fill
from webproxy.store.store_token import StoreToken


class FetchJob(Sink):
    """The sink of its own tries. A subclass says what is asked for and what the answer means."""

    def __init__(
        self, key: bytes, spool: Spool, stopping: threading.Event, *, tries: int, window_bytes: int, go_on_share: float
    ) -> None:
        """`go_on_share`: from this share of the body on, it is fetched for the cache though its readers have left."""
        self.key = key
        self.spool = spool
        self.tries = tries
        self.fill: Fill | None = None
        self.token = StoreToken()
        self._window_bytes = window_bytes
        self._go_on_share = go_on_share
        self._stopping = stopping
        self._length: int | None = None
        self._known: Continuation | None = None

    @property
    def object_key(self) -> bytes:
        """The key of the URL whose objects this fetch stores or changes."""
        return self.key

    @property
    def name(self) -> str:
        """What is fetched, for an error text."""
        raise NotImplementedError

    def attempt(self) -> None:
        """Try once, to the end of the answer, or of the rest of it where a try before broke off.

        Raises:
            OriginError: it failed; again may help when it says so, and `can_go_on`.
            OSError: the body cannot be spooled.
        """
        raise NotImplementedError

    # -- a body that broke off -----------------------------------------------------------------------------------
    @property
    def can_go_on(self) -> bool:
        """Whether another try can give the readers what they were told: nothing yet, or a body that can be resumed."""
        if not self.spool.answered:
            return True
        return self._known is not None and self.spool.written < self._known.size_bytes

    def note_head(self, response: OriginResponse) -> None:
        """The readers are told this head: remember what a later try must find to go on with its body."""
        self._known = continuation(response.status, response.fields, response.length, time())

    def rest_of(self, fields: Fields) -> Fields:
        """The fields of the next request: for all of it, or for the rest when the readers have had the beginning."""
        if not self.spool.answered or self._known is None:
            return fields
        return rest_request(fields, self._known, self.spool.written)

    def begin_rest(self, response: OriginResponse) -> None:
        """The head of the answer to a request for the rest has come.

        Raises:
            OriginError: it is not the rest of what the readers have; what they got is all that they get.
        """
        known, position = self._known, self.spool.written
        assert known is not None
        if not is_rest(known, position, response.status, response.fields, response.length, time()):
            raise OriginBadReply(
                f"{self.name}: status {response.status} is not the rest behind {position} bytes",
                status=response.status,
                retryable=response.status in AGAIN_MAY_HELP,
            )

    def check_whole(self) -> None:
        """The answer has ended; raises OriginError when the body is shorter than the readers were told."""
        if self._length is not None and self.spool.written < self._length:
            raise OriginBadReply(f"{self.name}: {self.spool.written} of {self._length} bytes", retryable=True)

    # -- the body ------------------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """Spool, fill, and wait when no reader follows."""
        if self._length is not None and self.spool.written + len(data) > self._length:
            raise OriginBadReply(f"{self.name}: more than the {self._length} bytes that were said")
        self.spool.write(data)
        self.keep_pace()

    def keep_pace(self) -> None:
        """Fill with what is spooled, and wait when no reader follows."""
        while True:
            if self.fill is not None:
                self.fill.pump()
            if not self.spool.answered:
                return
            if self.fill is None or self.fill.given_up:  # otherwise the fill may begin anew from the first byte
                self.spool.forget_read()
            position = self.fill.position if self.fill is not None else None
            window_bytes = self._window_bytes if self.fill is None else max(self._window_bytes, self.fill.chunk_bytes)
            if self.spool.lead(position) <= window_bytes or self._stopping.is_set() or self._nobody_takes():
                return
            self.spool.wait_reader()

    def _nobody_takes(self) -> bool:
        """True when neither a client nor the cache takes the body."""
        return not self.spool.wanted and (self.fill is None or self.fill.position is None)

    def idle(self) -> bool:
        """End the fetch when nobody wants it; a complete body is for the cache, also when its readers have left."""
        if self.fill is not None:
            self.fill.yield_turn()
        if self._stopping.is_set():
            return True
        if self.spool.written == self._length or self._worth_going_on():
            return False
        return self.spool.abandon()

    def _worth_going_on(self) -> bool:
        if self.fill is None or not self.fill.is_coming:
            return False
        return self._length is None or self.spool.written >= self._go_on_share * self._length

    @property
    def stored(self) -> bool:
        """True once the cache has the object."""
        return self.fill is not None and self.fill.stored

    def end(self, error: OriginError | None) -> None:
        """Leave the spool, first of all, so that who reads is told; then the cache."""
        self.spool.end(error)
        if self.fill is not None:
            self.fill.cancel()
