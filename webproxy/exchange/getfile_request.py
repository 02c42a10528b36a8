"""Exchange: one getfile request from its path to the last byte. Acts on what cache and origin say.

Down these steps, in this order: cache, origin, error. After OK has been sent nothing can follow but content: a failure
in the body closes the connection short.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from shmchannel.deadline import Deadline
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Ticket
from webproxy.errors import BodyCutShort, CacheUnavailable, ClientGone, OriginError, Overloaded
from webproxy.exchange.body_transfer import BodyTransfer, LongRequest, Pause
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.fetch.spool import BodyFound, BodyMissing, SpoolReader
from webproxy.getfile import Status, Wire, ok_header, refusal
from webproxy.http.urls import normalised_path
from webproxy.store.getfile_variants import GetfileVariants
from webproxy.store.store import Missing, Store
from webproxy.telemetry.failures import RequestFailures
from webproxy.telemetry.outcomes import Outcomes
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit

log = logging.getLogger(__name__)

STATUS_OF_ERROR: dict[type[Exception], Status] = {
    CacheUnavailable: Status.ERROR,
    OriginError: Status.ERROR,
    Overloaded: Status.ERROR,
}
"""What a client is told when it has been told nothing yet."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A response that stopped before its end, and why."""

    response: BodyTransfer
    why: Pause


