"""Fetch: drives the state machine of one fetch: asks the origin, writes the spool, fills the cache, tells the readers.

Theory of operation
===================

One driver for HTTP and getfile. They differ in their `Plan`: the first question, the meaning of a response, and where
it is stored. The order of steps is the table's (state.py); nothing here decides what comes next.

A fetch has no thread. Its steps are taken by whoever brings the event: the worker that opens it, the thread that drives
the origins (driver.py), or its strand, where everything runs that may wait for the cache:

    idle       the fetch waits for the origin, or for room in the spool; the next event may be taken by any thread
    busy       a thread takes steps; events that come meanwhile are kept in the inbox, and the origin's bytes are
               refused: its transfer is paused, and resumed when the steps are done
    over       DONE or FAILED; readers are told, then what is left is cleared up, both in the strand

Between two steps the rule is: a step that may wait is never taken by the thread that drives the origins. `_may_wait()`
tells which do.

The body is written by the origin's thread and read by the fill in the strand, so that a large body is received and
handed to the cache at the same time. The spool decides how far it may run ahead of them: without room, write() refuses
bytes, and the spool tells when there is some. If all spools are full, what the cache has received once is forgotten. If
the spool cannot be written, it is for the readers alone.

A fetch that nobody needs ends: all readers have left, and the body is neither small nor has the cache received the
share from which on it is fetched for the cache alone. Once the origin was asked, its head is waited for all the same:
an origin that does not notice would have more to do at once than its bound. Who asks again meanwhile joins. A complete
body is always handed to the cache.

Long because the steps share one state under the rule above: apart from each other they could not be checked against it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import time
from typing import Final

from shmchannel.daemonkit.logs import subject
from webproxy.caching.partial import AGAIN_MAY_HELP, Continuation, is_rest, rest_request
from webproxy.errors import (
    FetchAborted,
    FetchBroken,
    OriginBadReply,
    OriginError,
    OriginNotAsked,
    OriginUnreachable,
    ProxyStops,
    SpoolFailed,
)
from webproxy.fetch.plan import NO_DRAFT, Answered, Plan
from webproxy.fetch.spool import BodyMissing, Head, Spool, SpooledPrefix
from webproxy.fetch.state import IS_TOLD, STEPS, TAKES_BODY, Action, Event, Progress, State, pause_before_try
from webproxy.fetch.strand import Crew, Strand
from webproxy.http.fields import Fields
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.store.fill import NO_FILL, Fill, StoreToken

log = logging.getLogger(__name__)

_WAITS_FOR_CACHE: Final = frozenset(
    {Action.LOOK, Action.COPY_FIRST, Action.COPY, Action.CONFIRM, Action.SETTLE, Action.REPLACE}
)
_WANTS_BODY: Final = TAKES_BODY | {State.COPY_FIRST}
_AWAITS_HEAD: Final = frozenset({State.VALIDATE, State.COMPLETE, State.WHOLE})
_ENDS_WELL: Final = frozenset({State.COMMIT, State.DONE})
_IS_OVER: Final = frozenset({State.DONE, State.FAILED})
SMALL_BYTES: Final = 65_536
"""A body of this size is fetched for the cache alone: to break it off would cost the origin its connection."""
MOMENT_SECONDS: Final = 0.02
"""So long a worker may wait for the cache to store a small body; then a thread of the crew does."""
_Call = Callable[[], Event | None]


class _Exchange:
    """As Sink: the answer to one question; once the fetch has dropped it, nothing of it counts."""

    __slots__ = ("_fetch", "transfer")

    def __init__(self, fetch: Fetch, request: OriginRequest) -> None:
        self._fetch = fetch
        plan = fetch.plan
        self.transfer = plan.means.origin.transfer(request, self, plan.limits_of(request))

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim(): for readers only, never stored."""
        self._fetch.interim(self, status, fields)

    def begin(self, response: OriginResponse) -> bool:
        """As Sink.begin()."""
        return self._fetch.begin(self, response)

    def write(self, data: bytes) -> bool:
        """As Sink.write()."""
        return self._fetch.write(self, data)

    def tick(self) -> None:
        """As Sink.tick()."""
        self._fetch.tick()

    def ended(self, outcome: OriginResponse | Exception) -> None:
        """As Sink.ended()."""
        self._fetch.ended(self, outcome)


