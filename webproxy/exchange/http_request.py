"""HttpRequestHandler: one HTTP request from its head to the last byte of the response, as the rules decide.

**States** that a request can pass, in this order:

    cached reply (fast_path.py) ──▶ sent
    routed ──▶ answered here (OPTIONS, health, a refusal, PURGE), or only the origin's (other methods)
    looked up ──▶ decided (caching/decision.py) ──HIT, STALE_HIT──▶ delivered from the store
                     ├─PASS──▶ passed through        ├─ONLY_IF_CACHED_MISS, or no origin──▶ 504, 404
                     └─REVALIDATE, FETCH──▶ fetched, alone or with others
    fetched ──Validated──▶ delivered from the store  ──Head──▶ streamed as it arrives
              └─failed──▶ stale response where the rules allow it, otherwise an error

**Events** that lead back: if the object was evicted between lookup and delivery (ObjectGone), or the cache was filled
before the fetch began, the lookup is repeated, LOOKUPS_MAX times. If the response of a joined fetch cannot be used, the
request joins one for its variant, and finally fetches alone. A request whose conditions need the origin is passed on.

**Invariants.** Until something was sent every failure becomes a status (failures.py); after the head only the body
follows, or an early end (BodyCutShort). The transfer of a found object ends before waiting for an origin, and on every
path out. Conditions are evaluated here, once, so that a delivery always has an outcome. No state of a request is kept
after it, except in its connection.

**Why not otherwise.** All HTTP decisions are pure functions in caching/, which can be tested with plain values. The
steps call each other instead of using a table: each has two or three successors, and the stack holds what must be
undone on the way out. Long because the way of a request is read in one place, from its head to what ends it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, monotonic_ns, time
from typing import NamedTuple

from shmchannel.daemonkit.logs import about
from webproxy.caching.decision import Action, Decision, answers_waiting, decide, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.caching.validation import head_update
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.caching.variants import matches, variant_id
from webproxy.errors import (
    BodyCutShort,
    CacheUnavailable,
    ClientGone,
    LeaseVoid,
    NotFollowed,
    NotShared,
    OriginError,
)
from webproxy.exchange.body_transfer import SourceLost
from webproxy.exchange.context import Answering, PausedHit, RequestContext
from webproxy.exchange.deliver_fetched import send_fetched
from webproxy.exchange.deliver_stored import ObjectGone, StoredDelivery
from webproxy.exchange.failures import FAILURES, status_for_stale, told_of, why_stale
from webproxy.exchange.fast_path import CachedReply, FastPath, MemoizedRequest, Unsent
from webproxy.exchange.pass_through import PassThrough
from webproxy.exchange.response_heads import Connection, ResponseHeads, connection_for
from webproxy.exchange.spooled_body import send_interim
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.lease_book import Asking
from webproxy.fetch.spool import Head, Interim, SpoolReader, Validated
from webproxy.http.messages import Framing, HttpError, RequestHead, ResponseHead
from webproxy.http.urls import BadTarget, split_target
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginTable, Refused, Target
from webproxy.origin.via import ends_here
from webproxy.store.lookup import HOT_TABLE, HOT_TABLE_FILE, KEY_BYTES_MAX, Lookup, ObjectLookup, StoredHit
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.access_log import AccessLog
from webproxy.telemetry.log_line import FixedParts
from webproxy.telemetry.outcomes import RequestFailures, broken_off
from webproxy.telemetry.request_counts import RequestCounts
from webproxy.telemetry.request_ids import FIELD, RequestIds
from webproxy.telemetry.requests import CacheResult, RequestObserver, RequestRecord, end_request
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.http1_connection import HttpConnection, PausedAnswer
from webproxy.transport.job import KEEP_ALIVE, Done, KeepAlive, RequestOutcome, Steps, WaitsFor
from webproxy.transport.sockets import peer_address, peer_name

log = logging.getLogger(__name__)

_NOT_PASSED = frozenset((b"CONNECT", b"TRACE"))
_ALLOW = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PURGE\r\n"
LOOKUPS_MAX = 3
"""Maximum lookups per request before falling back to the origin."""
_TOLD: tuple[type[Exception], ...] = (HttpError, *FAILURES)
_ANSWERED = (KeepAlive, Done)
_COMPLETE = (*_ANSWERED, WaitsFor)
_CACHE_RESULTS = {Action.HIT: CacheResult.HIT, Action.STALE_HIT: CacheResult.STALE}

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class Policy(NamedTuple):
    """What the settings say of requests."""

    caching: CachingOptions
    cache_wait_s: float
    """Time limit for the cache, if there is no alternative."""
    cache_first_byte_s: float
    """Time limit for the cache, before the origin is asked instead."""
    purge_networks: Networks
    """Those of the clients that may purge."""
    health_path: bytes | None = None
    """Says whether this process accepts requests; whatever the origin has there is out of reach."""


class Answers(NamedTuple):
    """The ways of answering a request: from the hot table, from a stored response, by the origin's to it alone."""

    fast_path: FastPath
    stored: StoredDelivery
    passing: PassThrough


