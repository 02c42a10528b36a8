"""The contract of every store; each implementation runs the same tests.

Long because it is one class, so that each kind of store is held to all of it.
"""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from simplecached.errors import NotStored, StoreUnavailable
from simplecached.stores.record import Record
from tests.support.stores import Facts, LockThatTells, before_or_after, body_of, get, objects_in, open_fds, opened, put
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stores import Interrupted, StoreFactory


def living_records() -> int:
    """How many objects all stores of this process keep a record of."""
    gc.collect()
    return sum(isinstance(found, Record) for found in gc.get_objects())


class StoreContract:
    """Inherit, and give a ``make_store`` fixture."""

    @pytest.fixture(autouse=True)
    def _no_descriptor_stays(self) -> Iterator[None]:
        before = open_fds()
        yield
        assert set(open_fds()) <= set(before)  # the collector may have closed one of an earlier test

    @pytest.fixture
    def store(self, make_store: StoreFactory) -> Interrupted:
        store: Interrupted = make_store(budget_bytes=1000)
        return store

    # The budget

    def test_a_smaller_budget_evicts_the_oldest(self, store: Interrupted) -> None:
        for key in (b"a", b"b", b"c"):
            put(store, key, bytes(300))
        with opened(store, b"a"):
            assert store.set_budget(650) == 1
        assert [get(store, key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
        assert store.stats().budget_bytes == 650
        with pytest.raises(NotStored):
            put(store, b"d", bytes(651))

    def test_a_larger_budget_has_room_at_once(self, store: Interrupted) -> None:
        assert store.set_budget(2000) == 0
        put(store, b"key", bytes(1500))
        assert get(store, b"key") is not None

    def test_what_is_being_read_stays_beyond_a_smaller_budget(self, store: Interrupted) -> None:
        put(store, b"a", bytes(300))
        with opened(store, b"a") as stored:
            assert store.set_budget(100) == 0
            assert body_of(stored) == bytes(300)
        put(store, b"b", bytes(50))
        assert get(store, b"a") is None

    # Reading and writing

    def test_an_object_comes_back_whole(self, store: Interrupted) -> None:
        version = put(store, b"key", b"body", b"metadata")
        with opened(store, b"key") as stored:
            assert (body_of(stored), stored.size_bytes, stored.metadata) == (b"body", 4, b"metadata")
            assert stored.version == version
            assert 1 <= version < 2**64

    def test_an_unknown_key_is_a_miss(self, store: Interrupted) -> None:
        assert store.open(b"key") is None

    @pytest.mark.parametrize("key", [b"", b"/", b"/a/../../b", b"\0", bytes(range(256)), b"k" * 4096])
    def test_a_key_is_opaque(self, store: Interrupted, key: bytes) -> None:
        put(store, key, b"body")
        assert get(store, key) == b"body"
        assert store.records()[0].key == key

    def test_an_empty_object_is_an_object(self, store: Interrupted) -> None:
        store.begin(b"key", 0, b"").commit()
        assert get(store, b"key") == b""

    def test_pieces_are_appended(self, store: Interrupted) -> None:
        writer = store.begin(b"key", 6, b"")
        for piece in (b"ab", b"", b"c", b"def"):
            writer.write(memoryview(piece))
        writer.commit()
        assert get(store, b"key") == b"abcdef"

    def test_a_view_of_wider_items_counts_its_bytes(self, store: Interrupted) -> None:
        writer = store.begin(b"key", 16, b"")
        writer.write(memoryview(bytearray(16)).cast("Q"))
        writer.commit()
        assert get(store, b"key") == bytes(16)

    def test_nothing_is_visible_before_the_commit(self, store: Interrupted) -> None:
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body"))
        assert store.open(b"key") is None
        writer.commit()
        assert get(store, b"key") == b"body"

    # Ends of a write

    @pytest.mark.parametrize("written", [0, 3])
    def test_a_short_object_is_refused_and_gone(self, store: Interrupted, written: int) -> None:
        put(store, b"key", b"old")
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body")[:written])
        with pytest.raises(NotStored, match=f"object of 4 announced bytes arrived as {written}"):
            writer.commit()
        writer.abort()
        assert get(store, b"key") == b"old"
        assert store.stats().used_bytes == 3

    def test_more_than_announced_is_refused_at_once_and_at_the_commit(self, store: Interrupted) -> None:
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body"))
        with pytest.raises(NotStored, match="4 announced bytes arrived as 5"):
            writer.write(memoryview(b"!"))
        with pytest.raises(NotStored, match="4 announced bytes arrived as 5"):
            writer.commit()
        assert get(store, b"key") is None

    def test_an_abort_gives_the_room_back_and_may_be_repeated(self, store: Interrupted) -> None:
        writer = store.begin(b"key", 1000, b"")
        writer.write(memoryview(b"some"))
        writer.abort()
        writer.abort()
        assert store.stats().used_bytes == 0
        put(store, b"other", bytes(1000))

    def test_an_abort_after_the_commit_does_nothing(self, store: Interrupted) -> None:
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body"))
        writer.commit()
        writer.abort()
        assert get(store, b"key") == b"body"

    # Versions and replacement

    def test_every_version_is_above_the_one_before(self, store: Interrupted) -> None:
        versions = [put(store, key, b"x") for key in (b"a", b"b", b"a", b"a")]
        assert versions == sorted(set(versions))

    def test_what_is_being_read_survives_its_replacement(self, store: Interrupted) -> None:
        put(store, b"key", b"old body")
        with opened(store, b"key") as old:
            put(store, b"key", b"new")
            with opened(store, b"key") as new:
                assert body_of(old) == b"old body"
                assert body_of(new) == b"new"
                assert old.version < new.version
            assert store.stats().used_bytes == 11
        assert store.stats().used_bytes == 3

    def test_of_two_writers_the_later_commit_stays(self, store: Interrupted) -> None:
        first, second = store.begin(b"key", 1, b""), store.begin(b"key", 1, b"")
        first.write(memoryview(b"1"))
        second.write(memoryview(b"2"))
        second.commit()
        first.commit()
        assert get(store, b"key") == b"1"
        assert store.stats().used_bytes == 1

    def test_of_two_commits_that_pass_each_other_the_higher_version_stays(self, store: Interrupted) -> None:
        first, second = store.begin(b"key", 1, b""), store.begin(b"key", 1, b"")
        first.write(memoryview(b"1"))
        second.write(memoryview(b"2"))
        versions = []

        def overtaken(publish: Callable[[], None]) -> None:
            store.around("publish", None)
            versions.append(second.commit())
            publish()

        store.around("publish", overtaken)
        versions.append(first.commit())
        assert versions[0] > versions[1]
        assert get(store, b"key") == b"2"
        assert store.stats().used_bytes == 1

    # Removing

    def test_removing_says_whether_there_was_something(self, store: Interrupted) -> None:
        put(store, b"key", b"body")
        assert store.remove(b"key") is True
        assert store.remove(b"key") is False
        assert store.open(b"key") is None
        assert store.stats().used_bytes == 0

    def test_a_removed_object_stays_readable_for_who_has_it(self, store: Interrupted) -> None:
        put(store, b"key", b"body")
        with opened(store, b"key") as stored, opened(store, b"key") as again:
            store.remove(b"key")
            assert body_of(stored) == body_of(again) == b"body"
            assert store.stats().used_bytes == 4
        assert store.stats().used_bytes == 0

    def test_what_lies_below_a_key(self, store: Interrupted) -> None:
        """All whose keys have the key, NUL and anything: for as long as they are visible, whichever way they go."""
        assert not store.has_below(b"/a")
        for key in (b"/a", b"/a\0", b"/a\0x\0y", b"/ab\0", b"\0"):
            put(store, key, b"x")
        assert [store.has_below(key) for key in (b"/a", b"/ab", b"", b"/", b"/a\0")] == [True, True, True, False, False]
        put(store, b"/a\0", b"replaced")
        store.remove(b"/a\0")
        assert store.has_below(b"/a")
        assert store.remove_prefix(b"/a\0") == 1
        assert not store.has_below(b"/a")
        put(store, b"/c\0", b"c")
        put(store, b"large", bytes(1000))  # all the others leave for it
        assert not any(store.has_below(key) for key in (b"/ab", b"", b"/c"))

    def test_a_prefix_removes_what_begins_with_it(self, store: Interrupted) -> None:
        for key in (b"/a/1", b"/a/2", b"/ab", b"/b", b"x/a/"):
            put(store, key, b"x")
        assert store.remove_prefix(b"/a/") == 2
        assert [entry.key for entry in store.records()] == [b"/ab", b"/b", b"x/a/"]
        assert store.remove_prefix(b"") == 3
        assert store.stats().objects_count == 0

    @pytest.mark.parametrize("way", ["key", "prefix"])
    def test_a_write_that_began_before_a_remove_does_not_come_back(self, store: Interrupted, way: str) -> None:
        writer = store.begin(b"key", 4, b"")
        other = store.begin(b"other", 1, b"")
        gone = store.remove(b"key") if way == "key" else bool(store.remove_prefix(b"ke"))
        assert not gone
        writer.write(memoryview(b"body"))
        other.write(memoryview(b"o"))
        assert writer.commit() > 0
        other.commit()
        assert store.open(b"key") is None
        assert get(store, b"other") == b"o"
        assert store.stats().used_bytes == 1

    @pytest.mark.parametrize("moment", ["before", "after"])
    @pytest.mark.parametrize("way", ["key", "prefix"])
    def test_a_remove_during_the_commit_is_kept(self, store: Interrupted, way: str, moment: str) -> None:
        put(store, b"key", b"old", b"m")
        remove = partial(store.remove, b"key") if way == "key" else partial(store.remove_prefix, b"ke")
        store.around("publish", before_or_after(moment, remove))
        assert put(store, b"key", b"body", b"m") > 0
        assert store.open(b"key") is None
        stats = store.stats()
        assert (stats.used_bytes, stats.writing_count, stats.stored_total, stats.removed_total) == (0, 0, 2, 1)

    # Replacing metadata, and invalidation

    def test_metadata_is_replaced_and_the_body_stays(self, store: Interrupted) -> None:
        version = put(store, b"key", b"body", b"old")
        with opened(store, b"key") as before:
            assert store.replace_metadata(b"key", version, b"newer") is True
            with opened(store, b"key") as after:
                assert (body_of(after), after.metadata, after.version) == (b"body", b"newer", version)
            assert (body_of(before), before.metadata) == (b"body", b"old")
        assert objects_in(store) == [Facts(b"key", 4, version, b"newer")]
        assert (store.stats().used_bytes, store.stats().stored_total) == (9, 1)
        assert store.replace_metadata(b"key", 0, b"") is True
        assert (store.stats().used_bytes, store.stats().pinned_count) == (4, 0)

    def test_metadata_of_another_version_stays(self, store: Interrupted) -> None:
        version = put(store, b"key", b"body", b"old")
        assert store.replace_metadata(b"key", version + 1, b"new") is False
        assert store.replace_metadata(b"none", 0, b"new") is False
        put(store, b"key", b"body", b"next")
        assert store.replace_metadata(b"key", version, b"new") is False
        assert [entry.metadata for entry in store.records()] == [b"next"]

    def test_longer_metadata_evicts_and_counts_as_a_use(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=30, entries_max=3)
        for key in (b"a", b"b", b"c"):
            put(store, key, bytes(9), b"m")
        assert store.replace_metadata(b"a", 0, b"me") is True
        assert [entry.key for entry in store.records()] == [b"c", b"a"]
        assert (store.stats().evicted_total, store.stats().used_bytes) == (1, 21)

    def test_metadata_that_does_not_fit_changes_nothing(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=20)
        put(store, b"a", bytes(9), b"m")
        put(store, b"b", bytes(10))
        with pytest.raises(NotStored, match="does not fit"):
            store.replace_metadata(b"a", 0, bytes(12))
        with opened(store, b"b"), pytest.raises(NotStored, match="no room"):
            store.replace_metadata(b"a", 0, b"me")
        assert (store.stats().used_bytes, store.stats().pinned_count, store.stats().evicted_total) == (20, 0, 0)
        with opened(store, b"a") as stored:
            assert stored.metadata == b"m"

    def test_an_object_stays_invalidated_until_its_metadata_or_itself_is_replaced(self, store: Interrupted) -> None:
        def is_invalidated() -> bool:
            with opened(store, b"key") as stored:
                assert (body_of(stored), store.records()[0].invalidated) == (b"body", stored.invalidated)
                return stored.invalidated

        assert store.invalidate(b"key") is False
        put(store, b"key", b"body", b"m")
        assert not is_invalidated()
        assert store.invalidate(b"key") is True
        assert store.invalidate(b"key") is True
        assert is_invalidated()
        store.replace_metadata(b"key", 0, b"m")
        assert not is_invalidated()
        store.invalidate(b"key")
        put(store, b"key", b"body", b"m")
        assert not is_invalidated()
        assert store.stats().removed_total == 0

    def test_who_reads_keeps_what_the_open_said(self, store: Interrupted) -> None:
        put(store, b"key", b"body", b"m")
        with opened(store, b"key") as before:
            store.invalidate(b"key")
            assert not before.invalidated

    def test_what_has_no_metadata_is_removed_instead(self, store: Interrupted) -> None:
        put(store, b"key", b"body")
        assert store.invalidate(b"key") is True
        assert store.open(b"key") is None
        assert (store.stats().removed_total, store.stats().used_bytes) == (1, 0)

    def test_a_prefix_invalidates_what_begins_with_it(self, store: Interrupted) -> None:
        for key in (b"/a/1", b"/a/2", b"/b"):
            put(store, key, b"x", b"m")
        put(store, b"/a/3", b"bare")
        assert store.invalidate_prefix(b"/a/") == 3
        assert store.invalidate_prefix(b"/none") == 0
        assert [(entry.key, entry.invalidated) for entry in store.records()] == [
            (b"/a/1", True),
            (b"/a/2", True),
            (b"/b", False),
        ]

    @pytest.mark.parametrize("way", ["key", "prefix"])
    def test_a_write_that_began_before_an_invalidation_is_invalidated(self, store: Interrupted, way: str) -> None:
        writer, bare = store.begin(b"key", 1, b"m"), store.begin(b"keys", 1, b"")
        other = store.begin(b"other", 1, b"m")
        assert not (store.invalidate(b"key") if way == "key" else store.invalidate_prefix(b"ke"))
        for each in (writer, bare, other):
            each.write(memoryview(b"x"))
            each.commit()
        assert {entry.key: entry.invalidated for entry in store.records()} == (
            {b"key": True, b"keys": False, b"other": False} if way == "key" else {b"key": True, b"other": False}
        )

    @pytest.mark.parametrize("moment", ["before", "after"])
    @pytest.mark.parametrize("way", ["key", "prefix"])
    def test_an_invalidation_during_the_commit_is_kept(self, store: Interrupted, way: str, moment: str) -> None:
        invalidate = partial(store.invalidate, b"key") if way == "key" else partial(store.invalidate_prefix, b"ke")
        store.around("publish", before_or_after(moment, invalidate))
        put(store, b"key", b"body", b"m")
        put(store, b"key too", b"bare")
        assert {entry.key: entry.invalidated for entry in store.records()} == (
            {b"key": True, b"key too": False} if way == "key" else {b"key": True}
        )

    def test_an_invalidation_during_a_replacement_comes_after_it(
        self, make_store: StoreFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or memory would call valid what the medium has as invalidated."""
        waits = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Lock", partial(LockThatTells, waits))
            store = make_store()
        put(store, b"key", b"body", b"old")
        invalidating = threading.Thread(target=store.invalidate, args=(b"key",))

        def invalidated_meanwhile(keep: Callable[[], None]) -> None:
            keep()
            invalidating.start()
            wait_until(lambda: waits.is_set() or not invalidating.is_alive(), what="the invalidation waits, or is done")

        store.around("keep metadata", invalidated_meanwhile)
        assert store.replace_metadata(b"key", 0, b"new") is True
        invalidating.join()
        assert [(entry.metadata, entry.invalidated) for entry in store.records()] == [(b"new", True)]

    def test_an_object_that_left_meanwhile_gets_no_metadata(self, store: Interrupted) -> None:
        put(store, b"key", b"body", b"m")
        store.around("keep metadata", before_or_after("before", partial(store.remove, b"key")))
        assert store.replace_metadata(b"key", 0, b"longer") is False
        assert store.open(b"key") is None
        assert (store.stats().used_bytes, store.stats().pinned_count) == (0, 0)

    # Budget and eviction

    def test_the_longest_unused_leave_first(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=30)
        for key in (b"a", b"b", b"c"):
            put(store, key, bytes(10))
        get(store, b"a")
        put(store, b"d", bytes(15))
        assert [entry.key for entry in store.records()] == [b"a", b"d"]
        assert store.stats().evicted_total == 2

    def test_the_count_is_bounded_too(self, make_store: StoreFactory) -> None:
        store = make_store(entries_max=2)
        for key in (b"a", b"b", b"c"):
            put(store, key, b"")
        assert [entry.key for entry in store.records()] == [b"b", b"c"]

    def test_metadata_counts_and_the_budget_itself_fits(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=10)
        put(store, b"key", bytes(7), b"met")
        with pytest.raises(NotStored, match="object of 11 bytes does not fit the store's budget of 10 bytes"):
            store.begin(b"key", 7, b"meta")
        assert get(store, b"key") == bytes(7)

    def test_no_room_when_everything_is_being_sent(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=10)
        put(store, b"key", bytes(10))
        with opened(store, b"key"):
            with pytest.raises(NotStored, match="no room for 1 bytes: 10 of 10 bytes"):
                store.begin(b"other", 1, b"")
            store.remove(b"key")
            with pytest.raises(NotStored, match="no room"):  # it is still readable, so it still takes room
                store.begin(b"other", 1, b"")
        put(store, b"other", bytes(10))
        assert store.stats().refused_total == 2

    def test_what_is_being_written_takes_room(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=10)
        writer = store.begin(b"key", 6, b"")
        with pytest.raises(NotStored, match="no room"):
            store.begin(b"other", 5, b"")
        put(store, b"other", bytes(4))
        writer.abort()

    def test_a_pinned_object_is_passed_over(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=20)
        put(store, b"a", bytes(10))
        put(store, b"b", bytes(10))
        with opened(store, b"a"):
            opened(store, b"b").release()
            put(store, b"c", bytes(10))
            assert [entry.key for entry in store.records()] == [b"a", b"c"]

    def test_what_has_left_is_not_remembered(self, make_store: StoreFactory) -> None:
        before = living_records()
        store = make_store(budget_bytes=30)
        for number in range(9):
            put(store, b"%d" % (number % 4), bytes(10), b"m")
        store.replace_metadata(b"0", 0, bytes(20))
        store.invalidate(b"0")
        store.remove(b"0")
        put(store, b"bare", b"")
        store.invalidate_prefix(b"")
        store.remove_prefix(b"")
        assert store.stats().evicted_total > 2
        put(store, b"key", b"body")
        store.close()
        assert living_records() <= before + 1, "nothing but what was visible at the end"

    # Facts and ends

    def test_entries_are_values(self, store: Interrupted) -> None:
        version = put(store, b"key", b"body", b"meta")
        assert objects_in(store) == [Facts(b"key", 4, version, b"meta")]
        assert store.records()[0].cost_bytes == 8

    def test_counts(self, store: Interrupted) -> None:
        put(store, b"key", b"body", b"m")
        store.open(b"nothing")
        writer = store.begin(b"new", 2, b"")
        with opened(store, b"key"):
            stats = store.stats()
            assert (stats.objects_count, stats.used_bytes) == (1, 7)
            assert (stats.hits_total, stats.misses_total, stats.stored_total) == (1, 1, 1)
            assert (stats.pinned_count, stats.writing_count) == (1, 1)
        writer.abort()
        store.remove(b"key")
        assert (store.stats().removed_total, store.stats().pinned_count) == (1, 0)

    def test_releasing_twice_is_a_bug(self, store: Interrupted) -> None:
        put(store, b"key", b"body")
        stored = opened(store, b"key")
        stored.release()
        with pytest.raises(AssertionError):
            stored.release()

    def test_a_closed_store_refuses_and_lets_readers_end(self, store: Interrupted) -> None:
        put(store, b"key", b"body")
        writer = store.begin(b"new", 1, b"")
        writer.write(memoryview(b"x"))
        stored = opened(store, b"key")
        store.close()
        store.close()
        assert body_of(stored) == b"body"
        stored.release()
        assert store.open(b"key") is None
        assert store.remove(b"key") is False
        assert store.invalidate(b"key") is False
        assert store.invalidate_prefix(b"") == 0
        with pytest.raises(StoreUnavailable):
            store.replace_metadata(b"key", 0, b"m")
        with pytest.raises(StoreUnavailable):
            writer.commit()
        with pytest.raises(StoreUnavailable):
            store.begin(b"key", 1, b"")

    def test_many_threads(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=600, entries_max=40)

        def work(number: int) -> None:
            for turn in range(60):
                self._one_turn(store, number, turn)

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(work, range(6))) == [None] * 6
        stats = store.stats()
        assert (stats.pinned_count, stats.writing_count) == (0, 0)
        assert stats.used_bytes == sum(entry.cost_bytes for entry in store.records()) <= 600

    @staticmethod
    def _one_turn(store: Any, number: int, turn: int) -> None:
        key = b"/%d" % (turn * 7 % 10)
        try:
            put(store, key, key * (1 + (number + turn) % 30), b"m" * (turn % 3))
            store.replace_metadata(b"/%d" % (turn % 10), 0, b"n" * (number + turn % 20))
        except NotStored:
            pass
        if turn % 11 == number:
            store.invalidate_prefix(b"/%d" % (turn % 5))
        stored = store.open(key)
        if stored is not None:
            with stored:
                body = body_of(stored)
                assert body == key * (len(body) // len(key))
                assert len(body) == stored.size_bytes
        if turn % 13 == number:
            store.remove_prefix(b"/%d" % (turn % 10))
