"""The health of an origin under any history of requests: at most one probe, no pause that is ignored or never ends.

And the table of them: bounded, and whoever is looked for often enough keeps what is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.examples import examples
from webproxy.origin.health import Admitted, Change, Failing, Failure, Health, HealthSettings, HealthTable, State

SILENCE_S = 8.0
PROBE_LOST_S = 2 * SILENCE_S
IDLE_S = 600.0


@dataclass(eq=False)
class Request:
    """A request under way: its probe counts as one until it reports, is too old, or the outage is over."""

    admission: Admitted
    sent_at: float
    outage: int
    replaced: bool = False
    silent: bool = False
    """Reported as such; it may still be answered."""


class HealthMachine(RuleBasedStateMachine):
    """The model remembers what has happened, not what the machine has made of it."""

    @initialize(failures_to_open=st.integers(0, 4), pause_max_s=st.sampled_from([1.0, 3.0, 30.0]))
    def begin(self, failures_to_open: int, pause_max_s: float) -> None:
        self.settings = HealthSettings(
            failures_to_open=failures_to_open, silence_s=SILENCE_S, pause_s=1.0, pause_max_s=pause_max_s
        )
        self.health = Health(self.settings)
        self.now = 1000.0
        self.under_way: list[Request] = []
        self.in_a_row = 0
        self.outage = 0
        """Raised whenever it opens or closes."""
        self.is_open = False
        self.opened_at = self.paused_until = 0.0
        self.refused = 0

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 2.0, SILENCE_S, PROBE_LOST_S, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        admission = self.health.admit(self.now)
        probe = self.probe()
        if isinstance(admission, Failing):
            self.refused += 1
            assert self.is_open
            assert probe or self.now < self.paused_until
            assert 0 < admission.retry_after_s <= self.settings.pause_max_s
            assert probe or self.now + admission.retry_after_s == self.paused_until
            return
        assert admission.is_probe == self.is_open
        if admission.is_probe:
            assert probe is None, "one at a time"
            assert self.now >= self.paused_until
            for request in self.under_way:
                request.replaced = True
        self.under_way.append(Request(admission, self.now, self.outage))

    def probe(self) -> Request | None:
        """The probe whose report is awaited."""
        awaited = [
            request
            for request in self.under_way
            if request.admission.is_probe
            and request.outage == self.outage
            and not request.replaced
            and not request.silent
            and self.now < request.sent_at + PROBE_LOST_S
        ]
        assert len(awaited) <= 1
        return awaited[0] if awaited else None

    def draw(self, data: st.DataObject, requests: list[Request]) -> Request:
        return requests[data.draw(st.integers(0, len(requests) - 1))]

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def answered(self, data: st.DataObject) -> None:
        self.under_way.remove(self.draw(data, self.under_way))
        change = self.health.succeeded(self.now)
        assert (change is not None) == self.is_open
        if change is not None:
            self.check(change, State.CLOSED)
            self.is_open = False
            self.outage += 1
        self.in_a_row = 0

    @precondition(lambda self: self.unreported())
    @rule(data=st.data(), failure=st.sampled_from(Failure))
    def fails(self, data: st.DataObject, failure: Failure) -> None:
        request = self.draw(data, self.unreported())
        if failure is Failure.SILENCE:
            request.silent = True
        else:
            self.under_way.remove(request)
        self.failed(request, failure)

    @precondition(lambda self: self.unreported())
    @rule(data=st.data())
    def abandoned(self, data: st.DataObject) -> None:
        request = self.draw(data, self.unreported())
        self.under_way.remove(request)
        self.health.abandoned(request.admission, self.now)

    def unreported(self) -> list[Request]:
        return [request for request in self.under_way if not request.silent]

    def failed(self, request: Request, failure: Failure) -> None:
        change = self.health.failed(request.admission, failure, self.now)
        if request.outage != self.outage or request.replaced:
            assert change is None, "what is out of date changes nothing"
            return
        self.in_a_row += 1
        if not self.is_open and not 0 < self.settings.failures_to_open <= self.in_a_row:
            assert change is None
            return
        assert change is not None
        assert change.cause == failure
        if not self.is_open:
            self.is_open, self.opened_at, self.refused, self.pause_s = True, self.now, 0, self.settings.pause_s
            self.outage += 1
        else:
            assert request.admission.is_probe
            self.pause_s = min(2 * self.pause_s, self.settings.pause_max_s)
        self.paused_until = self.now + self.pause_s
        self.check(change, State.OPEN)

    def check(self, change: Change, after: State) -> None:
        assert change.after is after
        assert change.after is self.health.state
        assert change.before is not change.after
        assert (change.failures, change.refused) == (self.in_a_row, self.refused)
        assert change.open_s == self.now - self.opened_at

    @invariant()
    def is_what_the_reports_say(self) -> None:
        assert (self.health.state is State.CLOSED) == (not self.is_open)

    def teardown(self) -> None:
        """Whatever happened, an origin that answers is asked by everybody again, and soon."""
        if not hasattr(self, "health"):
            return
        self.now += max(PROBE_LOST_S, self.settings.pause_max_s)
        assert isinstance(self.health.admit(self.now), Admitted)
        self.health.succeeded(self.now)
        for _ in range(3):
            assert self.health.admit(self.now) == self.health.admit(self.now)
            assert isinstance(self.health.admit(self.now), Admitted)


class HealthTableMachine(RuleBasedStateMachine):
    """The model is a list in the order of the latest looks."""

    @initialize(rows_max=st.integers(1, 4))
    def begin(self, rows_max: int) -> None:
        self.rows_max = rows_max
        self.table = HealthTable(rows_max=rows_max, idle_s=IDLE_S)
        self.now = 1000.0
        self.known: list[tuple[str, Health, float]] = []

    @rule(seconds=st.sampled_from([0.0, 1.0, IDLE_S - 1.0, IDLE_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(authority=st.sampled_from("abcdef"))
    def look(self, authority: str) -> None:
        kept = [row for row in self.known if self.now < row[2] + IDLE_S]
        before = [row[1] for row in kept if row[0] == authority]
        health = self.table.find(authority, HealthSettings(), self.now)
        if before:
            assert [health] == before, "what is known of an origin in use is not forgotten"
        else:
            assert all(health is not row[1] for row in self.known), "one that was forgotten begins anew, as its own"
        others = [row for row in kept if row[0] != authority]
        self.known = [*others, (authority, health, self.now)][-self.rows_max :]
        assert len(self.table) == len(self.known)


TestHealth = HealthMachine.TestCase
TestHealth.settings = examples(40, stateful_step_count=50, deadline=None)

TestHealthTable = HealthTableMachine.TestCase
TestHealthTable.settings = examples(40, stateful_step_count=40, deadline=None)
