"""What every ObjectStore promises; each implementation runs the same tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from simplecached.entry import Entry
from simplecached.errors import EntryTooLarge, NoRoom, ShortObject, StoreUnavailable
from tests.support.stores import body_of, get, open_fds, opened, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simplecached.lru_store import LruStore, Record
    from tests.support.stores import StoreFactory


class StoreContract:
    """Inherit, and give a ``make_store`` fixture."""

    @pytest.fixture(autouse=True)
    def _no_descriptor_stays(self) -> Iterator[None]:
        before = open_fds()
        yield
        assert set(open_fds()) == set(before)

    @pytest.fixture
    def store(self, make_store: StoreFactory) -> LruStore:
        store: LruStore = make_store(budget_bytes=1000)
        return store

    # Reading and writing

    def test_an_object_comes_back_whole(self, store: LruStore) -> None:
        version = put(store, b"key", b"body", b"metadata")
        with opened(store, b"key") as stored:
            assert (body_of(stored), stored.size_bytes, stored.metadata) == (b"body", 4, b"metadata")
            assert stored.version == version
            assert 1 <= version < 2**64

    def test_an_unknown_key_is_a_miss(self, store: LruStore) -> None:
        assert store.open(b"key") is None

    @pytest.mark.parametrize("key", [b"", b"/", b"/a/../../b", b"\0", bytes(range(256)), b"k" * 4096])
    def test_a_key_is_opaque(self, store: LruStore, key: bytes) -> None:
        put(store, key, b"body")
        assert get(store, key) == b"body"
        assert store.entries()[0].key == key

    def test_an_empty_object_is_an_object(self, store: LruStore) -> None:
        store.begin(b"key", 0, b"").commit()
        assert get(store, b"key") == b""

    def test_pieces_are_appended(self, store: LruStore) -> None:
        writer = store.begin(b"key", 6, b"")
        for piece in (b"ab", b"", b"c", b"def"):
            writer.write(memoryview(piece))
        writer.commit()
        assert get(store, b"key") == b"abcdef"

    def test_a_view_of_wider_items_counts_its_bytes(self, store: LruStore) -> None:
        writer = store.begin(b"key", 16, b"")
        writer.write(memoryview(bytearray(16)).cast("Q"))
        writer.commit()
        assert get(store, b"key") == bytes(16)

    def test_nothing_is_visible_before_the_commit(self, store: LruStore) -> None:
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body"))
        assert store.open(b"key") is None
        writer.commit()
        assert get(store, b"key") == b"body"

    # Ends of a write

    @pytest.mark.parametrize("written", [0, 3])
    def test_a_short_object_is_refused_and_gone(self, store: LruStore, written: int) -> None:
        put(store, b"key", b"old")
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body")[:written])
        with pytest.raises(ShortObject) as caught:
            writer.commit()
        writer.abort()
        assert (caught.value.announced_bytes, caught.value.written_bytes) == (4, written)
        assert get(store, b"key") == b"old"
        assert store.stats().used_bytes == 3

    def test_more_than_announced_is_refused_at_once_and_at_the_commit(self, store: LruStore) -> None:
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body"))
        with pytest.raises(ShortObject):
            writer.write(memoryview(b"!"))
        with pytest.raises(ShortObject):
            writer.commit()
        assert get(store, b"key") is None

    def test_an_abort_gives_the_room_back_and_may_be_repeated(self, store: LruStore) -> None:
        writer = store.begin(b"key", 1000, b"")
        writer.write(memoryview(b"some"))
        writer.abort()
        writer.abort()
        assert store.stats().used_bytes == 0
        put(store, b"other", bytes(1000))

    def test_an_abort_after_the_commit_does_nothing(self, store: LruStore) -> None:
        writer = store.begin(b"key", 4, b"")
        writer.write(memoryview(b"body"))
        writer.commit()
        writer.abort()
        assert get(store, b"key") == b"body"

    # Versions and replacement

    def test_every_version_is_above_the_one_before(self, store: LruStore) -> None:
        versions = [put(store, key, b"x") for key in (b"a", b"b", b"a", b"a")]
        assert versions == sorted(set(versions))

    def test_what_is_being_read_survives_its_replacement(self, store: LruStore) -> None:
        put(store, b"key", b"old body")
        with opened(store, b"key") as old:
            put(store, b"key", b"new")
            with opened(store, b"key") as new:
                assert body_of(old) == b"old body"
                assert body_of(new) == b"new"
                assert old.version < new.version
            assert store.stats().used_bytes == 11
        assert store.stats().used_bytes == 3

    def test_of_two_writers_the_later_commit_stays(self, store: LruStore) -> None:
        first, second = store.begin(b"key", 1, b""), store.begin(b"key", 1, b"")
        first.write(memoryview(b"1"))
        second.write(memoryview(b"2"))
        second.commit()
        first.commit()
        assert get(store, b"key") == b"1"
        assert store.stats().used_bytes == 1

    def test_of_two_commits_that_pass_each_other_the_higher_version_stays(
        self, store: LruStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = store.begin(b"key", 1, b""), store.begin(b"key", 1, b"")
        first.write(memoryview(b"1"))
        second.write(memoryview(b"2"))
        publish, versions = store._publish, []

        def overtaken(record: Record) -> None:
            monkeypatch.setattr(store, "_publish", publish)
            versions.append(second.commit())
            publish(record)

        monkeypatch.setattr(store, "_publish", overtaken)
        versions.append(first.commit())
        assert versions[0] > versions[1]
        assert get(store, b"key") == b"2"
        assert store.stats().used_bytes == 1

    # Removing

    def test_removing_says_whether_there_was_something(self, store: LruStore) -> None:
        put(store, b"key", b"body")
        assert store.remove(b"key") is True
        assert store.remove(b"key") is False
        assert store.open(b"key") is None
        assert store.stats().used_bytes == 0

    def test_a_removed_object_stays_readable_for_who_has_it(self, store: LruStore) -> None:
        put(store, b"key", b"body")
        with opened(store, b"key") as stored, opened(store, b"key") as again:
            store.remove(b"key")
            assert body_of(stored) == body_of(again) == b"body"
            assert store.stats().used_bytes == 4
        assert store.stats().used_bytes == 0

    def test_a_prefix_removes_what_begins_with_it(self, store: LruStore) -> None:
        for key in (b"/a/1", b"/a/2", b"/ab", b"/b", b"x/a/"):
            put(store, key, b"x")
        assert store.remove_prefix(b"/a/") == 2
        assert [entry.key for entry in store.entries()] == [b"/ab", b"/b", b"x/a/"]
        assert store.remove_prefix(b"") == 3
        assert store.stats().objects_count == 0

    @pytest.mark.parametrize("way", ["key", "prefix"])
    def test_a_write_that_began_before_a_remove_does_not_come_back(self, store: LruStore, way: str) -> None:
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

    # Budget and eviction

    def test_the_longest_unused_leave_first(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=30)
        for key in (b"a", b"b", b"c"):
            put(store, key, bytes(10))
        get(store, b"a")
        put(store, b"d", bytes(15))
        assert [entry.key for entry in store.entries()] == [b"a", b"d"]
        assert store.stats().evicted_total == 2

    def test_the_count_is_bounded_too(self, make_store: StoreFactory) -> None:
        store = make_store(entries_max=2)
        for key in (b"a", b"b", b"c"):
            put(store, key, b"")
        assert [entry.key for entry in store.entries()] == [b"b", b"c"]

    def test_metadata_counts_and_the_budget_itself_fits(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=10)
        put(store, b"key", bytes(7), b"met")
        with pytest.raises(EntryTooLarge) as caught:
            store.begin(b"key", 7, b"meta")
        assert (caught.value.cost_bytes, caught.value.budget_bytes) == (11, 10)
        assert get(store, b"key") == bytes(7)

    def test_no_room_when_everything_is_being_sent(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=10)
        put(store, b"key", bytes(10))
        with opened(store, b"key"):
            with pytest.raises(NoRoom) as caught:
                store.begin(b"other", 1, b"")
            assert caught.value.pinned_bytes == 10
            store.remove(b"key")
            with pytest.raises(NoRoom):  # it is still readable, so it still takes room
                store.begin(b"other", 1, b"")
        put(store, b"other", bytes(10))
        assert store.stats().refused_total == 2

    def test_what_is_being_written_takes_room(self, make_store: StoreFactory) -> None:
        store = make_store(budget_bytes=10)
        writer = store.begin(b"key", 6, b"")
        with pytest.raises(NoRoom):
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
            assert [entry.key for entry in store.entries()] == [b"a", b"c"]

    # Facts and ends

    def test_entries_are_values(self, store: LruStore) -> None:
        version = put(store, b"key", b"body", b"meta")
        assert store.entries() == [Entry(key=b"key", size_bytes=4, version=version, metadata=b"meta")]
        assert store.entries()[0].cost_bytes == 8

    def test_counts(self, store: LruStore) -> None:
        put(store, b"key", b"body", b"m")
        store.open(b"nothing")
        writer = store.begin(b"new", 2, b"")
        with opened(store, b"key"):
            stats = store.stats()
            assert (stats.objects_count, stats.objects_bytes, stats.used_bytes) == (1, 4, 7)
            assert (stats.hits_total, stats.misses_total, stats.stored_total) == (1, 1, 1)
            assert (stats.pinned_count, stats.writing_count) == (1, 1)
        writer.abort()
        store.remove(b"key")
        assert (store.stats().removed_total, store.stats().pinned_count) == (1, 0)

    def test_releasing_twice_is_a_bug(self, store: LruStore) -> None:
        put(store, b"key", b"body")
        stored = opened(store, b"key")
        stored.release()
        with pytest.raises(AssertionError):
            stored.release()

    def test_a_closed_store_refuses_and_lets_readers_end(self, store: LruStore) -> None:
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
        assert stats.used_bytes == sum(entry.cost_bytes for entry in store.entries()) <= 600

    @staticmethod
    def _one_turn(store: Any, number: int, turn: int) -> None:
        key = b"/%d" % (turn * 7 % 10)
        try:
            put(store, key, key * (1 + (number + turn) % 30))
        except NoRoom:
            pass
        stored = store.open(key)
        if stored is not None:
            with stored:
                body = body_of(stored)
                assert body == key * (len(body) // len(key))
                assert len(body) == stored.size_bytes
        if turn % 13 == number:
            store.remove_prefix(b"/%d" % (turn % 10))
