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
from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import TypeAlias

from shmchannel.daemonkit.logs import about
from shmchannel.deadline import Deadline
from shmchannel.objects.commands import FetchLease
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Ticket
from webproxy.caching.stored import StoredResponse
from webproxy.errors import (
    BodyCutShort,
    CacheUnavailable,
    ClientGone,
    LeaseVoid,
    NotFollowed,
    OriginError,
    Overloaded,
)
from webproxy.exchange.body_transfer import BodySource, BodyTransfer, FileResponse, SourceLost, begin_body
from webproxy.exchange.origin_rest import OriginRest
from webproxy.exchange.spooled_body import send_data, send_spooled
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.fetch.spool import BodyFound, BodyMissing, SpoolReader
from webproxy.getfile import Status, Wire, ok_header, refusal
from webproxy.http.urls import normalised_path
from webproxy.origin.request import getfile_request
from webproxy.store.getfile_objects import GetfileVariants
from webproxy.store.lookup import HOT_TABLE, HOT_TABLE_FILE, stored_of_entry, stored_of_transfer
from webproxy.store.store import Missing
from webproxy.telemetry.outcomes import RequestFailures, broken_off
from webproxy.telemetry.request_counts import RequestCounts, status_class
from webproxy.telemetry.request_ids import RequestIds
from webproxy.telemetry.requests import GETFILE, CacheResult, RequestObserver, RequestRecord, end_request
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Done, Event, Idles, Outcome, Steps, WaitsFor

log = logging.getLogger(__name__)

_Rest: TypeAlias = Steps[str | Outcome]
Answering: TypeAlias = Outcome | _Rest
"""An answer that is complete or can be resumed, or one that waits for a fetch."""
_OUTCOMES = (Done, Idles, WaitsFor)
LOOKUPS_MAX = 3
"""Maximum lookups per request before it is fetched whatever other processes fetch."""
_FAILURES: tuple[type[Exception], ...] = (CacheUnavailable, OriginError, Overloaded, ClientGone, BodyCutShort)


class GetfileRequest:
    """A job: one getfile request, which ends its connection."""

    __slots__ = (
        "_handler",
        "fd",
        "has_left",
        "has_waited",
        "lease",
        "lookups",
        "path",
        "paused",
        "record",
        "stored",
        "stream",
        "ticket",
        "void_lease",
    )

    stream: ClientStream
    """The client, once it is more than a lookup in the hot table that answers it."""

    def __init__(self, handler: GetfileRequestHandler, fd: int, path: bytes) -> None:
        self._handler = handler
        self.fd = fd
        self.path = path
        self.ticket: Ticket | None = None
        self.has_waited = False
        """It has waited for a ticket, usually successfully, and does not wait a second time."""
        self.paused: BodyTransfer | _Rest | None = None
        """The rest of its response, while it waits."""
        self.stored: StoredResponse | None = None
        """What the origin can be asked by for the rest of a body that the cache loses; None if there is no origin."""
        self.has_left = False
        self.lookups = 0
        """How often it was looked up to be fetched."""
        self.void_lease: int | None = 0
        """As that of a RequestContext."""
        self.lease: FetchLease | None = None
        """Who fetches what is missing, by the cache's last answer."""
        self.record: RequestRecord | None = None
        """Until it has ended; never for one that the hot table answers, if nobody observes or watches."""

    @property
    def request_id(self) -> bytes:
        """Its id in log lines; empty before it has one."""
        return b"" if self.record is None else self.record.request_id

    def run(self) -> Outcome:
        """Answer it, or continue the response."""
        return self._handler.serve(self) if self.paused is None else self._handler.resume(self, self.paused)

    def take_ticket(self) -> Ticket | None:
        """The ticket it has waited for, to be used by the caller."""
        ticket, self.ticket = self.ticket, None
        return ticket

    def close(self) -> None:
        """As Job.close()."""
        if self.paused is not None:
            with about(self.request_id):
                self.paused.close()
        if self.record is not None:
            self._handler.give_up(self)
        sockets.close(self.fd)


