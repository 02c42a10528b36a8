"""Stores with far more objects than are in memory: starts, kills, and purges of many."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from scripts.benchmark.large_store import key_of, make_store
from simplecached.stores.directory_store import DirectoryStore
from tests.support.stores import body_of, get, opened, put, run_script, unwritable_index

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 5000
PURGED = key_of(1000).partition(b"000/app")[0]
"""The prefix of a thousand of them."""
SMALL = 1500
BUDGET_BYTES = 1 << 30

# Reads, writes and purges a little, and dies.
KILLED = """
    import os, signal, sys
    from scripts.benchmark.large_store import key_of
    from simplecached.stores.directory_store import DirectoryStore

    store = DirectoryStore(sys.argv[1], 1 << 30, inside_max=100)
    for number in range(0, 5000, 97):
        store.open(key_of(number)).release()
    assert store.remove(key_of(5))
    print(store.remove_prefix(sys.argv[2].encode()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def files_in(path: str) -> int:
    return sum(len(names) for _, _, names in os.walk(os.path.join(path, "objects")))


def test_a_large_store_starts_is_killed_and_starts(path: str) -> None:
    """What is not in memory is found, an acknowledged purge of thousands holds, and the rest of it is done later."""
    make_store(path, COUNT)
    ended = run_script(KILLED, path, PURGED.decode())
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
    purged_count = sum(key_of(number).startswith(PURGED) for number in range(COUNT))
    assert purged_count == int(ended.stdout) == 1000
    for _ in range(2):
        with closing(DirectoryStore(path, BUDGET_BYTES, inside_max=100)) as store:
            assert get(store, key_of(1001)) is None
            assert not store.remove(key_of(1002))
            assert get(store, key_of(5)) is None
            with opened(store, key_of(7)) as stored:
                assert len(body_of(stored)) == stored.size_bytes
            store.settle()
            left = COUNT - purged_count - 1
            assert store.stats().objects_count == left
            assert files_in(path) == left
            for number in range(11, COUNT, 309):
                assert (get(store, key_of(number)) is None) == key_of(number).startswith(PURGED)


def test_a_purge_of_many_holds_at_once_and_what_is_stored_afterwards_stays(path: str) -> None:
    make_store(path, SMALL)
    with closing(DirectoryStore(path, BUDGET_BYTES, inside_max=50)) as store:
        get(store, key_of(3))
        writer = store.begin(key_of(4), 0, b"")
        assert store.remove_prefix(b"") == SMALL
        writer.commit()
        assert [get(store, key_of(number)) for number in (3, 4, 5)] == [None] * 3
        put(store, key_of(6), b"new")
        assert store.remove_prefix(key_of(5)) == 0
        store.settle()
        assert [record.key for record in store.records()] == [key_of(6)]
        assert store.stats().used_bytes == 3


def test_an_invalidation_of_many_holds_at_once_until_metadata_are_replaced(path: str) -> None:
    make_store(path, SMALL)
    with closing(DirectoryStore(path, BUDGET_BYTES, inside_max=50)) as store:
        with opened(store, key_of(1)) as stored:
            assert not stored.invalidated
        assert store.invalidate_prefix(b"") == SMALL
        assert store.replace_metadata(key_of(2), 0, b"new") is True
        put(store, key_of(3), b"new", b"m")
        states = {}
        for number in (1, 2, 3, 4):
            with opened(store, key_of(number)) as stored:
                states[number] = stored.invalidated
        assert states == {1: True, 2: False, 3: False, 4: True}
        store.settle()
        store.close()
    with closing(DirectoryStore(path, BUDGET_BYTES)) as store:
        valid = {record.key for record in store.records() if not record.invalidated}
        assert valid == {key_of(2), key_of(3)}


@pytest.mark.parametrize("way", ["remove_prefix", "invalidate_prefix"])
def test_a_purge_of_many_that_cannot_be_noted_removes_them_one_by_one(path: str, way: str) -> None:
    make_store(path, SMALL)
    with closing(DirectoryStore(path, BUDGET_BYTES, inside_max=50)) as store:
        store.settle()
        with unwritable_index():
            assert getattr(store, way)(b"") == SMALL
            assert files_in(path) == 0
            store.close()
    with closing(DirectoryStore(path, BUDGET_BYTES)) as store:
        assert get(store, key_of(1)) is None


def test_eviction_takes_the_oldest_wherever_they_are(path: str) -> None:
    make_store(path, SMALL)
    with closing(DirectoryStore(path, BUDGET_BYTES, inside_max=50)) as store:
        get(store, key_of(0))
        store.settle()
        each_bytes = store.stats().used_bytes // SMALL
        evicted_count = store.set_budget(store.stats().used_bytes - 10 * each_bytes)
        assert evicted_count == 10
        assert [get(store, key_of(number)) is None for number in (0, 1, 10, 11)] == [False, True, True, False]
        store.set_budget(5 * each_bytes)
        store.settle()
        assert store.stats().objects_count == 5
        assert get(store, key_of(11)) is not None
        put(store, b"new", bytes(each_bytes * 4))
        assert store.stats().objects_count == 2
    with closing(DirectoryStore(path, each_bytes)) as store:
        store.settle()
        assert store.stats().used_bytes <= each_bytes
