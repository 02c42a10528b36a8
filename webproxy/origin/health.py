"""PURE: Health, whether an origin is known as failing, and who asks it whether it still is (a circuit breaker).

Theory of operation
===================

**States.** The names are those of an electric circuit: requests pass while it is closed.

    CLOSED ──(failures in a row)──▶ OPEN ──(the pause is over, and somebody asks)──▶ HALF_OPEN
      ▲                             │ ▲                                               │ │
      │                             │ └──────────(the probe failed or left)───────────┘ │
      └─────────(an answer)─────────┴───────────────────(an answer)─────────────────────┘

All may ask while it is CLOSED, nobody while it is OPEN, and one while it is HALF_OPEN: that request is the probe.

The first pause is `pause_s`, and each probe that fails doubles it, up to `pause_max_s`. A probe whose asker left has
found out nothing, so no pause follows: whoever asks next is the probe. One that has reported nothing for two silences
is taken for lost, and replaced in the same way.

**What counts.** A failure is what another request would probably meet as well:

    UNREACHABLE   no connection: name not found, no route, refused, TLS
    RESET         the connection broke before the head of an answer
    SILENCE       no head within `silence_s`; its request may go on waiting, and an answer in the end is an answer
    BAD_ANSWER    what came is not HTTP
    BAD_GATEWAY   502, 503 or 504: a gateway says of what is behind it what the four above say

Any other head is an answer: 500 speaks of one resource more often than of the origin, 501 and 505 are provoked by the
client, 429 is about the asker. A body that breaks off had a head; resuming it is another request, and counts. A request
that ends for a reason of ours is abandoned: no descriptor left, a redirect that is not followed, a reader or an upload
that left. A silent origin is therefore noticed by those alone who wait for `silence_s`.

The field agrees on the first four. nginx always counts `error`, `timeout` and `invalid_header`, counts 500 to 504 and
429 if `proxy_next_upstream` names them, and never 403 and 404. Envoy's outlier detection counts local failures, 5xx
and, apart from these, the gateway failures 502 to 504, five in a row each, and ejects for 30 s times the number of
ejections. HAProxy's `observe layer7` counts 5xx except 501 and 505, ten in a row. But they choose among servers, and
nginx never takes the only server of a group for failed. An origin has no substitute here. Hence the narrow list,
failures in a row instead of a rate, a first pause of one second, and a single answer that closes the circuit.

**Invariants.** Each change begins a new period. An admission belongs to its period, and its failure counts in that
period only: the other requests that were under way when the circuit opened neither lengthen the pause nor open it again
after it has closed, and a probe that was replaced cannot end its successor. An answer always counts, whoever asked: the
origin answers now. In HALF_OPEN exactly one admission is of the current period.

**Why not otherwise.** A probe of our own (`HEAD /`) asks for what no client wants, and something else than what fails
may answer it. A rate of failures over a window needs a volume of requests that most origins do not have.

The same machine is the health of the cache, with settings of its own. The driver keeps the time: it reports SILENCE
after `silence_s`. It asks for admission when the request is about to be sent, so that no probe waits in a line.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

BAD_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})
"""The statuses that are failures."""
_SILENCES_OF_A_PROBE: Final = 2.0
"""A probe reports after one at the latest; the second is for the driver."""


class State(Enum):
    """Who may ask."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Failure(Enum):
    """Why a request had no useful answer."""

    UNREACHABLE = "no connection"
    RESET = "the connection broke before an answer"
    SILENCE = "no answer in time"
    BAD_ANSWER = "an answer that is not HTTP"
    BAD_GATEWAY = "status 502 to 504"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """When to take an origin for failing, and how often to look whether it still is."""

    failures_to_open: int = 5
    """Failures in a row; 0: it never opens."""
    silence_s: float = 30.0
    pause_s: float = 1.0
    pause_max_s: float = 30.0


class Admitted(NamedTuple):
    """The request may be sent; its failure or abandonment is reported with this value, once."""

    period: int
    is_probe: bool


class Failing(NamedTuple):
    """The request must not be sent: serve what is stale, or fail at once."""

    cause: Failure
    """The latest failure."""
    retry_after_s: float
    """Above 0."""


class Change(NamedTuple):
    """A change of state, for one line in the log: an outage begins, a probe has failed, or it is over."""

    before: State
    after: State
    cause: Failure
    """The latest failure."""
    failures: int
    """In a row, with those of the probes."""
    refused: int
    """Requests that were not sent since it opened."""
    open_s: float
    """Since it opened, whatever the probes found."""


