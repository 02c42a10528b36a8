"""The client's own parts; client and server together are tested in tests/contract."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import LayoutMismatch, LimitReached, NameMissing, ShmChannelError
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import ANNOUNCEMENT, announcement
from shmchannel.objects.hot_table_layout import HOT_TABLE_BYTES_MIN
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.objects.hot_table_writer import HotTableWriter
from shmchannel.process.naming import queue_guard_path
from shmchannel.testing import MemoryQueue, MemorySender
from tests.support.channels import memory_pool, unique_queue
from tests.support.holders import free_lock
from tests.support.hot_tables import entry
from tests.support.waiting import WATCHDOG_S, wait_until


@pytest.fixture
def queue_name() -> str:
    return unique_queue()


def test_one_sender_for_all(queue_name: str) -> None:
    opened: list[MemorySender] = []
    closed: list[MemorySender] = []

    class Watched(MemorySender):
        def close(self) -> None:
            super().close()
            if self not in closed:
                closed.append(self)

    def open_sender(name: str) -> MemorySender:
        opened.append(Watched(name))
        return opened[-1]

    pool = memory_pool(1)
    client = ChannelClient(queue_name, pool, open_sender=open_sender)
    with pytest.raises(NameMissing):
        client.connect()
    for generation in (1, 2, 3, 4):
        queue = MemoryQueue.create(queue_name)
        queue.announce(ANNOUNCEMENT)
        queue.set_ready()
        with ThreadPoolExecutor(4) as threads:
            senders = set(threads.map(lambda _: client.connect(), range(20)))
        assert senders == {opened[-1]}
        assert len(opened) == generation
        assert client.connected
        queue.kill()
    assert closed == opened[:2], "the last but one may be in use"
    client.close()
    assert set(closed) == set(opened)
    pool.close()


def test_refusal_of_the_system_is_not_hidden(queue_name: str) -> None:
    def open_sender(name: str) -> MemorySender:
        raise LimitReached(f"open {name}", 24)

    pool = memory_pool(1)
    client = ChannelClient(queue_name, pool, open_sender=open_sender)
    with pytest.raises(LimitReached):
        client.get(b"/a", Deadline.after(WATCHDOG_S))
    assert not client.connected
    assert pool.stats().leases_total == 0
    pool.close()


def test_interrupted_wait_gives_the_lease_up(queue_name: str) -> None:
    """Control-C while the answer is waited for: the segments may still be written to, and are replaced."""

    class Interrupting(MemorySender):
        def alive(self) -> bool:
            raise KeyboardInterrupt

    queue = MemoryQueue.create(queue_name)
    queue.announce(ANNOUNCEMENT)
    queue.set_ready()
    pool = memory_pool(2)
    client = ChannelClient(queue_name, pool, open_sender=Interrupting)
    with pytest.raises(KeyboardInterrupt):
        client.get(b"/a", Deadline.after(WATCHDOG_S))
    stats = pool.stats()
    assert (stats.retired_total, stats.segments_leased, stats.segments_total) == (1, 0, 2)
    client.close()
    pool.close()
    queue.close()


KEY = b"/key"


class HotTableCache:
    """A cache with a hot table on which one object lies, and no worker at all."""

    def __init__(self, queue_name: str, version: int) -> None:
        self.queue = CommandQueue.create(queue_name)
        self.hot_table = HotTableWriter.create(queue_name, HOT_TABLE_BYTES_MIN)
        assert self.hot_table.publish(self.hot_table.begin(KEY), KEY, version, b"", b"body")
        self.queue.announce(ANNOUNCEMENT)
        self.queue.set_ready()

    def close(self) -> None:
        """As a cache that stops."""
        self.hot_table.close()
        self.queue.close()


@pytest.fixture
def client(queue_name: str) -> Iterator[ChannelClient]:
    pool = memory_pool(1)
    made = ChannelClient(queue_name, pool)
    yield made
    made.close()
    pool.close()


def test_peek_follows_the_connection(client: ChannelClient, queue_name: str) -> None:
    """No cache, a cache, a stopping one, its successor: peek() itself connects to nobody."""
    assert client.peek(KEY) is None
    assert not client.connected
    for version in (1, 2):
        cache = HotTableCache(queue_name, version)
        assert client.peek(KEY) is None
        client.connect()
        assert client.peek(KEY) == entry(version, b"body")
        assert client.peek(b"/other") is None
        cache.queue.set_stopping()
        wait_until(lambda: client.peek(KEY) is None, what="the end of a stopping cache's hot table")
        cache.close()
    client.close()
    assert client.peek(KEY) is None


def test_a_hot_table_that_is_not_wanted_is_not_read_also_not_the_next_one(
    client: ChannelClient, queue_name: str
) -> None:
    cache = HotTableCache(queue_name, 1)
    client.connect()
    watch = client.watch(KEY, entry(1, b"body"))
    assert watch is not None
    assert watch.holds()
    client.use_hot_table(is_wanted=False)
    assert not watch.holds()
    assert client.peek(KEY) is None
    cache.close()
    cache = HotTableCache(queue_name, 2)
    client.connect()
    assert client.peek(KEY) is None
    client.use_hot_table(is_wanted=True)
    assert client.peek(KEY) == entry(2, b"body")
    assert not watch.holds()
    cache.close()


def test_hot_table_of_a_killed_cache_is_not_read(client: ChannelClient, queue_name: str) -> None:
    """Its memory is still mapped, and every byte of it looks well."""
    cache = HotTableCache(queue_name, 1)
    client.connect()
    assert client.peek(KEY) == entry(1, b"body")
    mapped = HotTableReader.attach(queue_name)
    free_lock(queue_guard_path(queue_name))
    wait_until(lambda: client.peek(KEY) is None, what="the end of a dead cache's hot table")
    assert mapped.get(KEY) == entry(1, b"body")
    mapped.close()
    heir = HotTableCache(queue_name, 2)
    client.connect()
    assert client.peek(KEY) == entry(2, b"body")
    heir.close()
    cache.close()


def test_the_largest_object_is_known_of_each_cache(client: ChannelClient, queue_name: str) -> None:
    known = [client.object_bytes_max]
    for size in (5, None, 1 << 40):
        queue = CommandQueue.create(queue_name)
        queue.announce(announcement(size))
        queue.set_ready()
        wait_until(lambda size=size: client.connect().announced == announcement(size))  # the end of one shows soon
        known.append(client.object_bytes_max)
        queue.close()
    assert known == [None, 5, None, 1 << 40]


def test_cache_without_a_hot_table(client: ChannelClient, queue_name: str) -> None:
    queue = CommandQueue.create(queue_name)
    queue.announce(ANNOUNCEMENT)
    queue.set_ready()
    assert client.connect().ready()
    assert client.peek(KEY) is None
    queue.close()


@pytest.mark.parametrize("error", [LayoutMismatch("of another version"), LayoutMismatch("not yet")], ids=str)
def test_hot_table_that_cannot_be_used(queue_name: str, error: ShmChannelError) -> None:
    """The cache is asked by commands all the same."""

    def open_hot_table(name: str) -> HotTableReader:
        assert name == queue_name
        raise error

    queue = MemoryQueue.create(queue_name)
    queue.announce(ANNOUNCEMENT)
    queue.set_ready()
    pool = memory_pool(1)
    client = ChannelClient(queue_name, pool, open_sender=MemorySender, open_hot_table=open_hot_table)
    assert client.connect().ready()
    assert client.peek(KEY) is None
    client.close()
    pool.close()
    queue.close()
