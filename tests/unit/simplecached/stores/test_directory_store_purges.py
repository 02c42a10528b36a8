"""Purged objects stay gone after a kill, whatever other threads were doing; SIGKILL itself is in tests/faults."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from simplecached.stores import steps
from tests.support.stores import (
    InterruptedDirectoryStore,
    get,
    objects_in,
    put,
    started_after_a_kill,
    unwritable_index,
)
from tests.support.waiting import WATCHDOG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simplecached.stores.record import Record


Store = InterruptedDirectoryStore


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def store(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[InterruptedDirectoryStore]:
    with monkeypatch.context() as patch:
        # The purges of these tests are other threads', but made by the one whose step they come before: an
        # invalidation would wait for ever for the replacement that it interrupts.
        patch.setattr(threading, "Lock", threading.RLock)
        store = InterruptedDirectoryStore(path, 30)
    yield store
    store.close()


@pytest.fixture(params=["remove", "remove_prefix", "invalidate", "invalidate_prefix"])
def purge(request: pytest.FixtureRequest, store: Store) -> Callable[[], int]:
    """Purge the key "key" in one of the four ways."""
    way: str = request.param
    return partial(getattr(store, way), b"ke" if way.endswith("prefix") else b"key")


class Aside:
    """Do something once before a step of the store, and note what a kill right after it would leave."""

    def __init__(self, path: str, store: Store, step: str, aside: Callable[[], object]) -> None:
        self.left: list[Record] | None = None

        def first(do: Callable[[], None]) -> None:
            store.around(step, None)
            aside()
            with started_after_a_kill(path) as after:
                self.left = after.records()
            do()

        store.around(step, first)

    def leaves_valid(self, key: bytes) -> bool:
        """Whether a kill would have left the key valid; the step must have been reached."""
        assert self.left is not None
        return any(entry.key == key and not entry.invalidated for entry in self.left)


def files_below(path: str) -> list[str]:
    """Return the bodies in the store directory, finished or not."""
    folders = (os.path.join(path, "tmp"), os.path.join(path, "objects"))
    return [name for top in folders for _, _, names in os.walk(top) for name in names]


class TestNamesOnTheirWayOut:
    """An object that is no longer visible, but still has its row and its file when a purge of its key comes."""

    def test_replaced(self, path: str, store: Store, purge: Callable[[], int]) -> None:
        put(store, b"key", b"old", b"m")
        aside = Aside(path, store, "unpublish", purge)
        put(store, b"key", b"new", b"m")
        assert not aside.leaves_valid(b"key")

    def test_evicted(self, path: str, store: Store, purge: Callable[[], int]) -> None:
        put(store, b"key", b"old", b"m")
        aside = Aside(path, store, "unpublish", purge)
        put(store, b"other", bytes(30))
        assert not aside.leaves_valid(b"key")

    def test_evicted_for_longer_metadata(self, path: str, store: Store, purge: Callable[[], int]) -> None:
        put(store, b"key", b"old", b"m")
        put(store, b"other", bytes(20), b"m")
        aside = Aside(path, store, "unpublish", purge)
        assert store.replace_metadata(b"other", 0, bytes(10)) is True
        assert not aside.leaves_valid(b"key")

    def test_purged_by_somebody_else(self, path: str, store: Store, purge: Callable[[], int]) -> None:
        put(store, b"key", b"old", b"m")
        aside = Aside(path, store, "unpublish", purge)
        assert store.remove(b"key") is True
        assert not aside.leaves_valid(b"key")

    def test_overtaken_by_a_younger_commit(self, path: str, store: Store, purge: Callable[[], int]) -> None:
        def overtaken(publish: Callable[[], None]) -> None:
            store.around("publish", None)
            publish()
            put(store, b"key", b"new", b"m")

        store.around("publish", overtaken)
        aside = Aside(path, store, "destroy", purge)
        put(store, b"key", b"old", b"m")
        assert not aside.leaves_valid(b"key")


class TestCommitUnderWay:
    def test_a_slow_disk_holds_no_purge_up(
        self, path: str, store: Store, purge: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        syncing, synced = threading.Event(), threading.Event()

        def slow(_fd: int) -> None:
            syncing.set()
            assert synced.wait(WATCHDOG_S)

        put(store, b"other", b"other")
        put(store, b"key", b"old")
        monkeypatch.setattr(os, "fdatasync", slow)
        committing = threading.Thread(target=put, args=(store, b"key", b"new"))
        committing.start()
        assert syncing.wait(WATCHDOG_S)
        assert purge() == 1  # without metadata an invalidation removes too
        assert get(store, b"other") == b"other"
        synced.set()
        committing.join()
        assert store.open(b"key") is None
        assert len(files_below(path)) == 1
        assert (store.stats().used_bytes, store.stats().writing_count) == (5, 0)

    def test_an_index_that_takes_no_purge(self, path: str, store: Store, purge: Callable[[], int]) -> None:
        """Then the file is gone, and the object with it, invalidated or not."""

        def purged(publish: Callable[[], None]) -> None:
            publish()
            with unwritable_index():
                assert purge() == 0
            with started_after_a_kill(path) as after:
                assert after.records() == []

        store.around("publish", purged)
        put(store, b"key", b"new", b"m")
        assert store.open(b"key") is None
        assert files_below(path) == []

    @pytest.mark.parametrize("way", ["remove", "invalidate"])
    def test_the_row_meets_the_purge(self, path: str, store: Store, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A purge that comes when the row is about to be written, or has just been."""
        for point in ("synced", "indexed"):
            reached: list[str] = []

            def purge_there(reached_point: str, point: str = point, reached: list[str] = reached) -> None:
                if reached_point == point and not reached:
                    reached.append(point)
                    getattr(store, way)(b"key")

            with monkeypatch.context() as patch:
                patch.setattr(steps, "checkpoint", purge_there)
                put(store, b"key", b"new", b"m")
                store.settle()
            assert reached
            with started_after_a_kill(path) as after:
                assert [entry.invalidated for entry in after.records()] == [True] * (way == "invalidate")
            assert [entry.invalidated for entry in store.records()] == [True] * (way == "invalidate")
            assert len(files_below(path)) == (way == "invalidate")


class TestUpdateUnderWay:
    @pytest.mark.parametrize("moment", ["before", "after"])
    @pytest.mark.parametrize("way", ["remove", "remove_prefix"])
    def test_a_removal_stays(self, path: str, store: Store, way: str, moment: str) -> None:
        def removed(keep: Callable[[], None]) -> None:
            if moment == "after":
                keep()
            assert getattr(store, way)(b"key") == 1
            if moment == "before":
                keep()
            with started_after_a_kill(path) as after:
                assert after.records() == []

        put(store, b"key", b"body", b"old")
        store.around("keep metadata", removed)
        assert store.replace_metadata(b"key", 0, b"new") is False
        assert files_below(path) == []

    @pytest.mark.parametrize("way", ["invalidate", "invalidate_prefix"])
    def test_memory_and_medium_agree_on_invalidation(self, path: str, store: Store, way: str) -> None:
        """Invalidations and replacements from several threads, in any order."""
        put(store, b"key", b"body", b"m")

        def work(change: Callable[[], object]) -> None:
            for _ in range(100):
                change()

        changes = (partial(getattr(store, way), b"key"), partial(store.replace_metadata, b"key", 0, b"n"))
        threads = [threading.Thread(target=work, args=(change,)) for change in changes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.settle()
        with started_after_a_kill(path) as after:
            assert objects_in(after) == objects_in(store)
