"""Paused objects: one pin for one resume, of exactly the version that was paused; let go in time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from simplecached.stores.memory_store import MemoryStore
from simplecached.stores.paused_objects import PausedObjects
from simplecached.stores.store import StoredObject


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store with one object, /a."""
    store = MemoryStore(1 << 16)
    put(store, b"/a", b"first")
    yield store
    store.close()


def put(store: MemoryStore, key: bytes, body: bytes) -> int:
    writer = store.begin(key, len(body), b"")
    writer.write(memoryview(body))
    return writer.commit()


def pinned(store: MemoryStore) -> StoredObject:
    found = store.open(b"/a")
    assert found is not None
    return found


def test_a_paused_object_outlives_its_replacement(store: MemoryStore) -> None:
    paused = PausedObjects()
    found = pinned(store)
    paused.keep(b"/a", found)
    put(store, b"/a", b"second")
    taken = paused.take(b"/a", found.version)
    assert taken is found
    assert os.pread(taken.fd, 10, 0) == b"first"
    taken.release()


def test_each_pause_is_good_for_one_resume(store: MemoryStore) -> None:
    paused = PausedObjects()
    first, second = pinned(store), pinned(store)
    paused.keep(b"/a", first)
    paused.keep(b"/a", second)
    assert [paused.take(b"/a", first.version) for _ in range(3)] == [first, second, None]
    first.release()
    second.release()


def test_another_version_is_not_found(store: MemoryStore) -> None:
    paused = PausedObjects()
    found = pinned(store)
    paused.keep(b"/a", found)
    assert paused.take(b"/a", found.version + 1) is None
    assert paused.take(b"/b", found.version) is None
    paused.close()


def test_what_nobody_comes_back_for_is_released(store: MemoryStore) -> None:
    paused = PausedObjects(keep_s=0.0)
    paused.keep(b"/a", pinned(store))
    assert store.stats().pinned_count == 1
    assert paused.expire(float("inf")) == 1
    assert store.stats().pinned_count == 0


def test_what_may_still_be_asked_for_stays(store: MemoryStore) -> None:
    paused = PausedObjects(keep_s=3600)
    paused.keep(b"/a", pinned(store))
    assert paused.expire(0.0) == 0
    assert store.stats().pinned_count == 1
    paused.close()
    assert store.stats().pinned_count == 0


def test_the_bound_lets_the_oldest_go(store: MemoryStore) -> None:
    paused = PausedObjects(paused_max=1)
    first = pinned(store)
    paused.keep(b"/a", first)
    put(store, b"/a", b"second")
    second = pinned(store)
    paused.keep(b"/a", second)
    assert paused.take(b"/a", first.version) is None
    assert paused.take(b"/a", second.version) is second
    second.release()