class GetfileRequestHandler:
    """Serves requests for many workers at once, without keeping state of any."""

    def __init__(
        self,
        source: BodySource,
        variants: GetfileVariants,
        fetches: GetfileFetches,
        origin_rest: OriginRest,
        wire: Wire,
        client_limit: RateLimit,
        breakdown: LatencyBreakdown,
        observers: Sequence[RequestObserver] = (),
        counts: RequestCounts | None = None,
        ids: RequestIds | None = None,
    ) -> None:
        """The `observers` are told of the end of each request."""
        self._source = source
        self._store = source.store
        self._peek = source.store.peek
        self._variants = variants
        self._fetches = fetches
        self._origin_rest = origin_rest
        self._wire = wire
        self._client_limit = client_limit
        self._breakdown = breakdown
        self._observers = observers
        self._ids = ids or RequestIds()
        self.outcomes = counts or RequestCounts.private("getfile")
        self._note_hot = self.outcomes.note_hot[status_class(200)]
        self._top = self.outcomes.top
        self.failures = RequestFailures()
        self._is_watched = log.isEnabledFor(logging.DEBUG)
        """Asked once, for the hits that are answered at once: a process keeps its level."""
        self._names_all = self._is_watched or bool(observers)

    def serve(self, request: GetfileRequest) -> Outcome:
        """Answer one request; never raises for failures of client, cache or origin."""
        began_ns = monotonic_ns()
        key = normalised_path(request.path)
        if self._names_all:
            self._begin(request)
        entry = self._peek(key)
        if entry is not None and entry.file is None:
            return self._answer_from_hot_table(request, entry.body, began_ns)
        with about(self._begin(request).request_id):
            return self._serve_named(request, key, entry)

    def _serve_named(self, request: GetfileRequest, key: bytes, entry: HotTableEntry | None) -> Outcome:
        """As serve(), for what the hot table does not answer at once."""
        file = None if entry is None else self._store.hold_file(key, entry)
        if file is None and not request.has_waited and self._store.should_enqueue(key):
            request.has_waited = True
            log.debug("waits for a ticket", extra={"key": key})
            return WaitsFor(request, Event.TICKET)
        ticket = request.take_ticket()
        request.stream = stream = ClientStream(request.fd, self._client_limit)
        try:
            if entry is not None and file is not None:
                request.stored = stored_of_entry(key, entry)
                _tell_found(key, HOT_TABLE_FILE)
                return self._answer_from_file(request, key, file)
            answering = self._serve(request, stream, key, ticket)
        except _FAILURES as error:
            return self._failed(request, error)
        finally:
            if ticket is not None:
                ticket.leave()
        return answering if isinstance(answering, _OUTCOMES) else self._take_step(request, answering)

    def resume(self, request: GetfileRequest, rest: BodyTransfer | _Rest) -> Outcome:
        """Continue a paused response; as serve()."""
        with about(request.request_id):
            return self._resume(request, rest)

    def _resume(self, request: GetfileRequest, rest: BodyTransfer | _Rest) -> Outcome:
        if not isinstance(rest, BodyTransfer):
            return self._take_step(request, rest)
        try:
            event = rest.resume(request.take_ticket())
        except _FAILURES as error:
            return self._failed(request, error)
        return self._sent(request, None if event is None else (rest, event))

    def _take_step(self, request: GetfileRequest, steps: _Rest) -> Outcome:
        """Continue a response in steps until it must wait again."""
        try:
            if request.has_left:
                steps.close()
                raise ClientGone("left while it waited")
            wait = next(steps)
        except StopIteration as end:
            result = end.value
            return result if isinstance(result, _OUTCOMES) else self._ended(request, result)
        except _FAILURES as error:
            return self._failed(request, error)
        request.paused = steps
        return WaitsFor(request, wait)

    def _failed(self, request: GetfileRequest, error: Exception) -> Outcome:
        """The client is told, unless it is gone or has part of a body, of which the origin may have the rest."""
        if isinstance(error, SourceLost):
            return self._take_step(request, self._go_on(request, error.body, str(error)))
        if isinstance(error, (ClientGone, BodyCutShort)):
            return self._ended(request, broken_off(request.path, error))
        self.failures.note(request.path, error)
        with contextlib.suppress(ClientGone):
            request.stream.send_some(_answered(request, 500, refusal(Status.ERROR, self._wire)))
        return self._ended(request, "error")

    def _ended(self, request: GetfileRequest, result: str, sent_bytes: int | None = None) -> Outcome:
        """The client has received its response, or receives no more of it."""
        record, request.record = request.record, None
        if record is None:
            self.outcomes.note_unrecorded(result)
        else:
            sent_bytes = request.stream.sent_bytes if sent_bytes is None else sent_bytes
            self._end(record, result, sent_bytes)
            self.outcomes.note(record, request.fd)
        return Done(request)

    def _end(self, record: RequestRecord, result: str, sent_bytes: int) -> None:
        end_request(record, result, sent_bytes, self._observers)
        if self._is_watched:
            with about(record.request_id):
                facts = {"outcome": result, "status": record.status, "sent_bytes": record.sent_bytes}
                log.debug("request ends", extra=facts | {"us": record.total_ns // 1000})

    def _begin(self, request: GetfileRequest) -> RequestRecord:
        """The record, made unless it is there."""
        record = request.record
        if record is None:
            record = RequestRecord(b"GET", request.path, GETFILE, request_id=self._ids.next(), began_ns=monotonic_ns())
            if self._observers:  # only they want to know: neither is free
                record.client = sockets.peer_name(request.fd)
                record.origin = self._fetches.target(normalised_path(request.path)).base
            request.record = record
            if self._is_watched:
                with about(record.request_id):
                    log.debug("request begins", extra={"method": GETFILE, "path": request.path})
        return record

    def give_up(self, request: GetfileRequest) -> None:
        """It is not answered any further: the client is too slow, or the process ends."""
        self._ended(request, "given up")

    def note_refused(self, fd: int, status: int) -> None:
        """A client was told why its request is not looked at; `status` is what HTTP would say."""
        self.outcomes.note_not_looked_at(status)
        if self._observers:
            now_ns, record = monotonic_ns(), RequestRecord(protocol=GETFILE, request_id=self._ids.next(), status=status)
            record.client, record.began_ns, record.first_byte_ns = sockets.peer_name(fd), now_ns, now_ns
            end_request(record, "refused", 0, self._observers)

    def _serve(self, request: GetfileRequest, stream: ClientStream, key: bytes, ticket: Ticket | None) -> Answering:
        asking = None if request.void_lease is None else self._fetches.asking(key)
        if asking is None:
            request.void_lease = None
        try:
            return self._look_up_or_fetch(request, stream, key, ticket)
        finally:
            if asking is not None:
                asking.end()

    def _look_up_or_fetch(
        self, request: GetfileRequest, stream: ClientStream, key: bytes, ticket: Ticket | None
    ) -> Answering:
        asked_at = monotonic()
        request.lookups += 1
        request.lease = None
        try:
            outcome = self._look_up(request, stream, key, ticket)
        except CacheUnavailable:
            if not self._fetches.has_origin(key):  # the cache may have it: a missing file cannot be claimed
                raise
        else:
            if outcome is not None:
                return outcome
        if not self._fetches.has_origin(key):
            stream.send_some(_answered(request, 404, refusal(Status.FILE_NOT_FOUND, self._wire)))
            return self._ended(request, "not found")
        reader = self._fetches.open(key, asked_at, request.lease)
        if reader is None:  # filled since: the cache has it now
            return self._serve(request, stream, key, ticket)
        return self._answer_from_origin(request, reader, key)

    def _answer_from_hot_table(self, request: GetfileRequest, body: bytes, began_ns: int = 0) -> Outcome:
        """Send a small hit, nearly always with one call: it fits a socket's buffer.

        With `began_ns` it was there at once. Then it is counted so, and needs a record only for observers.
        """
        header = ok_header(len(body), self._wire)
        reply = header + body
        if request.record is not None:
            _answered(request, 200, header, CacheResult.HIT)
            if self._is_watched:
                with about(request.record.request_id):
                    _tell_found(request.path, HOT_TABLE)
        try:
            sent = sockets.send(request.fd, reply)
        except ClientGone:
            return self._ended(request, "client gone", 0)
        if sent != len(reply):
            request.stream = stream = ClientStream(request.fd, self._client_limit)
            stream.sent_bytes = sent
            if request.record is None:
                self._begin(request)
                _answered(request, 200, header, CacheResult.HIT)
            rest = BodyTransfer(stream, request.path, 0, 0, self._source, head=reply[sent:])
            return self._sent(request, (rest, Event.WRITABLE))
        if self._breakdown.enabled:
            self._breakdown.mark("send")
        if not began_ns:
            return self._ended(request, "hit", sent)
        self._note_hot(sent, monotonic_ns() - began_ns)
        if self._top is not None:
            self._top.note_connection(request.fd, sent, 1, 1, sent)
        if request.record is not None:
            record, request.record = request.record, None
            self._end(record, "hit", sent)
        return Done(request)

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
            transfer = self._get(key, ticket, request.void_lease)
            nothing_below = isinstance(transfer, Missing) and transfer.nothing_below
            request.lease = transfer.lease if isinstance(transfer, Missing) else None
            outcome = self._answer_from_cache(request, stream, key, transfer)
        if outcome is None and not varies and not nothing_below and self._fetches.has_origin(key):
            outcome = self._answer_from_variant(request, stream, key)
        return outcome

    def _answer_from_variant(self, request: GetfileRequest, stream: ClientStream, key: bytes) -> Outcome | None:
        found = self._variants.find(key, self._source.wait_s)
        if found is None:
            return None
        if found.body is not None:
            return self._answer_from_hot_table(request, found.body)
        request.stored = found.stored
        if found.file is not None:
            _tell_found(found.key, HOT_TABLE_FILE)
            return self._answer_from_file(request, found.key, found.file)
        transfer, found.transfer = found.transfer, None
        assert transfer is not None  # getfile's request asks for all of the body
        return self._answer_from_cache(request, stream, found.key, transfer)

    def _answer_from_file(self, request: GetfileRequest, key: bytes, file: HotTableFile) -> Outcome:
        """Send a large hit of the hot table."""
        stream = request.stream
        head = _answered(request, 200, ok_header(file.size_bytes, self._wire), CacheResult.HIT)
        sent = stream.send_some(head, more=True)
        body = FileResponse(stream, key, file, self._source, 0, file.size_bytes, head=head[sent:])
        event = body.begin(file)
        return self._sent(request, None if event is None else (body, event))

    def _get(self, key: bytes, ticket: Ticket | None, void_lease: int | None) -> IncomingTransfer | Missing:
        """The key's object. What does not come in one chunk comes with its metadata, so that it can outlive the cache.

        These take a chunk of their own, which a small object need not wait for; so the first time that an object turns
        out to be large, it is asked for again.
        """
        wait_s = self._source.wait_s
        with_metadata = self._store.is_large(key) and self._fetches.has_origin(key)
        transfer = self._store.get(
            key, Deadline.after(wait_s), metadata_wanted=with_metadata, ticket=ticket, void_lease=void_lease
        )
        if with_metadata or isinstance(transfer, Missing) or transfer.last or not self._fetches.has_origin(key):
            return transfer
        with transfer:
            transfer.cancel_quietly()
        return self._store.get(key, Deadline.after(wait_s), metadata_wanted=True, void_lease=void_lease)

    def _answer_from_cache(
        self, request: GetfileRequest, stream: ClientStream, key: bytes, transfer: IncomingTransfer | Missing
    ) -> Outcome | None:
        """Send the hit; None for a miss (or an unreadable object, if there is an origin)."""
        if isinstance(transfer, Missing):
            if transfer.unreadable and not self._fetches.has_origin(key):
                raise CacheUnavailable("the cache cannot read the object")
            log.debug("looked up", extra={"key": key, "decision": "MISS"})
            return None
        _tell_found(key, "cache")
        if not transfer.last and transfer.metadata:
            request.stored = stored_of_transfer(key, transfer)
        header = _answered(request, 200, ok_header(transfer.facts[0], self._wire), CacheResult.HIT)
        return self._sent(request, begin_body(stream, header, transfer, key, self._source))

    def _sent(self, request: GetfileRequest, rest: tuple[BodyTransfer, Event] | None) -> Outcome:
        """The hit is sent, but for the rest of its body."""
        if self._breakdown.enabled:
            self._breakdown.mark("send")
        if rest is None:
            return self._ended(request, "hit")
        request.paused, event = rest
        return WaitsFor(request, event)

    def _go_on(self, request: GetfileRequest, body: BodyTransfer, why: str) -> _Rest:
        """The cache has lost a body: its origin may have the rest."""
        stored, target = request.stored, self._fetches.target(normalised_path(request.path))
        if stored is None or target.rule is None:
            raise BodyCutShort(why)
        yield from self._origin_rest.send(body, why, stored, getfile_request(target.url), target.rule)
        return "hit"

    # -- from the origin -----------------------------------------------------------------------------------------
    def _answer_from_origin(self, request: GetfileRequest, reader: SpoolReader, key: bytes) -> _Rest:
        stream, asked_ns = request.stream, monotonic_ns()
        try:
            try:
                while not isinstance(answer := reader.news(), (BodyFound, BodyMissing)):
                    yield reader
            except NotFollowed as error:
                return (yield from self._without_holder(request, key, error))
            finally:
                if request.record is not None:
                    request.record.upstream_ns += monotonic_ns() - asked_ns
            if isinstance(answer, BodyMissing):
                refused = _answered(request, 404, refusal(Status.FILE_NOT_FOUND, self._wire), CacheResult.MISS)
                yield from send_data(stream, refused)
                return "not found"
            header = _answered(request, 200, ok_header(answer.length, self._wire), CacheResult.MISS)
            yield from send_data(stream, header, more=True)
            yield from send_spooled(stream, reader, answer.length)
            return "fetched"
        finally:
            reader.close()

    def _without_holder(self, request: GetfileRequest, key: bytes, error: NotFollowed) -> _Rest:
        """Another process was to fetch it for this one too, and does not."""
        is_last = request.lookups >= LOOKUPS_MAX or not isinstance(error, LeaseVoid)
        request.void_lease = None if is_last or request.lease is None else request.lease.number
        answering = self._serve(request, request.stream, key, None)
        return answering if isinstance(answering, _OUTCOMES) else (yield from answering)


def _tell_found(key: bytes, place: str) -> None:
    log.debug("looked up", extra={"key": key, "decision": "HIT", "place": place})


def _answered(request: GetfileRequest, status: int, header: bytes, cache: CacheResult = CacheResult.NONE) -> bytes:
    """The header of the answer, which is about to be sent; `status` is what HTTP would say."""
    record = request.record
    if record is not None:
        record.status, record.head_bytes, record.cache = status, len(header), cache
        record.first_byte_ns = monotonic_ns()
    return header
