"""Exchange: one getfile request from its path to the last byte. Acts on what cache and origin say.

Down these steps, in this order: cache, origin, error. After OK has been sent nothing can follow but content: a failure
in the body closes the connection short.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable

from shmchannel.client import IncomingTransfer
from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.transfer import TransferState
from webproxy.cachelink import CacheLink
from webproxy.client_stream import ClientStream, RateLimit
from webproxy.errors import BodyCutShort, CacheUnavailable, ClientGone, OriginError, Overloaded
from webproxy.fetches import Fetches
from webproxy.getfile import Status, Wire, ok_header, refusal
from webproxy.paths import normalised_path
from webproxy.spool import NotFound
from webproxy.steps import StepTimes

log = logging.getLogger(__name__)

STATUS_OF_ERROR: dict[type[Exception], Status] = {
    CacheUnavailable: Status.ERROR,
    OriginError: Status.ERROR,
    Overloaded: Status.ERROR,
}
"""What a client is told when it has been told nothing yet."""


class GetfileExchange:
    """Serves requests for many workers at once; keeps nothing of one."""

    def __init__(
        self,
        cache: CacheLink | None,
        fetches: Fetches | None,
        *,
        wire: Wire,
        deadline_s: float,
        queue_wait_s: float,
        client_limit: RateLimit,
        steps: StepTimes,
        stopping: Callable[[], bool],
    ) -> None:
        self._cache = cache
        self._fetches = fetches
        self._wire = wire
        # With an origin to go to, a slow cache is waited for only so long.
        self._cache_wait_s = deadline_s if fetches is None else min(deadline_s, queue_wait_s)
        self._client_limit = client_limit
        self._steps = steps
        self._stopping = stopping
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()

    def serve(self, fd: int, path: bytes) -> None:
        """Answer one request; never raises for what client, cache or origin do. The connection stays the caller's."""
        stream = ClientStream(fd, self._client_limit, self._stopping)
        try:
            outcome = self._serve(stream, normalised_path(path))
        except tuple(STATUS_OF_ERROR) as error:
            outcome = "error"
            log.info("request failed", extra={"path": path, "reason": str(error)})
            status = next(status for kind, status in STATUS_OF_ERROR.items() if isinstance(error, kind))
            with contextlib.suppress(ClientGone):
                stream.send_all(refusal(status, self._wire))
        except ClientGone:
            outcome = "client gone"
        except BodyCutShort as error:
            outcome = "cut short"
            log.warning("body cut short", extra={"path": path, "reason": str(error), "sent_bytes": stream.sent_bytes})
        with self._lock:
            self._outcomes[outcome] += 1

    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        with self._lock:
            return dict(self._outcomes)

    def _serve(self, stream: ClientStream, key: bytes) -> str:
        if self._cache is not None:
            deadline = Deadline.after(self._cache_wait_s)
            try:
                transfer = self._cache.get(key, deadline)
            except CacheUnavailable:
                if self._fetches is None:
                    raise
            else:
                outcome = self._answer_from_cache(stream, key, transfer)
                if outcome is not None:
                    return outcome
        if self._fetches is None:
            stream.send_all(refusal(Status.FILE_NOT_FOUND, self._wire))
            return "not found"
        return self._answer_from_origin(stream, key, self._fetches)

    # -- from the cache ------------------------------------------------------------------------------------------
    def _answer_from_cache(self, stream: ClientStream, key: bytes, transfer: IncomingTransfer) -> str | None:
        """Send the hit; None for a miss (or an unreadable object, when the origin can be asked)."""
        with transfer:
            if not transfer.found:
                transfer.finish()
                if transfer.state is TransferState.FAILED and self._fetches is None:
                    raise CacheUnavailable("the cache cannot read the object")
                return None
            stream.send_header(ok_header(transfer.facts.size_bytes, self._wire))
            sent = stream.send_memory(transfer.address, transfer.length)
            if sent == transfer.length and transfer.last:
                transfer.finish()
            else:
                left_at = self._send_rest(stream, transfer, sent, 0)
                if left_at is not None:
                    version = transfer.facts.version
                    transfer.close()
                    self._resume(stream, key, left_at, version, transfer.facts.size_bytes)
        if self._steps.enabled:
            self._steps.mark("send")
        return "hit"

    def _send_rest(self, stream: ClientStream, transfer: IncomingTransfer, sent: int, offset: int) -> int | None:
        """Send from the current chunk (of which `sent` bytes went out) to the end; `offset` is where that chunk begins.

        Returns None when all went out, or the offset at which a slow client was left: its segments are free then.

        Raises:
            BodyCutShort: the cache failed in mid-body.
        """
        while True:
            if sent < transfer.length:
                sent += stream.send_memory(transfer.address + sent, transfer.length - sent)
            if sent < transfer.length:
                return self._leave(transfer, offset + sent)
            if transfer.last:
                break
            offset += sent
            try:
                transfer.advance()
            except ShmChannelError as error:
                raise BodyCutShort(str(error)) from error
            sent = 0
        state = transfer.state
        transfer.finish()
        if state is not TransferState.COMPLETE:
            raise BodyCutShort("the cache could not read the object to its end")
        return None

    def _leave(self, transfer: IncomingTransfer, offset: int) -> int:
        """The client is slow: give the segments back; the rest is asked for again when it can take more."""
        try:
            if transfer.last:
                transfer.finish()
            else:
                transfer.cancel()
        except ShmChannelError as error:
            log.debug("cancel failed", extra={"reason": str(error)})  # retired, which costs nothing but new segments
        return offset

    def _resume(self, stream: ClientStream, key: bytes, offset: int, version: int, size: int) -> None:
        """Go on from `offset` whenever the slow client takes data, with a new transfer of the same version each time."""
        assert self._cache is not None
        position: int | None = offset
        while position is not None and position < size:
            stream.wait_writable()
            try:
                transfer = self._cache.get(key, Deadline.after(self._cache_wait_s), offset=position, version=version)
            except CacheUnavailable as error:
                raise BodyCutShort(str(error)) from error
            with transfer:
                if not transfer.found:
                    transfer.finish()
                    raise BodyCutShort("the object changed or left the cache while its client was slow")
                position = self._send_rest(stream, transfer, 0, position)

    # -- from the origin -----------------------------------------------------------------------------------------
    def _answer_from_origin(self, stream: ClientStream, key: bytes, fetches: Fetches) -> str:
        reader = fetches.open(key)
        try:
            answer = reader.wait_answer()
            if isinstance(answer, NotFound):
                stream.send_all(refusal(Status.FILE_NOT_FOUND, self._wire))
                return "not found"
            stream.send_header(ok_header(answer.length, self._wire))
            while reader.position < answer.length:
                available = reader.wait_available()
                if available <= 0:
                    raise BodyCutShort("the origin's body ended before its length")
                sent = stream.send_file(reader.fd, reader.position, available)
                if sent:
                    reader.advance(sent)
                else:
                    stream.wait_writable()
            return "fetched"
        finally:
            reader.close()
