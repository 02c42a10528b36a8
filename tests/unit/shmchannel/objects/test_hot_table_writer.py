"""HotTableWriter: what is put on a hot table is read from it; what was taken off can never come back."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence

import pytest

from shmchannel.errors import LimitReached, NameTaken, UsageError
from shmchannel.objects import hot_table_writer
from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX, CELL_ROOM_BYTES, HOT_TABLE_BYTES_MIN
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.objects.hot_table_writer import FILES_MAX, HotTableWriter, is_supported
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from tests.support.channels import in_thread, unique_queue
from tests.support.failing import failing
from tests.support.holders import names_of
from tests.support.hot_tables import LONG_NS, HotTable, entry, keys_of_one_set, open_hot_table, publish, reading

KEY = b"/key"
BODY = bytes(range(256)) * 32
SETS = 8


@pytest.fixture
def hot_table() -> Iterator[HotTable]:
    with open_hot_table(SETS) as made:
        yield made


def fails(_views: Sequence[memoryview], _offset: int) -> int:
    """A disk that is gone."""
    raise OSError(5, "no")


def path_of(queue_name: str) -> str:
    """Where the hot table lies."""
    return SHM_DIRECTORY + hot_table_name(queue_name)


def test_name_mode_and_owner(hot_table: HotTable) -> None:
    path = path_of(hot_table.queue_name)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert [found.kind for found in names_of() if found.path == path] == ["hot table"]
    assert hot_table.publisher.cell_count == 2 * SETS
    hot_table.publisher.close()
    hot_table.publisher.close()
    assert not os.path.exists(path)


def test_second_hot_table_of_one_queue(hot_table: HotTable) -> None:
    """It is no leftover while its cache lives; and the refused one removes nothing."""
    with pytest.raises(NameTaken):
        HotTableWriter.create(hot_table.queue_name, HOT_TABLE_BYTES_MIN)
    assert os.path.exists(path_of(hot_table.queue_name))


def test_no_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.posix_fallocate", failing(OSError(28, "no space")))
    queue_name = unique_queue()
    with pytest.raises(LimitReached):
        HotTableWriter.create(queue_name, HOT_TABLE_BYTES_MIN)
    assert not os.path.exists(path_of(queue_name))


def test_silly_size() -> None:
    with pytest.raises(UsageError):
        HotTableWriter.create(unique_queue(), 1000)


@pytest.mark.parametrize(("machine", "supported"), [("x86_64", True), ("aarch64", False), ("i686", False)])
def test_machines(machine: str, *, supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stores may be seen in another order, nothing is to be published."""
    facts = os.uname()
    monkeypatch.setattr("os.uname", lambda: type(facts)((*facts[:4], machine)))
    assert is_supported() is supported


@pytest.mark.parametrize("size", [0, 1, 8192, BODY_BYTES_MAX])
@pytest.mark.parametrize("metadata", [b"", b"m" * 1900])
def test_put_and_read(hot_table: HotTable, size: int, metadata: bytes) -> None:
    body = (BODY * 2)[:size]
    assert hot_table.put(KEY, 2**64 - 1, body, metadata)
    assert hot_table.reader.get(KEY) == entry(2**64 - 1, body, metadata)
    assert hot_table.reader.get(b"/other") is None
    assert hot_table.publisher.stats().published_total == 1


def test_many_objects(hot_table: HotTable) -> None:
    """Each key gives its own body, on whatever cell it lies."""
    keys = [b"/object/%d" % number for number in range(40)]
    put = [key for number, key in enumerate(keys) if hot_table.put(key, number, key * 10, key)]
    assert 8 < len(put) <= 2 * SETS
    for number, key in enumerate(keys):
        assert hot_table.reader.get(key) == (entry(number, key * 10, key) if key in put else None)


@pytest.mark.parametrize(
    ("body", "metadata"),
    [(bytes(BODY_BYTES_MAX + 1), b""), (b"", bytes(CELL_ROOM_BYTES - len(KEY) + 1)), (bytes(16384), bytes(1981))],
    ids=["body", "metadata", "together"],
)
def test_too_large(hot_table: HotTable, body: bytes, metadata: bytes) -> None:
    assert not hot_table.put(KEY, 1, body, metadata)
    assert hot_table.reader.get(KEY) is None