class GetfileRequestHandler:
    """Serves requests for many workers at once; keeps nothing of one."""

    def __init__(
        self,
        store: Store,
        variants: GetfileVariants,
        fetches: GetfileFetches,
        *,
        wire: Wire,
        cache_wait_s: float,
        client_limit: RateLimit,
        steps: LatencyBreakdown,
        stopping: Callable[[], bool],
        others_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._variants = variants
        self._peek = store.peek
        self._fetches = fetches
        self._wire = wire
        self._cache_wait_s = cache_wait_s
        self._client_limit = client_limit
        self._steps = steps
        self._stopping = stopping
        self._others_wait = others_wait
        self._outcomes = Outcomes()
        self.failures = RequestFailures()

    def serve_long(self, request: LongRequest) -> Paused | LongRequest | None:
        """Answer a request that has waited for its place; as serve()."""
        try:
            return self.serve(request.fd, request.path, request)
        finally:
            if request.ticket is not None:
                request.ticket.leave()

    def serve(self, fd: int, path: bytes, waited: LongRequest | None = None) -> Paused | LongRequest | None:
        """Answer one request; never raises for what client, cache or origin do. The connection stays the caller's.

        Returns None when the client has got its answer, or what is left of it for a later resume(), or the request for
        serve_long(), when it has waited.
        """
        key = normalised_path(path)
        entry = self._peek(key)
        if entry is not None and entry.file is None:
            return self._ended(self._answer_from_hot_table(fd, entry.body))
        if waited is None and self._store.should_enqueue(key):
            return LongRequest(fd, path)
        stream = ClientStream(fd, self._client_limit, self._stopping)
        outcome: str | Paused
        try:
            outcome = self._serve(stream, key, waited.ticket if waited is not None else None)
        except tuple(STATUS_OF_ERROR) as error:
            outcome = "error"
            self.failures.note(path, error)
            status = next(status for kind, status in STATUS_OF_ERROR.items() if isinstance(error, kind))
            with contextlib.suppress(ClientGone):
                stream.send_all(refusal(status, self._wire))
        except ClientGone:
            outcome = "client gone"
        except BodyCutShort as error:
            outcome = self._cut_short(path, error)
        return self._ended(outcome)

    def resume(self, response: BodyTransfer) -> Paused | None:
        """Go on with a paused response; as serve()."""
        outcome: str | Paused
        try:
            outcome = self._go_on(response)
        except ClientGone:
            outcome = "client gone"
        except BodyCutShort as error:
            outcome = self._cut_short(response.key, error)
        return self._ended(outcome)

    def _ended(self, outcome: str | Paused) -> Paused | None:
        if isinstance(outcome, Paused):
            return outcome
        self._outcomes.note(outcome)
        return None

    def _cut_short(self, path: bytes, error: BodyCutShort) -> str:
        log.warning("body cut short", extra={"path": path, "reason": str(error)})
        return "cut short"

    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        return self._outcomes.totals()

    def _serve(self, stream: ClientStream, key: bytes, ticket: Ticket | None) -> str | Paused:
        asked_at = monotonic()
        try:
            outcome = self._look_up(stream, key, ticket)
        except CacheUnavailable:
            if not self._fetches.has_origin(key):  # the cache may have it: nobody can say that there is no such file
                raise
        else:
            if outcome is not None:
                return outcome
        if not self._fetches.has_origin(key):
            stream.send_all(refusal(Status.FILE_NOT_FOUND, self._wire))
            return "not found"
        reader = self._fetches.open(key, asked_at)
        if reader is None:  # filled since: the cache has it now
            return self._serve(stream, key, ticket)
        return self._answer_from_origin(stream, reader)

    def _answer_from_hot_table(self, fd: int, body: bytes) -> str:
        """Send a small hit, nearly always with one call: it fits a socket's buffer."""
        reply = ok_header(len(body), self._wire) + body
        try:
            sent = sockets.send(fd, reply)
            if sent != len(reply):
                ClientStream(fd, self._client_limit, self._stopping).send_all(reply[sent:])
        except ClientGone:
            return "client gone"
        if self._steps.enabled:
            self._steps.mark("send")
        return "hit"

    # -- from the cache ------------------------------------------------------------------------------------------
    def _look_up(self, stream: ClientStream, key: bytes, ticket: Ticket | None) -> str | Paused | None:
        """Send what the cache has for the key, or the variant that getfile's request selects; None for a miss.

        Raises:
            CacheUnavailable: it cannot be asked; the client has been told nothing.
        """
        varies = self._variants.expects(key)
        outcome = self._answer_from_variant(stream, key) if varies else None
        if outcome is None:
            transfer = self._store.get(key, Deadline.after(self._cache_wait_s), ticket=ticket)
            outcome = self._answer_from_cache(stream, key, transfer)
        if outcome is None and not varies and self._fetches.has_origin(key):
            outcome = self._answer_from_variant(stream, key)
        return outcome

    def _answer_from_variant(self, stream: ClientStream, key: bytes) -> str | Paused | None:
        found = self._variants.find(key, self._cache_wait_s)
        if found is None:
            return None
        if found.body is not None:
            return self._answer_from_hot_table(stream.fd, found.body)
        transfer, found.transfer = found.transfer, None
        found.cancel_quietly()
        if transfer is None:  # its file is open already; chunks come as from any object
            return self._answer_from_cache(
                stream, found.key, self._store.get(found.key, Deadline.after(self._cache_wait_s))
            )
        return self._answer_from_cache(stream, found.key, transfer)

    def _answer_from_cache(
        self, stream: ClientStream, key: bytes, transfer: IncomingTransfer | Missing
    ) -> str | Paused | None:
        """Send the hit; None for a miss (or an unreadable object, when the origin can be asked)."""
        if isinstance(transfer, Missing):
            if transfer.unreadable and not self._fetches.has_origin(key):
                raise CacheUnavailable("the cache cannot read the object")
            return None
        with transfer:
            size, version = transfer.facts[:2]
            try:
                header = ok_header(size, self._wire)
                sent = stream.send_with_header(header, transfer.address, transfer.length, not transfer.last)
            except ClientGone:
                transfer.cancel_quietly()
                raise
            if sent == transfer.length and transfer.last:
                transfer.finish()
                if self._steps.enabled:
                    self._steps.mark("send")
                return "hit"
            response = BodyTransfer(stream, key, size, version, self._others_wait)
            pause = response.send(transfer, sent)
        return self._go_on(response, pause)

    def _go_on(self, response: BodyTransfer, pause: Pause | None = Pause.WIDEN) -> str | Paused:
        """Resume a response until its end, or until it pauses for something that takes time."""
        while pause is Pause.WIDEN:
            pause = response.resume(self._store, self._cache_wait_s)
        if self._steps.enabled:
            self._steps.mark("send")
        return "hit" if pause is None else Paused(response, pause)

    # -- from the origin -----------------------------------------------------------------------------------------
    def _answer_from_origin(self, stream: ClientStream, reader: SpoolReader) -> str:
        try:
            answer = reader.wait_answer()
            if isinstance(answer, BodyMissing):
                stream.send_all(refusal(Status.FILE_NOT_FOUND, self._wire))
                return "not found"
            assert isinstance(answer, BodyFound)
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
