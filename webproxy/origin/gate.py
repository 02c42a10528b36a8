"""OriginGate: who may use a connection to an origin now, and what the answers tell of the origin's health.

Theory of operation
===================

Each hop of a transfer passes the gate by itself, because a redirect leads to another origin:

    enter ──▶ in line ──▶ granted ──▶ admitted ──▶ answered or failed ──▶ left
      │          │           │
      └──────────┴───────────┴──▶ refused (OriginFailing, OriginBusy)

Connections come first (shares.py), then health (health.py): the probe of an origin that fails is a request that has its
connection already. Nobody waits in the line of an origin that is known as failing: it is refused at once, those who
wait already when the circuit opens too, and whoever finds all connections of the origin in use. These may be the
silent requests that opened it; while they last their answers are as good as a probe's.

The first word about a hop counts: an answer, a failure, or that it was given up for a reason of ours. An answer may
follow a silence. Each change of an origin's health is one line in the log.

All calls are the thread's that drives the transfers, so that no lock is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Generic, TypeVar

from webproxy.errors import OriginBusy, OriginFailing, OriginNotAsked, OriginSilent
from webproxy.origin.health import (
    BAD_GATEWAY_STATUSES,
    Admitted,
    Change,
    Failing,
    Failure,
    Health,
    HealthSettings,
    HealthTable,
    State,
)
from webproxy.origin.shares import Granted, LineFull, Shares, ShareSettings
from webproxy.telemetry.origin_counts import OriginCounts

log = logging.getLogger(__name__)

T = TypeVar("T")

_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
"""As they are counted."""


@dataclass(slots=True, eq=False)
class Passage(Generic[T]):
    """One hop's way through the gate; the fields are the gate's."""

    holder: T
    origin: str
    """Scheme, host and port."""
    health: Health
    is_granted: bool = False
    admitted: Admitted | None = None
    """What a failure is reported with; None before it is admitted, and after the first word about it."""
    asked_ns: int = 0
    """When its request was sent; 0 again once there is an answer."""


class OriginGate(Generic[T]):
    """The gate to all origins. No call blocks."""

    def __init__(
        self,
        settings: ShareSettings,
        on_turn: Callable[[T], None],
        on_refusal: Callable[[T, OriginNotAsked], None],
        counts: OriginCounts | None = None,
    ) -> None:
        """`on_turn`: the connection that was waited for is there. `on_refusal`: it will not come.

        Both are called from within other calls to the gate, and call the gate later.
        """
        self._shares: Shares[Passage[T]] = Shares(settings)
        self._healths = HealthTable()
        self._on_turn = on_turn
        self._on_refusal = on_refusal
        self._counts = counts or OriginCounts.private()
        self.next_expiry = self._shares.next_expiry
        self.stats = self._shares.stats

    def enter(self, holder: T, origin: str, settings: HealthSettings) -> Passage[T]:
        """Ask for a connection; it is granted now, or on its turn.

        Raises:
            OriginFailing: the origin fails.
            OriginBusy: too many wait for it.
        """
        try:
            return self._enter(holder, origin, settings)
        except OriginNotAsked:
            self._counts.refused(origin)
            raise

    def _enter(self, holder: T, origin: str, settings: HealthSettings) -> Passage[T]:
        now = monotonic()
        passage = Passage(holder, origin, self._healths.find(origin, settings, now))
        failing = passage.health.refusal(now)
        if failing is not None:
            raise _failing(origin, failing)
        place = self._shares.request(origin, passage, now)
        if isinstance(place, LineFull):
            raise OriginBusy(f"{origin}: too many requests wait for it ({place.bound.value})")
        if isinstance(place, Granted):
            passage.is_granted = True
        elif passage.health.state is not State.CLOSED:
            self._shares.leave(passage)
            raise _failing(origin, passage.health.refuse(now))
        return passage

    def admit(self, passage: Passage[T]) -> None:
        """Its request is about to be sent, on the connection that was granted.

        Raises:
            OriginFailing: the origin fails.
        """
        admitted = passage.health.admit(monotonic())
        if isinstance(admitted, Failing):
            self._counts.refused(passage.origin)
            raise _failing(passage.origin, admitted)
        passage.admitted = admitted
        passage.asked_ns = monotonic_ns()
        self._counts.asked(passage.origin)

    def answered(self, passage: Passage[T], status: int) -> None:
        """The head of an answer has come."""
        asked_ns, passage.asked_ns = passage.asked_ns, 0
        if asked_ns:
            self._counts.answered(passage.origin, monotonic_ns() - asked_ns)
        if status in BAD_GATEWAY_STATUSES:
            self.failed(passage, Failure.BAD_GATEWAY)
            return
        passage.admitted = None
        _tell(passage.origin, passage.health.succeeded(monotonic()))

    def failed(self, passage: Passage[T], failure: Failure) -> None:
        """It has failed; of no consequence after the first word about it."""
        admitted, passage.admitted = passage.admitted, None
        if admitted is None:
            return
        self._counts.failed(passage.origin)
        now = monotonic()
        change = passage.health.failed(admitted, failure, now)
        _tell(passage.origin, change)
        if change is not None:
            for waiting in self._shares.dismiss(passage.origin):
                self._counts.refused(passage.origin)
                self._on_refusal(waiting.holder, _failing(waiting.origin, waiting.health.refuse(now)))

    def leave(self, passage: Passage[T]) -> None:
        """Its hop is over, or given up; without a word about it until now, for a reason of ours."""
        if passage.admitted is not None:
            passage.health.abandoned(passage.admitted, monotonic())
            passage.admitted = None
        if not passage.is_granted:
            self._shares.leave(passage)
            return
        passage.is_granted = False
        following = self._shares.release(passage.origin)
        if following is not None:
            following.is_granted = True
            self._on_turn(following.holder)

    def expire(self) -> None:
        """Refuse those that have waited for too long."""
        for passage in self._shares.expire(monotonic()):
            self._counts.refused(passage.origin)
            text = f"{passage.origin}: no connection became free in time"
            self._on_refusal(passage.holder, OriginBusy(text))

    def report(self) -> None:
        """Write the state and the load of the origins that are counted; to be called now and then."""
        for origin in self._counts.named:
            connections, line = self._shares.load_of(origin)
            state = _STATES[self._healths.state_of(origin)]
            self._counts.set_now(origin, state=state, connections=connections, line=line)


def _failing(origin: str, failing: Failing) -> OriginFailing:
    kind = OriginSilent if failing.cause is Failure.SILENCE else OriginFailing
    status = 503 if failing.cause is Failure.BAD_GATEWAY else 0
    return kind(
        f"{origin} is known as failing: {failing.cause.value}",
        cause=failing.cause.value,
        status=status,
        retry_after_s=failing.retry_after_s,
    )


def _tell(origin: str, change: Change | None) -> None:
    """One line for a change."""
    if change is None:
        return
    facts: dict[str, object] = {"origin": origin, "reason": change.cause.value, "failures": change.failures}
    if change.before is State.CLOSED:
        log.warning("origin fails, not asked for now", extra=facts)
        return
    facts |= {"refused": change.refused, "seconds": round(change.open_s, 1)}
    if change.after is State.CLOSED:
        log.info("origin answers again", extra=facts)
    else:
        log.warning("origin still fails", extra=facts)
