"""HttpRequestHandler: one HTTP request from its head to the last byte of the answer, as the rules decide.

Down these steps, in this order: cache, origin, a stale response where the rules allow it, error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, time

from webproxy.caching.decision import Action, Decision, decide, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import head_update
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
from webproxy.exchange.body_transfer import BodyTransfer, Pause
from webproxy.exchange.context import RequestContext, Result
from webproxy.exchange.deliver_fetched import FetchedDelivery
from webproxy.exchange.deliver_stored import ObjectGone, StoredDelivery
from webproxy.exchange.fast_path import FastPath
from webproxy.exchange.getfile_request import Paused
from webproxy.exchange.local_answers import LocalResponses
from webproxy.exchange.pass_through import PassThrough, send_interim
from webproxy.exchange.purge import Networks, Purges
from webproxy.exchange.response_heads import Connection, ResponseHeads, connection_for
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.spool import Head, Validated
from webproxy.http.errors import HttpError
from webproxy.http.messages import Framing, RequestHead, ResponseHead
from webproxy.http.urls import BadTarget, split_target
from webproxy.origin.routing import OriginTable, Refused
from webproxy.origin.via import Via
from webproxy.store.lookup import KEY_BYTES_MAX, Lookup, ObjectLookup, StoredHit
from webproxy.store.store import Store
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.failures import RequestFailures
from webproxy.telemetry.outcomes import Outcomes
from webproxy.transport.cached_reply import CachedReply, MemoizedRequest, Recognise, recognise_nothing
from webproxy.transport.http1_connection import HttpConnection

log = logging.getLogger(__name__)

_NO_ANSWER = "no valid response from the origin"
LOOKUPS_MAX = 3
"""So often a request may find an object and lose it again before its body was sent."""
STATUS_OF_ERROR: dict[type[Exception], tuple[int, str]] = {
    BadTarget: (400, ""),
    Overloaded: (503, ""),
    CacheUnavailable: (503, "the cache is unavailable"),
    OriginTimeout: (504, _NO_ANSWER),
    OriginRefused: (403, _NO_ANSWER),
    OriginError: (502, _NO_ANSWER),
}
"""What a client is told when it has been told nothing yet, and how: nothing stands for the error's own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What holds for every request; times in seconds."""

    cache_wait_s: float
    queue_wait_s: float
    options: CachingOptions
    purge_networks: Networks
    via: Via


