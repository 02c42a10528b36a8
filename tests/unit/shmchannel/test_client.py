"""The client's own parts. What it does together with a server is in tests/contract."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.client import ChannelClient
from shmchannel.deadline import Deadline
from shmchannel.errors import LimitReached, NameMissing
from shmchannel.testing import MemoryQueue, MemorySender
from tests.support.channels import memory_pool, unique_queue
from tests.support.waiting import WATCHDOG_S


@pytest.fixture
def queue_name() -> str:
    return unique_queue()


def test_one_sender_for_all(queue_name: str) -> None:
    opened: list[MemorySender] = []

    def open_sender(name: str) -> MemorySender:
        opened.append(MemorySender(name))
        return opened[-1]

    pool = memory_pool(1)
    client = ChannelClient(queue_name, pool, open_sender=open_sender)
    with pytest.raises(NameMissing):
        client.connect()
    for generation in (1, 2, 3, 4):
        queue = MemoryQueue.create(queue_name)
        queue.set_ready()
        with ThreadPoolExecutor(4) as threads:
            senders = set(threads.map(lambda _: client.connect(), range(20)))
        assert senders == {opened[-1]}
        assert len(opened) == generation
        assert client.connected
        queue.kill()
    assert [sender._mailbox is None for sender in opened] == [True, True, False, False], (
        "the last but one may be in use"
    )
    client.close()
    assert all(sender._mailbox is None for sender in opened)
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
