"""A stats page against plain dictionaries: writers come and go, and readers see exactly what was counted."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shmchannel.process.identity import own_identity
from shmchannel.stats_pages import OTHER, PageState, StatsPage, read_page
from tests.support.examples import examples
from tests.support.stats_pages import SCHEMA, open_pages

_ROWS = st.sampled_from(SCHEMA.metric("things_total").rows)
_PLACES_MAX = SCHEMA.tables[0].rows - 1


class StatsPageMachine(RuleBasedStateMachine):
    """The model: counts by row, values of histograms, names in their order, and who writes."""

    def __init__(self) -> None:
        super().__init__()
        self._resources = ExitStack()
        pages = self._resources.enter_context(open_pages())
        self.page = pages.add(0, SCHEMA)
        self.things: Counter[tuple[str, ...]] = Counter()
        self.taken: list[int] = []
        self.places: dict[str, int] = {}
        self.place_times: defaultdict[str, list[int]] = defaultdict(list)
        self.waiting = self.writers = 0
        self.writes = False

    @rule()
    def begin(self) -> None:
        """Another writer, as after a crash of the last one."""
        self.page = StatsPage.open(self.page.name, SCHEMA)
        self.page.begin()
        self.writers += 1
        self.writes = True
        self.waiting = 0

    @rule(is_known=st.booleans())
    def end(self, is_known: bool) -> None:
        """The owner says that a process has ended, the writer or another one."""
        self.page.end(os.getpid() if is_known else os.getpid() + 1)
        self.writes = self.writes and not is_known

    @rule(row=_ROWS, count=st.integers(0, 2**40))
    def count(self, row: tuple[str, ...], count: int) -> None:
        self.page.counter("things_total", *row).add(count)
        self.things[row] += count

    @rule(row=_ROWS, totals=st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
    def sample(self, row: tuple[str, ...], totals: list[int]) -> None:
        sampled = self.page.sampled("things_total", *row)
        for total in sorted(totals):
            sampled.set(total)
        self.things[row] += max(totals)

    @rule(value=st.integers(0, 2**60))
    def set_gauge(self, value: int) -> None:
        self.page.gauge("waiting").set(value)
        self.waiting = value

    @rule(value=st.integers(0, 2**50))
    def observe(self, value: int) -> None:
        self.page.histogram("taken_seconds").observe(value)
        self.taken.append(value)

    @rule(name=st.sampled_from("abcdef"), value=st.integers(0, 2**30))
    def count_place(self, name: str, value: int) -> None:
        label = self.page.row("places", name)
        known = name in self.places or len(self.places) < _PLACES_MAX
        assert label == (name if known else OTHER)
        self.page.counter("of_place_total", label).add()
        self.page.histogram("at_place_seconds", label).observe(value)
        if known:
            self.places[name] = self.places.get(name, 0) + 1
        self.place_times[label].append(value)

    @invariant()
    def readers_see_it(self) -> None:
        found = read_page(self.page.name)
        assert found is not None
        assert found.state is (PageState.LIVE if self.writes else PageState.NO_WRITER)
        assert (found.writer, found.writers_total) == (own_identity() if self.writes else None, self.writers)
        assert +Counter(found.metrics["things_total"].numbers) == +self.things
        assert found.number("waiting") == self.waiting
        taken = found.histogram("taken_seconds")
        assert taken is not None
        assert (taken.count, taken.total) == (len(self.taken), sum(self.taken))
        numbers = found.metrics["of_place_total"].numbers
        assert numbers == {(name,): count for name, count in self.places.items()} | {
            (OTHER,): len(self.place_times[OTHER])
        }
        for (label,), histogram in found.metrics["at_place_seconds"].histograms.items():
            times = self.place_times[label]
            assert (histogram.count, histogram.total) == (len(times), sum(times))

    def teardown(self) -> None:
        self._resources.close()


StatsPageMachine.TestCase.settings = examples(50, stateful_step_count=20, deadline=None)
TestStatsPage = StatsPageMachine.TestCase
