"""Behaviour of DirectoryStore alone; the rest is in tests/contract, tests/stateful and tests/faults."""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from simplecached.errors import StartupError, StoreUnavailable
from simplecached.stores import steps
from simplecached.stores.directory_store import DirectoryStore
from tests.support.descriptors import none_left
from tests.support.failing import refusing
from tests.support.stores import body_of, get, objects_in, open_fds, opened, put, unwritable_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def start(path: str) -> Iterator[Callable[..., DirectoryStore]]:
    before = open_fds()
    with ExitStack() as stores:

        def start(budget_bytes: int = 10_000, **more: Any) -> DirectoryStore:
            store = DirectoryStore(path, budget_bytes, **more)
            stores.callback(store.close)
            return store

        yield start
    assert set(open_fds()) == set(before)


def files_below(path: str) -> list[str]:
    """Return the bodies in the store directory, finished or not."""
    folders = (os.path.join(path, "tmp"), os.path.join(path, "objects"))
    return [os.path.join(at, name) for top in folders for at, _, names in os.walk(top) for name in names]


class TestRestart:
    def test_objects_are_found_again(self, start: Callable[..., DirectoryStore]) -> None:
        store = start()
        version = put(store, b"/\xff", b"body", b"meta")
        put(store, b"/empty", b"")
        put(store, b"/gone", b"gone")
        store.remove(b"/gone")
        entries = objects_in(store)
        store.close()
        store = start()
        assert objects_in(store) == entries
        stored = opened(store, b"/\xff")
        assert stored is not None
        with stored:
            assert (body_of(stored), stored.metadata, stored.version) == (b"body", b"meta", version)
        assert put(store, b"/new", b"x") > version
        stats = store.stats()
        assert (stats.objects_count, stats.used_bytes) == (3, 9)

    def test_invalidation_and_new_metadata_survive(self, start: Callable[..., DirectoryStore]) -> None:
        store = start()
        for key in (b"/a", b"/b", b"/c"):
            put(store, key, b"body", b"old")
        store.invalidate_prefix(b"/")
        store.replace_metadata(b"/b", 0, b"newer")
        put(store, b"/c", b"body", b"old")
        writer = store.begin(b"/d", 0, b"old")
        store.invalidate(b"/d")
        writer.commit()
        entries = objects_in(store)
        store.close()
        store = start()
        assert objects_in(store) == entries
        assert [(entry.key, entry.metadata, entry.invalidated) for entry in entries] == [
            (b"/a", b"old", True),
            (b"/b", b"newer", False),
            (b"/c", b"old", False),
            (b"/d", b"old", True),
        ]
        assert store.stats().used_bytes == 7 + 9 + 7 + 3

    def test_an_invalidation_that_comes_during_the_commit_survives(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        writer = store.begin(b"/a", 0, b"m")
        reached: list[str] = []

        def invalidate_then(point: str) -> None:
            if point == "indexed" and not reached:
                reached.append(point)
                store.invalidate(b"/a")

        monkeypatch.setattr(steps, "checkpoint", invalidate_then)
        writer.commit()
        store.settle()
        assert reached
        store.close()
        assert [entry.invalidated for entry in start().records()] == [True]

    def test_the_order_of_use_survives(self, start: Callable[..., DirectoryStore]) -> None:
        store = start()
        for key in (b"a", b"b", b"c"):
            put(store, key, bytes(10))
        get(store, b"a")
        store.close()
        store = start(30)
        put(store, b"d", bytes(10))
        assert [entry.key for entry in store.records()] == [b"c", b"a", b"d"]

    def test_a_smaller_budget_evicts_at_the_start(self, start: Callable[..., DirectoryStore], path: str) -> None:
        store = start()
        for key in (b"a", b"b", b"c"):
            put(store, key, bytes(10))
        store.close()
        store = start(20)
        store.settle()
        assert [entry.key for entry in store.records()] == [b"b", b"c"]
        assert len(files_below(path)) == 2

    def test_a_clock_that_went_back_makes_no_version_twice(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        version = put(store, b"a", b"old")
        store.remove(b"a")
        store.close()
        monkeypatch.setattr(time, "time_ns", lambda: 1)
        store = start()
        assert put(store, b"a", b"new") == version + 1

    def test_strange_files_are_removed_and_damaged_objects_dropped(
        self, start: Callable[..., DirectoryStore], path: str
    ) -> None:
        store = start()
        for key in (b"whole", b"short", b"gone"):
            put(store, key, key)
        paths = {Path(name).read_bytes(): name for name in files_below(path)}
        store.close()
        os.truncate(paths[b"short"], 2)
        os.unlink(paths[b"gone"])
        stray = paths[b"whole"].rsplit("-", 1)[0] + "-0000000000000001"
        for name in (stray, os.path.join(path, "tmp", "1f")):
            open(name, "wb").close()
        store = start()
        assert get(store, b"short") is None
        store.settle()
        assert [entry.key for entry in store.records()] == [b"whole"]
        assert files_below(path) == [paths[b"whole"]]
        assert store.stats().objects_count == 1

    def test_a_damaged_index_means_an_empty_store(self, start: Callable[..., DirectoryStore], path: str) -> None:
        store = start()
        put(store, b"a", b"body")
        store.close()
        with open(os.path.join(path, "index.sqlite"), "r+b") as file:
            file.write(b"\0" * 200)
        store = start()
        store.settle()
        assert store.records() == []
        assert files_below(path) == []
        put(store, b"a", b"body")
        assert get(store, b"a") == b"body"


class TestDirectory:
    def test_a_second_store_is_refused_until_the_first_closes(self, start: Callable[..., DirectoryStore]) -> None:
        store = start()
        with pytest.raises(StartupError, match=f"process {os.getpid()}"):
            start()
        store.close()
        start()

    def test_a_read_only_directory_is_a_clear_error(
        self, start: Callable[..., DirectoryStore], path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkdir(path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refusing(errno.EROFS))
            with pytest.raises(StartupError, match="read-only") as caught:
                start()
        assert path in str(caught.value)

    def test_nothing_names_the_key_on_the_disk(self, start: Callable[..., DirectoryStore], path: str) -> None:
        store = start()
        put(store, b"/../../secret-name", b"body")
        assert all("secret" not in name and name.startswith(path + os.sep) for name in files_below(path))
        assert {os.stat(name).st_mode & 0o777 for name in files_below(path)} == {0o600}


class TestLeftovers:
    def test_removed_replaced_and_evicted_bodies_leave_the_disk(
        self, start: Callable[..., DirectoryStore], path: str
    ) -> None:
        store = start(20)
        put(store, b"a", bytes(10))
        put(store, b"a", bytes(10))
        put(store, b"b", bytes(10))
        put(store, b"c", bytes(5))
        store.remove(b"b")
        assert [os.stat(name).st_size for name in files_below(path)] == [5]

    def test_a_removed_body_leaves_the_disk_while_it_is_read(
        self, start: Callable[..., DirectoryStore], path: str
    ) -> None:
        store = start()
        put(store, b"a", b"body")
        stored = opened(store, b"a")
        fd = stored.fd
        store.remove(b"a")
        assert files_below(path) == []
        assert body_of(stored) == b"body"
        stored.release()
        assert fd not in open_fds()

    def test_a_replacement_during_the_opening_gives_the_new_one(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        put(store, b"a", b"old")
        store.settle()
        real = os.open

        def slow(path: str, flags: int) -> int:
            monkeypatch.setattr(os, "open", real)
            put(store, b"a", b"new")
            return real(path, flags)

        monkeypatch.setattr(os, "open", slow)
        assert get(store, b"a") == b"new"
        assert store.stats().used_bytes == 3

    def test_a_removal_during_the_opening_leaves_no_descriptor(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        put(store, b"a", b"old")
        store.settle()
        real = os.open

        def remove_after(path: str, flags: int) -> int:
            fd = real(path, flags)
            store.remove(b"a")
            return fd

        before = len(open_fds())
        monkeypatch.setattr(os, "open", remove_after)
        assert get(store, b"a") == b"old"
        assert len(open_fds()) == before
        assert store.stats().used_bytes == 0

    @pytest.mark.parametrize("harm", ["deleted", "truncated"])
    def test_a_body_harmed_from_outside_is_a_miss_and_logged(
        self, start: Callable[..., DirectoryStore], path: str, harm: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = start()
        put(store, b"a", b"body")
        (name,) = files_below(path)
        os.unlink(name) if harm == "deleted" else os.truncate(name, 2)
        assert store.open(b"a") is None
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert (files_below(path), store.stats().used_bytes) == ([], 0)
        put(store, b"a", b"again")
        assert get(store, b"a") == b"again"


class TestRefusingMedium:
    """Each step refused in turn; the disk that is really full is in tests/faults."""

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
    @pytest.mark.parametrize("call", ["open", "posix_fallocate", "write", "rename"])
    def test_no_leftover_and_reading_goes_on(
        self, start: Callable[..., DirectoryStore], path: str, monkeypatch: pytest.MonkeyPatch, call: str, code: int
    ) -> None:
        store = start(1 << 20)
        put(store, b"a", b"old")
        store.settle()
        get(store, b"a")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refusing(code))
            with pytest.raises(StoreUnavailable) as caught:
                put(store, b"a", bytes(100_000))
            assert get(store, b"a") == b"old"
        assert caught.value.errno == code
        assert path in caught.value.path
        assert (len(files_below(path)), store.stats().used_bytes, store.stats().writing_count) == (1, 3, 0)
        put(store, b"a", b"other")
        assert get(store, b"a") == b"other"

    def test_data_that_cannot_be_synced_gets_no_row(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", refusing(errno.EIO))
            put(store, b"a", b"body")
            store.settle()
            with pytest.raises(StoreUnavailable, match="sync"):
                put(store, b"b", b"body")
            assert get(store, b"a") == b"body"
            store.close()
        store = start()
        store.settle()
        assert store.records() == []

    def test_an_index_that_cannot_be_written(self, start: Callable[..., DirectoryStore], path: str) -> None:
        """What is stored already serves on, and new objects are refused, until it can be written again."""
        store = start()
        put(store, b"a", b"old")
        put(store, b"b", b"b")
        store.settle()
        with unwritable_index():
            put(store, b"c", b"waits for its row")
            store.settle()
            with pytest.raises(StoreUnavailable):
                put(store, b"a", b"new")
            assert get(store, b"a") == b"old"
            assert store.remove(b"b") is True
            store.close()
        store = start()
        store.settle()
        assert [entry.key for entry in store.records()] == [b"a"]  # the removed one does not come back
        assert len(files_below(path)) == 1
        with unwritable_index():
            put(store, b"c", b"waits for its row")
            store.settle()
        put(store, b"d", b"d")
        store.close()
        assert [entry.key for entry in start().records()] == [b"a", b"c", b"d"]

    @pytest.mark.parametrize("inside_max", [1, 100])
    def test_an_index_that_takes_no_metadata_and_no_invalidation(
        self, start: Callable[..., DirectoryStore], path: str, inside_max: int
    ) -> None:
        """The old metadata stays; what a restart would bring back as valid is removed."""
        store = start(inside_max=inside_max)
        for key in (b"/a", b"/b/1", b"/b/2"):
            put(store, key, b"body", b"old")
        store.settle()
        with unwritable_index():
            with pytest.raises(StoreUnavailable):
                store.replace_metadata(b"/a", 0, b"longer")
            assert store.stats().used_bytes == 21
            assert store.invalidate_prefix(b"/b/") == 2
            assert [(entry.key, entry.metadata) for entry in store.records()] == [(b"/a", b"old")]
            store.close()
        store = start()
        store.settle()
        assert [(entry.key, entry.metadata) for entry in store.records()] == [(b"/a", b"old")]
        assert len(files_below(path)) == 1

    def test_idle_files_make_way_when_descriptors_run_out(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        put(store, b"a", b"a")
        put(store, b"b", b"b")
        store.settle()
        get(store, b"a")
        real = os.open
        refused: list[str] = []

        def short_of_descriptors(path: str, flags: int) -> int:
            if not refused:
                refused.append(path)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(path, flags)

        monkeypatch.setattr(os, "open", short_of_descriptors)
        assert get(store, b"b") == b"b"
        monkeypatch.setattr(os, "open", refusing(errno.EMFILE))
        with pytest.raises(StoreUnavailable) as caught:
            store.open(b"a")
        assert caught.value.errno == errno.EMFILE
        monkeypatch.setattr(os, "open", real)
        assert get(store, b"a") == b"a"
        assert store.stats().pinned_count == 0

    def test_idle_files_make_way_for_a_new_object(self, start: Callable[..., DirectoryStore]) -> None:
        store = start()
        put(store, b"a", b"a")
        get(store, b"a")
        with none_left():
            put(store, b"b", b"b")
            assert get(store, b"a") == b"a"
            assert get(store, b"b") == b"b"


class TestFlush:
    def test_hits_write_nothing(self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch) -> None:
        store = start()
        put(store, b"a", b"a")
        store.settle()
        reached: list[str] = []
        monkeypatch.setattr(steps, "checkpoint", reached.append)
        for _ in range(1000):
            get(store, b"a")
        store.settle()
        assert reached == []

    def test_many_objects_have_their_rows_written_at_once(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = start()
        store.settle()
        reached: list[str] = []
        monkeypatch.setattr(steps, "checkpoint", reached.append)
        for number in range(200):
            put(store, b"%d" % number, b"x")
        store.settle()
        assert 1 <= reached.count("indexed") < 100
        assert reached.count("synced") == reached.count("indexed")

    def test_the_data_is_synced_unless_told_otherwise(
        self, start: Callable[..., DirectoryStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", synced.append)
        store = start()
        put(store, b"a", b"a")
        store.settle()
        assert len(synced) == 1
        store.close()
        store = start(sync_data=False)
        put(store, b"b", b"b")
        store.settle()
        assert len(synced) == 1
