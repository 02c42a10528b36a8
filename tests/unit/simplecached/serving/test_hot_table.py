"""HotObjects: asked for twice lately is hot; what could not be put on the hot table is no error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmchannel.objects.commands import FACTS_ONLY, INVALIDATE, PREFIX, Command, CommandKind
from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX
from simplecached.content import static as static_module
from simplecached.content.static import StaticDirectory
from simplecached.serving.hot_table import SEEN_SECONDS, HotObjects
from simplecached.stores.memory_store import MemoryStore
from simplecached.stores.store import StoredObject
from tests.support.hot_tables import HotTable, entry, open_hot_table
from tests.support.stores import opened, put

KEY = b"/key"
SEEN_NS = round(SEEN_SECONDS * 1e9)


@pytest.fixture
def hot_table() -> Iterator[HotTable]:
    with open_hot_table(8) as made:
        yield made


@pytest.fixture
def hot(hot_table: HotTable) -> HotObjects:
    return HotObjects(hot_table.publisher, 1e6)


@pytest.fixture
def set_now(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stop the clock of the table of seen keys at this nanosecond."""
    return lambda now: monkeypatch.setattr("simplecached.serving.hot_table.monotonic_ns", lambda: now)


def get(key: bytes = KEY, offset: int = 0, length: int = 0, version: int = 0) -> Command:
    """A GET as far as it matters here."""
    return Command(CommandKind.GET, key, offset=offset, length=length, version=version)


def test_seen_lately(hot: HotObjects, set_now: Callable[[int], None]) -> None:
    """The second request within the time, counted from the one before it."""
    answers = []
    for now in (0, SEEN_NS, 2 * SEEN_NS - 1, 3 * SEEN_NS - 2, 4 * SEEN_NS - 2):
        set_now(now)
        answers.append(hot.begin(get()) is not None)
    assert answers == [False, False, True, True, False]


def test_first_request_since_the_start_of_the_machine(hot: HotObjects, set_now: Callable[[int], None]) -> None:
    """An empty slot is nobody's, however early it is."""
    set_now(1)
    assert [hot.begin(get(b"/%d" % number)) for number in range(50)] == [None] * 50


def test_what_goes_on_does_not_count(hot: HotObjects) -> None:
    """Neither as the first request nor as the second."""
    assert hot.begin(get(version=1)) is None
    assert hot.begin(get()) is None
    assert hot.begin(get(version=1)) is None
    assert hot.begin(get()) is not None


@pytest.mark.parametrize("part", [{"offset": 1}, {"length": 1}, {"offset": FACTS_ONLY}], ids=str)
def test_a_part_counts(hot: HotObjects, part: dict[str, int]) -> None:
    """The next that asks for it, or for another part, finds the whole."""
    assert hot.begin(get(**part)) is None
    assert hot.begin(get(**part)) is not None


def publish(hot: HotObjects, found: StoredObject) -> None:
    """Put it there under a token of its second request."""
    hot.begin(get())
    token = hot.begin(get())
    assert token is not None
    hot.publish(token, KEY, found)


def test_stored_object(hot: HotObjects, hot_table: HotTable) -> None:
    store = MemoryStore(1000, 10)
    version = put(store, KEY, b"body", b"facts")
    with opened(store, KEY) as found:
        publish(hot, found)
    assert hot_table.reader.get(KEY) == entry(version, b"body", b"facts")
    assert hot_table.publisher.stats().published_total == 1
    hot.drop(KEY)
    assert hot_table.reader.get(KEY) is None
    store.close()


def test_large_stored_object(hot: HotObjects, hot_table: HotTable) -> None:
    """Its file, for what a store keeps never changes."""
    body = bytes(BODY_BYTES_MAX + 1)
    store = MemoryStore(100_000, 10)
    version = put(store, KEY, body, b"facts")
    with opened(store, KEY) as found:
        publish(hot, found)
    on_hot_table = hot_table.reader.get(KEY)
    assert on_hot_table is not None
    assert on_hot_table.file is not None
    assert (on_hot_table.version, on_hot_table.metadata, on_hot_table.size_bytes) == (version, b"facts", len(body))
    store.close()
    assert os.pread(on_hot_table.file.number, 1 << 20, 0) == body
    hot.drop(KEY)
    assert hot_table.reader.get(KEY) is None


def test_large_file_of_somebody_else(hot: HotObjects, hot_table: HotTable, tmp_path: Path) -> None:
    """It may change under who sends it: no reference."""
    (tmp_path / "key").write_bytes(bytes(BODY_BYTES_MAX + 1))
    files = StaticDirectory(str(tmp_path))
    with opened(files, KEY) as found:
        publish(hot, found)
    assert hot_table.reader.get(KEY) is None
    files.close()


def test_invalidated_object(hot: HotObjects, hot_table: HotTable) -> None:
    store = MemoryStore(1000, 10)
    put(store, KEY, b"body", b"facts")
    store.invalidate(KEY)
    with opened(store, KEY) as found:
        publish(hot, found)
    assert hot_table.reader.get(KEY) is None
    store.close()


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        (0, [False, True, True]),
        (PREFIX, [False, False, True]),
        (INVALIDATE, [False, True, True]),
        (PREFIX | INVALIDATE, [False, False, True]),
    ],
    ids=["key", "prefix", "invalidate", "invalidate-prefix"],
)
def test_purge(hot: HotObjects, hot_table: HotTable, flags: int, left: list[bool]) -> None:
    keys = [KEY, KEY + b"/more", b"/other"]
    for key in keys:
        assert hot_table.put(key, 1, b"body")
    hot.drop_purged(Command(CommandKind.PURGE, KEY, flags=flags))
    assert [hot_table.reader.get(key) is not None for key in keys] == left


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
