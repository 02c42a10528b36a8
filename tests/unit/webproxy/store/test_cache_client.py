"""CacheClient: whatever is wrong with the cache becomes CacheUnavailable, and its coming and going is told once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from tests.support.daemons import DaemonYard
from tests.support.pairs import Entry, MemoryPair
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import CacheUnavailable
from webproxy.store.cache_client import CacheClient
from webproxy.store.store import Missing


@pytest.fixture
def pool() -> Iterator[SegmentPool]:
    made = SegmentPool.create(2, 8192)
    yield made
    made.close()


@pytest.fixture
def client(yard: DaemonYard, pool: SegmentPool) -> Iterator[ChannelClient]:
    made = ChannelClient(yard.queue, pool, between_bytes_timeout_s=5.0)
    yield made
    made.close()


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    return folder


def lookup(link: CacheClient, deadline_s: float = WATCHDOG_S) -> bool:
    transfer = link.get(b"/a", Deadline.after(deadline_s))
    if isinstance(transfer, Missing):
        return False
    with transfer:
        transfer.finish()
    return True


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.message in ("cache not found", "cache lost", "cache found")
    ]


def test_an_absent_cache_is_unavailable_at_once_and_told_once(
    client: ChannelClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    link = CacheClient(client, patient=False)
    for _ in range(3):
        with pytest.raises(CacheUnavailable):
            lookup(link)
    assert link.unavailable_total == 3
    assert told(caplog) == ["cache not found"]


def test_a_patient_one_waits_up_to_its_deadline(client: ChannelClient) -> None:
    deadline = Deadline.after(0.3)
    with pytest.raises(CacheUnavailable):
        CacheClient(client, patient=True).get(b"/a", deadline)
    assert deadline.expired


def test_a_patient_one_is_served_by_a_cache_that_comes_meanwhile(
    yard: DaemonYard, client: ChannelClient, content: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    link = CacheClient(client, patient=True)
    with ThreadPoolExecutor(4) as crew:
        found = [crew.submit(lookup, link) for _ in range(4)]
        wait_until(lambda: told(caplog))
        yard.start_cache(content=content)
        assert all(one.result(WATCHDOG_S) for one in found)
    assert told(caplog)[0] == "cache not found"
    assert told(caplog)[-1] == "cache found"


def test_a_patient_one_stops_waiting_with_the_daemon(client: ChannelClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    link = CacheClient(client, patient=True)
    with ThreadPoolExecutor(1) as crew:
        waiting = crew.submit(lookup, link, 3600.0)
        wait_until(lambda: told(caplog))
        link.stop_waiting()
        with pytest.raises(CacheUnavailable):
            waiting.result(WATCHDOG_S)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_restarted_cache_is_used_at_once_also_without_patience(
    yard: DaemonYard, client: ChannelClient, content: Path, ending: str
) -> None:
    link = CacheClient(client, patient=False)
    for _ in range(3):
        cache = yard.start_cache(content=content)
        assert lookup(link)
        getattr(cache, ending)()
    with pytest.raises(CacheUnavailable):
        lookup(link)


def test_no_segment_in_time_is_unavailable(
    yard: DaemonYard, client: ChannelClient, pool: SegmentPool, content: Path
) -> None:
    yard.start_cache(content=content)
    link = CacheClient(client, patient=True)
    leases = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(2)]
    with pytest.raises(CacheUnavailable, match="became free"):
        lookup(link, 0.1)
    for lease in leases:
        lease.give_back()
    assert lookup(link)


def test_a_part_a_version_and_the_metadata_are_asked_for_as_they_were_wanted() -> None:
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        pair.cache.entries[b"/a"] = Entry(b"abcdef", b"metadata", 3)
        link = CacheClient(pair.client, patient=False)
        with link.get(
            b"/a", Deadline.after(WATCHDOG_S), offset=2, length=3, version=3, metadata_wanted=True
        ) as transfer:
            assert transfer.found
            assert bytes(transfer.chunk) == b"cde"
            assert transfer.metadata == b"metadata"
            transfer.finish()
        assert link.get(b"/a", Deadline.after(WATCHDOG_S), version=4) == Missing(nothing_below=True)
        with link.get(b"/a", Deadline.after(WATCHDOG_S)) as transfer:
            assert (bytes(transfer.chunk), transfer.metadata) == (b"abcdef", b"")
            transfer.finish()
        assert pair.is_whole()