class UnfinishedAnswer(NamedTuple):
    """An answer that waits for a fetch, or for its client."""

    context: RequestContext
    steps: Steps[RequestOutcome]

    @property
    def key(self) -> bytes:
        """Its name in log lines."""
        return self.context.request.target

    def close(self) -> None:
        """It is given up: release what the steps hold."""
        self.steps.close()


class UnreadBody(NamedTuple):
    """The rest of a body that nobody wants, while it arrives."""

    key: bytes
    """Its name in log lines."""
    steps: Steps[bool]

    def close(self) -> None:
        """It is given up."""
        self.steps.close()


class HttpRequestHandler:
    """Serves requests for many workers at once, without keeping state of any."""

    def __init__(
        self,
        heads: ResponseHeads,
        lookup: ObjectLookup,
        updates: CacheUpdater,
        origins: OriginTable,
        fetches: HttpFetches,
        answers: Answers,
        policy: Policy,
        shutdown: Shutdown,
        observers: Sequence[RequestObserver] = (),
        counts: RequestCounts | None = None,
        access_log: AccessLog | None = None,
        ids: RequestIds | None = None,
    ) -> None:
        """The `observers` are told of the end of each request but those that the fast path answers at once.

        The `access_log` is told of these too.
        """
        self._heads = heads
        self._lookup = lookup
        self._updates = updates
        self._origins = origins
        self._fetches = fetches
        self.fast_path, self._stored, self._passing = answers
        self.recognise: Callable[[bytes], MemoizedRequest | None] = self.fast_path.recognise
        """See FastPath.recognise()."""
        self._via = self._passing.via
        self._policy = policy
        self._health_path = policy.health_path
        self._shutdown = shutdown
        self._observers = observers if access_log is None else (*observers, access_log)
        self._access_log = access_log
        self._ids = ids or RequestIds()
        self.outcomes = counts or RequestCounts.private("http")
        self._is_watched = log.isEnabledFor(logging.DEBUG)
        """Asked once, for the hits that are answered at once: a process keeps its level."""
        self.failures = RequestFailures()

    def serve(self, connection: HttpConnection, request: RequestHead | MemoizedRequest) -> RequestOutcome:
        """Answer one request; never raises for failures of client, cache or origin.

        Raises:
            HttpError: an unwanted body is invalid; the response was sent.
        """
        began_ns = monotonic_ns()
        try:
            if isinstance(request, MemoizedRequest):
                return self._send_cached(connection, request.request, request.reply, began_ns, request.log_part)
            said = connection_for(request, may_stay=self._may_stay(connection, request))
            is_stored = request.target != self._health_path  # which no answer from the cache may stand for
            reply = self.fast_path.reply(request, said) if is_stored else None
            if reply is not None:
                log_parts = None if self._access_log is None else self._log_parts(self._access_log, request, reply)
                self.fast_path.memoize(connection.bytes_of(request), request, reply, log_parts)
                return self._send_cached(connection, request, reply, began_ns, b"".join(log_parts or ()))
            context = self._context(connection, request, said)
            with about(context.record.request_id):
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("request begins", extra={"method": request.method, "path": request.target})
                try:
                    answering = self._route(context)
                except _TOLD as error:
                    answering = self._failed(context, error)
        except (ClientGone, BodyCutShort) as error:
            self._begun(connection, request.request if isinstance(request, MemoizedRequest) else request)
            return self._broken_off(connection, request.target, error)
        if isinstance(answering, WaitsFor):
            return answering
        if not isinstance(answering, _ANSWERED):
            return self._take_step(UnfinishedAnswer(context, self._guarded(context, answering)))
        self._finish(connection, context.result)
        if request.framing is Framing.NONE or isinstance(answering, Done):
            return answering
        return self._answered(connection, request.target)

    def resume(self, connection: HttpConnection, answer: PausedAnswer) -> RequestOutcome:
        """Continue the paused response of a connection; as serve()."""
        connection.paused = None
        if isinstance(answer, UnfinishedAnswer):
            return self._take_step(answer)
        if isinstance(answer, UnreadBody):
            return self._skip(connection, answer)
        assert isinstance(answer, PausedHit)
        with about(connection.request_id):
            return self._resume_hit(connection, answer)

    def go_on_with(self, connection: HttpConnection, request: RequestHead, unsent: Unsent) -> Done | WaitsFor:
        """Continue with a reply of the hit loop, of which a part was sent."""
        record, sent = self._begun(connection, request), unsent.sent
        if sent < 0:
            if unsent.file_fd >= 0:
                os.close(unsent.file_fd)
            return self._broken_off(connection, request.target, ClientGone(os.strerror(-sent)))
        record.answered(unsent.reply)
        record.sent_bytes -= sent  # which the stream has counted already
        record.cache, record.origin = CacheResult.HIT, self.fast_path.origin_of(request.target)
        return self.fast_path.pause_rest(connection, request, unsent)

    def _resume_hit(self, connection: HttpConnection, answer: PausedHit) -> RequestOutcome:
        try:
            event = answer.body.resume(connection.take_ticket())
        except SourceLost as lost:
            return self._go_on(connection, answer, str(lost))
        except (ClientGone, BodyCutShort) as error:
            return self._broken_off(connection, answer.key, error)
        if event is not None:
            return connection.pause(answer, event, is_last=connection.is_last)
        self._finish(connection, "hit")
        return Done(connection) if connection.is_last else self._answered(connection, answer.key)

    def _go_on(self, connection: HttpConnection, hit: PausedHit, why: str) -> RequestOutcome:
        """The cache has lost a body that was paused: its origin may have the rest."""
        request = hit.request
        if hit.stored is None:
            return self._broken_off(connection, hit.key, BodyCutShort(why))
        said = connection_for(request, may_stay=not connection.is_last)
        context = self._context(connection, request, said)
        try:
            target = self._origins.find(split_target(request.target, request.fields.get(b"host")))
        except BadTarget:  # the fast path does not ask which host is meant
            return self._broken_off(connection, hit.key, BodyCutShort(why))
        if isinstance(target, Target):
            context.target = target
        return self._take_step(UnfinishedAnswer(context, self._stored.go_on(context, hit.stored, hit.body, why, "hit")))

    def _log_parts(self, access_log: AccessLog, request: RequestHead, reply: CachedReply) -> FixedParts:
        stored = reply.stored
        return access_log.hit_parts(request, stored.status, stored.body_bytes, reply.origin)

    def _send_cached(
        self, connection: HttpConnection, request: RequestHead, reply: CachedReply, began_ns: int, log_part: bytes
    ) -> RequestOutcome:
        access_log, note_hot = self._access_log, reply.note_hot
        if note_hot is None:
            note_hot = reply.note_hot = self.outcomes.noting_hot(reply.origin, reply.status_class)
        if access_log is not None and not connection.client:
            connection.client = peer_name(connection.fd)  # the next request of the connection finds it there
        request_id = b""
        if self._ids.in_heads or self._is_watched:
            request_id = self._ids.of_request(request.fields.get(b"x-request-id"))
            if self._ids.in_heads:
                reply = reply.saying(self._ids.in_head(request_id))
        try:
            outcome = self.fast_path.send(connection, request, reply)
        except ClientGone:
            self._begun(connection, request, request_id)
            raise
        if outcome is KEEP_ALIVE or not isinstance(outcome, WaitsFor):
            took_ns = monotonic_ns() - began_ns
            note_hot(reply.sent_bytes, took_ns)
            if access_log is not None:
                access_log.hit(log_part, connection.client, took_ns, request_id)
            if self._is_watched:
                with about(request_id):
                    _tell_hot(request, reply)
                    facts = {"outcome": "hit", "status": reply.stored.status, "sent_bytes": reply.sent_bytes}
                    log.debug("request ends", extra=facts | {"us": took_ns // 1000})
            return outcome
        paused = connection.paused
        assert isinstance(paused, PausedHit)
        record = self._begun(connection, request, request_id)
        if self._is_watched:
            with about(request_id):
                _tell_hot(request, reply)
        record.answered(reply.data)
        record.sent_bytes -= len(reply.data) + paused.body.position  # which this request has sent already
        record.cache, record.origin = CacheResult.HIT, reply.origin
        return outcome

    def _begun(self, connection: HttpConnection, request: RequestHead, request_id: bytes = b"") -> RequestRecord:
        """The record of a connection's current request, which may have been named already."""
        record = connection.record
        if record is None:
            if self._observers and not connection.client:
                connection.client = peer_name(connection.fd)
            record = connection.record = RequestRecord(
                method=request.method,
                target=request.target,
                protocol=b"HTTP/%d.%d" % request.version,
                fields=request.fields,
                client=connection.client,
                request_id=request_id or self._ids.of_request(request.fields.get(b"x-request-id")),
                began_ns=monotonic_ns(),
                sent_bytes=connection.stream.sent_bytes,
            )
        return record

    def _context(self, connection: HttpConnection, request: RequestHead, said: Connection) -> RequestContext:
        record = self._begun(connection, request)
        if self._ids.in_heads:
            said = said.saying(self._ids.in_head(record.request_id))
            fields = request.fields.without((b"x-request-id",)).with_line(FIELD, record.request_id)
            request = replace(request, fields=fields)  # as it is forwarded
        return RequestContext(connection, request, said, time(), self._heads, record=record)

    def _finish(self, connection: HttpConnection, outcome: str) -> None:
        """The current request of a connection has ended; it is counted, and told to the observers."""
        record, connection.record = connection.record, None
        if record is None:
            self.outcomes.note_unrecorded(outcome)
            return
        end_request(record, outcome, connection.stream.sent_bytes, self._observers)
        if log.isEnabledFor(logging.DEBUG):
            with about(record.request_id):
                facts = {"outcome": outcome, "status": record.status, "sent_bytes": record.sent_bytes}
                log.debug("request ends", extra=facts | {"us": record.total_ns // 1000})
        self.outcomes.note(record)
        connection.unsaved += not record.is_saved
        connection.unsaved_bytes += 0 if record.is_from_cache else record.sent_bytes

    def ended(self, connection: HttpConnection) -> None:
        """The connection ends: its client is noted with what it got."""
        top, served, sent_bytes = self.outcomes.top, connection.served, connection.stream.sent_bytes
        if top is not None and served:
            saved, saved_bytes = served - connection.unsaved, sent_bytes - connection.unsaved_bytes
            top.note_connection(connection.fd, sent_bytes, served, saved, saved_bytes, connection.client)

    def give_up(self, connection: HttpConnection) -> None:
        """Its request, `http_given_up`, is not answered any further: the client is too slow, or the process ends."""
        self._finish(connection, "given up")

    def note_refused(self, fd: int, answer: bytes, sent_bytes: int) -> None:
        """A client was told why no request of its is answered: there was none, or a limit is reached."""
        self.outcomes.note_not_looked_at(int(answer[9:12]))
        if self._observers:
            record = RequestRecord(client=peer_name(fd), request_id=self._ids.next(), began_ns=monotonic_ns())
            record.answered(answer)
            end_request(record, "refused", sent_bytes, self._observers)

    def _take_step(self, answer: UnfinishedAnswer) -> RequestOutcome:
        """Continue an answer in steps until it must wait again."""
        context, steps = answer
        connection = context.connection
        try:
            with about(context.record.request_id):
                if connection.has_left:
                    steps.close()
                    raise ClientGone("left while it waited")
                wait = next(steps)
        except StopIteration as end:
            return self._ended(context, end.value)
        except (ClientGone, BodyCutShort) as error:
            return self._broken_off(connection, answer.key, error)
        return connection.pause(answer, wait, is_last=context.said.closes)

    def _guarded(self, context: RequestContext, answering: Answering) -> Steps[RequestOutcome]:
        """The answer; its failures are told like those of one without steps."""
        try:
            while not isinstance(answering, _COMPLETE):
                try:
                    answering = yield from answering
                except ObjectGone:
                    answering = self._again(context)
        except _TOLD as error:
            return (yield from _in_steps(self._failed(context, error)))
        return answering

    def _ended(self, context: RequestContext, outcome: RequestOutcome) -> RequestOutcome:
        """The steps have come to their end."""
        errand, context.errand = context.errand, None
        try:
            if isinstance(outcome, WaitsFor):
                return outcome
            self._finish(context.connection, context.result)
        finally:  # whatever goes wrong: the fetch has left it to nobody else
            if errand is not None:  # a client whose connection is to be closed waits for that
                (errand.run if outcome is KEEP_ALIVE else errand.hand_over)()
        if isinstance(outcome, Done):
            return outcome
        return self._answered(context.connection, context.request.target)

    def _answered(self, connection: HttpConnection, path: bytes) -> RequestOutcome:
        """The next request may come, once the rest of this one's body is out of its way."""
        if connection.parser.body_complete:
            return KEEP_ALIVE
        return self._skip(connection, UnreadBody(path, connection.skip_body()))

    def _skip(self, connection: HttpConnection, body: UnreadBody) -> RequestOutcome:
        """Discard what has come of a body. The request is counted already: a client that leaves is not."""
        try:
            wait = next(body.steps)
        except StopIteration as end:
            return KEEP_ALIVE if end.value else Done(connection)
        except ClientGone:
            return Done(connection)
        return connection.pause(body, wait, is_last=False)

    def _failed(self, context: RequestContext, error: Exception) -> Answering:
        """Nothing has been sent yet: the client is told by a status."""
        if isinstance(error, HttpError):
            return self._refuse(context, error.status, error.text)
        told = told_of(error)
        if told.status >= 500:
            self.failures.note(context.request.target, error)
        return self._refuse(context, *told)

    def _broken_off(self, connection: HttpConnection, path: bytes, error: ClientGone | BodyCutShort) -> Done:
        with about(connection.request_id):
            outcome = broken_off(path, error)
        self._finish(connection, outcome)
        return Done(connection)

    # -- what is asked for ---------------------------------------------------------------------------------------
    def _route(self, context: RequestContext) -> Answering:
        request = context.request
        if request.method in _NOT_PASSED:
            return self._refuse(context, 501, f"{request.method.decode()} is not supported")
        if request.target == self._health_path:
            return self._tell_health(context)
        if self._via.came_round(request.fields):
            return self._refuse(context, 508, "loop detected: this proxy is already in Via")
        if ends_here(request):
            return context.answer(200, "", "answered", _ALLOW)
        target = self._origins.find(split_target(request.target, request.fields.get(b"host")))
        if isinstance(target, Refused):
            return self._refuse(context, target.status, target.reason)
        context.target = target
        context.record.origin = target.base
        if request.method == b"PURGE":
            return self._purge(context)
        if request.method not in (b"GET", b"HEAD"):
            return self._pass(context, b"method")
        return self._from_cache(context)

    def _tell_health(self, context: RequestContext) -> Answering:
        if context.request.method not in (b"GET", b"HEAD"):
            return self._refuse(context, 405, "only GET and HEAD here", b"Allow: GET, HEAD\r\n")
        status, text = (503, "draining") if self._shutdown.draining else (200, "ok")
        return context.answer(status, text, "answered", b"Cache-Control: no-store\r\n")

    def _may_stay(self, connection: HttpConnection, request: RequestHead) -> bool:
        """While the process drains, only for a request that has arrived behind this one, and would be lost."""
        return not self._shutdown.draining or (request.framing is Framing.NONE and connection.has_arrived())

    def _refuse(self, context: RequestContext, status: int, text: str, fields: bytes = b"") -> Answering:
        request = context.request
        stays = status not in (400, 501) and request.framing is Framing.NONE
        stays = stays and self._may_stay(context.connection, request)
        said = connection_for(context.request, may_stay=stays)
        context.said = said.saying(self._ids.in_head(context.record.request_id)) if self._ids.in_heads else said
        return context.answer(status, text, "refused" if status < 500 else "error", fields)

    def _purge(self, context: RequestContext) -> Answering:
        """Remove everything stored for the URL, with all variants; with `X-Purge: soft` invalidate it instead."""
        address = peer_address(context.connection.fd)
        if address is None or not any(address in network for network in self._policy.purge_networks):
            return self._refuse(context, 405, "PURGE not allowed from here")
        if not self._updates.keeps:
            return self._refuse(context, 405, "nothing to purge: this proxy has no cache")
        key = context.target.key
        soft = (context.request.fields.get(b"x-purge") or b"").lower() == b"soft"
        count = self._updates.purge(key, soft=soft) if len(key) <= KEY_BYTES_MAX else 0
        return context.answer(200, f"{count} objects {'marked stale' if soft else 'removed'}", "purged")

    def _from_cache(self, context: RequestContext) -> Answering:
        context.lookups += 1
        try:
            return self._decide(context)
        except ObjectGone:
            return self._again(context)

    def _again(self, context: RequestContext) -> Answering:
        """What was found is gone."""
        return self._from_cache(context) if context.lookups < LOOKUPS_MAX else self._pass(context, b"miss")

    def _decide(self, context: RequestContext) -> Answering:
        asked_at = monotonic()
        asking = None if context.void_lease is None else self._fetches.asking(context.target, context.request)
        found = None
        try:
            lookup = self._look_up(context, None if asking is None else context.void_lease)
            found = lookup.found
            stored = found.stored if found is not None else None
            decision = decide(context.request, stored, context.now, other_variants=lookup.index is not None)
            action = decision.action
            if log.isEnabledFor(logging.DEBUG):
                place = "none" if found is None else found.place
                log.debug("looked up", extra={"key": context.target.key, "decision": action.name, "place": place})
            if found is not None and action in (Action.HIT, Action.STALE_HIT):
                if action is Action.STALE_HIT:
                    wanted = _fetch_request(context, lookup, found.without_body())
                    self._fetches.validate_in_background(wanted, monotonic())
                return self._send_stored(context, found, decision.age_s, None, "hit", _CACHE_RESULTS[action])
            if action is Action.ONLY_IF_CACHED_MISS:
                return self._not_stored(context, 504, "not cached (only-if-cached)", decision.reason)
            if context.target.rule is None:
                return self._without_origin(context, None if action is Action.PASS else found, decision.reason)
            if action is Action.PASS:
                return self._pass(context, decision.reason)
            if found is not None:
                found.end_transfer()  # an origin may be slow: no segment and no worker of the cache waits for it
            if context.request.method == b"HEAD":
                return self._ask_about(context, found, decision)
            validates = found.without_body() if found is not None and action is Action.REVALIDATE else None
            wanted, asking_on, asking = _fetch_request(context, lookup, validates), asking, None
            return self._fetch(context, wanted, found, decision, asked_at, asking=asking_on)
        finally:
            if asking is not None:
                asking.end()
            if found is not None:
                found.cancel_quietly()

    def _look_up(self, context: RequestContext, void_lease: int | None) -> Lookup:
        if len(context.target.key) > KEY_BYTES_MAX:
            return Lookup()
        has_origin = context.target.rule is not None
        wait_s = self._policy.cache_first_byte_s if has_origin else self._policy.cache_wait_s
        try:
            return self._lookup.find(
                context.target.key, context.request, wait_s, names_files=not has_origin, void_lease=void_lease
            )
        except CacheUnavailable:
            if not has_origin:
                raise
            return Lookup()

    def _without_origin(self, context: RequestContext, found: StoredHit | None, fwd: bytes) -> Answering:
        status, text = (504, "stale, and there is no origin to validate it") if found else (404, "no such object")
        return self._not_stored(context, status, text, fwd)

    def _not_stored(self, context: RequestContext, status: int, text: str, lacking: bytes) -> Answering:
        """Nothing usable is stored and no origin is asked; `lacking` in the terms of `fwd`."""
        said = b"Cache-Status: %s\r\n" % self._heads.status(detail=lacking)
        return context.answer(status, text, "not found" if status == 404 else lacking.decode(), said)

    def _send_stored(
        self,
        context: RequestContext,
        found: StoredHit,
        age_s: int,
        status: bytes | None,
        result: str,
        cache: CacheResult,
    ) -> Answering:
        context.record.cache = cache
        condition = evaluate_conditions(context.request, found.stored, context.now)
        if condition is Condition.ASK_ORIGIN and context.target.rule is not None:
            found.cancel_quietly()
            return self._pass(context, b"request")
        return self._stored.send(context, found, age_s, status, condition, result)

    # -- from the origin -----------------------------------------------------------------------------------------
    def _fetch(
        self,
        context: RequestContext,
        wanted: FetchRequest,
        found: StoredHit | None,
        decision: Decision,
        asked_at: float,
        *,
        bypass: bool = False,
        asking: Asking | None = None,
    ) -> Steps[RequestOutcome]:
        try:
            opened = self._fetches.open(wanted, asked_at, bypass=bypass)
        finally:
            if asking is not None:
                asking.end()
        if opened is None:  # filled since: the cache has it now
            return (yield from _in_steps(self._from_cache(context)))
        reader, collapsed = opened.reader, opened.collapsed
        reader.runs_errands = True
        asked_ns = monotonic_ns()
        try:
            try:
                while (answer := reader.news()) is None or isinstance(answer, Interim):
                    if answer is None:
                        yield reader
                    else:
                        reader.hand_over()  # the client may be slow to take it
                        yield from send_interim(context.connection.stream, context.request, answer)
                context.record.upstream_ns += monotonic_ns() - asked_ns
            except NotFollowed as error:
                context.record.upstream_ns += monotonic_ns() - asked_ns
                return (yield from self._without_holder(context, wanted, decision, asked_at, error))
            except OriginError as error:
                context.record.upstream_ns += monotonic_ns() - asked_ns
                if found is not None and self._may_serve_stale(context, found, status_for_stale(error)):
                    return (yield from _in_steps(self._send_stale(context, found, decision, None, error)))
                raise
            if isinstance(answer, Validated):
                if not collapsed or self._may_share(context, answer):
                    answering = self._send_validated(context, found, answer, decision, collapsed=collapsed)
                    return (yield from _in_steps(answering))
            else:
                assert isinstance(answer, Head)
                status_code = answer.response.status
                if found is not None and self._may_serve_stale(context, found, status_code):
                    return (yield from _in_steps(self._send_stale(context, found, decision, status_code)))
                if not collapsed or self._may_share(context, answer):
                    sending = self._send_fetched(context, reader, answer, decision, collapsed=collapsed)
                    outcome = yield from _handing_over(reader, sending)
                    context.errand = reader.take_errand()
                    return outcome
        finally:
            reader.close()
        # Another request's response cannot be used here. Another fetch can be shared with requests that have the same
        # values in the fields it varies on.
        self._fetches.mark_unshareable(wanted, answer)
        variant = variant_id(answer.stored.selecting, context.request)
        bypass = variant in (b"", wanted.variant)
        wanted = replace(wanted, variant=variant, lease=None)
        return (yield from self._fetch(context, wanted, found, decision, asked_at, bypass=bypass))

    def _without_holder(
        self, context: RequestContext, wanted: FetchRequest, decision: Decision, asked_at: float, error: NotFollowed
    ) -> Steps[RequestOutcome]:
        """Another process was to fetch it for this one too, and does not."""
        if isinstance(error, NotShared):
            self._fetches.note_unshared(wanted)
            return (yield from self._fetch(context, replace(wanted, lease=None), None, decision, asked_at, bypass=True))
        # It may have stored it; otherwise the lease is for whoever is the first to say that it is void.
        is_last = context.lookups >= LOOKUPS_MAX or not isinstance(error, LeaseVoid)
        context.void_lease = None if is_last or wanted.lease is None else wanted.lease.number
        return (yield from _in_steps(self._from_cache(context)))

    def _send_fetched(
        self, context: RequestContext, reader: SpoolReader, answer: Head, decision: Decision, *, collapsed: bool
    ) -> Steps[RequestOutcome]:
        condition = Condition.PROCEED
        if answer.response.status == 200:
            condition = evaluate_conditions(context.request, answer.stored, context.now)
        if condition is Condition.ASK_ORIGIN:
            return (yield from _in_steps(self._pass(context, b"request")))
        return (yield from send_fetched(context, reader, answer, decision, condition, collapsed=collapsed))

    def _may_share(self, context: RequestContext, answer: Head | Validated) -> bool:
        """Whether a response may serve a request that arrived during its fetch: as if it had been stored before."""
        stored, request = answer.stored, context.request
        if not matches(stored.selecting, request):
            return False
        moment = max(context.now, stored.response_time)
        if answer.is_shareable and decide(request, stored, moment).action is Action.HIT:
            return True
        if not isinstance(answer, Head) or not answer.is_common:
            return False
        # A failure serves who asks a moment later too; for how long is the table's matter.
        return answers_waiting(request, stored, stored.response_time if answer.is_common_failure else context.now)

    def _may_serve_stale(self, context: RequestContext, found: StoredHit, status: int | None) -> bool:
        return stale_allowed_on_error(context.request, found.stored, status, context.now, self._policy.caching)

    def _ask_about(self, context: RequestContext, found: StoredHit | None, decision: Decision) -> Steps[RequestOutcome]:
        """Forward a HEAD that the cache cannot answer; its response updates the stored one (section 4.3.5)."""
        if found is None:
            return (yield from self._passing.serve(context, decision.reason))
        asked_time = time()
        judge = _StaleInstead(context, found, self._policy.caching)
        try:
            outcome = yield from self._passing.serve(context, decision.reason, judge)
        except OriginError as error:
            status = judge.head.status if judge.head is not None else None
            if self._may_serve_stale(context, found, status or status_for_stale(error)):
                return (yield from _in_steps(self._send_stale(context, found, decision, status, error)))
            raise
        head = judge.head
        if head is not None and head.status == 200:
            updated = head_update(
                context.request,
                found.stored,
                head,
                request_time=asked_time,
                response_time=time(),
                options=self._policy.caching,
            )
            self._updates.follow_head(found.key, found.version, found.stored, updated)
        return outcome

    def _send_stale(
        self,
        context: RequestContext,
        found: StoredHit,
        decision: Decision,
        fwd_status: int | None,
        error: OriginError | None = None,
    ) -> Answering:
        """The origin failed, or was not asked: serve the stale response, and say so."""
        ttl, key, detail = found.stored.lifetime_s - decision.age_s, context.key_to_tell, why_stale(error)
        status = self._heads.status(fwd=decision.reason, fwd_status=fwd_status, ttl=ttl, key=key, detail=detail)
        return self._send_stored(context, found, decision.age_s, status, "stale", CacheResult.STALE)

    def _send_validated(
        self,
        context: RequestContext,
        found: StoredHit | None,
        answer: Validated,
        decision: Decision,
        *,
        collapsed: bool,
    ) -> Answering:
        stored = answer.stored
        fresh = StoredHit(answer.key, stored, answer.version, held_bytes=answer.held_bytes)
        if found is not None and (found.key, found.version) == (answer.key, answer.version):
            fresh.body, fresh.file = found.body, found.file
        status = self._heads.status(
            fwd=decision.reason,
            fwd_status=304,
            stored=answer.is_stored,
            collapsed=collapsed,
            ttl=stored.lifetime_s,
            key=context.key_to_tell,
        )
        try:
            age_s, cache = stored.initial_age_s, CacheResult.REVALIDATED
            return self._send_stored(context, fresh, age_s, status, "validated", cache)
        finally:
            fresh.cancel_quietly()

    def _pass(self, context: RequestContext, why: bytes) -> Answering:
        if context.target.rule is None:
            if context.request.method in (b"GET", b"HEAD"):
                return self._without_origin(context, None, why)
            return self._refuse(context, 405, "no origin for this method")
        return self._passing.serve(context, why)


def _tell_hot(request: RequestHead, reply: CachedReply) -> None:
    log.debug("request begins", extra={"method": request.method, "path": request.target})
    place = HOT_TABLE if reply.file is None else HOT_TABLE_FILE
    log.debug("looked up", extra={"key": reply.key, "decision": Action.HIT.name, "place": place})


class _StaleInstead:
    """Keeps an origin's error from the client if the stored response may be served instead."""

    def __init__(self, context: RequestContext, found: StoredHit, options: CachingOptions) -> None:
        self._context = context
        self._found = found
        self._options = options
        self.head: ResponseHead | None = None
        """What the origin answered."""

    def judge(self, response: OriginResponse) -> None:
        """As HeadJudge.judge()."""
        self.head = ResponseHead(response.status, response.fields, response.reason)
        context, stored = self._context, self._found.stored
        if stale_allowed_on_error(context.request, stored, response.status, context.now, self._options):
            raise OriginError("a stale response is served instead", status=response.status)


def _fetch_request(context: RequestContext, lookup: Lookup, validates: StoredHit | None) -> FetchRequest:
    """With the fields the response will vary on, by the last one: requests that differ there need not wait for it."""
    variants = lookup.index.variants if lookup.index is not None else ()
    likely = next((variant.selecting for variant in variants if variant.selecting), ())
    replaces = lookup.found.key if lookup.found is not None else b""
    variant = variant_id(likely, context.request)
    return FetchRequest(
        context.target, context.request, validates, lookup.index, replaces, variant, lookup.nothing_below, lookup.lease
    )


def _handing_over(reader: SpoolReader, steps: Steps[RequestOutcome]) -> Steps[RequestOutcome]:
    """The steps; while they wait for the client, what the fetch has left to be run does not."""
    try:
        while True:
            wait = next(steps)
            if wait is not reader:
                reader.hand_over()
            yield wait
    except StopIteration as end:
        outcome: RequestOutcome = end.value
        return outcome
    finally:
        steps.close()


def _in_steps(answering: Answering) -> Steps[RequestOutcome]:
    return answering if isinstance(answering, _COMPLETE) else (yield from answering)