class Health:
    """The health of one origin, or of the cache.

    All times are seconds of one monotonic clock. No call blocks; the caller's lock covers each of them.
    """

    __slots__ = (
        "_cause",
        "_due",
        "_failures",
        "_opened_at",
        "_pause_s",
        "_period",
        "_refused",
        "_settings",
        "_state",
    )

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._state = State.CLOSED
        self._period = 0
        self._failures = 0
        # The rest has a meaning only after a failure.
        self._cause = Failure.UNREACHABLE
        self._refused = 0
        self._opened_at = 0.0
        self._pause_s = 0.0
        self._due = 0.0
        """When the next probe may be sent: OPEN: the end of the pause, HALF_OPEN: when this one is taken for lost."""

    @property
    def state(self) -> State:
        """The state after the latest call; a pause that is over is still OPEN until somebody asks."""
        return self._state

    @property
    def admitted_to_all(self) -> Admitted | None:
        """What admit() returns to everybody until the next change of state; None unless CLOSED."""
        return Admitted(self._period, is_probe=False) if self._state is State.CLOSED else None

    def admit(self, now: float) -> Admitted | Failing:
        """Whether a request may be sent now; it is the probe if `is_probe`, a change to HALF_OPEN."""
        admitted = self.admitted_to_all
        if admitted is not None:
            return admitted
        failing = self.refusal(now)
        if failing is not None:
            return failing
        self._enter(State.HALF_OPEN, now)
        self._due = now + _SILENCES_OF_A_PROBE * self._settings.silence_s
        return Admitted(self._period, is_probe=True)

    def refusal(self, now: float) -> Failing | None:
        """The refusal that admit() would return, counted; None if it would admit the request."""
        return None if self._state is State.CLOSED or now >= self._due else self.refuse(now)

    def refuse(self, now: float) -> Failing:
        """Count a request that is not sent, whatever admit() would say."""
        self._refused += 1
        # While a probe is under way its answer may come at any moment, long before it would be taken for lost.
        waits_s = self._due - now if self._state is State.OPEN else 0.0
        return Failing(self._cause, waits_s if waits_s > 0 else self._settings.pause_s)

    def succeeded(self, now: float) -> Change | None:
        """An answer has come, to whatever request; returns the change if the origin was known as failing."""
        change = None if self._state is State.CLOSED else self._enter(State.CLOSED, now)
        self._failures = 0
        return change

    def failed(self, admission: Admitted, failure: Failure, now: float) -> Change | None:
        """A request has failed; returns the change if it opened the circuit, or was the probe."""
        if admission.period != self._period:
            return None
        self._failures += 1
        self._cause = failure
        if self._state is State.HALF_OPEN:
            self._pause_s = min(2.0 * self._pause_s, self._settings.pause_max_s)
        elif 0 < self._settings.failures_to_open <= self._failures:
            self._opened_at, self._refused, self._pause_s = now, 0, self._settings.pause_s
        else:
            return None
        self._due = now + self._pause_s
        return self._enter(State.OPEN, now)

    def abandoned(self, admission: Admitted, now: float) -> None:
        """A request ended without telling anything of the origin; if it was the probe, the next who asks is."""
        if self._state is State.HALF_OPEN and admission.period == self._period:
            self._due = now
            self._enter(State.OPEN, now)

    def _enter(self, state: State, now: float) -> Change:
        change = Change(self._state, state, self._cause, self._failures, self._refused, now - self._opened_at)
        self._state = state
        self._period += 1
        return change


class HealthTable:
    """The health of each origin that is in use, by its authority; like a Health, under the caller's lock.

    A row is forgotten when nobody has looked for it for `idle_s`, and the one longest not looked for when there are
    more than `rows_max`: forward proxying meets as many hosts as clients can name. Who holds a forgotten Health may go
    on reporting to it; an origin that still fails is found failing again.
    """

    def __init__(self, *, rows_max: int = 1024, idle_s: float = 600.0) -> None:
        self._rows_max = rows_max
        self._idle_s = idle_s
        self._rows: OrderedDict[str, tuple[Health, float]] = OrderedDict()
        """Each with the time of the latest look, in the order of these."""

    def __len__(self) -> int:
        return len(self._rows)

    def state_of(self, authority: str) -> State:
        """The state of an origin, CLOSED of one that nothing is known of; not a look that keeps its row."""
        row = self._rows.get(authority)
        return State.CLOSED if row is None else row[0].state

    def find(self, authority: str, settings: HealthSettings, now: float) -> Health:
        """The health of this origin; new, with these settings, when nothing is known of it."""
        while self._rows and next(iter(self._rows.values()))[1] + self._idle_s <= now:
            self._rows.popitem(last=False)
        row = self._rows.pop(authority, None)
        health = Health(settings) if row is None else row[0]
        if len(self._rows) >= self._rows_max:
            self._rows.popitem(last=False)
        self._rows[authority] = health, now
        return health
