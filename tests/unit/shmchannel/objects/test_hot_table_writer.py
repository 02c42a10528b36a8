"""HotTableWriter: what is put on a hot table is read from it; what was taken off can never come back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from shmchannel.errors import LimitReached, NameTaken, UsageError
from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    BUCKET_CELLS,
    HOT_TABLE_BYTES_MIN,
    RECORD_BYTES_MAX,
    FileRef,
    geometry,
)
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.objects.hot_table_writer import HotTableWriter, is_supported, taken_at_first
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from tests.support.channels import in_thread, unique_queue
from tests.support.failing import failing
from tests.support.holders import names_of
from tests.support.hot_tables import LONG_NS, HotTable, entry, keys_of_one_bucket, open_hot_table

KEY = b"/key"
BODY = bytes(range(256)) * 32
SIZE = 1 << 20


@pytest.fixture
def hot_table() -> Iterator[HotTable]:
    with open_hot_table(SIZE) as made:
        yield made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time of both ends, in nanoseconds."""
    made = [0]
    for module in ("hot_table_reader", "hot_table_writer"):
        monkeypatch.setattr(f"shmchannel.objects.{module}.monotonic_ns", lambda: made[0])
    return made


def path_of(queue_name: str) -> str:
    """Where the hot table lies."""
    return SHM_DIRECTORY + hot_table_name(queue_name)


def test_name_mode_and_owner(hot_table: HotTable) -> None:
    path = path_of(hot_table.queue_name)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert [found.kind for found in names_of() if found.path == path] == ["hot table"]
    assert hot_table.publisher.cell_count == geometry(SIZE).cell_count
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
    keys = [b"/object/%d" % number for number in range(300)]
    for number, key in enumerate(keys):
        assert hot_table.put(key, number, key * 10, key)
    for number, key in enumerate(keys):
        assert hot_table.reader.get(key) == entry(number, key * 10, key)
    assert hot_table.publisher.stats().objects_count == 300


def test_sequence_numbers_begin_again() -> None:
    """After the last one of 64 bits: a watch of before still ends."""
    with open_hot_table(first_sequence=2**64 - 10) as hot_table:
        for version in range(1, 20):
            assert hot_table.put(KEY, version, b"%d" % version)
            found = hot_table.reader.get(KEY)
            assert found == entry(version, b"%d" % version)
            assert found is not None
            watch = hot_table.reader.watch(KEY, found, lambda: True)
            assert watch is not None
            hot_table.publisher.drop(KEY)
            assert hot_table.reader.get(KEY) is None
            assert not watch.holds()


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (bytes(BODY_BYTES_MAX + 1), b""),
        (b"", bytes(RECORD_BYTES_MAX - len(KEY) + 1)),
        (bytes(BODY_BYTES_MAX), bytes(RECORD_BYTES_MAX - BODY_BYTES_MAX - len(KEY) + 1)),
    ],
    ids=["body", "metadata", "together"],
)
def test_too_large(hot_table: HotTable, body: bytes, metadata: bytes) -> None:
    assert not hot_table.put(KEY, 1, body, metadata)
    assert hot_table.reader.get(KEY) is None


def test_new_version_takes_the_place(hot_table: HotTable) -> None:
    assert hot_table.put(KEY, 1, BODY, b"old")
    assert hot_table.put(KEY, 2, BODY[:9], b"new")
    assert hot_table.reader.get(KEY) == entry(2, BODY[:9], b"new")
    assert hot_table.publisher.stats().objects_count == 1


def test_more_time_for_the_same_version(hot_table: HotTable, now: list[int]) -> None:
    """It is not copied again; another version, or one that was dropped since, gets none."""
    writer = hot_table.publisher
    assert hot_table.put(KEY, 1, b"first", life_ns=100)
    now[0] = 90
    token = writer.begin(KEY)
    assert writer.lengthen(token, KEY, 1, life_ns=100)
    assert not writer.lengthen(token, KEY, 2, life_ns=100)
    assert not writer.lengthen(token, b"/other", 1, life_ns=100)
    now[0] = 189
    assert hot_table.reader.get(KEY) == entry(1, b"first")
    now[0] = 190
    assert hot_table.reader.get(KEY) is None
    assert writer.lengthen(writer.begin(KEY), KEY, 1)
    now[0] = 10**18
    assert hot_table.reader.get(KEY) == entry(1, b"first"), "for as long as it is not dropped"
    assert writer.lengthen(writer.begin(KEY), KEY, 1, life_ns=100), "never shortened"
    now[0] += 100
    assert hot_table.reader.get(KEY) is not None
    token = writer.begin(KEY)
    writer.drop(KEY)
    assert not writer.lengthen(token, KEY, 1)
    assert writer.stats().published_total == 1


