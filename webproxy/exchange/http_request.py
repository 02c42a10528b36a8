"""HttpRequestHandler: one HTTP request from its head to the last byte of the response, as the rules decide.

**States** that a request can pass, in this order:

    cached reply (fast_path.py) ──▶ sent, or held when its client accepts nothing
    routed ──▶ answered here (OPTIONS, a refusal, PURGE), or only the origin's (other methods)
    looked up ──▶ decided (caching/decision.py) ──HIT, STALE_HIT──▶ delivered from the store
                     ├─PASS──▶ passed through        ├─ONLY_IF_CACHED_MISS, or no origin──▶ 504, 404
                     └─REVALIDATE, FETCH──▶ fetched, alone or with others
    fetched ──Validated──▶ delivered from the store  ──Head──▶ streamed as it arrives
              └─failed──▶ stale response where the rules allow it, otherwise an error

**Events** that lead back: if the object was evicted between lookup and delivery (ObjectGone), or the cache was filled
before the fetch began, the lookup is repeated, LOOKUPS_MAX times. If the response of a joined fetch cannot be used, the
request joins one for its variant, and finally fetches alone. A request whose conditions need the origin is passed on.

**Invariants.** Until something was sent every failure becomes a status (STATUS_OF_ERROR); after the head only the body
follows, or an early end (BodyCutShort). The transfer of a found object ends before waiting for an origin, and on every
path out. Conditions are evaluated here, once, so that a delivery always has an outcome. No state of a request is kept
after it, except in its connection.

**Why not otherwise.** All HTTP decisions are pure functions in caching/, which can be tested with plain values. The
steps call each other instead of using a table: each has two or three successors, and the stack holds what must be
undone on the way out.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic, time
from typing import NamedTuple

from webproxy.caching.decision import Action, Decision, decide, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import head_update
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.caching.variants import matches, variant_id
from webproxy.errors import (
    BodyCutShort,
    CacheUnavailable,
    ClientGone,
    OriginError,
    OriginRefused,
    OriginTimeout,
    Overloaded,
)
from webproxy.exchange.context import RequestContext, Timeouts
from webproxy.exchange.deliver_fetched import FetchedDelivery
from webproxy.exchange.deliver_stored import ObjectGone, StoredDelivery
from webproxy.exchange.fast_path import CachedReply, FastPath, MemoizedRequest, NoFastPath
from webproxy.exchange.pass_through import Declined, HeadJudge, PassThrough, send_interim
from webproxy.exchange.purge import Purges
from webproxy.exchange.response_heads import ResponseHeads, connection_for
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.spool import Head, Interim, SpoolReader, Validated
from webproxy.http.errors import HttpError
from webproxy.http.messages import Framing, RequestHead, ResponseHead
from webproxy.http.urls import BadTarget, split_target
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginTable, Refused
from webproxy.origin.via import Via, ends_here
from webproxy.store.lookup import KEY_BYTES_MAX, Lookup, ObjectLookup, StoredHit
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.outcomes import Outcomes, RequestFailures
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.http1_connection import HttpConnection, PausedBody
from webproxy.transport.job import KEEP_ALIVE, Done, RequestOutcome, WaitsFor

log = logging.getLogger(__name__)

_NOT_PASSED = frozenset((b"CONNECT", b"TRACE"))
_NO_ANSWER = "no valid response from the origin"
LOOKUPS_MAX = 3
"""Maximum lookups per request before falling back to the origin."""
STATUS_OF_ERROR: dict[type[Exception], tuple[int, str]] = {
    BadTarget: (400, ""),
    Overloaded: (503, ""),
    CacheUnavailable: (503, "the cache is unavailable"),
    OriginTimeout: (504, _NO_ANSWER),
    OriginRefused: (403, _NO_ANSWER),
    OriginError: (502, _NO_ANSWER),
}
"""The status for each failure before anything has been sent, and its text; without one the error's own."""


class Answers(NamedTuple):
    """The ways of answering a request: with heads of the proxy's own, and otherwise."""

    fast_path: FastPath | NoFastPath
    heads: ResponseHeads
    stored: StoredDelivery
    fetched: FetchedDelivery
    passing: PassThrough
    purges: Purges


