"""A hot table against a naive model: readers see what is in the store now, or nothing; never what was there before.

The table is so small, and its objects so large, that buckets and arena are full all the time; its sequence numbers
begin again in the middle.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.hot_table_writer import HotTableToken
from tests.support.examples import examples
from tests.support.hot_tables import entry, keys_of_one_bucket, open_hot_table

_KEYS = [*keys_of_one_bucket(9), b"/other", b"/other/below"]
_KEY = st.sampled_from(_KEYS)
_SIZE = st.sampled_from([0, 1, 100, 5000, 16_384])


class HotTableMachine(RuleBasedStateMachine):
    """The store is a dictionary; a look-up and its publish are two steps, with anything in between."""

    def __init__(self) -> None:
        super().__init__()
        self._resources = ExitStack()
        self.hot_table = self._resources.enter_context(open_hot_table(first_sequence=2**64 - 40))
        self.store: dict[bytes, HotTableEntry] = {}
        self.found: list[tuple[HotTableToken, bytes, HotTableEntry]] = []
        self.versions = 0
        self.shown: dict[bytes, HotTableEntry] = {}
        self.watches: list[tuple[bytes, HotTableEntry, EntryVersion]] = []

    @initialize()
    def fill(self) -> None:
        """Every key has an object at first."""
        for key in _KEYS:
            self.replace(key, 5, b"")

    @rule(key=_KEY, size=_SIZE, metadata=st.binary(max_size=5))
    def replace(self, key: bytes, size: int, metadata: bytes) -> None:
        self.versions += 1
        self.store[key] = entry(self.versions, (self.versions.to_bytes(4, "little") * 4096)[:size], metadata)
        self.hot_table.publisher.drop(key)
        self.shown.pop(key, None)

    @rule(key=_KEY)
    def purge(self, key: bytes) -> None:
        self.store.pop(key, None)
        self.hot_table.publisher.drop(key)
        self.shown.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.hot_table.publisher.clear()
        self.shown.clear()

    @rule(key=_KEY)
    def look_up(self, key: bytes) -> None:
        token = self.hot_table.publisher.begin(key)
        if key in self.store:
            self.found.append((token, key, self.store[key]))

    @precondition(lambda self: self.found)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.found) - 1))
        token, key, seen = self.found.pop(number)
        done = self.hot_table.publisher.publish(token, key, seen.version, seen.metadata, seen.body)
        if done:
            assert self.store[key] == seen
            self.show(key)

    @rule(key=_KEY)
    def look_up_and_publish(self, key: bytes) -> None:
        """Nothing in between: it always succeeds."""
        if key in self.store:
            seen = self.store[key]
            assert self.hot_table.put(key, seen.version, seen.body, seen.metadata)
            self.show(key)

    def show(self, key: bytes) -> None:
        """It is there now; others may have given way to it, whole."""
        self.shown[key] = self.store[key]
        there = {key for key in self.shown if self.hot_table.reader.get(key) is not None}
        assert key in there
        self.shown = {key: shown for key, shown in self.shown.items() if key in there}
        assert self.hot_table.publisher.stats().objects_count == len(self.shown)

    @rule(count=st.integers(0, 5))
    def take_used(self, count: int) -> None:
        assert {used.key for used in self.hot_table.publisher.take_used(count)} <= set(self.shown)

    @rule(key=_KEY)
    def watch(self, key: bytes) -> None:
        seen = self.hot_table.reader.get(key)
        if seen is not None:
            watch = self.hot_table.reader.watch(key, seen, lambda: True)
            assert watch is not None
            self.watches.append((key, seen, watch))

    @invariant()
    def what_holds_is_what_a_look_would_find(self) -> None:
        for key, seen, watch in self.watches:
            assert not watch.holds() or self.hot_table.reader.get(key) == seen
        self.watches = [watched for watched in self.watches if watched[2].holds()]
        watched = {key for key, _, _ in self.watches}
        assert watched <= set(self.shown)

    @invariant()
    def shows_what_was_published_and_nothing_else(self) -> None:
        for key in _KEYS:
            assert self.hot_table.reader.get(key) == self.shown.get(key)
            assert key not in self.shown or self.shown[key] == self.store[key]

    def teardown(self) -> None:
        self._resources.close()


TestHotTable: Any = HotTableMachine.TestCase
TestHotTable.settings = examples(25, stateful_step_count=25)