class Fetch:
    """One fetch from an origin into a spool and, chunk by chunk, into the cache."""

    def __init__(
        self, plan: Plan, spool: Spool, crew: Crew, stopping: threading.Event, on_over: Callable[[Fetch], None]
    ) -> None:
        """`on_over` is called before the readers are told that it is over."""
        self.plan = plan
        self.spool = spool
        self.token = StoreToken()
        self.stored = False
        """Whether the cache has the object: lookups made before should be repeated."""
        self.failure: OriginError | None = None
        """Why it failed, once it is over."""
        self.tells_failure = False
        """Its answer is a failure that serves others as well."""
        self.tells_passing_failure = False
        """And it is not stored."""
        self.is_unshared = False
        """Its answer serves nobody else."""
        self.begun_by = subject()
        """The id of the request that began it, which its log lines are about."""
        self._means = plan.means
        self._stopping = stopping
        self._on_over = on_over
        self._strand = Strand(crew)
        self._lock = threading.Lock()
        self._is_busy = False
        self._inbox: deque[_Call] = deque()
        self._actions: deque[Action] = deque()
        self._progress = Progress(tries_left=plan.tries - 1)
        self._pause_s = 0.0
        self._exchange: _Exchange | None = None
        self._is_refused = False
        """The origin's bytes were refused, because of steps that were being taken."""
        self._is_copying = False
        self._is_moved = False
        """A worker has begun to finish it, and the crew goes on."""
        self._is_tended = False
        self._answered: Answered
        self._draft = NO_DRAFT
        self._fill: Fill = NO_FILL
        spool.on_room = self._on_room
        spool.wake_by = plan.means.origin.afterwards

    def start(self) -> None:
        """Begin; never blocks."""
        self._enter(None, self.plan.first)

    def stop(self) -> None:
        """The daemon stops: end soon."""
        exchange = self._exchange
        if exchange is not None:
            exchange.transfer.cancel(ProxyStops())
        self.spool.hand_over()

    # -- steps ---------------------------------------------------------------------------------------------------
    def _enter(self, exchange: _Exchange | None, call: _Call) -> None:
        """Take the steps that follow from an event, or leave that to the thread that takes steps now."""
        with self._lock:
            if exchange is not self._exchange:
                return
            was_busy, self._is_busy = self._is_busy, True
            if was_busy:
                self._inbox.append(call)
        if not was_busy:
            self._take_steps(call, may_wait=False)
        elif self._is_copying:  # which waits for no room now
            self._strand.post(self._copy_on)

    def _take_steps(self, call: _Call | None, *, may_wait: bool) -> None:
        """Until the fetch is idle or over, or the next step is the strand's."""
        try:
            while True:
                event = None if call is None else call()
                if not self._take(event, may_wait=may_wait):
                    return
                with self._lock:
                    if not self._inbox:
                        self._is_busy = False
                        resumes, self._is_refused = self._is_refused, False
                        break
                    call = self._inbox.popleft()
        except Exception as error:
            log.exception("fetch broken", extra={"url": self.plan.name})
            self._break(FetchBroken(f"broken: {error!r}"))
            return
        exchange = self._exchange
        if resumes and exchange is not None:
            exchange.transfer.resume()

    def _take(self, event: Event | None, *, may_wait: bool) -> bool:
        """Perform what follows; False if the fetch stays busy: the rest is the strand's, or it is over."""
        while True:
            if event is not None:
                self._progress, actions = self._progress.after(event)
                self._actions.extend(actions)
                event = None
            while self._actions and event is None:
                if not may_wait and self._may_wait(self._actions[0]):
                    self._post_last(partial(self._take_steps, None, may_wait=True))
                    return False
                event = self._perform(self._actions.popleft())
                if self._is_copying or self._is_moved:
                    return False
            if event is None:
                break
        if self._progress.state in _IS_OVER:
            self._post_last(self._end)
            return False
        return True

    def _post_last(self, task: Callable[[], None]) -> None:
        """Have it run in the strand; what ends a small fetch in a moment is left to a reader that runs soon."""
        state, length = self._progress.state, self._length
        is_small = length is not None and self.spool.written == length <= SMALL_BYTES
        is_brief = is_small and state in _ENDS_WELL and self.plan.ends_briefly(self._draft)
        self._strand.post(task, self.spool.leave_errand if is_brief else None)

    def _perform(self, action: Action) -> Event | None:
        """An action that leads to another event is the last one of its step, and so is one that fails."""
        try:
            return _PERFORM[action](self)
        except OriginError as error:
            return self._fail_action(error)
        except OSError as error:
            return self._fail_action(SpoolFailed(f"the body cannot be spooled: {error}"))

    def _fail_action(self, error: OriginError) -> Event:
        self._actions.clear()
        self._drop_transfer()
        return self._fail(error)

    def _may_wait(self, action: Action) -> bool:
        if action is Action.FINISH:
            return self._fill is not NO_FILL
        if action is Action.DRAFT:
            return self.plan.draft_may_wait
        if action is Action.TELL:
            return self.plan.keep_may_wait(self._draft)
        return action in _WAITS_FOR_CACHE

    def _fail(self, error: OriginError) -> Event:
        """The event of a failure. Readers who know the answer have no other source: an origin may recover for them."""
        error = self.plan.failed(error, is_told=self._progress.state in IS_TOLD)
        is_retryable = error.retryable or (isinstance(error, OriginNotAsked) and self._progress.state in IS_TOLD)
        may_help = is_retryable and not self._stopping.is_set()
        event = self._progress.failure(may_help=may_help, can_resume=self._can_resume)
        if event is Event.BROKE:
            self.failure = error.with_traceback(None)  # which would refer to this object
        else:
            log.debug("trying again", extra={"url": self.plan.name, "reason": str(error)})
        return event

    def _break(self, error: OriginError) -> None:
        """A bug of ours: the readers must not wait for ever."""
        self._drop_transfer()
        self.failure = error
        self._strand.post(self._end)

    # -- the origin ----------------------------------------------------------------------------------------------
    def _pause(self) -> None:
        """Wait before another try."""
        number = self.plan.tries - 1 - self._progress.tries_left
        self._pause_s = pause_before_try(number, random.random())

    def _ask(self) -> Event | None:
        if not self._is_needed():
            raise self._abortion()
        pause_s, self._pause_s = self._pause_s, 0.0
        self._exchange = exchange = _Exchange(self, self._request())
        self._check_stopping()  # after stop() could see the exchange
        exchange.transfer.begin(pause_s)
        return None

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise ProxyStops

    def _request(self) -> OriginRequest:
        question = self._progress.state
        request = self.plan.request(question, time())
        if question is not State.RESUME:
            return request
        return replace(request, fields=rest_request(request.fields, self._continuation, self.spool.written))

    def _drop_transfer(self) -> None:
        """Whatever the origin still says is of no interest."""
        with self._lock:
            exchange, self._exchange = self._exchange, None
            self._inbox.clear()
        if exchange is not None:
            exchange.transfer.abandon()

    def _end_exchange(self, outcome: OriginResponse | Exception) -> Event:
        """The event of an exchange that is over."""
        self._exchange = None
        try:
            if isinstance(outcome, OriginResponse):
                self._check_end()
                return Event.ENDED
        except OriginError as error:
            return self._fail(error)
        if isinstance(outcome, OriginError):
            return self._fail(outcome)
        if isinstance(outcome, OSError):
            return self._fail(SpoolFailed(f"the body cannot be spooled: {outcome}"))
        raise outcome

    def _check_end(self) -> None:
        """The exchange has ended without a failure; raises OriginBadReply if the response is incomplete."""
        state = self._progress.state
        if state is State.REFUSED:
            status = self._answered.response.status
            raise OriginBadReply(f"status {status}", status=status, retryable=status in AGAIN_MAY_HELP)
        if state is State.BODY and self._length is not None and self.spool.written < self._length:
            raise OriginBadReply(f"{self.plan.name}: {self.spool.written} of {self._length} bytes", retryable=True)

    # -- for _Exchange, in the driver's thread -------------------------------------------------------------------
    def interim(self, exchange: _Exchange, status: int, fields: Fields) -> None:
        """As Sink.interim()."""
        if exchange is self._exchange and not self.plan.hears():
            self.spool.interim(status, fields)

    def begin(self, exchange: _Exchange, response: OriginResponse) -> bool:
        """As Sink.begin(): the meaning of the response decides what follows."""
        if exchange is not self._exchange:
            return False
        answered = self._answered = Answered(response, exchange.transfer.asked_at, time())
        question = self._progress.state
        event = self._judge_rest(answered) if question is State.RESUME else self.plan.judge(question, answered)
        self._enter(exchange, lambda: event)
        return STEPS[question][event].state in _WANTS_BODY

    def _judge_rest(self, answered: Answered) -> Event:
        response, position = answered.response, self.spool.written
        if is_rest(
            self._continuation, position, response.status, response.fields, response.length, answered.response_time
        ):
            return Event.REST
        raise OriginBadReply(
            f"{self.plan.name}: status {response.status} is not the rest after {position} bytes",
            status=response.status,
            retryable=response.status in AGAIN_MAY_HELP,
        )

    def write(self, exchange: _Exchange, data: bytes) -> bool:
        """As Sink.write(): spool it, unless steps are being taken or the body is far ahead."""
        if self._refuses():
            return False
        if exchange is not self._exchange:
            return True
        length = self._length
        if length is not None:
            if self._progress.state is State.UNTOLD:
                self._enter(exchange, lambda: Event.FIRST_BYTES)
                if self._refuses():
                    return False
            if self.spool.written + len(data) > length:
                raise OriginBadReply(f"{self.plan.name}: more than the announced {length} bytes")
        if not self._has_room():
            return False
        self.spool.write(data)
        fill = self._fill
        if fill is not NO_FILL:
            if self.spool.written - (fill.position or 0) >= fill.chunk_bytes:  # it takes whole chunks
                self._tend_soon()
        elif self.spool.answered:
            self.spool.forget_read()
        return True

    def _refuses(self) -> bool:
        with self._lock:
            self._is_refused = self._is_busy
            return self._is_busy

    def _has_room(self) -> bool:
        """Whether the spool takes more; if not, it tells when it does, or what others have passed makes room."""
        fill, is_answered = self._fill, self.spool.answered
        is_kept = not is_answered or fill.may_begin_anew
        if self.spool.has_room(self._window_bytes, is_kept=is_kept, filled=fill.needs_from):
            return True
        if not is_answered:
            raise SpoolFailed(f"{self.plan.name}: the spools are full, and its length is unknown")
        if is_kept or (self.spool.is_in_memory and not fill.given_up):
            self._strand.post(self._make_room)
        return False

    def _make_room(self) -> None:
        """The spools are full: the cache has to do without the bytes that it has received once."""
        fill = self._fill
        if self.spool.is_in_memory:
            fill.drop(b"spools full", "it cannot be spooled until the cache takes it")
        else:
            fill.bind()
        self.spool.forget_read(fill.needs_from)
        if self.spool.has_room(self._window_bytes, filled=fill.needs_from):
            self._on_room()

    @property
    def _window_bytes(self) -> int:
        """The fill proceeds in whole chunks."""
        return max(self._means.window_bytes, self._fill.chunk_bytes)

    def _on_room(self) -> None:
        """A reader has come near."""
        if self._is_copying:
            self._strand.post(self._copy_on)
        elif not self.spool.wanted:  # the last reader has left: bytes that nobody needs are not asked for
            self._strand.post(self._resume_if_needed)
        elif (exchange := self._exchange) is not None:
            exchange.transfer.resume()

    def tick(self) -> None:
        """As Sink.tick(): see to the fill, and whether anybody needs the body, or it has taken too long."""
        exchange, overdue = self._exchange, self.plan.overdue()
        if exchange is not None and overdue is not None:
            exchange.transfer.cancel(overdue)
        if self._fill is not NO_FILL or not self.spool.wanted:
            self._tend_soon()

    def ended(self, exchange: _Exchange, outcome: OriginResponse | Exception) -> None:
        """As Sink.ended()."""
        self._enter(exchange, partial(self._end_exchange, outcome))

    # -- the fill, in the strand ---------------------------------------------------------------------------------
    def _tend_soon(self) -> None:
        if not self._is_tended:
            self._is_tended = True
            self._strand.post(self._tend)

    def _tend(self) -> None:
        """Hand to the cache what has come, and end a transfer that nobody needs."""
        self._is_tended = False
        exchange, fill = self._exchange, self._fill
        if exchange is None:
            return
        fill.yield_turn()
        fill.pump()
        if self.spool.answered and not fill.may_begin_anew:
            self.spool.forget_read(fill.needs_from)
        self.spool.tell_room(fill.needs_from)
        if not self._is_needed():
            exchange.transfer.cancel(self._abortion())

    def _resume_if_needed(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if self._is_needed():
            exchange.transfer.resume()
        else:
            exchange.transfer.cancel(self._abortion())

    def _abortion(self) -> FetchAborted:
        return FetchAborted(f"{self.plan.name}: no reader left")

    def _is_needed(self) -> bool:
        if self.spool.wanted or self.spool.written == self._length:
            return True
        exchange = self._exchange
        is_asked = exchange is not None and exchange.transfer.asked_at > 0
        if is_asked and self._progress.state in _AWAITS_HEAD:
            return True
        return self._is_worth_continuing() or not self.spool.abandon()

    def _is_worth_continuing(self) -> bool:
        """Whether the cache is receiving it, and it is small or so far that readers are not required."""
        length = self._length
        if length is None or not self._fill.is_coming:
            return False
        return length <= SMALL_BYTES or self.spool.written >= self._means.continue_after_share * length

    # -- the partial response ------------------------------------------------------------------------------------
    def _look(self) -> Event:
        return Event.PARTIAL_FOUND if self.plan.partial.look(time()) else Event.NO_PARTIAL

    def _copy_first(self) -> Event:
        held = self.plan.partial
        self.spool.restart()
        is_there = held.copy(0, self.spool.write) and held.is_as_found()
        return Event.FIRST_COPIED if is_there else self._lose_copy()

    def _copy(self) -> Event | None:
        """Until there is no room; then it goes on when the spool says that there is.

        Once the exchange is over it waits for none: whatever comes next is behind the copy.
        """
        held = self.plan.partial
        while self.spool.written < held.held_bytes:
            self._is_copying = True  # before it asks for room: the answer may come at once
            if not (self._inbox or self._has_room()):
                return None
            self._is_copying = False
            self._check_stopping()
            if not self._is_needed():
                raise self._abortion()
            if not held.copy(self.spool.written, self.spool.write):
                if not self._can_resume:
                    raise OriginUnreachable(f"{self.plan.name}: its partial response was evicted while it was read")
                return self._lose_copy()
            self._fill.pump()
        return Event.COPIED

    def _copy_on(self) -> None:
        if self._is_copying:
            self._is_copying = False
            self._actions.appendleft(Action.COPY)
            self._take_steps(None, may_wait=True)

    def _lose_copy(self) -> Event:
        """The rest of it is of no use; the exchange ends here."""
        self._drop_transfer()
        self._inbox.append(lambda: Event.ENDED)
        return Event.COPY_LOST

    def _discard_partial(self) -> None:
        self.plan.partial.discard()

    # -- the answer ----------------------------------------------------------------------------------------------
    def _make_draft(self) -> None:
        self._draft = self.plan.draft(self._answered)
        self.spool.restart()

    def _make_completed(self) -> None:
        self._draft = self.plan.completed(self._answered)

    def _combine(self) -> None:
        self._draft = self.plan.combine(self._draft, self._answered)
        if self._draft.place is None:
            self.spool.seal()  # who asks from now on must ask the origin: the rest may not serve a later request
            self._strand.post(self._fill.cancel)

    def _tell(self) -> None:
        self._fill = self.plan.keep(self._draft, self.spool, self.token)
        answer = self.plan.answer(self._draft, self._fill, self.spool.written)
        self.tells_failure = isinstance(answer, Head) and answer.is_common_failure
        self.tells_passing_failure = isinstance(answer, Head) and self.tells_failure and not answer.is_shareable
        self.is_unshared = isinstance(answer, Head) and not (answer.is_shareable or answer.is_common)
        self.spool.answer(answer)

    def _tell_absent(self) -> None:
        self.tells_failure = True
        self.spool.answer(BodyMissing())

    def _confirm(self) -> None:
        answer = self.plan.confirm(self._answered, self.token)
        self.stored = answer.is_stored
        self.spool.answer(answer)

    @property
    def _length(self) -> int | None:
        return self._draft.response.length

    @property
    def _continuation(self) -> Continuation:
        known = self._draft.continuation
        assert known is not None
        return known

    @property
    def _can_resume(self) -> bool:
        """Whether the readers were promised bytes that are missing and can be requested."""
        known = self._draft.continuation
        return known is not None and self.spool.written < known.size_bytes

    # -- the end, in the strand ----------------------------------------------------------------------------------
    def _finish(self) -> Event | None:
        if self._fill is NO_FILL:
            return Event.NOT_TO_STORE
        stored = self._fill.finish(MOMENT_SECONDS if self._strand.is_lent else None)
        if stored is None:
            self._is_moved = True
            self._strand.move(self._finish_on)
            return None
        self.stored = stored
        return Event.STORED if stored else Event.NOT_STORED

    def _finish_on(self) -> None:
        self._is_moved = False
        self._actions.appendleft(Action.FINISH)
        self._take_steps(None, may_wait=True)

    def _settle(self) -> None:
        if not self.token.revoked:  # otherwise it was purged after it was stored
            self.plan.settle(self._draft)

    def _replace(self) -> None:
        self.plan.replace(self._draft, self.token)

    def _end(self) -> None:
        """Leave the spool first, so that readers are told; then the cache."""
        self._on_over(self)
        try:
            prefix = None if self.failure is None else self._prefix_to_keep()
        finally:
            self.spool.end(self.failure)
            self._fill.cancel()
        self.plan.end(self._draft, prefix, stored=self.stored)

    def _prefix_to_keep(self) -> SpooledPrefix | None:
        if self.token.revoked or self._stopping.is_set():
            return None
        if not self.plan.keeps(self._draft, self.spool.written):
            return None
        try:
            return self.spool.prefix()
        except OSError as error:
            log.info("partial response not stored", extra={"key": self.plan.object_key, "reason": str(error)})
            return None


_PERFORM: Final[Mapping[Action, Callable[[Fetch], Event | None]]] = {
    Action.LOOK: Fetch._look,
    Action.PAUSE: Fetch._pause,
    Action.ASK: Fetch._ask,
    Action.COPY_FIRST: Fetch._copy_first,
    Action.COPY: Fetch._copy,
    Action.DISCARD_PARTIAL: Fetch._discard_partial,
    Action.DRAFT: Fetch._make_draft,
    Action.DRAFT_COMPLETED: Fetch._make_completed,
    Action.COMBINE: Fetch._combine,
    Action.TELL: Fetch._tell,
    Action.TELL_ABSENT: Fetch._tell_absent,
    Action.CONFIRM: Fetch._confirm,
    Action.FINISH: Fetch._finish,
    Action.SETTLE: Fetch._settle,
    Action.REPLACE: Fetch._replace,
}
