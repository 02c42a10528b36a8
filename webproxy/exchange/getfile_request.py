"""GetfileRequestHandler: one getfile request from its path to the last byte, as cache and origin say.

**States**, in this order: hot table → *waiting for a ticket*, when the object is known to be long → looked up in the
cache, at its key or as the variant that getfile's request selects → asked from the origin → answered. A hit's body can
be *paused* (body_transfer.py); then the request is a job with the rest of its answer.

**Events.** Without an origin for the key an unavailable cache is an error, since it may have the object; with one it is
a miss. A fetch that finds the key filled in the meantime leads back to the look-up.

**Invariants.** Each request ends its connection. Until OK was sent every failure becomes a status; after it nothing can
follow but content, so that a failure in the body closes the connection short. A ticket is waited for once at most, and
left before an origin is waited for or the worker is given up.
"""

from __future__ import annotations

import contextlib
import logging
from time import monotonic
from typing import Protocol

from shmchannel.deadline import Deadline
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Ticket
from webproxy.errors import BodyCutShort, CacheUnavailable, ClientGone, OriginError, Overloaded
from webproxy.exchange.body_transfer import BodySource, BodyTransfer
from webproxy.exchange.deliver_fetched import send_spooled
from webproxy.fetch.spool import BodyFound, BodyMissing, SpoolReader
from webproxy.getfile import Status, Wire, ok_header, refusal
from webproxy.http.urls import normalised_path
from webproxy.store.cache_client import Missing
from webproxy.store.lookup import StoredHit
from webproxy.telemetry.outcomes import Outcomes, RequestFailures
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit, Shutdown
from webproxy.transport.job import Done, Event, Outcome, WaitsFor

log = logging.getLogger(__name__)

STATUS_OF_ERROR: dict[type[Exception], Status] = {
    CacheUnavailable: Status.ERROR,
    OriginError: Status.ERROR,
    Overloaded: Status.ERROR,
}
"""The reply for each failure before anything has been sent."""


class Variants(Protocol):
    """The variants of objects that getfile's own request selects, in the cache."""

    def expects(self, key: bytes) -> bool:
        """Whether the key was seen to have some: then they are looked for before the key itself is."""
        ...

    def find(self, key: bytes, wait_s: float) -> StoredHit | None:
        """The one that is selected; raises CacheUnavailable."""
        ...


class Fetches(Protocol):
    """What an origin is asked for."""

    def has_origin(self, key: bytes) -> bool:
        """Whether there is somebody to ask for the key."""
        ...

    def open(self, key: bytes, missed_at: float) -> SpoolReader | None:
        """A reader of the key's body; None when the cache was filled with it since `missed_at`. Raises Overloaded."""
        ...


class GetfileRequest:
    """A job: one getfile request, which ends its connection."""

    __slots__ = ("_handler", "fd", "has_waited", "path", "paused", "ticket")

    def __init__(self, handler: GetfileRequestHandler, fd: int, path: bytes) -> None:
        self._handler = handler
        self.fd = fd
        self.path = path
        self.ticket: Ticket | None = None
        self.has_waited = False
        """It has waited for a ticket, usually successfully, and does not wait a second time."""
        self.paused: BodyTransfer | None = None
        """The rest of its response, while it waits."""

    @property
    def stream(self) -> ClientStream:
        """The client of a request whose response has begun."""
        assert self.paused is not None
        return self.paused.stream

    def run(self) -> Outcome:
        """Answer it, or continue the response."""
        return self._handler.serve(self) if self.paused is None else self._handler.resume(self, self.paused)

    def take_ticket(self) -> Ticket | None:
        """The ticket it has waited for, to be used by the caller."""
        ticket, self.ticket = self.ticket, None
        return ticket

    def close(self) -> None:
        """The process ends."""
        sockets.close(self.fd)


