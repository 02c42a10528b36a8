"""What only a MemoryStore does; the rest is in tests/contract."""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING

import pytest

from simplecached.errors import StoreUnavailable
from simplecached.memory_store import MemoryStore, entries_max_from_limit
from tests.support.stores import get, open_fds, opened, put

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore(1000)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("soft_limit", "entries_max"),
    [(1, 1), (256, 128), (512, 256), (1024, 768), (20_000, 19_744), (resource.RLIM_INFINITY, 1_048_576)],
)
def test_descriptors_are_left_for_others(soft_limit: int, entries_max: int) -> None:
    assert entries_max_from_limit(soft_limit) == entries_max


def test_the_count_comes_from_the_limit_of_this_process(store: MemoryStore) -> None:
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert store.stats().entries_max == entries_max_from_limit(soft_limit)


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
    def refuse(name: str, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    put(store, b"a", b"body")
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        with pytest.raises(StoreUnavailable, match="the memory store") as caught:
            store.begin(b"b", 1, b"")
    assert "ulimit -n" in caught.value.hint
    assert store.stats().used_bytes == 4
    assert get(store, b"a") == b"body"
    put(store, b"b", b"x")
