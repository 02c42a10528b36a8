"""HttpExchange: one HTTP request from its head to the last byte of the answer. Acts on what the caching rules decide.

Down these steps, in this order: cache, origin, a stale response where the rules allow it, error.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, time
from typing import TypeAlias

from shmchannel.deadline import Deadline
from webproxy.cachelink import CacheLink
from webproxy.caching.decision import Action, Decision, decide, stale_allowed_on_error
from webproxy.caching.invalidation import invalidated_targets
from webproxy.caching.options import CachingOptions
from webproxy.caching.partial import WHOLE, RangeKind, answer_range
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import head_update
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.caching.variants import VariantIndex, matches, new_variant, selecting_like
from webproxy.errors import (
    BodyCutShort,
    CacheUnavailable,
    ClientGone,
    OriginError,
    OriginRefused,
    OriginTimeout,
    Overloaded,
)
from webproxy.exchange import Paused
from webproxy.hit import HitResponse, Pause
from webproxy.http.dates import format_http_date
from webproxy.http.errors import HttpError
from webproxy.http.messages import Framing, RequestHead, ResponseHead
from webproxy.http.ranges import multipart_parts
from webproxy.http.serialise import CHUNK_END, LAST_CHUNK, chunk_head
from webproxy.http_connection import HttpConnection
from webproxy.http_fetch import HttpFetches, Order
from webproxy.lookup import KEY_BYTES_MAX, Found, Lookup, ObjectLookup
from webproxy.object_writer import ObjectWriter
from webproxy.origins import OriginTable, Refused, Target
from webproxy.pass_through import PassThrough, body_framing, send_interim
from webproxy.quick_hits import QuickHits
from webproxy.replies import Connection, Replies, connection_for
from webproxy.spool import Head, SpoolReader, Validated
from webproxy.urls import BadTarget, split_target

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Result: TypeAlias = Paused | tuple[str, bool]
"""What is left of the answer, or how the request ended and whether the connection goes on."""
LOOKUPS_MAX = 3
"""So often a request may find an object and lose it again before its body was sent."""
_NOT_PASSED = frozenset((b"CONNECT", b"TRACE"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What holds for every request; times in seconds."""

    cache_wait_s: float
    queue_wait_s: float
    options: CachingOptions
    purge_networks: tuple[Network, ...]


@dataclass(slots=True)
class _Visit:
    """One request on its way, so that the steps need not hand on seven things each."""

    connection: HttpConnection
    request: RequestHead
    target: Target
    said: Connection
    now: float
    variant: bytes = b""
    """As in Order."""
    lookups: int = 0


class _ObjectGone(Exception):
    """The object that was found has left the cache, or was replaced, before its body was asked for."""