def test_life_begins_with_the_token(hot_table: HotTable, now: list[int]) -> None:
    """However long the answer took: the file was looked at before."""
    now[0] = 1000
    token = hot_table.publisher.begin(KEY)
    now[0] = 1099
    assert hot_table.publisher.publish(token, KEY, 1, b"", BODY, life_ns=100)
    assert hot_table.reader.get(KEY) is not None
    now[0] = 1100
    assert hot_table.reader.get(KEY) is None
    assert not hot_table.publisher.publish(token, KEY, 2, b"", BODY, life_ns=100)


def test_bucket_that_is_full(hot_table: HotTable) -> None:
    """The oldest that nobody has read gives way."""
    keys = keys_of_one_bucket(BUCKET_CELLS + 2, SIZE)
    for version, key in enumerate(keys[:BUCKET_CELLS]):
        assert hot_table.put(key, version, key)
    assert hot_table.reader.get(keys[0]) is not None
    assert hot_table.publisher.take_used(100) == [(keys[0], 0)]
    for version, key in enumerate(keys[BUCKET_CELLS:]):
        assert hot_table.put(key, version, key)
    there = [hot_table.reader.get(key) is not None for key in keys]
    assert there == [True, False, False, *[True] * (BUCKET_CELLS - 1)]
    assert hot_table.publisher.stats().evicted_total == 2


def test_arena_that_is_full() -> None:
    """Records give way in the order in which they came, but for those that are read; each that is there is whole."""
    with open_hot_table(HOT_TABLE_BYTES_MIN) as hot_table:
        for number in range(200):
            assert hot_table.put(b"/%d" % number, number, b"%d;" % number * 2000)
            assert hot_table.reader.get(b"/0") == entry(0, b"0;" * 2000), "it is in use"
            hot_table.publisher.take_used(100)
        found = [hot_table.reader.get(b"/%d" % number) for number in range(200)]
        there = {number for number, one in enumerate(found) if one is not None}
        assert there - {0} == set(range(min(there - {0}), 200))
        assert len(there) >= 5
        assert all(one is None or one.body == b"%d;" % one.version * 2000 for one in found)
        stats = hot_table.publisher.stats()
        assert (stats.objects_count, stats.evicted_total) == (len(there), 200 - len(there))


def memory_of(hot_table: HotTable) -> int:
    """The bytes of memory that its block has."""
    return os.stat(path_of(hot_table.queue_name)).st_blocks * 512


def test_memory_is_taken_as_it_fills() -> None:
    """Also where much is replaced: not the whole bound, which is never touched."""
    with open_hot_table(64 << 20) as hot_table:
        first = memory_of(hot_table)
        assert first == taken_at_first(64 << 20) < 6 << 20
        for version in range(2000):
            assert hot_table.put(b"/%d" % (version % 50), version, bytes(BODY_BYTES_MAX))
        assert memory_of(hot_table) <= first + (3 << 20)
        for number in range(1000):
            assert hot_table.put(b"/%d" % number, number, bytes(BODY_BYTES_MAX))
        assert all(hot_table.reader.get(b"/%d" % number) is not None for number in range(1000))
        assert memory_of(hot_table) == hot_table.publisher.stats().taken_bytes < 48 << 20


