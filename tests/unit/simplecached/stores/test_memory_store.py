"""Behaviour of MemoryStore alone; the rest is in tests/contract."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from simplecached.errors import StoreUnavailable
from simplecached.stores.memory_store import MemoryStore
from tests.support.descriptors import none_left
from tests.support.failing import refusing
from tests.support.stores import get, open_fds, opened, put

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore(1000)
    yield store
    store.close()


def test_an_object_has_a_descriptor_until_its_last_reader_is_done(store: MemoryStore) -> None:
    before = len(open_fds())
    put(store, b"a", b"body")
    assert len(open_fds()) == before + 1
    stored = opened(store, b"a")
    put(store, b"a", b"new")
    assert len(open_fds()) == before + 2
    stored.release()
    assert len(open_fds()) == before + 1
    store.remove(b"a")
    assert len(open_fds()) == before


def test_the_kernel_refuses_to_change_a_committed_object(store: MemoryStore) -> None:
    put(store, b"a", b"body")
    stored = opened(store, b"a")
    with stored:
        assert not os.get_inheritable(stored.fd)
        with pytest.raises(PermissionError):
            os.pwrite(stored.fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(stored.fd, 0)


def test_without_descriptors_a_write_is_refused_and_reading_goes_on(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"a", b"body")
    with monkeypatch.context() as patch, opened(store, b"a"):
        patch.setattr(os, "memfd_create", refusing(errno.EMFILE))
        with pytest.raises(StoreUnavailable, match="the memory store") as caught:
            store.begin(b"b", 1, b"")
    assert "ulimit -n" in caught.value.hint
    assert store.stats().used_bytes == 4
    assert get(store, b"a") == b"body"
    put(store, b"b", b"x")


def test_without_descriptors_the_least_recently_used_objects_leave(store: MemoryStore) -> None:
    for number in range(10):
        put(store, b"%d" % number, b"body")
    with none_left(), opened(store, b"0"):
        put(store, b"new", b"body")
        left = [number for number in range(10) if get(store, b"%d" % number)]
        assert get(store, b"new") == b"body"
        assert left[0] == 0, "it is being read"
        assert left[1:] == list(range(11 - len(left), 10))
        stats = store.stats()
        assert (stats.evicted_total, stats.objects_count) == (10 - len(left), len(left) + 1)
        assert stats.used_bytes == 4 * stats.objects_count
        assert 1 <= stats.evicted_total <= 5, "few at a time"
        for number in range(100):
            put(store, b"more %d" % number, b"body")
        assert get(store, b"more 99") == b"body"


def test_what_is_closed_for_others_is_an_eviction(store: MemoryStore) -> None:
    assert store.close_idle() == 0
    before = len(open_fds())
    put(store, b"a", b"body")
    put(store, b"b", b"body")
    with opened(store, b"b"):
        assert store.close_idle() == 1
        assert len(open_fds()) == before + 1
        assert store.open(b"a") is None
    store.close()
    assert store.close_idle() == 0
