"""HotObjects: what is stored or found is in the hot table while it is as it was; what could not be is no error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmchannel.objects.commands import Command, CommandKind
from shmchannel.objects.hot_table_files import HotTableFiles
from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX
from simplecached.content import static as static_module
from simplecached.content.static import StaticDirectory
from simplecached.serving.hot_table import HotObjects
from simplecached.stores.directory_store import DirectoryStore
from simplecached.stores.lru_store import LruStore
from simplecached.stores.memory_store import MemoryStore
from simplecached.stores.store import StoredObject
from tests.support.hot_tables import HotTable, entry, open_hot_table
from tests.support.stores import opened, put

KEY = b"/key"


@pytest.fixture
def hot_table() -> Iterator[HotTable]:
    with open_hot_table() as made:
        yield made


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LruStore]:
    made: LruStore
    if request.param == "memory":
        made = MemoryStore(100_000, 10)
    else:
        made = DirectoryStore(str(tmp_path / "store"), 100_000, sync_data=False)
    yield made
    made.close()


@pytest.fixture
def hot(hot_table: HotTable, store: LruStore) -> HotObjects:
    return HotObjects(hot_table.publisher, store, None)


def get(key: bytes = KEY, version: int = 0) -> Command:
    """A GET as far as it matters here."""
    return Command(CommandKind.GET, key, version=version)


def publish(hot: HotObjects, found: StoredObject, key: bytes = KEY) -> None:
    """Put it there under a token of now."""
    token = hot.begin(get(key))
    assert token is not None
    hot.publish(token, key, found)


def find(hot: HotObjects, store: LruStore, key: bytes = KEY) -> None:
    """What a GET does."""
    token = hot.begin(get(key))
    assert token is not None
    with opened(store, key) as found:
        hot.publish(token, key, found)


def test_what_goes_on_is_not_published(hot: HotObjects) -> None:
    assert hot.begin(get(version=1)) is None
    assert hot.begin(get()) is not None


def test_found_object(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    """Copied once, however often it is found."""
    version = put(store, KEY, b"body", b"facts")
    for _ in range(3):
        find(hot, store)
        assert hot_table.reader.get(KEY) == entry(version, b"body", b"facts")
    assert hot_table.publisher.stats().published_total == 1


@pytest.mark.parametrize("way", ["found", "stored"])
def test_large_object(hot: HotObjects, hot_table: HotTable, store: LruStore, way: str) -> None:
    """Its file, for what a store keeps never changes; a process of this user can open it."""
    body = bytes(range(256)) * 80
    version = put(store, KEY, body, b"facts")
    if way == "stored":
        hot.stored(KEY, version, None)
    else:
        find(hot, store)
    found = hot_table.reader.get(KEY)
    assert found is not None
    assert found.file is not None
    assert (found.version, found.metadata, found.size_bytes) == (version, b"facts", len(body))
    files = HotTableFiles()
    file = files.hold(os.getpid(), found.file, found.version, lambda: hot_table.reader.get(KEY) == found)
    assert file is not None
    assert os.pread(file.fd, 1 << 20, 0) == body
    store.remove(KEY)
    assert hot_table.reader.get(KEY) is None
    assert os.pread(file.fd, 1 << 20, 0) == body, "who has it open keeps it"
    assert HotTableFiles().hold(os.getpid(), found.file, found.version, lambda: False) is None


def test_object_of_a_store_that_was_opened_again(hot_table: HotTable, tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    before = DirectoryStore(path, 100_000, sync_data=False)
    version = put(before, KEY, bytes(20_000))
    before.close()
    store = DirectoryStore(path, 100_000, sync_data=False)
    hot = HotObjects(hot_table.publisher, store, None)
    assert hot_table.reader.get(KEY) is None
    find(hot, store)
    found = hot_table.reader.get(KEY)
    assert found is not None
    assert found.file is not None
    assert found.version == version
    store.close()


def test_what_is_stored(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    version = put(store, KEY, b"body", b"facts")
    hot.stored(KEY, version, b"body")
    assert hot_table.reader.get(KEY) == entry(version, b"body", b"facts")


def test_what_was_changed_since_it_was_stored(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    """Another thread was faster."""
    version = put(store, KEY, b"body", b"facts")
    newer = put(store, KEY, b"newer")
    hot.stored(KEY, version, b"body")
    assert hot_table.reader.get(KEY) is None
    hot.stored(KEY, newer, b"newer")
    assert hot_table.reader.get(KEY) == entry(newer, b"newer")
    store.remove(KEY)
    hot.stored(KEY, newer, b"newer")
    assert hot_table.reader.get(KEY) is None


CHANGES: dict[str, Callable[[LruStore], object]] = {
    "replaced": lambda store: put(store, KEY, b"other"),
    "removed": lambda store: store.remove(KEY),
    "removed by prefix": lambda store: store.remove_prefix(KEY[:2]),
    "invalidated": lambda store: store.invalidate(KEY),
    "invalidated by prefix": lambda store: store.invalidate_prefix(KEY[:2]),
    "updated": lambda store: store.replace_metadata(KEY, 0, b"newer"),
    "evicted": lambda store: put(store, b"/large", bytes(99_999)),
    "evicted by a smaller budget": lambda store: store.set_budget(1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [4, 20_000], ids=["small", "large"])
def test_change(hot: HotObjects, hot_table: HotTable, store: LruStore, change: str, size: int) -> None:
    """It is off when the call returns; and what was found before it is not published after it."""
    put(store, KEY, bytes(size), b"facts")
    find(hot, store)
    assert hot_table.reader.get(KEY) is not None
    token = hot.begin(get())
    assert token is not None
    with opened(store, KEY) as found:
        if change.startswith("evicted"):
            hot_table.publisher.drop(b"/large")
        else:
            CHANGES[change](store)
            assert hot_table.reader.get(KEY) is None
            hot.publish(token, KEY, found)
            assert hot_table.reader.get(KEY) is None
    if change.startswith("evicted"):
        CHANGES[change](store)
        assert hot_table.reader.get(KEY) is None


def test_uses_are_noted(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    """What proxies have read is not what is evicted next, though no command has asked for it."""
    for key in (b"/read", b"/unread"):
        put(store, key, bytes(10_000))
        find(hot, store, key)
    assert [record.key for record in store.records()] == [b"/read", b"/unread"]
    assert hot_table.reader.get(b"/read") is not None
    hot.note_uses()
    assert [record.key for record in store.records()] == [b"/unread", b"/read"]


def fill(hot: HotObjects, store: LruStore, hot_table: HotTable, count: int) -> list[bytes]:
    """So many objects of 15,000 bytes, each stored as by a PUT; their keys."""
    keys = [b"/%d" % number for number in range(count)]
    for key in keys:
        body = (key * 15_000)[:15_000]
        hot.stored(key, put(store, key, body), body)
    return keys


def whole(hot_table: HotTable, keys: list[bytes]) -> list[bytes]:
    """Those that are in the table with their bodies; all others are there by their files, with the right bytes."""
    found = {key: hot_table.reader.get(key) for key in keys}
    files = HotTableFiles()
    for key, one in found.items():
        assert one is not None
        if one.file is not None:
            assert one.file.size_bytes == 15_000
            assert files.read(os.getpid(), one.file, lambda: True) == (key * 15_000)[:15_000]
    return [key for key, one in found.items() if one is not None and one.file is None]


def test_what_gives_way_stays_by_its_file(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    """A table of 64 KiB has six objects of 15 KB: two of them whole."""
    keys = fill(hot, store, hot_table, 6)
    hot.stored(b"/more", put(store, b"/more", b""), b"")
    assert set(whole(hot_table, keys)) < set(keys)
    assert keys[5] in whole(hot_table, keys)


def test_what_is_used_comes_back_whole(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    """After it was read from its file; and as soon as a command asks for it."""
    keys = fill(hot, store, hot_table, 6)
    hot.stored(b"/more", put(store, b"/more", b""), b"")
    hot_table.publisher.take_used(100)
    first, second = [key for key in keys if key not in whole(hot_table, keys)][:2]
    hot_table.publisher.take_used(100)
    assert hot_table.reader.get(first) is not None
    hot.note_uses()
    found = hot_table.reader.get(first)
    assert found is not None
    assert found.body == (first * 15_000)[:15_000]
    find(hot, store, second)
    found = hot_table.reader.get(second)
    assert found is not None
    assert found.body == (second * 15_000)[:15_000]


def test_file_that_was_missed(hot_table: HotTable, store: LruStore) -> None:
    """Its last copy is gone with it, and so is one that a slower thread has found before."""
    hot = HotObjects(hot_table.publisher, store, 1e6)
    put(store, KEY, b"body")
    find(hot, store)
    token = hot.begin(get())
    assert token is not None
    hot.missed(KEY)
    assert hot_table.reader.get(KEY) is None
    with opened(store, KEY) as found:
        hot.publish(token, KEY, found)
    assert hot_table.reader.get(KEY) is None


def test_short_lives_where_files_are_served(hot_table: HotTable, store: LruStore) -> None:
    """And nothing but what was found: a file may hide what is stored."""
    hot = HotObjects(hot_table.publisher, store, 1e-9)
    hot.stored(KEY, put(store, KEY, b"body"), b"body")
    assert hot_table.publisher.stats().published_total == 0
    hot.start_over(1e6)
    find(hot, store)
    assert hot_table.reader.get(KEY) is not None
    hot.start_over(None)
    assert hot_table.reader.get(KEY) is None


def test_large_file_of_somebody_else(hot: HotObjects, hot_table: HotTable, tmp_path: Path) -> None:
    """It may change under who sends it: no reference."""
    (tmp_path / "key").write_bytes(bytes(BODY_BYTES_MAX + 1))
    files = StaticDirectory(str(tmp_path))
    with opened(files, KEY) as found:
        publish(hot, found)
    assert hot_table.reader.get(KEY) is None
    files.close()


def test_invalidated_object(hot: HotObjects, hot_table: HotTable, store: LruStore) -> None:
    version = put(store, KEY, b"body", b"facts")
    store.invalidate(KEY)
    find(hot, store)
    hot.stored(KEY, version, b"body")
    assert hot_table.reader.get(KEY) is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"body")
    return path


@pytest.mark.parametrize("settled", [True, False])
def test_file(
    hot: HotObjects, hot_table: HotTable, path: Path, monkeypatch: pytest.MonkeyPatch, *, settled: bool
) -> None:
    """It goes there once its last change is long enough ago that another would show."""
    monkeypatch.setattr(static_module, "SETTLED_NS", -(10**18) if settled else 10**18 * 9)
    static = StaticDirectory(str(path.parent))
    with opened(static, KEY) as found:
        publish(hot, found)
        assert hot_table.reader.get(KEY) == (entry(found.version, b"body") if settled else None)
    static.close()


@pytest.mark.parametrize("content", [b"b", b"BODY", b"longer body"], ids=["shorter", "other", "longer"])
def test_file_rewritten_in_place(
    hot: HotObjects, hot_table: HotTable, path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Between the look-up and the reading: neither half of it."""
    monkeypatch.setattr(static_module, "SETTLED_NS", -(10**18))
    static = StaticDirectory(str(path.parent))
    with opened(static, KEY) as found:
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        publish(hot, found)
    assert hot_table.reader.get(KEY) is None
    static.close()


def test_file_that_cannot_be_read(hot: HotObjects, hot_table: HotTable) -> None:
    reading_end, writing_end = os.pipe()
    publish(hot, StoredObject(reading_end, 4, 1, b"", lambda _: None, None))
    assert hot_table.reader.get(KEY) is None
    os.close(reading_end)
    os.close(writing_end)