class HttpRequestHandler:
    """Serves requests for many workers at once; keeps nothing of one."""

    def __init__(
        self,
        store: Store,
        lookup: ObjectLookup,
        updates: CacheUpdater,
        origins: OriginTable,
        fetches: HttpFetches,
        passing: PassThrough,
        replies: ResponseHeads,
        settings: HttpSettings,
        *,
        stopping: Callable[[], bool],
        others_wait: Callable[[], bool],
        quick: FastPath | None = None,
    ) -> None:
        self._lookup = lookup
        self._updates = updates
        self._origins = origins
        self._fetches = fetches
        self._passing = passing
        self._replies = replies
        self._settings = settings
        self._options = settings.options
        self._stopping = stopping
        self._quick = quick
        self.recognise: Recognise = recognise_nothing if quick is None else quick.recognise
        self._stored = StoredDelivery(store, replies, cache_wait_s=settings.cache_wait_s, others_wait=others_wait)
        self._own = LocalResponses(replies, settings.via)
        self._purges = Purges(updates, replies, settings.purge_networks)
        self._fetched = FetchedDelivery(replies)
        self._outcomes = Outcomes()
        self.failures = RequestFailures()

    def serve(self, connection: HttpConnection, request: RequestHead | MemoizedRequest) -> Paused | bool | None:
        """Answer one request: True when the connection goes on, False when it ends, or what is left of the answer.

        None when nothing was sent, for the client takes nothing now. Never raises for what client, cache or origin do.
        """
        try:
            if isinstance(request, MemoizedRequest):
                return self._send_quick(connection, request.reply)
            said = connection_for(request, may_stay=not self._stopping())
            if self._quick is not None:
                reply = self._quick.reply(request, said, connection.bytes_of(request))
                if reply is not None:
                    return self._send_quick(connection, reply)
            result = self._answer(connection, request, said)
        except ClientGone:
            self._outcomes.note("client gone")
            return False
        except BodyCutShort as error:
            return self._cut_short(request.target, error)
        if isinstance(result, Paused):
            return result
        outcome, goes_on = result
        self._outcomes.note(outcome)
        return goes_on and connection.skip_body()

    def _send_quick(self, connection: HttpConnection, reply: CachedReply) -> Paused | bool | None:
        sent = self._stored.send_quick(connection, reply)
        if sent is not True:
            return sent or None
        self._outcomes.note("hit")
        return not reply.closes

    def _answer(self, connection: HttpConnection, request: RequestHead, said: Connection) -> Result:
        try:
            return self._serve(connection, request, said)
        except HttpError as error:
            return self._refuse(connection, request, error.status, str(error))
        except tuple(STATUS_OF_ERROR) as error:
            status, text = next(told for kind, told in STATUS_OF_ERROR.items() if isinstance(error, kind))
            if status >= 500:
                self.failures.note(request.target, error)
            return self._refuse(connection, request, status, text or str(error))

    def _cut_short(self, path: bytes, error: BodyCutShort) -> bool:
        log.warning("body cut short", extra={"path": path, "reason": str(error)})
        self._outcomes.note("cut short")
        return False

    def resume(self, response: BodyTransfer) -> Paused | bool:
        """Go on with a paused answer; as serve()."""
        try:
            paused = self._stored.go_on(response, Pause.WIDEN)
        except ClientGone:
            self._outcomes.note("client gone")
            return False
        except BodyCutShort as error:
            return self._cut_short(response.key, error)
        if paused is not None:
            return paused
        self._outcomes.note("hit")
        return response.connection is not None

    def expire(self) -> None:
        """Let go of replies that hold no more; to be called every second or so."""
        if self._quick is not None:
            self._quick.expire()

    def drain(self) -> None:
        """No connection stays any more, and `stopping` says so already."""
        if self._quick is not None:
            self._quick.forget()

    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        return self._outcomes.totals()

    def _refuse(self, connection: HttpConnection, request: RequestHead, status: int, text: str) -> tuple[str, bool]:
        stays = status not in (400, 501) and request.framing is Framing.NONE and not self._stopping()
        said = connection_for(request, may_stay=stays)
        data = self._replies.error(status, said, time(), text, with_body=request.method != b"HEAD")
        connection.stream.send_all(data)
        return "refused" if status < 500 else "error", not said.closes

    # -- what is asked for ---------------------------------------------------------------------------------------
    def _serve(self, connection: HttpConnection, request: RequestHead, said: Connection) -> Result:
        now = time()
        own = self._own.serve(connection, request, said, now)
        if own is not None:
            return own
        target = self._origins.find(split_target(request.target, request.fields.get(b"host")))
        if isinstance(target, Refused):
            return self._refuse(connection, request, target.status, target.reason)
        context = RequestContext(connection, request, target, said, now)
        if request.method == b"PURGE":
            return self._purges.serve(context) or self._refuse(connection, request, 405, "PURGE not allowed from here")
        if request.method not in (b"GET", b"HEAD"):
            return self._pass(context, b"method")
        return self._from_cache(context)

    def _from_cache(self, context: RequestContext) -> Result:
        context.lookups += 1
        try:
            return self._decide(context)
        except ObjectGone:
            return self._from_cache(context) if context.lookups < LOOKUPS_MAX else self._pass(context, b"miss")

    def _decide(self, context: RequestContext) -> Result:
        asked_at = monotonic()
        lookup = self._look_up(context)
        found = lookup.found
        try:
            stored = found.stored if found is not None else None
            decision = decide(context.request, stored, context.now, other_variants=lookup.index is not None)
            action = decision.action
            if found is not None and action in (Action.HIT, Action.STALE_HIT):
                if action is Action.STALE_HIT:
                    self._validate_behind(context, lookup, found)
                return self._send_stored(context, found, decision.age_s, None, "hit")
            if action is Action.ONLY_IF_CACHED_MISS:
                return self._answer_error(context, 504, "not cached (only-if-cached)", decision.reason)
            if context.target.rule is None:
                return self._answer_without_origin(context, None if action is Action.PASS else found, decision.reason)
            if action is Action.PASS:
                return self._pass(context, decision.reason)
            if found is not None:
                found.cancel_quietly()  # an origin may be slow: no segment and no worker of the cache waits for it
            if context.request.method == b"HEAD":
                return self._ask_about(context, found, decision)
            validates = found.without_body() if found is not None and action is Action.REVALIDATE else None
            return self._fetch(context, _order(context, lookup, validates), found, decision, asked_at)
        finally:
            if found is not None:
                found.cancel_quietly()

    def _look_up(self, context: RequestContext) -> Lookup:
        if len(context.target.key) > KEY_BYTES_MAX:
            return Lookup()
        has_origin = context.target.rule is not None
        wait_s = self._settings.queue_wait_s if has_origin else self._settings.cache_wait_s
        try:
            return self._lookup.find(context.target.key, context.request, wait_s, names_files=not has_origin)
        except CacheUnavailable:
            if not has_origin:
                raise
            return Lookup()

    def _validate_behind(self, context: RequestContext, lookup: Lookup, found: StoredHit) -> None:
        self._fetches.validate_in_background(_order(context, lookup, found.without_body()), monotonic())

    def _answer_error(self, context: RequestContext, status: int, text: str, fwd: bytes) -> tuple[str, bool]:
        with_body = context.request.method != b"HEAD"
        data = self._replies.not_stored(status, context.said, context.now, text, fwd, with_body=with_body)
        context.connection.stream.send_all(data)
        return "not found" if status == 404 else fwd.decode(), not context.said.closes

    def _answer_without_origin(self, context: RequestContext, found: StoredHit | None, fwd: bytes) -> tuple[str, bool]:
        status, text = (504, "stale, and there is no origin to validate it") if found else (404, "no such object")
        return self._answer_error(context, status, text, fwd)

    def _send_stored(
        self, context: RequestContext, found: StoredHit, age_s: int, status: bytes | None, outcome: str
    ) -> Result:
        result = self._stored.send(context, found, age_s, status, outcome)
        return result if result is not None else self._pass(context, b"request")

    # -- from the origin -----------------------------------------------------------------------------------------
    def _fetch(
        self,
        context: RequestContext,
        order: FetchRequest,
        found: StoredHit | None,
        decision: Decision,
        asked_at: float,
        *,
        alone: bool = False,
    ) -> Result:
        opened = self._fetches.open(order, asked_at, alone=alone)
        if opened is None:  # filled since: the cache has it now
            return self._from_cache(context)
        reader, joined = opened
        try:
            try:
                answer = reader.wait_answer(partial(send_interim, context.connection.stream, context.request))
            except OriginError:
                if self._may_serve_stale(context, found, None):
                    assert found is not None
                    return self._send_stale(context, found, decision, None)
                raise
            if isinstance(answer, Validated):
                if not joined or (answer.is_shareable and self._may_share(context, answer.stored)):
                    return self._send_validated(context, found, answer, decision, joined=joined)
            else:
                assert isinstance(answer, Head)
                status_code = answer.response.status
                if self._may_serve_stale(context, found, status_code):
                    assert found is not None
                    return self._send_stale(context, found, decision, status_code)
                if not joined or (answer.is_shareable and self._may_share(context, answer.stored)):
                    result = self._fetched.send(context, reader, answer, decision, joined=joined)
                    return result if result is not None else self._pass(context, b"request")
        finally:
            reader.close()
        # Somebody else's answer is of no use here. With those whose request has the same values in what it varies in,
        # another fetch can be shared.
        self._fetches.mark_unshareable(order, answer)
        variant = variant_id(answer.stored.selecting, context.request)
        alone = variant in (b"", order.variant)
        return self._fetch(context, replace(order, variant=variant), found, decision, asked_at, alone=alone)

    def _may_share(self, context: RequestContext, stored: StoredResponse) -> bool:
        """Whether an answer may serve who asked while it was on its way: as if it had been stored before."""
        if not matches(stored.selecting, context.request):
            return False
        moment = max(context.now, stored.response_time)
        return decide(context.request, stored, moment).action is Action.HIT

    def _may_serve_stale(self, context: RequestContext, found: StoredHit | None, status: int | None) -> bool:
        return found is not None and stale_allowed_on_error(
            context.request, found.stored, status, context.now, self._options
        )

    def _ask_about(self, context: RequestContext, found: StoredHit | None, decision: Decision) -> Result:
        """A HEAD that the cache cannot answer goes on as one; what it tells updates what is stored (section 4.3.5)."""
        asked_time = time()
        try:
            response, goes_on = self._passing.serve(
                context.connection,
                context.request,
                context.target,
                context.said,
                decision.reason,
                lambda response: self._may_serve_stale(context, found, response.status),
            )
        except OriginError:
            if self._may_serve_stale(context, found, None):
                assert found is not None
                return self._send_stale(context, found, decision, None)
            raise
        if goes_on is None:
            assert found is not None
            return self._send_stale(context, found, decision, response.status)
        if found is not None and response.status == 200:
            head = ResponseHead(response.status, response.fields, response.reason)
            updated = head_update(
                context.request,
                found.stored,
                head,
                request_time=asked_time,
                response_time=time(),
                options=self._options,
            )
            self._updates.follow_head(found.key, found.version, found.stored, updated)
        return "passed", goes_on

    def _send_stale(
        self, context: RequestContext, found: StoredHit, decision: Decision, fwd_status: int | None
    ) -> Result:
        """The origin failed: serve what is there, and say so."""
        ttl = found.stored.lifetime_s - decision.age_s
        key = context.key_to_tell
        status = self._replies.status(fwd=decision.reason, fwd_status=fwd_status, ttl=ttl, key=key, detail=b"stale")
        return self._send_stored(context, found, decision.age_s, status, "stale")

    def _send_validated(
        self, context: RequestContext, found: StoredHit | None, answer: Validated, decision: Decision, *, joined: bool
    ) -> Result:
        stored, ttl = answer.stored, answer.stored.lifetime_s
        body = found.body if found is not None and (found.key, found.version) == (answer.key, answer.version) else None
        fresh, key = (
            StoredHit(answer.key, stored, answer.version, body, held_bytes=answer.held_bytes),
            context.key_to_tell,
        )
        status = self._replies.status(
            fwd=decision.reason, fwd_status=304, stored=answer.is_stored, collapsed=joined, ttl=ttl, key=key
        )
        try:
            return self._send_stored(context, fresh, stored.initial_age_s, status, "validated")
        finally:
            fresh.cancel_quietly()

    def _pass(self, context: RequestContext, why: bytes) -> tuple[str, bool]:
        target, request = context.target, context.request
        if target.rule is None:
            if request.method in (b"GET", b"HEAD"):
                return self._answer_without_origin(context, None, why)
            return self._refuse(context.connection, request, 405, "there is no origin for this method")
        before_told = partial(self._purges.invalidate, context)
        _, goes_on = self._passing.serve(context.connection, request, target, context.said, why, before_told)
        assert goes_on is not None
        return "passed", goes_on


def _order(context: RequestContext, lookup: Lookup, validates: StoredHit | None) -> FetchRequest:
    """With what the answer will vary in, going by the last one: who differs there need not wait for another's."""
    variants = lookup.index.variants if lookup.index is not None else ()
    likely = next((variant.selecting for variant in variants if variant.selecting), ())
    replaces = lookup.found.key if lookup.found is not None else b""
    return FetchRequest(
        context.target, context.request, validates, lookup.index, replaces, variant_id(likely, context.request)
    )
