"""A hot table against a naive model: readers see what is in the store now, or nothing; never what was there before."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from zlib import crc32

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.hot_table_writer import HotTableToken
from tests.support.examples import examples
from tests.support.hot_tables import entry, keys_of_one_set, open_hot_table, publish

_SETS = 2
_KEYS = [*keys_of_one_set(3, sets=_SETS), b"/other", b"/other/below"]
_KEY = st.sampled_from(_KEYS)


class HotTableMachine(RuleBasedStateMachine):
    """The store is a dictionary; a look-up and its publish are two steps, with anything in between."""

    def __init__(self) -> None:
        super().__init__()
        self._resources = ExitStack()
        self.hot_table = self._resources.enter_context(open_hot_table(sets=_SETS))
        self.store: dict[bytes, HotTableEntry] = {}
        self.found: list[tuple[HotTableToken, int, bytes, HotTableEntry]] = []
        self.changes = self.versions = 0
        self.shown: dict[bytes, HotTableEntry] = {}
        self.watches: list[tuple[bytes, HotTableEntry, EntryVersion]] = []

    @initialize()
    def fill(self) -> None:
        """Every key has an object at first."""
        for key in _KEYS:
            self.replace(key, b"first", b"")

    @rule(key=_KEY, body=st.binary(max_size=30), metadata=st.binary(max_size=5))
    def replace(self, key: bytes, body: bytes, metadata: bytes) -> None:
        self.versions += 1
        self.store[key] = entry(self.versions, body, metadata)
        self.hot_table.publisher.drop(key)
        self.changed(key)

    @rule(key=_KEY)
    def purge(self, key: bytes) -> None:
        self.store.pop(key, None)
        self.hot_table.publisher.drop(key)
        self.changed(key)

    @rule(prefix=st.sampled_from([b"/other", b"/", b"/key"]))
    def purge_prefix(self, prefix: bytes) -> None:
        gone = [key for key in _KEYS if key.startswith(prefix)]
        for key in gone:
            self.store.pop(key, None)
        self.hot_table.publisher.drop_prefix(prefix)
        self.changed(*gone)

    @rule()
    def clear(self) -> None:
        self.hot_table.publisher.drop_prefix(b"")
        self.changed(*_KEYS)

    def changed(self, *keys: bytes) -> None:
        """Earlier lookups must no longer be valid, and these keys are off the hot table."""
        self.changes += 1
        for key in keys:
            self.shown.pop(key, None)

    @rule(key=_KEY)
    def look_up(self, key: bytes) -> None:
        token = self.hot_table.publisher.begin()
        if key in self.store:
            self.found.append((token, self.changes, key, self.store[key]))

    @precondition(lambda self: self.found)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.found) - 1))
        token, changes, key, seen = self.found.pop(number)
        done = publish(self.hot_table.publisher, token, key, seen.version, seen.body, seen.metadata)
        if changes != self.changes:
            assert not done
        if done:
            assert self.hot_table.reader.get(key) == seen
            self.shown[key] = seen

    @rule(key=_KEY)
    def look_up_and_publish(self, key: bytes) -> None:
        """Nothing in between: it succeeds unless both cells of the key are others'."""
        if key not in self.store:
            return
        seen = self.store[key]
        done = self.hot_table.put(key, seen.version, seen.body, seen.metadata)
        rivals = [other for other in self.shown if other != key and crc32(other) % _SETS == crc32(key) % _SETS]
        assert done or len(rivals) >= 2
        if done:
            self.shown[key] = seen

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
