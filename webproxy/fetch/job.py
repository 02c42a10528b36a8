"""Fetch: drives the state machine of one fetch: asks the origin, writes the spool, fills the cache, tells the readers.

One driver for HTTP and getfile. They differ in their `Plan`: the first question, the meaning of a response, and where
it is stored. The order of steps is the table's (state.py); nothing here decides what comes next.

A fetch runs in one thread, which calls `run()` and then `end()`. It is the sink of its own exchanges: the origin client
calls `begin`, `write` and `idle` from within `fetch()`. Readers and purges run in other threads, and only touch `spool`
and `token`.

Two places decide how long a fetch lasts. `_keep_pace()` makes the origin wait if the body is a window ahead of its
fastest consumer, a reader or the cache. `idle()` ends the fetch if it is no longer needed: all readers have left, and
the cache is not receiving it, or has received less than the share from which on it is fetched for the cache alone. A
complete body is always handed to the cache.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import time
from typing import Final

from shmchannel.deadline import Deadline
from webproxy.caching.partial import AGAIN_MAY_HELP, Continuation, is_rest, rest_request
from webproxy.errors import FetchAborted, OriginBadReply, OriginError, OriginUnreachable
from webproxy.fetch.plan import NO_DRAFT, Answered, Plan
from webproxy.fetch.spool import BodyMissing, Spool, SpooledPrefix
from webproxy.fetch.state import TAKES_BODY, Action, Event, Progress, State, pause_before_try
from webproxy.http.fields import Fields
from webproxy.origin.client import Sink
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.store.fill import NO_FILL, Fill, StoreToken

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
"""How often a fetch that pauses before another try checks whether it is still needed."""


class Fetch(Sink):
    """One fetch from an origin into a spool and, chunk by chunk, into the cache."""

    def __init__(self, plan: Plan, spool: Spool, stopping: threading.Event) -> None:
        self.plan = plan
        self.spool = spool
        self.token = StoreToken()
        self.stored = False
        """Whether the cache has the object: lookups made before should be repeated."""
        self._means = plan.means
        self._stopping = stopping
        self._progress = Progress(tries_left=plan.tries - 1)
        self._asked_at = 0.0
        self._answered: Answered
        self._draft = NO_DRAFT
        self._fill: Fill = NO_FILL
        self._failure: OriginError | None = None

    def run(self) -> OriginError | None:
        """Fetch until nothing more can happen; returns why it failed. end() tells the readers."""
        self._take(self.plan.first())
        return self._failure

    def _take(self, event: Event | None) -> None:
        """Continue from an event; an action that leads to another event is the last one of its step."""
        while event is not None:
            self._progress, actions = self._progress.after(event)
            event = None
            for action in actions:
                event = _PERFORM[action](self)
                if event is not None:
                    break

    def _fail(self, error: OriginError) -> Event:
        """The event of a failure."""
        event = self._progress.failure(may_help=error.retryable, can_resume=self._can_resume)
        if event is Event.BROKE:
            self._failure = error.with_traceback(None)  # which would refer to this object
        else:
            log.debug("trying again", extra={"url": self.plan.name, "reason": str(error)})
        return event

    # -- the origin ----------------------------------------------------------------------------------------------
    def _pause(self) -> None:
        """Wait before another try; readers may leave in the meantime, and a hit may need the segments of the fill."""
        number = self.plan.tries - 1 - self._progress.tries_left
        deadline = Deadline.after(pause_before_try(number, random.random()))
        while not deadline.expired:
            if self._stopping.wait(deadline.slice(LOOK_SECONDS)) or self.idle():
                break

    def _ask(self) -> Event:
        try:
            self._check_wanted()
            self._asked_at = time()
            self._means.origin.fetch(self._request(), self, self.plan.limits)
            self._check_end()
        except OriginError as error:
            return self._fail(error)
        except OSError as error:
            return self._fail(OriginUnreachable(f"the body cannot be spooled: {error}"))
        return Event.ENDED

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise OriginUnreachable("the daemon stops")
        if self.idle():
            raise FetchAborted(f"{self.plan.name}: no reader left")

    def _request(self) -> OriginRequest:
        question = self._progress.state
        request = self.plan.request(question, self._asked_at)
        if question is not State.RESUME:
            return request
        return replace(request, fields=rest_request(request.fields, self._continuation, self.spool.written))

    def _check_end(self) -> None:
        """The exchange has ended without a failure; raises OriginBadReply if the response is incomplete."""
        state = self._progress.state
        if state is State.REFUSED:
            status = self._answered.response.status
            again = status >= 500 or status in AGAIN_MAY_HELP
            raise OriginBadReply(f"status {status}", status=status, retryable=again)
        if state is State.BODY and self._length is not None and self.spool.written < self._length:
            raise OriginBadReply(f"{self.plan.name}: {self.spool.written} of {self._length} bytes", retryable=True)

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim(): for readers only, never stored."""
        self.spool.interim(status, fields)

    def begin(self, response: OriginResponse) -> bool:
        """As Sink.begin(): the meaning of the response decides what follows."""
        self._answered = Answered(response, self._asked_at, time())
        question = self._progress.state
        if question is State.RESUME:
            event = self._judge_rest(self._answered)
        else:
            event = self.plan.judge(question, self._answered)
        self._take(event)
        return self._progress.state in TAKES_BODY

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

    # -- the partial response ------------------------------------------------------------------------------------
    def _look(self) -> Event:
        return Event.PARTIAL_FOUND if self.plan.partial.look(time()) else Event.NO_PARTIAL

    def _copy_first(self) -> Event:
        partial = self.plan.partial
        self.spool.restart()
        is_there = partial.copy(0, self.spool.write) and partial.is_as_found()
        return Event.FIRST_COPIED if is_there else Event.COPY_LOST

    def _copy(self) -> Event:
        partial = self.plan.partial
        self._keep_pace()
        while self.spool.written < partial.held_bytes:
            self._check_wanted()
            if not partial.copy(self.spool.written, self.spool.write):
                if not self._can_resume:
                    raise OriginUnreachable(f"{self.plan.name}: its partial response was evicted while it was read")
                return Event.COPY_LOST
            self._keep_pace()
        return Event.COPIED

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
            self._fill.cancel()

    def _tell(self) -> None:
        self._fill = self.plan.keep(self._draft, self.spool, self.token)
        self.spool.answer(self.plan.answer(self._draft, self._fill, self.spool.written))

    def _tell_absent(self) -> None:
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

    # -- the body ------------------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """As Sink.write(): spool it, fill the cache, and wait if no reader follows."""
        length = self._length
        if length is not None:
            if self._progress.state is State.UNTOLD:
                self._take(Event.FIRST_BYTES)
            if self.spool.written + len(data) > length:
                raise OriginBadReply(f"{self.plan.name}: more than the announced {length} bytes")
        self.spool.write(data)
        self._keep_pace()

    def _keep_pace(self) -> None:
        """Fill the cache with what is spooled, and wait while no reader follows."""
        fill = self._fill
        window_bytes = max(self._means.window_bytes, fill.chunk_bytes)
        while True:
            fill.pump()
            if not self.spool.answered:
                return
            if fill.given_up:  # otherwise it may restart from the first byte
                self.spool.forget_read()
            position = fill.position
            is_near = self.spool.lead(position) <= window_bytes
            if is_near or self._stopping.is_set() or (position is None and not self.spool.wanted):
                return
            self.spool.wait_reader()

    def idle(self) -> bool:
        """As Sink.idle(): end the fetch if it is no longer needed."""
        self._fill.yield_turn()
        if self._stopping.is_set():
            return True
        if self.spool.written == self._length or self._is_worth_continuing():
            return False
        return self.spool.abandon()

    def _is_worth_continuing(self) -> bool:
        """Whether the cache is receiving it, and has received so much that readers are not required."""
        if not self._fill.is_coming:
            return False
        return self._length is None or self.spool.written >= self._means.continue_after_share * self._length

    def _finish(self) -> Event:
        if self._fill is NO_FILL:
            return Event.NOT_TO_STORE
        self.stored = self._fill.finish()
        return Event.STORED if self.stored else Event.NOT_STORED

    def _settle(self) -> None:
        if not self.token.revoked:  # otherwise it was purged after it was stored
            self.plan.settle(self._draft)

    def _replace(self) -> None:
        self.plan.replace(self._draft, self.token)

    def end(self, error: OriginError | None) -> None:
        """Leave the spool first, so that readers are told; then the cache."""
        prefix = None if error is None else self._prefix_to_keep()
        self.spool.end(error)
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