class GetfileRequestHandler:
    """Serves requests for many workers at once, without keeping state of any."""

    def __init__(
        self,
        source: BodySource,
        variants: Variants,
        fetches: Fetches,
        wire: Wire,
        client_limit: RateLimit,
        shutdown: Shutdown,
        breakdown: LatencyBreakdown,
    ) -> None:
        self._source = source
        self._store = source.store
        self._peek = source.store.peek
        self._variants = variants
        self._fetches = fetches
        self._wire = wire
        self._client_limit = client_limit
        self._shutdown = shutdown
        self._breakdown = breakdown
        self.outcomes = Outcomes()
        self.failures = RequestFailures()

    def serve(self, request: GetfileRequest) -> Outcome:
        """Answer one request; never raises for failures of client, cache or origin."""
        key = normalised_path(request.path)
        entry = self._peek(key)
        if entry is not None and entry.file is None:
            self.outcomes.note(self._answer_from_hot_table(request.fd, entry.body))
            return Done(request)
        if not request.has_waited and self._store.should_enqueue(key):
            request.has_waited = True
            return WaitsFor(request, Event.TICKET)
        ticket = request.take_ticket()
        try:
            return self._serve_at_length(request, key, ticket)
        finally:
            if ticket is not None:
                ticket.leave()

    def _serve_at_length(self, request: GetfileRequest, key: bytes, ticket: Ticket | None) -> Outcome:
        stream = ClientStream(request.fd, self._client_limit, self._shutdown)
        try:
            return self._serve(request, stream, key, ticket)
        except tuple(STATUS_OF_ERROR) as error:
            self.failures.note(request.path, error)
            status = next(status for kind, status in STATUS_OF_ERROR.items() if isinstance(error, kind))
            with contextlib.suppress(ClientGone):
                stream.send_all(refusal(status, self._wire))
            return self._ended(request, "error")
        except ClientGone:
            return self._ended(request, "client gone")
        except BodyCutShort as error:
            return self._cut_short(request, error)

    def resume(self, request: GetfileRequest, body: BodyTransfer) -> Outcome:
        """Continue a paused response; as serve()."""
        try:
            return self._go_on(request, body, Event.WIDTH, request.take_ticket())
        except ClientGone:
            return self._ended(request, "client gone")
        except BodyCutShort as error:
            return self._cut_short(request, error)

    def _ended(self, request: GetfileRequest, result: str) -> Outcome:
        """The client has received its response, or receives no more of it."""
        self.outcomes.note(result)
        return Done(request)

    def _cut_short(self, request: GetfileRequest, error: BodyCutShort) -> Outcome:
        log.warning("body cut short", extra={"path": request.path, "reason": str(error)})
        return self._ended(request, "cut short")

    def _serve(self, request: GetfileRequest, stream: ClientStream, key: bytes, ticket: Ticket | None) -> Outcome:
        asked_at = monotonic()
        try:
            outcome = self._look_up(request, stream, key, ticket)
        except CacheUnavailable:
            if not self._fetches.has_origin(key):  # the cache may have it: a missing file cannot be claimed
                raise
        else:
            if outcome is not None:
                return outcome
        if not self._fetches.has_origin(key):
            stream.send_all(refusal(Status.FILE_NOT_FOUND, self._wire))
            return self._ended(request, "not found")
        reader = self._fetches.open(key, asked_at)
        if reader is None:  # filled since: the cache has it now
            return self._serve(request, stream, key, ticket)
        return self._ended(request, self._answer_from_origin(stream, reader))

    def _answer_from_hot_table(self, fd: int, body: bytes) -> str:
        """Send a small hit, nearly always with one call: it fits a socket's buffer."""
        reply = ok_header(len(body), self._wire) + body
        try:
            sent = sockets.send(fd, reply)
            if sent != len(reply):
                ClientStream(fd, self._client_limit, self._shutdown).send_all(reply[sent:])
        except ClientGone:
            return "client gone"
        if self._breakdown.enabled:
            self._breakdown.mark("send")
        return "hit"

    # -- from the cache ------------------------------------------------------------------------------------------
    def _look_up(
        self, request: GetfileRequest, stream: ClientStream, key: bytes, ticket: Ticket | None
    ) -> Outcome | None:
        """Send the cache's object for the key, or the variant that getfile's request selects; None for a miss.

        Raises:
            CacheUnavailable: it cannot be asked; nothing has been sent to the client.
        """
        varies = self._variants.expects(key)
        outcome = self._answer_from_variant(request, stream, key) if varies else None
        nothing_below = False
        if outcome is None:
            transfer = self._store.get(key, Deadline.after(self._source.wait_s), ticket=ticket)
            nothing_below = isinstance(transfer, Missing) and transfer.nothing_below
            outcome = self._answer_from_cache(request, stream, key, transfer)
        if outcome is None and not varies and not nothing_below and self._fetches.has_origin(key):
            outcome = self._answer_from_variant(request, stream, key)
        return outcome

    def _answer_from_variant(self, request: GetfileRequest, stream: ClientStream, key: bytes) -> Outcome | None:
        found = self._variants.find(key, self._source.wait_s)
        if found is None:
            return None
        if found.body is not None:
            return self._ended(request, self._answer_from_hot_table(stream.fd, found.body))
        transfer: IncomingTransfer | Missing | None
        transfer, found.transfer = found.transfer, None
        found.cancel_quietly()
        if transfer is None:  # its file is open already; chunks are sent as for any object
            transfer = self._store.get(found.key, Deadline.after(self._source.wait_s))
        return self._answer_from_cache(request, stream, found.key, transfer)

    def _answer_from_cache(
        self, request: GetfileRequest, stream: ClientStream, key: bytes, transfer: IncomingTransfer | Missing
    ) -> Outcome | None:
        """Send the hit; None for a miss (or an unreadable object, if there is an origin)."""
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
                if self._breakdown.enabled:
                    self._breakdown.mark("send")
                return self._ended(request, "hit")
            body = BodyTransfer(stream, key, size, version, self._source)
            event = body.send(transfer, sent)
        return self._go_on(request, body, event)

    def _go_on(
        self, request: GetfileRequest, body: BodyTransfer, event: Event | None, ticket: Ticket | None = None
    ) -> Outcome:
        """Resume a response until its end, or until it must wait."""
        if event is Event.WIDTH:
            event = body.go_on(ticket)
        if self._breakdown.enabled:
            self._breakdown.mark("send")
        if event is None:
            return self._ended(request, "hit")
        request.paused = body
        return WaitsFor(request, event)

    # -- from the origin -----------------------------------------------------------------------------------------
    def _answer_from_origin(self, stream: ClientStream, reader: SpoolReader) -> str:
        try:
            answer = reader.wait_answer()
            if isinstance(answer, BodyMissing):
                stream.send_all(refusal(Status.FILE_NOT_FOUND, self._wire))
                return "not found"
            assert isinstance(answer, BodyFound)
            stream.send_header(ok_header(answer.length, self._wire))
            send_spooled(stream, reader, answer.length)
            return "fetched"
        finally:
            reader.close()