class HttpExchange:
    """Serves requests for many workers at once; keeps nothing of one."""

    def __init__(
        self,
        cache: CacheLink | None,
        lookup: ObjectLookup | None,
        writer: ObjectWriter | None,
        origins: OriginTable,
        fetches: HttpFetches,
        passing: PassThrough,
        replies: Replies,
        settings: HttpSettings,
        *,
        stopping: Callable[[], bool],
        others_wait: Callable[[], bool],
        quick: QuickHits | None = None,
    ) -> None:
        self._cache = cache
        self._lookup = lookup
        self._writer = writer
        self._origins = origins
        self._fetches = fetches
        self._passing = passing
        self._replies = replies
        self._settings = settings
        self._options = settings.options
        self._stopping = stopping
        self._others_wait = others_wait
        self._quick = quick
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()

    def serve(self, connection: HttpConnection, request: RequestHead) -> Paused | bool:
        """Answer one request: True when the connection goes on, False when it ends, or what is left of the answer.

        Never raises for what client, cache or origin do.
        """
        said = connection_for(request, may_stay=not self._stopping())
        if self._quick is not None and request.method == b"GET" and request.framing is Framing.NONE:
            fields = request.fields
            if fields is connection.plain_fields or self._quick.is_plain(fields):
                connection.plain_fields = fields  # a client that stays repeats them, and the parser then gives the same
                reply = self._quick.reply(request, said)
                if reply is not None:
                    return self._send_quickly(connection, reply, said)
        outcome: str
        try:
            try:
                result = self._serve(connection, request, said)
            except (HttpError, BadTarget) as error:
                status = error.status if isinstance(error, HttpError) else 400
                result = self._refuse(connection, request, status, str(error))
            except Overloaded as error:
                result = self._refuse(connection, request, 503, str(error))
            except CacheUnavailable as error:
                log.info("request failed", extra={"path": request.target, "reason": str(error)})
                result = self._refuse(connection, request, 503, "the cache cannot be asked")
            except OriginError as error:
                log.info("request failed", extra={"path": request.target, "reason": str(error)})
                status = 504 if isinstance(error, OriginTimeout) else 403 if isinstance(error, OriginRefused) else 502
                result = self._refuse(connection, request, status, "the origin gave no answer")
        except ClientGone:
            self._count("client gone")
            return False
        except BodyCutShort as error:
            log.warning("body cut short", extra={"path": request.target, "reason": str(error)})
            self._count("cut short")
            return False
        if isinstance(result, Paused):
            return result
        outcome, goes_on = result
        self._count(outcome)
        return goes_on and connection.skip_body()

    def _send_quickly(self, connection: HttpConnection, reply: bytes, said: Connection) -> bool:
        try:
            connection.stream.send_all(reply)
        except ClientGone:
            self._count("client gone")
            return False
        self._count("hit")
        return not said.closes

    def resume(self, response: HitResponse) -> Paused | bool:
        """Go on with a paused answer; as serve()."""
        try:
            paused = self._go_on(response, Pause.WIDEN)
        except ClientGone:
            self._count("client gone")
            return False
        except BodyCutShort as error:
            log.warning("body cut short", extra={"path": response.key, "reason": str(error)})
            self._count("cut short")
            return False
        if paused is not None:
            return paused
        self._count("hit")
        return response.connection is not None

    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        with self._lock:
            return dict(self._outcomes)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self._outcomes[outcome] += 1

    def _refuse(self, connection: HttpConnection, request: RequestHead, status: int, text: str) -> tuple[str, bool]:
        stays = status not in (400, 501) and request.framing is Framing.NONE and not self._stopping()
        said = connection_for(request, may_stay=stays)
        data = self._replies.error(status, said, time(), text, with_body=request.method != b"HEAD")
        connection.stream.send_all(data)
        return "refused" if status < 500 else "error", not said.closes

    # -- what is asked for ---------------------------------------------------------------------------------------
    def _serve(self, connection: HttpConnection, request: RequestHead, said: Connection) -> _Result:
        if request.method in _NOT_PASSED:
            raise HttpError(501, f"{request.method.decode()} is not served here")
        target = self._origins.find(split_target(request.target, request.fields.get(b"host")))
        if isinstance(target, Refused):
            return self._refuse(connection, request, target.status, target.reason)
        visit = _Visit(connection, request, target, said, time())
        if request.method == b"PURGE":
            return self._purge(visit)
        if request.method not in (b"GET", b"HEAD"):
            return self._pass(visit, b"method")
        return self._from_cache(visit)

    def _from_cache(self, visit: _Visit) -> _Result:
        visit.lookups += 1
        try:
            return self._decide(visit)
        except _ObjectGone:
            return self._from_cache(visit) if visit.lookups < LOOKUPS_MAX else self._pass(visit, b"miss")

    def _decide(self, visit: _Visit) -> _Result:
        asked_at = monotonic()
        lookup = self._look_up(visit)
        found = lookup.found
        try:
            stored = found.stored if found is not None else None
            decision = decide(visit.request, stored, visit.now, self._options, other_variants=lookup.index is not None)
            action = decision.action
            if found is not None and action in (Action.HIT, Action.STALE_HIT):
                if action is Action.STALE_HIT:
                    self._validate_behind(visit, lookup, found)
                return self._send_found(visit, found, decision.age_s, None, "hit")
            if action is Action.ONLY_IF_CACHED_MISS:
                return self._answer_error(visit, 504, "not in the cache, and nothing else was wanted", decision.reason)
            if visit.target.rule is None:
                return self._answer_error(visit, 404, "there is no such object", decision.reason)
            if action is Action.PASS:
                return self._pass(visit, decision.reason)
            if found is not None:
                found.leave()  # an origin may take its time: no segment and no worker of the cache waits for it
            if visit.request.method == b"HEAD":
                return self._ask_about(visit, found, decision)
            visit.variant = _likely_variant(lookup.index, visit.request)
            return self._from_origin(visit, lookup, decision, asked_at)
        finally:
            if found is not None:
                found.leave()

    def _look_up(self, visit: _Visit) -> Lookup:
        if self._lookup is None or len(visit.target.key) > KEY_BYTES_MAX:
            return Lookup()
        has_origin = visit.target.rule is not None
        wait_s = self._settings.queue_wait_s if has_origin else self._settings.cache_wait_s
        try:
            return self._lookup.find(visit.target.key, visit.request, wait_s)
        except CacheUnavailable:
            if not has_origin:
                raise
            return Lookup()

    def _validate_behind(self, visit: _Visit, lookup: Lookup, found: Found) -> None:
        variant = _likely_variant(lookup.index, visit.request)
        order = Order(visit.target, visit.request, _without_body(found), lookup.index, variant)
        self._fetches.validate_in_background(order, monotonic())

    def _answer_error(self, visit: _Visit, status: int, text: str, fwd: bytes) -> tuple[str, bool]:
        data = self._replies.error(status, visit.said, visit.now, text, with_body=visit.request.method != b"HEAD")
        visit.connection.stream.send_all(data)
        return "not found" if status == 404 else fwd.decode(), not visit.said.closes

    # -- from the cache ------------------------------------------------------------------------------------------
    def _send_found(self, visit: _Visit, found: Found, age_s: int, status: bytes | None, outcome: str) -> _Result:
        """Answer with a stored response: 304, all of it, or the parts that were asked for."""
        stored, request = found.stored, visit.request
        condition = evaluate_conditions(request, stored, visit.now)
        if condition is Condition.ASK_ORIGIN and visit.target.rule is not None:
            found.leave()
            return self._pass(visit, b"request")
        stream, goes_on = visit.connection.stream, not visit.said.closes
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(self._replies.not_modified(stored, age_s, visit.said, status))
            return outcome, goes_on
        answer = answer_range(request, stored, visit.now)
        if answer.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(self._replies.unsatisfiable(stored, visit.said, visit.now, with_body=True))
            return outcome, goes_on
        if request.method == b"GET":
            self._make_sure(found)
        if answer.kind is RangeKind.WHOLE:
            return self._send_whole(visit, found, self._replies.hit(stored, age_s, visit.said, status), outcome)
        if answer.kind is RangeKind.ONE:
            first, end = answer.ranges[0]
            stream.send_header(self._replies.part(stored, age_s, visit.said, status, first, end))
            paused = self._send_range(visit, found, first, end)
            return paused if paused is not None else (outcome, goes_on)
        boundary = secrets.token_hex(12).encode()
        parts, tail, length = multipart_parts(
            answer.ranges, stored.body_bytes, stored.fields.get(b"content-type"), boundary
        )
        stream.send_header(self._replies.parts(stored, age_s, visit.said, status, boundary, length))
        for head, first, end in parts:
            stream.send_all(head)
            self._send_range_to_the_end(visit, found, first, end)
        stream.send_all(tail)
        return outcome, goes_on

    def _make_sure(self, found: Found) -> None:
        """Open the body again that was left while the origin was asked; once a head was sent it would be too late."""
        if found.body is not None or found.transfer is not None:
            return
        assert self._cache is not None
        deadline = Deadline.after(self._settings.cache_wait_s)
        try:
            transfer = self._cache.get(found.key, deadline, version=found.version)
        except CacheUnavailable as error:
            raise _ObjectGone from error
        if not transfer.found:
            transfer.finish()
            transfer.close()
            raise _ObjectGone
        found.transfer = transfer

    def _send_whole(self, visit: _Visit, found: Found, head: bytes, outcome: str) -> _Result:
        stream, goes_on = visit.connection.stream, not visit.said.closes
        if visit.request.method == b"HEAD":
            stream.send_all(head)
            return outcome, goes_on
        if found.body is not None:
            stream.send_all(head + found.body)
            return outcome, goes_on
        transfer, found.transfer = found.transfer, None
        response = self._response(visit, found, 0, found.stored.body_bytes)
        if transfer is None:
            stream.send_header(head)
            paused = self._go_on(response, Pause.WIDEN)
        else:
            with transfer:
                sent = stream.send_with_header(head, transfer.address, transfer.length, not transfer.last)
                pause = response.send(transfer, sent)
            paused = self._go_on(response, pause)
        return paused if paused is not None else (outcome, goes_on)

    def _response(self, visit: _Visit, found: Found, first: int, end: int) -> HitResponse:
        response = HitResponse(
            visit.connection.stream, found.key, found.stored.body_bytes, found.version, self._others_wait
        )
        response.position, response.end = first, end
        response.connection = None if visit.said.closes else visit.connection
        return response

    def _send_range(self, visit: _Visit, found: Found, first: int, end: int) -> Paused | None:
        if found.body is not None:
            visit.connection.stream.send_all(found.body[first:end])
            return None
        found.leave()
        return self._go_on(self._response(visit, found, first, end), Pause.WIDEN)

    def _send_range_to_the_end(self, visit: _Visit, found: Found, first: int, end: int) -> None:
        """Between two parts nothing pauses: a client that reads slowly keeps this worker, down to the least rate."""
        paused = self._send_range(visit, found, first, end)
        while paused is not None:
            if paused.slow:
                visit.connection.stream.wait_writable()
            paused = self._go_on(paused.response, Pause.WIDEN)

    def _go_on(self, response: HitResponse, pause: Pause | None) -> Paused | None:
        """Resume an answer until its end, or until it pauses for something that takes time."""
        assert self._cache is not None
        while pause is Pause.WIDEN:
            if response.position >= response.end:
                return None
            pause = response.resume(self._cache, self._settings.cache_wait_s)
        return None if pause is None else Paused(response, slow=pause is Pause.SLOW)

    # -- from the origin -----------------------------------------------------------------------------------------
    def _from_origin(self, visit: _Visit, lookup: Lookup, decision: Decision, asked_at: float) -> _Result:
        found = lookup.found
        validates = _without_body(found) if found is not None and decision.action is Action.REVALIDATE else None
        return self._fetch(
            visit, Order(visit.target, visit.request, validates, lookup.index, visit.variant), found, decision, asked_at
        )

    def _fetch(
        self,
        visit: _Visit,
        order: Order,
        found: Found | None,
        decision: Decision,
        asked_at: float,
        *,
        alone: bool = False,
    ) -> _Result:
        opened = self._fetches.open(order, asked_at, alone=alone)
        if opened is None:  # filled since: the cache has it now
            return self._from_cache(visit)
        reader, joined = opened
        try:
            try:
                answer = reader.wait_answer(partial(send_interim, visit.connection.stream, visit.request))
            except OriginError:
                if self._may_serve_stale(visit, found, None):
                    assert found is not None
                    return self._send_stale(visit, found, decision, None)
                raise
            if isinstance(answer, Validated):
                if not joined or (answer.is_kept and self._may_share(visit, answer.stored)):
                    return self._send_validated(visit, found, answer, decision, joined=joined)
            else:
                assert isinstance(answer, Head)
                status_code = answer.response.status
                if self._may_serve_stale(visit, found, status_code):
                    assert found is not None
                    return self._send_stale(visit, found, decision, status_code)
                if not joined or (answer.is_stored and self._may_share(visit, answer.stored)):
                    return self._send_fetched(visit, reader, answer, decision, joined=joined)
        finally:
            reader.close()
        # Somebody else's answer is of no use here. With those whose request has the same values in what it varies in,
        # another fetch can be shared.
        selecting = selecting_like(answer.stored.selecting, visit.request)
        variant = new_variant(selecting, None).id if selecting else b""
        alone = not selecting or variant == order.variant
        return self._fetch(visit, replace(order, variant=variant), found, decision, asked_at, alone=alone)

    def _may_share(self, visit: _Visit, stored: StoredResponse) -> bool:
        """Whether an answer may serve who asked while it was on its way: as if it had been stored before."""
        if not matches(stored.selecting, visit.request):
            return False
        return decide(visit.request, stored, stored.response_time, self._options).action is Action.HIT

    def _may_serve_stale(self, visit: _Visit, found: Found | None, status: int | None) -> bool:
        return found is not None and stale_allowed_on_error(
            visit.request, found.stored, status, visit.now, self._options
        )

    def _ask_about(self, visit: _Visit, found: Found | None, decision: Decision) -> _Result:
        """A HEAD that the cache cannot answer goes on as one; what it tells updates what is stored (section 4.3.5)."""
        asked_time = time()
        try:
            response, goes_on = self._passing.serve(
                visit.connection,
                visit.request,
                visit.target,
                visit.said,
                decision.reason,
                partial(self._may_serve_stale, visit, found),
            )
        except OriginError:
            if self._may_serve_stale(visit, found, None):
                assert found is not None
                return self._send_stale(visit, found, decision, None)
            raise
        if goes_on is None:
            assert found is not None
            return self._send_stale(visit, found, decision, response.status)
        if found is not None and self._writer is not None and response.status == 200:
            head = ResponseHead(response.status, response.fields, response.reason)
            updated = head_update(
                visit.request, found.stored, head, request_time=asked_time, response_time=time(), options=self._options
            )
            if updated is None:
                self._writer.mark(found.key)
            else:
                self._writer.update(found.key, found.version, updated)
        return "passed", goes_on

    def _send_stale(self, visit: _Visit, found: Found, decision: Decision, fwd_status: int | None) -> _Result:
        """The origin failed: serve what is there, and say so."""
        stored = found.stored
        status = self._replies.status(
            fwd=decision.reason, fwd_status=fwd_status, ttl=stored.lifetime_s - decision.age_s, detail=b"stale"
        )
        return self._send_found(visit, found, decision.age_s, status, "stale")

    def _send_validated(
        self, visit: _Visit, found: Found | None, answer: Validated, decision: Decision, *, joined: bool
    ) -> _Result:
        stored = answer.stored
        body = found.body if found is not None and (found.key, found.version) == (answer.key, answer.version) else None
        fresh = Found(answer.key, stored, answer.version, body)
        status = self._replies.status(
            fwd=decision.reason, fwd_status=304, stored=answer.is_kept, collapsed=joined, ttl=stored.lifetime_s
        )
        return self._send_found(visit, fresh, stored.initial_age_s, status, "validated")

    def _send_fetched(
        self, visit: _Visit, reader: SpoolReader, answer: Head, decision: Decision, *, joined: bool
    ) -> _Result:
        """Stream an answer of the origin while it comes."""
        response, request = answer.response, visit.request
        status = self._replies.status(
            fwd=decision.reason,
            fwd_status=response.status,
            stored=answer.is_stored and self._writer is not None,
            collapsed=joined,
            detail=answer.detail or None,
        )
        if response.status == 200:
            result = self._send_part_of_fetched(visit, reader, answer, status)
            if result is not None:
                return result
        if joined:  # what is for the first asker alone, and withheld from what is stored, is withheld here too
            fields = answer.stored.fields.with_line(b"Age", b"%d" % answer.stored.initial_age_s)
            response = replace(response, fields=fields)
        framing, said = body_framing(request, response, visit.said)
        stream = visit.connection.stream
        stream.send_header(self._replies.forwarded(response, said, status, framing, format_http_date(int(visit.now))))
        if framing.startswith(b"Transfer"):
            self._stream_chunked(visit, reader)
        else:
            self._stream(visit, reader, response.length)
        return "fetched", not said.closes

    def _send_part_of_fetched(
        self, visit: _Visit, reader: SpoolReader, answer: Head, status: bytes
    ) -> tuple[str, bool] | None:
        """What the request's conditions and its range make of a 200; None when all of it is to be sent.

        The origin was asked without them, so that what it sent is whole.
        """
        stored, request, stream = answer.stored, visit.request, visit.connection.stream
        outcome, age_s = ("fetched", not visit.said.closes), stored.initial_age_s
        condition = evaluate_conditions(request, stored, visit.now)
        if condition is Condition.ASK_ORIGIN:
            reader.close()
            return self._pass(visit, b"request")
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(self._replies.not_modified(stored, age_s, visit.said, status))
            self._let_go_on(reader, answer)
            return outcome
        ranges = WHOLE if answer.response.length is None else answer_range(request, stored, visit.now)
        if ranges.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(self._replies.unsatisfiable(stored, visit.said, visit.now, with_body=True))
            self._let_go_on(reader, answer)
            return outcome
        if ranges.kind is not RangeKind.ONE:
            return None
        first, end = ranges.ranges[0]
        stream.send_header(self._replies.part(stored, age_s, visit.said, status, first, end))
        while reader.position < first:  # the fetch need not wait for who skips
            available = reader.wait_available()
            if available <= 0:
                raise BodyCutShort("the origin's body ended before its length")
            reader.advance(min(available, first - reader.position))
        self._stream(visit, reader, end)
        self._let_go_on(reader, answer)
        return outcome

    def _let_go_on(self, reader: SpoolReader, answer: Head) -> None:
        """The client has what it wanted, which was not all: the rest is fetched for the cache."""
        if answer.is_stored and self._writer is not None:
            reader.stay_behind()

    def _stream(self, visit: _Visit, reader: SpoolReader, end: int | None) -> None:
        stream = visit.connection.stream
        while end is None or reader.position < end:
            available = reader.wait_available()
            if available <= 0:
                if end is None:
                    return
                raise BodyCutShort("the origin's body ended before its length")
            wanted = available if end is None else min(available, end - reader.position)
            sent = stream.send_file(reader.fd, reader.position, wanted)
            if sent:
                reader.advance(sent)
            else:
                stream.wait_writable()

    def _stream_chunked(self, visit: _Visit, reader: SpoolReader) -> None:
        stream = visit.connection.stream
        while (available := reader.wait_available()) > 0:
            end = reader.position + available
            stream.send_header(chunk_head(available))
            self._stream(visit, reader, end)
            stream.send_all(CHUNK_END)
        stream.send_all(LAST_CHUNK)

    def _pass(self, visit: _Visit, why: bytes) -> tuple[str, bool]:
        target, request = visit.target, visit.request
        if target.rule is None:
            if request.method in (b"GET", b"HEAD"):
                return self._answer_error(visit, 404, "there is no such object", why)
            return self._refuse(visit.connection, request, 405, "there is no origin for this method")
        response, goes_on = self._passing.serve(visit.connection, request, target, visit.said, why)
        assert goes_on is not None
        self._invalidate(visit, ResponseHead(response.status, response.fields, response.reason))
        return "passed", goes_on

    def _invalidate(self, visit: _Visit, response: ResponseHead) -> None:
        """Remove what an answer to an unsafe method makes invalid."""
        if self._writer is None or visit.target.rule is None:
            return
        own = visit.target.url.encode()
        for url in invalidated_targets(visit.request.method, own, response):
            key = visit.target.key if url == own else self._key_of(visit, url)
            if key is not None and len(key) <= KEY_BYTES_MAX:
                with contextlib.suppress(CacheUnavailable):
                    self._writer.purge(key)

    def _key_of(self, visit: _Visit, url: bytes) -> bytes | None:
        """The key of another URL of the same origin."""
        base = visit.target.base.rstrip("/").encode()
        if not url.startswith(base + b"/"):
            return None
        path, rule = url[len(base) :], visit.target.rule
        if rule is not None and rule.strip_prefix:
            path = rule.path[:-1] + path
        prefix = visit.target.key[: len(visit.target.key) - len(visit.target.path)]
        return prefix + path

    # -- purge ---------------------------------------------------------------------------------------------------
    def _purge(self, visit: _Visit) -> tuple[str, bool]:
        """PURGE removes what is stored for the URL, all variants; with `X-Purge: soft` it is marked stale instead."""
        connection, request = visit.connection, visit.request
        if self._writer is None or not self._may_purge(connection):
            return self._refuse(connection, request, 405, "PURGE is not allowed from here")
        soft = (request.fields.get(b"x-purge") or b"").lower() == b"soft"
        key = visit.target.key
        count = self._writer.purge(key, soft=soft) if len(key) <= KEY_BYTES_MAX else 0
        text = f"{count} objects {'marked stale' if soft else 'removed'}"
        connection.stream.send_all(self._replies.error(200, visit.said, visit.now, text))
        return "purged", not visit.said.closes

    def _may_purge(self, connection: HttpConnection) -> bool:
        address = connection.stream.peer_address()
        return address is not None and any(address in network for network in self._settings.purge_networks)


def _without_body(found: Found) -> Found:
    return Found(found.key, found.stored, found.version)


def _likely_variant(index: VariantIndex | None, request: RequestHead) -> bytes:
    """What the answer will vary in, going by the last one: requests that differ there need not wait for each other."""
    selecting = next((variant.selecting for variant in index.variants if variant.selecting), ()) if index else ()
    return new_variant(selecting_like(selecting, request), None).id if selecting else b""
