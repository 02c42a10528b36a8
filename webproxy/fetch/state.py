"""PURE: the steps of one fetch as a table: the state it is in, what happens, the next state and what to do about it.

Theory of operation
===================

A fetch asks an origin one of four questions, and a question is a state while its answer is awaited:

    VALIDATE   does the stored response still hold?
    COMPLETE   what follows the partial response that is stored?
    WHOLE      what is there?
    RESUME     what follows the bytes that came before the connection broke?

The answer to VALIDATE or COMPLETE may turn out to be useless (a 304 about another response, a 206 of another
representation): then the next question is a lesser one, in the order above. The fetch never returns to a greater
question, so without failures it asks at most four times.

The readers are told an answer once, and from that moment on nothing may contradict it. That divides the states:

    readers know nothing     NEW LOOK VALIDATE COMPLETE WHOLE MISMATCH UNFIT COPY_FIRST UNTOLD REFUSED
    readers know the answer  COPY LOST BODY RESUME ABSENT COMMIT
    told at the end of it    NOT_MODIFIED

After a failure a fetch whose readers know nothing repeats its question. One whose readers know the answer can only
RESUME: it must deliver exactly the bytes that are missing, or fail. HTTP readers are told with the head. getfile
readers are told with the first byte, because the protocol has nothing to say before it, or with the last one when the
length is not known; UNTOLD is that interval.

An exchange with the origin is one event for its head, then ENDED, AGAIN or BROKE. An answer whose body is not wanted
(see `TAKES_BODY`) still has to end before the next question, so that its connection can be used again: NOT_MODIFIED,
MISMATCH, UNFIT, LOST, ABSENT and REFUSED are states for that.

Every path ends: AGAIN costs a try, and the table without AGAIN has no cycle.

The table holds no data. What a 304 confirms, which bytes are missing, and whether a failure is worth another try is
decided by functions of values elsewhere and arrives here as an event. Actions are values too, so that whoever drives
the machine may perform them on any thread: ASK needs the origin, LOOK, COPY, CONFIRM and FINISH need the cache.

Why not otherwise: the same decisions as nested calls (`attempt()` within `attempt()`) hid which question was being
asked in half a dozen flags, each of which had to be right at each of the others' values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple


class State(Enum):
    """The state of a fetch."""

    __hash__ = object.__hash__  # there is one of each, and the Enum's own costs a Python call

    NEW = "nothing has been done"
    LOOK = "the cache is asked for a partial response"
    VALIDATE = "the origin is asked to confirm the stored response"
    COMPLETE = "the origin is asked for the rest of the stored partial response"
    WHOLE = "the origin is asked for the whole"
    RESUME = "the origin is asked for the rest of a body that broke off"
    NOT_MODIFIED = "the stored response is confirmed; the exchange is about to end"
    MISMATCH = "a 304 about another response than the stored one; it is about to end"
    UNFIT = "not the rest of the partial response; the answer is about to end"
    COPY_FIRST = "the rest has arrived; the first piece of the partial response is being read"
    COPY = "the readers are told, and the partial response is read into the spool ahead of its rest"
    LOST = "the partial response was evicted while it was read; the exchange is about to end"
    ABSENT = "the readers are told that there is nothing; the answer is about to end"
    REFUSED = "a status that is not a usable response; it is about to end"
    UNTOLD = "a body is arriving, and the readers do not know it yet"
    BODY = "a body is arriving for readers who know its head"
    COMMIT = "the body is complete, and is being stored"
    DONE = "the readers have everything they were promised"
    FAILED = "no response, or not all of it"


class Event(Enum):
    """An event of a fetch."""

    __hash__ = object.__hash__  # there is one of each, and the Enum's own costs a Python call

    TO_VALIDATE = auto()
    """A new fetch has a stored response to validate."""
    TO_COMPLETE = auto()
    """A new fetch may have a partial response to complete."""
    TO_FETCH = auto()
    """A new fetch has nothing to begin with."""
    PARTIAL_FOUND = auto()
    NO_PARTIAL = auto()
    CONFIRMED = auto()
    """The head is a 304 that confirms the stored response."""
    CONFIRMED_OTHER = auto()
    """The head is a 304 that does not select the stored response."""
    REST = auto()
    """The head announces exactly the bytes that were asked for."""
    NOT_REST = auto()
    """The head answers a question about the partial response with something else."""
    ANSWER = auto()
    """The head is an answer of its own, of which the readers are told at once."""
    BODY_AHEAD = auto()
    """The head is an answer of which the readers are told when the body proves it."""
    NOTHING_THERE = auto()
    """The head says that there is no such object."""
    NO_ANSWER = auto()
    """The head has a status that is not a usable response."""
    FIRST_BYTES = auto()
    """The first bytes of a body of known length have arrived."""
    FIRST_COPIED = auto()
    """The beginning of the partial response is in the spool, and the cache has it unchanged."""
    COPIED = auto()
    """All of the partial response is in the spool."""
    COPY_LOST = auto()
    """The partial response cannot be read any further."""
    ENDED = auto()
    """The answer has ended, complete or not wanted."""
    STORED = auto()
    NOT_STORED = auto()
    """The cache did not take it."""
    NOT_TO_STORE = auto()
    """It is not for the cache, or there is none."""
    AGAIN = auto()
    """The exchange failed, and a retry may help."""
    BROKE = auto()
    """The fetch failed, or is no longer needed."""


class Action(Enum):
    """An action for the driver, in the order given; ASK, LOOK, COPY_*, and FINISH report an event."""

    __hash__ = object.__hash__  # there is one of each, and the Enum's own costs a Python call

    LOOK = auto()
    PAUSE = auto()
    ASK = auto()
    COPY_FIRST = auto()
    COPY = auto()
    DISCARD_PARTIAL = auto()
    """The partial response is useless now: it is removed when the fetch is over."""
    DRAFT = auto()
    """Decide the meaning of the response for readers and cache; the body starts over."""
    DRAFT_COMPLETED = auto()
    """The same for a partial response combined with its rest."""
    COMBINE = auto()
    """The head of the rest updates what is stored of the first one."""
    TELL = auto()
    """Tell the readers what was decided, and begin to store it."""
    TELL_ABSENT = auto()
    CONFIRM = auto()
    """Update the stored response, and tell the readers that it serves them."""
    FINISH = auto()
    SETTLE = auto()
    """Bring the index and the objects of the key into agreement with what was stored."""
    REPLACE = auto()
    """The object stored before must no longer be served, although the response is not stored."""


class Step(NamedTuple):
    """The next state, and the actions on the way there."""

    state: State
    actions: tuple[Action, ...] = ()


def _fails(again: State | None = None) -> dict[Event, Step]:
    """The rows of a state in which the exchange may fail, and the question to repeat, if any."""
    broke = {Event.BROKE: Step(State.FAILED)}
    return broke if again is None else broke | {Event.AGAIN: Step(again, (Action.PAUSE, Action.ASK))}


_ANSWERED = {Event.ANSWER: Step(State.BODY, (Action.DRAFT, Action.TELL))}

STEPS: Final[Mapping[State, Mapping[Event, Step]]] = {
    State.NEW: {
        Event.TO_VALIDATE: Step(State.VALIDATE, (Action.ASK,)),
        Event.TO_COMPLETE: Step(State.LOOK, (Action.LOOK,)),
        Event.TO_FETCH: Step(State.WHOLE, (Action.ASK,)),
        **_fails(),
    },
    State.LOOK: {
        Event.PARTIAL_FOUND: Step(State.COMPLETE, (Action.ASK,)),
        Event.NO_PARTIAL: Step(State.WHOLE, (Action.ASK,)),
        **_fails(),
    },
    # -- the questions -------------------------------------------------------------------------------------------
    State.VALIDATE: {
        Event.CONFIRMED: Step(State.NOT_MODIFIED),
        Event.CONFIRMED_OTHER: Step(State.MISMATCH),
        **_ANSWERED,
        **_fails(again=State.VALIDATE),
    },
    State.COMPLETE: {
        Event.REST: Step(State.COPY_FIRST, (Action.COPY_FIRST,)),
        Event.NOT_REST: Step(State.UNFIT),
        **_ANSWERED,
        **_fails(again=State.COMPLETE),
    },
    State.WHOLE: {
        **_ANSWERED,
        Event.BODY_AHEAD: Step(State.UNTOLD, (Action.DRAFT,)),
        Event.NOTHING_THERE: Step(State.ABSENT, (Action.TELL_ABSENT,)),
        Event.NO_ANSWER: Step(State.REFUSED),
        **_fails(again=State.WHOLE),
    },
    State.RESUME: {
        Event.REST: Step(State.BODY, (Action.COMBINE,)),
        **_fails(again=State.RESUME),
    },
    # -- answers without a body that is wanted -------------------------------------------------------------------
    State.NOT_MODIFIED: {Event.ENDED: Step(State.DONE, (Action.CONFIRM,)), **_fails()},
    State.MISMATCH: {Event.ENDED: Step(State.LOOK, (Action.LOOK,)), **_fails()},
    State.UNFIT: {Event.ENDED: Step(State.WHOLE, (Action.DISCARD_PARTIAL, Action.ASK)), **_fails()},
    State.LOST: {Event.ENDED: Step(State.RESUME, (Action.ASK,)), **_fails()},
    State.ABSENT: {Event.ENDED: Step(State.DONE), **_fails()},
    State.REFUSED: _fails(again=State.WHOLE),
    # -- answers with a body -------------------------------------------------------------------------------------
    State.COPY_FIRST: {
        Event.FIRST_COPIED: Step(State.COPY, (Action.DRAFT_COMPLETED, Action.TELL, Action.COPY)),
        Event.COPY_LOST: Step(State.UNFIT),
        **_fails(again=State.COMPLETE),
    },
    State.COPY: {
        Event.COPIED: Step(State.BODY),
        Event.COPY_LOST: Step(State.LOST),
        **_fails(again=State.RESUME),
    },
    State.UNTOLD: {
        Event.FIRST_BYTES: Step(State.BODY, (Action.TELL,)),
        Event.ENDED: Step(State.COMMIT, (Action.TELL, Action.FINISH)),
        **_fails(again=State.WHOLE),
    },
    State.BODY: {
        Event.ENDED: Step(State.COMMIT, (Action.FINISH,)),
        **_fails(again=State.RESUME),
    },
    State.COMMIT: {
        Event.STORED: Step(State.DONE, (Action.SETTLE,)),
        Event.NOT_STORED: Step(State.DONE, (Action.REPLACE,)),
        Event.NOT_TO_STORE: Step(State.DONE),
        **_fails(),
    },
    State.DONE: {},
    State.FAILED: {},
}

TAKES_BODY: Final = frozenset({State.UNTOLD, State.BODY})
"""States in which the body of a response is needed."""
IS_TOLD: Final = frozenset({State.COPY, State.LOST, State.ABSENT, State.BODY, State.RESUME, State.COMMIT, State.DONE})
"""States in which the readers know an answer: nothing may contradict it."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class ImpossibleStep(Exception):
    """An event that is impossible in this state: a bug of the driver."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a fetch."""

    tries_left: int
    """Tries left after the current one."""
    state: State = State.NEW

    def after(self, event: Event) -> tuple[Progress, tuple[Action, ...]]:
        """The progress after an event, and the actions, in order.

        Raises:
            ImpossibleStep: the state does not know the event, or no try is left.
        """
        step = STEPS[self.state].get(event)
        again = event is Event.AGAIN
        if step is None or (again and self.tries_left <= 0):
            raise ImpossibleStep(f"{event.name} in {self.state.name} with {self.tries_left} tries left")
        return Progress(self.tries_left - again, step.state), step.actions

    def failure(self, *, may_help: bool, can_resume: bool) -> Event:
        """The event for a failed exchange: AGAIN or BROKE.

        `may_help`: a retry may help against the failure. `can_resume`: readers who know the answer lack bytes that can
        be requested.
        """
        possible = Event.AGAIN in STEPS[self.state] and (can_resume or self.state not in IS_TOLD)
        return Event.AGAIN if may_help and possible and self.tries_left > 0 else Event.BROKE


def pause_before_try(number: int, jitter: float) -> float:
    """Seconds to wait before try `number` (the first try is 0): doubled each time, up to a ceiling, with jitter.

    `jitter` in [0, 1) spreads it between half and the whole, so that many clients do not return at the same time.
    """
    if number <= 0:
        return 0.0
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(number - 1, 32))
    return pause * (0.5 + jitter / 2)