class HttpRequestHandler:
    """Serves requests for many workers at once, without keeping state of any."""

    def __init__(
        self,
        lookup: ObjectLookup,
        updates: CacheUpdater,
        origins: OriginTable,
        fetches: HttpFetches,
        answers: Answers,
        via: Via,
        options: CachingOptions,
        timeouts: Timeouts,
        shutdown: Shutdown,
    ) -> None:
        self._lookup = lookup
        self._updates = updates
        self._origins = origins
        self._fetches = fetches
        self.fast_path, self._heads, self._stored, self._fetched, self._passing, self._purges = answers
        self._via = via
        self._options = options
        self._timeouts = timeouts
        self._shutdown = shutdown
        self.outcomes = Outcomes()
        self.failures = RequestFailures()

    def serve(self, connection: HttpConnection, request: RequestHead | MemoizedRequest) -> RequestOutcome:
        """Answer one request; never raises for failures of client, cache or origin.

        Raises:
            HttpError: an unwanted body is invalid; the response was sent.
        """
        try:
            if isinstance(request, MemoizedRequest):
                return self._send_cached(connection, request.request, request.reply)
            said = connection_for(request, may_stay=not self._shutdown.draining)
            reply = self.fast_path.reply(request, said, connection.bytes_of(request))
            if reply is not None:
                return self._send_cached(connection, request, reply)
            context = RequestContext(connection, request, said, time())
            outcome = self._answer(context)
        except ClientGone:
            return self._client_gone(connection)
        except BodyCutShort as error:
            return self._cut_short(connection, request.target, error)
        if isinstance(outcome, WaitsFor):
            return outcome
        self.outcomes.note(context.result)
        return Done(connection) if outcome is KEEP_ALIVE and not connection.skip_body() else outcome

    def resume(self, connection: HttpConnection, body: PausedBody) -> RequestOutcome:
        """Continue the paused response of a connection; as serve()."""
        connection.paused = None
        try:
            event = body.go_on(connection.take_ticket())
        except ClientGone:
            return self._client_gone(connection)
        except BodyCutShort as error:
            return self._cut_short(connection, body.path, error)
        if event is not None:
            return connection.pause(body, event, is_last=connection.is_last)
        self.outcomes.note("hit")
        return Done(connection) if connection.is_last else KEEP_ALIVE

    def _send_cached(self, connection: HttpConnection, request: RequestHead, reply: CachedReply) -> RequestOutcome:
        outcome = self._stored.send_cached(connection, request, reply)
        if not isinstance(outcome, WaitsFor):
            self.outcomes.note("hit")
        return outcome

    def _answer(self, context: RequestContext) -> RequestOutcome:
        try:
            return self._route(context)
        except HttpError as error:
            return self._refuse(context, error.status, error.text)
        except tuple(STATUS_OF_ERROR) as error:
            status, text = next(told for kind, told in STATUS_OF_ERROR.items() if isinstance(error, kind))
            if status >= 500:
                self.failures.note(context.request.target, error)
            return self._refuse(context, status, text or str(error))

    def _client_gone(self, connection: HttpConnection) -> Done:
        self.outcomes.note("client gone")
        return Done(connection)

    def _cut_short(self, connection: HttpConnection, path: bytes, error: BodyCutShort) -> Done:
        log.warning("body cut short", extra={"path": path, "reason": str(error)})
        self.outcomes.note("cut short")
        return Done(connection)

    # -- what is asked for ---------------------------------------------------------------------------------------
    def _route(self, context: RequestContext) -> RequestOutcome:
        request = context.request
        if request.method in _NOT_PASSED:
            return self._refuse(context, 501, f"{request.method.decode()} is not supported")
        if self._via.came_round(request.fields):
            return self._refuse(context, 508, "loop detected: this proxy is already in Via")
        if ends_here(request):
            context.connection.stream.send_all(self._heads.options(context.said, context.now))
            return context.ended("answered")
        target = self._origins.find(split_target(request.target, request.fields.get(b"host")))
        if isinstance(target, Refused):
            return self._refuse(context, target.status, target.reason)
        context.target = target
        if request.method == b"PURGE":
            if not self._purges.may_purge(context):
                return self._refuse(context, 405, "PURGE not allowed from here")
            return self._purges.serve(context)
        if request.method not in (b"GET", b"HEAD"):
            return self._pass(context, b"method")
        return self._from_cache(context)

    def _refuse(self, context: RequestContext, status: int, text: str) -> RequestOutcome:
        stays = status not in (400, 501) and context.request.framing is Framing.NONE and not self._shutdown.draining
        context.said = connection_for(context.request, may_stay=stays)
        with_body = context.request.method != b"HEAD"
        context.connection.stream.send_all(
            self._heads.error(status, context.said, context.now, text, with_body=with_body)
        )
        return context.ended("refused" if status < 500 else "error")

    def _from_cache(self, context: RequestContext) -> RequestOutcome:
        context.lookups += 1
        try:
            return self._decide(context)
        except ObjectGone:
            return self._from_cache(context) if context.lookups < LOOKUPS_MAX else self._pass(context, b"miss")

    def _decide(self, context: RequestContext) -> RequestOutcome:
        asked_at = monotonic()
        lookup = self._look_up(context)
        found = lookup.found
        try:
            stored = found.stored if found is not None else None
            decision = decide(context.request, stored, context.now, other_variants=lookup.index is not None)
            action = decision.action
            if found is not None and action in (Action.HIT, Action.STALE_HIT):
                if action is Action.STALE_HIT:
                    wanted = _fetch_request(context, lookup, found.without_body())
                    self._fetches.validate_in_background(wanted, monotonic())
                return self._send_stored(context, found, decision.age_s, None, "hit")
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
            return self._fetch(context, _fetch_request(context, lookup, validates), found, decision, asked_at)
        finally:
            if found is not None:
                found.cancel_quietly()

    def _look_up(self, context: RequestContext) -> Lookup:
        if len(context.target.key) > KEY_BYTES_MAX:
            return Lookup()
        has_origin = context.target.rule is not None
        wait_s = self._timeouts.cache_first_byte_s if has_origin else self._timeouts.cache_s
        try:
            return self._lookup.find(context.target.key, context.request, wait_s, names_files=not has_origin)
        except CacheUnavailable:
            if not has_origin:
                raise
            return Lookup()

    def _without_origin(self, context: RequestContext, found: StoredHit | None, fwd: bytes) -> RequestOutcome:
        status, text = (504, "stale, and there is no origin to validate it") if found else (404, "no such object")
        return self._not_stored(context, status, text, fwd)

    def _not_stored(self, context: RequestContext, status: int, text: str, lacking: bytes) -> RequestOutcome:
        """Nothing usable is stored and no origin is asked; `lacking` in the terms of `fwd`."""
        with_body = context.request.method != b"HEAD"
        data = self._heads.not_stored(status, context.said, context.now, text, lacking, with_body=with_body)
        context.connection.stream.send_all(data)
        return context.ended("not found" if status == 404 else lacking.decode())

    def _send_stored(
        self, context: RequestContext, found: StoredHit, age_s: int, status: bytes | None, result: str
    ) -> RequestOutcome:
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
    ) -> RequestOutcome:
        opened = self._fetches.open(wanted, asked_at, bypass=bypass)
        if opened is None:  # filled since: the cache has it now
            return self._from_cache(context)
        reader, collapsed = opened
        try:
            try:
                while isinstance(answer := reader.wait_news(), Interim):
                    send_interim(context.connection.stream, context.request, answer.status, answer.fields)
            except OriginError:
                if found is not None and self._may_serve_stale(context, found, None):
                    return self._send_stale(context, found, decision, None)
                raise
            if isinstance(answer, Validated):
                if not collapsed or (answer.is_shareable and self._may_share(context, answer.stored)):
                    return self._send_validated(context, found, answer, decision, collapsed=collapsed)
            else:
                assert isinstance(answer, Head)
                status_code = answer.response.status
                if found is not None and self._may_serve_stale(context, found, status_code):
                    return self._send_stale(context, found, decision, status_code)
                if not collapsed or (answer.is_shareable and self._may_share(context, answer.stored)):
                    return self._send_fetched(context, reader, answer, decision, collapsed=collapsed)
        finally:
            reader.close()
        # Another request's response cannot be used here. Another fetch can be shared with requests that have the same
        # values in the fields it varies on.
        self._fetches.mark_unshareable(wanted, answer)
        variant = variant_id(answer.stored.selecting, context.request)
        bypass = variant in (b"", wanted.variant)
        return self._fetch(context, replace(wanted, variant=variant), found, decision, asked_at, bypass=bypass)

    def _send_fetched(
        self, context: RequestContext, reader: SpoolReader, answer: Head, decision: Decision, *, collapsed: bool
    ) -> RequestOutcome:
        condition = Condition.PROCEED
        if answer.response.status == 200:
            condition = evaluate_conditions(context.request, answer.stored, context.now)
        if condition is Condition.ASK_ORIGIN:
            return self._pass(context, b"request")
        return self._fetched.send(context, reader, answer, decision, condition, collapsed=collapsed)

    def _may_share(self, context: RequestContext, stored: StoredResponse) -> bool:
        """Whether a response may serve requests that arrived during its fetch: as if it had been stored before."""
        if not matches(stored.selecting, context.request):
            return False
        moment = max(context.now, stored.response_time)
        return decide(context.request, stored, moment).action is Action.HIT

    def _may_serve_stale(self, context: RequestContext, found: StoredHit, status: int | None) -> bool:
        return stale_allowed_on_error(context.request, found.stored, status, context.now, self._options)

    def _ask_about(self, context: RequestContext, found: StoredHit | None, decision: Decision) -> RequestOutcome:
        """Forward a HEAD that the cache cannot answer; its response updates the stored one (section 4.3.5)."""
        if found is None:
            return self._passing.serve(context, decision.reason)
        asked_time = time()
        judge = _StaleInstead(context, found, self._options)
        try:
            outcome = self._passing.serve_unless(context, decision.reason, judge)
        except OriginError:
            if self._may_serve_stale(context, found, None):
                return self._send_stale(context, found, decision, None)
            raise
        if isinstance(outcome, Declined):
            return self._send_stale(context, found, decision, outcome.status)
        head = judge.head
        if head is not None and head.status == 200:
            updated = head_update(
                context.request,
                found.stored,
                head,
                request_time=asked_time,
                response_time=time(),
                options=self._options,
            )
            self._updates.follow_head(found.key, found.version, found.stored, updated)
        return outcome

    def _send_stale(
        self, context: RequestContext, found: StoredHit, decision: Decision, fwd_status: int | None
    ) -> RequestOutcome:
        """The origin failed: serve the stale response, and say so."""
        ttl, key = found.stored.lifetime_s - decision.age_s, context.key_to_tell
        status = self._heads.status(fwd=decision.reason, fwd_status=fwd_status, ttl=ttl, key=key, detail=b"stale")
        return self._send_stored(context, found, decision.age_s, status, "stale")

    def _send_validated(
        self,
        context: RequestContext,
        found: StoredHit | None,
        answer: Validated,
        decision: Decision,
        *,
        collapsed: bool,
    ) -> RequestOutcome:
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
            return self._send_stored(context, fresh, stored.initial_age_s, status, "validated")
        finally:
            fresh.cancel_quietly()

    def _pass(self, context: RequestContext, why: bytes) -> RequestOutcome:
        if context.target.rule is None:
            if context.request.method in (b"GET", b"HEAD"):
                return self._without_origin(context, None, why)
            return self._refuse(context, 405, "no origin for this method")
        return self._passing.serve(context, why)


class _StaleInstead(HeadJudge):
    """Declines an origin's error if the stored response may be served instead; remembers the status."""

    def __init__(self, context: RequestContext, found: StoredHit, options: CachingOptions) -> None:
        self._context = context
        self._found = found
        self._options = options
        self.head: ResponseHead | None = None

    def declines(self, response: OriginResponse) -> bool:
        """As HeadJudge.declines()."""
        self.head = ResponseHead(response.status, response.fields, response.reason)
        context = self._context
        return stale_allowed_on_error(context.request, self._found.stored, response.status, context.now, self._options)


def _fetch_request(context: RequestContext, lookup: Lookup, validates: StoredHit | None) -> FetchRequest:
    """With the fields the response will vary on, by the last one: requests that differ there need not wait for it."""
    variants = lookup.index.variants if lookup.index is not None else ()
    likely = next((variant.selecting for variant in variants if variant.selecting), ())
    replaces = lookup.found.key if lookup.found is not None else b""
    variant = variant_id(likely, context.request)
    return FetchRequest(
        context.target, context.request, validates, lookup.index, replaces, variant, lookup.nothing_below
    )