@pytest.mark.parametrize("way", ["no room in /dev/shm", "no memory to spare"])
def test_no_more_memory(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """It goes on in what it has."""
    with open_hot_table(64 << 20) as hot_table:
        if way == "no memory to spare":
            monkeypatch.setattr("shmchannel.process.memory.available_memory", lambda: 1 << 20)
        else:
            monkeypatch.setattr("os.posix_fallocate", failing(OSError(28, "no space")))
        before = memory_of(hot_table)
        for number in range(1000):
            assert hot_table.put(b"/%d" % number, number, bytes(BODY_BYTES_MAX))
            assert hot_table.reader.get(b"/%d" % number) is not None
        assert memory_of(hot_table) == before
        assert hot_table.publisher.stats().evicted_total > 900


def test_what_is_read_is_told(hot_table: HotTable) -> None:
    """Once for each time that it is asked, in bounded steps that go round."""
    keys = [b"/%d" % number for number in range(10)]
    for key in keys:
        assert hot_table.put(key, 1, BODY)
    assert hot_table.publisher.take_used(100) == []
    for key in keys:
        assert hot_table.reader.get(key) is not None
    told = [hot_table.publisher.take_used(4) for _ in range(4)]
    assert [len(part) for part in told] == [4, 4, 2, 0]
    assert sorted(used.key for part in told for used in part) == keys
    assert hot_table.reader.get(keys[3]) is not None
    assert hot_table.publisher.take_used(4) == [(keys[3], 0)]
    assert hot_table.reader.get(keys[3]) is not None
    hot_table.publisher.drop(keys[3])
    assert hot_table.publisher.take_used(4) == []
    hot_table.publisher.close()
    assert hot_table.publisher.take_used(4) == []


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


def test_clear(hot_table: HotTable) -> None:
    keys = [b"/a/1", b"/a/2", b"/b/1"]
    for key in keys:
        assert hot_table.put(key, 1, BODY)
    hot_table.publisher.clear()
    assert all(hot_table.reader.get(key) is None for key in keys)
    assert hot_table.publisher.stats().dropped_total == 3


@pytest.mark.parametrize("way", ["drop", "clear"])
def test_drop_between_look_up_and_publish(hot_table: HotTable, way: str) -> None:
    """The object that was found may be the one that was removed."""
    token = hot_table.publisher.begin(KEY)
    if way == "drop":
        hot_table.publisher.drop(KEY)
    else:
        hot_table.publisher.clear()
    assert not hot_table.publisher.publish(token, KEY, 1, b"", BODY)
    assert hot_table.reader.get(KEY) is None


def test_drop_of_another_key_between(hot_table: HotTable) -> None:
    token = hot_table.publisher.begin(KEY)
    hot_table.publisher.drop(b"/other")
    assert hot_table.publisher.publish(token, KEY, 1, b"", BODY)


def test_two_at_once(hot_table: HotTable) -> None:
    """One whose entry was put there by another in the meantime has nothing to do: its own may be older."""
    late = hot_table.publisher.begin(KEY)
    assert hot_table.put(KEY, 2, BODY)
    assert not hot_table.publisher.publish(late, KEY, 1, b"", b"older")
    assert hot_table.reader.get(KEY) == entry(2, BODY)


def test_after_close(hot_table: HotTable) -> None:
    """Threads that did not end in time do no harm."""
    token = hot_table.publisher.begin(KEY)
    hot_table.publisher.close()
    assert not hot_table.publisher.publish(token, KEY, 1, b"", BODY)
    assert not hot_table.publisher.lengthen(token, KEY, 1)
    hot_table.publisher.drop(KEY)
    hot_table.publisher.clear()


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


def test_reference_to_a_file(hot_table: HotTable) -> None:
    reference = FileRef(5, 6, 7, 100_000, b"00/name")
    writer = hot_table.publisher
    assert writer.publish_file(writer.begin(KEY), KEY, 1, b"facts", reference)
    found = hot_table.reader.get(KEY)
    assert found is not None
    assert (found.version, found.metadata, found.body, found.size_bytes) == (1, b"facts", b"", 100_000)
    assert found.file == reference
    assert hot_table.put(KEY, 3, BODY)
    assert hot_table.reader.get(KEY) == entry(3, BODY)


def test_whole_or_by_file_is_not_the_same(hot_table: HotTable) -> None:
    """Who wants it whole does not find it there when it is there by its file."""
    writer = hot_table.publisher
    assert hot_table.put(KEY, 1, BODY)
    assert not writer.lengthen(writer.begin(KEY), KEY, 1, by_file=True)
    assert writer.publish_file(writer.begin(KEY), KEY, 1, b"", FileRef(5, 6, 7, len(BODY)))
    assert not writer.lengthen(writer.begin(KEY), KEY, 1)
    assert writer.lengthen(writer.begin(KEY), KEY, 1, by_file=True)
    assert hot_table.reader.get(KEY) is not None
    assert writer.take_used(9) == [(KEY, len(BODY))]


def test_what_has_given_way_is_told() -> None:
    """Once, and only what was there without an end of its time."""
    with open_hot_table(HOT_TABLE_BYTES_MIN) as hot_table:
        writer = hot_table.publisher
        assert writer.publish_file(writer.begin(b"/file"), b"/file", 1, b"", FileRef(5, 6, 7, 100_000))
        assert hot_table.put(b"/short", 1, b"", life_ns=LONG_NS)
        for number in range(6):
            assert hot_table.put(b"/%d" % number, number, bytes(BODY_BYTES_MAX))
        assert hot_table.reader.get(b"/file") is not None
        assert writer.take_evicted() == [b"/0", b"/1", b"/2", b"/3"]
        assert writer.take_evicted() == []


def test_what_is_no_reference(hot_table: HotTable) -> None:
    """Size 0 says that the body is the object's."""
    writer = hot_table.publisher
    assert not writer.publish_file(writer.begin(KEY), KEY, 1, b"", FileRef(5, 6, 7, 0))


def test_no_descriptor_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open_hot_table() as hot_table:
        assert hot_table.put(KEY, 1, BODY)
    assert len(os.listdir("/proc/self/fd")) == before