def test_new_version_takes_the_place(hot_table: HotTable) -> None:
    assert hot_table.put(KEY, 1, BODY, b"old")
    assert hot_table.put(KEY, 2, BODY[:9], b"new")
    assert hot_table.reader.get(KEY) == entry(2, BODY[:9], b"new")


def test_same_version_is_not_read_again(hot_table: HotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only gets more time; but a file, whose bytes may be others all the same, is read."""
    now = [0]
    for module in ("hot_table_reader", "hot_table_writer"):
        monkeypatch.setattr(f"shmchannel.objects.{module}.monotonic_ns", lambda: now[0])

    assert hot_table.put(KEY, 1, b"first", life_ns=100)
    now[0] = 90
    assert hot_table.put(KEY, 1, b"other", life_ns=100)
    now[0] = 189
    assert hot_table.reader.get(KEY) == entry(1, b"first")
    now[0] = 190
    assert hot_table.reader.get(KEY) is None
    assert hot_table.put(KEY, 1, b"other", life_ns=100)
    assert hot_table.reader.get(KEY) == entry(1, b"first"), "also after its time: a version's bytes never change"
    assert hot_table.put(KEY, 1, b"other", life_ns=100, is_unchanged=lambda: True)
    assert hot_table.reader.get(KEY) == entry(1, b"other")
    assert hot_table.publisher.stats().published_total == 2


def test_life_begins_with_the_token(hot_table: HotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the answer took: the file was looked at before."""
    now = [1000]
    for module in ("hot_table_reader", "hot_table_writer"):
        monkeypatch.setattr(f"shmchannel.objects.{module}.monotonic_ns", lambda: now[0])
    token = hot_table.publisher.begin()
    now[0] = 1099
    assert publish(hot_table.publisher, token, KEY, 1, BODY, life_ns=100)
    assert hot_table.reader.get(KEY) is not None
    now[0] = 1100
    assert hot_table.reader.get(KEY) is None
    assert not publish(hot_table.publisher, token, KEY, 2, BODY, life_ns=100)


def test_what_is_read_stays(hot_table: HotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third key of a set waits until one of the two is over."""
    one, two, three = keys_of_one_set(3, SETS)
    now = [0]
    for module in ("hot_table_reader", "hot_table_writer"):
        monkeypatch.setattr(f"shmchannel.objects.{module}.monotonic_ns", lambda: now[0])
    assert hot_table.put(one, 1, b"1", life_ns=100)
    assert hot_table.put(two, 2, b"2", life_ns=50)
    assert not hot_table.put(three, 3, b"3", life_ns=100)
    now[0] = 50
    assert hot_table.put(three, 3, b"3", life_ns=100)
    assert [hot_table.reader.get(key) for key in (one, two, three)] == [entry(1, b"1"), None, entry(3, b"3")]


def test_drop(hot_table: HotTable) -> None:
    for key in (KEY, b"/other"):
        assert hot_table.put(key, 1, BODY)
    hot_table.publisher.drop(KEY)
    hot_table.publisher.drop(b"/never there")
    assert hot_table.reader.get(KEY) is None
    assert hot_table.reader.get(b"/other") == entry(1, BODY)
    assert hot_table.publisher.stats().dropped_total == 1
    assert hot_table.put(KEY, 1, b"again")
    assert hot_table.reader.get(KEY) == entry(1, b"again"), "what was dropped gets its bytes anew"


def test_drop_prefix_and_clear(hot_table: HotTable) -> None:
    keys = [b"/a/1", b"/a/2", b"/b/1"]
    for key in keys:
        assert hot_table.put(key, 1, BODY)
    hot_table.publisher.drop_prefix(b"/a/")
    assert [hot_table.reader.get(key) is None for key in keys] == [True, True, False]
    hot_table.publisher.drop_prefix(b"")
    assert all(hot_table.reader.get(key) is None for key in keys)
    assert hot_table.publisher.stats().dropped_total == 3


@pytest.mark.parametrize("way", ["drop", "drop_prefix", "all"])
def test_drop_between_look_up_and_publish(hot_table: HotTable, way: str) -> None:
    """The object that was found may be the one that was removed."""
    token = hot_table.publisher.begin()
    {
        "drop": lambda: hot_table.publisher.drop(KEY),
        "drop_prefix": lambda: hot_table.publisher.drop_prefix(b"/k"),
        "all": lambda: hot_table.publisher.drop_prefix(b""),
    }[way]()
    assert not publish(hot_table.publisher, token, KEY, 1, BODY, read_into=fails), "not even read"
    assert hot_table.reader.get(KEY) is None


def test_drop_while_the_body_is_read(hot_table: HotTable) -> None:
    """The last moment: half of it lies there already."""
    assert hot_table.put(KEY, 1, b"old")

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        if offset:
            hot_table.publisher.drop(KEY)
            assert hot_table.reader.get(KEY) is None
        return reading(BODY, step=len(BODY) // 2)(views, offset)

    assert not hot_table.put(KEY, 2, BODY, read_into=read_into)
    assert hot_table.reader.get(KEY) is None
    assert hot_table.put(KEY, 2, BODY)
    assert hot_table.reader.get(KEY) == entry(2, BODY)


def test_two_at_once(hot_table: HotTable) -> None:
    """A writer that finds its set being filled gives up; one whose entry was put there by another has nothing to do."""
    late = hot_table.publisher.begin()

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        assert hot_table.reader.get(KEY) is None
        assert not hot_table.put(KEY, 3, b"third")
        return reading(BODY)(views, offset)

    assert hot_table.put(KEY, 2, BODY, read_into=read_into)
    assert not publish(hot_table.publisher, late, KEY, 1, b"older")
    assert hot_table.reader.get(KEY) == entry(2, BODY)


def test_body_that_cannot_be_read(hot_table: HotTable) -> None:
    """Nothing of the new one, nor of the old one that it was to replace; and the cell is free for the next."""
    assert hot_table.put(KEY, 1, b"old")
    with pytest.raises(OSError, match="no"):
        hot_table.put(KEY, 2, BODY, read_into=fails)
    assert hot_table.reader.get(KEY) is None
    assert not hot_table.put(KEY, 2, BODY, read_into=reading(BODY[:-1])), "a file that is shorter by now"
    assert not hot_table.put(KEY, 2, BODY, is_unchanged=lambda: False)
    assert hot_table.reader.get(KEY) is None
    assert hot_table.put(KEY, 2, BODY, read_into=reading(BODY, step=1000), is_unchanged=lambda: True)
    assert hot_table.reader.get(KEY) == entry(2, BODY)


def test_after_close(hot_table: HotTable) -> None:
    """Threads that did not end in time do no harm."""
    token = hot_table.publisher.begin()
    hot_table.publisher.close()
    assert not publish(hot_table.publisher, token, KEY, 1, BODY)
    hot_table.publisher.drop(KEY)
    hot_table.publisher.drop_prefix(b"")


def test_close_while_a_body_is_read(hot_table: HotTable) -> None:
    def read_into(views: Sequence[memoryview], offset: int) -> int:
        hot_table.publisher.close()
        return reading(BODY)(views, offset)

    assert not hot_table.put(KEY, 1, BODY, read_into=read_into)
    assert hot_table.reader.get(KEY) is None


def test_many_threads(hot_table: HotTable) -> None:
    """All change and read the same few objects: a reader never sees a body that is not its version's."""
    keys = [b"/%d" % number for number in range(4)]

    def work(worker: int) -> int:
        seen = 0
        for number in range(300):
            key = keys[number % len(keys)]
            version = worker * 1000 + number
            hot_table.put(key, version, b"%d;" % version * 500, life_ns=LONG_NS)
            if number % 7 == 0:
                hot_table.publisher.drop(key)
            found = hot_table.reader.get(key)
            if found is not None:
                assert found.body == b"%d;" % found.version * 500
                seen += 1
        return seen

    with in_thread(lambda: work(1)) as one, in_thread(lambda: work(2)) as two:
        seen = work(3)
    assert seen + one.result() + two.result() > 0


def test_attach_sees_what_lies_there_already(hot_table: HotTable) -> None:
    assert hot_table.put(KEY, 1, BODY)
    other = HotTableReader.attach(hot_table.queue_name)
    assert other.get(KEY) == entry(1, BODY)
    other.close()


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def large_file() -> Iterator[int]:
    fd = os.memfd_create("large")
    os.write(fd, bytes(100_000))
    yield fd
    os.close(fd)


def publish_file(hot_table: HotTable, fd: int, *, key: bytes = KEY, version: int = 1, life_ns: int = LONG_NS) -> bool:
    token = hot_table.publisher.begin()
    return hot_table.publisher.publish_file(token, key, version, b"facts", fd, os.fstat(fd).st_size, life_ns=life_ns)


def test_reference_to_a_file(hot_table: HotTable, large_file: int) -> None:
    """It names a descriptor of the publisher's own, which is open for as long as the reference can be read."""
    before = open_count()
    assert publish_file(hot_table, large_file)
    found = hot_table.reader.get(KEY)
    assert found is not None
    assert found.file is not None
    assert (found.version, found.metadata, found.body, found.size_bytes) == (1, b"facts", b"", 100_000)
    assert found.file.number != large_file
    assert os.path.sameopenfile(found.file.number, large_file)
    status = os.fstat(large_file)
    assert (found.file.device, found.file.inode) == (status.st_dev, status.st_ino)
    assert open_count() == before + 1
    hot_table.publisher.drop(KEY)
    assert hot_table.reader.get(KEY) is None
    assert open_count() == before


def test_reference_of_the_same_version_gets_more_time(hot_table: HotTable, large_file: int) -> None:
    assert publish_file(hot_table, large_file)
    before = open_count()
    first = hot_table.reader.get(KEY)
    assert publish_file(hot_table, large_file)
    assert hot_table.reader.get(KEY) == first
    assert open_count() == before


def test_reference_gives_way_to_another_version(hot_table: HotTable, large_file: int) -> None:
    before = open_count()
    assert publish_file(hot_table, large_file)
    assert publish_file(hot_table, large_file, version=2)
    found = hot_table.reader.get(KEY)
    assert found is not None
    assert found.version == 2
    assert open_count() == before + 1
    assert hot_table.put(KEY, 3, BODY)
    assert hot_table.reader.get(KEY) == entry(3, BODY)
    assert open_count() == before


def test_file_closes_when_the_time_of_its_reference_is_over(
    hot_table: HotTable, large_file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_count()
    assert publish_file(hot_table, large_file, life_ns=10**12)
    hot_table.publisher.expire()
    assert open_count() == before + 1
    later = time.monotonic_ns() + 10**12
    monkeypatch.setattr(hot_table_writer, "monotonic_ns", lambda: later)
    hot_table.publisher.expire()
    assert open_count() == before
    assert hot_table.reader.get(KEY) is None


def test_files_close_with_the_hot_table(hot_table: HotTable, large_file: int) -> None:
    assert publish_file(hot_table, large_file)
    found = hot_table.reader.get(KEY)
    assert found is not None
    assert found.file is not None
    hot_table.publisher.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(found.file.number)
    assert not publish_file(hot_table, large_file)


@pytest.mark.parametrize("files_max", [3, FILES_MAX])
def test_references_are_bounded(files_max: int, large_file: int) -> None:
    with open_hot_table(FILES_MAX, files_max=files_max) as hot_table:
        before = open_count()
        published = [publish_file(hot_table, large_file, key=b"/%d" % number) for number in range(2 * FILES_MAX)]
        assert sum(published) == files_max
        assert open_count() == before + files_max
    assert open_count() < before


def test_no_reference_to_what_was_dropped_since(hot_table: HotTable, large_file: int) -> None:
    token = hot_table.publisher.begin()
    hot_table.publisher.drop(b"/another")
    assert not hot_table.publisher.publish_file(token, KEY, 1, b"", large_file, 100_000, life_ns=LONG_NS)
    assert hot_table.reader.get(KEY) is None


@pytest.mark.parametrize(("metadata", "size"), [(bytes(CELL_ROOM_BYTES), 100_000), (b"", 0)])
def test_what_is_no_reference(hot_table: HotTable, large_file: int, metadata: bytes, size: int) -> None:
    token = hot_table.publisher.begin()
    assert not hot_table.publisher.publish_file(token, KEY, 1, metadata, large_file, size, life_ns=LONG_NS)


def test_no_reference_without_a_descriptor(hot_table: HotTable) -> None:
    assert not hot_table.publisher.publish_file(hot_table.publisher.begin(), KEY, 1, b"", -1, 100_000, life_ns=LONG_NS)
