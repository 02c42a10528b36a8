"""A cache that comes to its limit of descriptors: objects and idle files make way, and every command is answered."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from tests.faults.harness import assert_ends_well
from tests.support.channels import reading
from tests.support.daemons import DaemonYard
from tests.support.pairs import body_of_transfer
from tests.support.programs import require_program
from tests.support.waiting import WATCHDOG_S

FILES = 300
"""More than a cache keeps open."""


@pytest.fixture
def content(tmp_path: Path) -> Path:
    directory = tmp_path / "content"
    directory.mkdir()
    for number in range(FILES):
        (directory / str(number)).write_bytes(b"file %d" % number)
    return directory


def limited(limit: int) -> tuple[str, ...]:
    """The words that become a program with so many descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < limit:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    return (require_program("prlimit"), f"--nofile={limit}:{limit}")


class Proxy:
    """One end of the channel, as a proxy has it."""

    def __init__(self, client: ChannelClient, pool: SegmentPool) -> None:
        self._client = client
        self._pool = pool

    def store(self, key: bytes, body: bytes) -> bool:
        """Whether the cache kept it."""
        deadline = Deadline.after(WATCHDOG_S)
        with self._client.put(key, len(body), b"", self._pool.lease(deadline, 1), deadline) as transfer:
            transfer.pump(reading(body), len(body), wait=True)
            return transfer.commit()

    def fetch(self, key: bytes) -> bytes | None:
        """The body, or None for a miss."""
        with self._client.get(key, Deadline.after(WATCHDOG_S)) as transfer:
            return body_of_transfer(transfer)


@contextmanager
def proxy_of(yard: DaemonYard) -> Iterator[Proxy]:
    """A proxy whose segments the cache has not seen yet."""
    pool = SegmentPool.create(4, 8192)
    client = ChannelClient(yard.queue, pool)
    try:
        yield Proxy(client, pool)
    finally:
        client.close()
        pool.close()


def fill_and_look(yard: DaemonYard, count: int) -> None:
    """Have the cache open all its files and take so many objects; it answers who comes then."""
    with proxy_of(yard) as proxy:
        for number in range(FILES):
            assert proxy.fetch(b"/%d" % number) == b"file %d" % number
        assert all(proxy.store(b"/o%d" % number, b"object %d" % number) for number in range(count))
        with proxy_of(yard) as newcomer:
            assert newcomer.fetch(b"/o%d" % (count - 1)) == b"object %d" % (count - 1)
            assert newcomer.fetch(b"/0") == b"file 0"
            assert newcomer.store(b"/new", b"new")
        assert proxy.fetch(b"/new") == b"new"


def test_files_and_objects_together_stay_below_the_limit(content: Path, yard: DaemonYard) -> None:
    """The oldest objects leave for the youngest, and that before the limit is felt."""
    cache = yard.start_cache(content=content, wrap=limited(2048))
    fill_and_look(yard, 2000)
    assert cache.descriptor_count() < 2048
    assert not cache.events("few descriptors")
    assert not cache.events("out of descriptors")
    assert 0 < cache.events("ready")[-1]["objects_max"] < 2048 - 256
    assert_ends_well(cache)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_limit_that_is_too_low_for_all(in_memory: bool, content: Path, tmp_path: Path, yard: DaemonYard) -> None:
    store = "memory" if in_memory else str(tmp_path / "store")
    cache = yard.start_cache("--store", store, content=content, wrap=limited(64))
    (event,) = cache.events("few descriptors")
    assert event["limit"] == 64
    fill_and_look(yard, 200)
    assert cache.descriptor_count() <= 64
    assert_ends_well(cache)


def test_a_limit_that_was_lowered(yard: DaemonYard) -> None:
    """Descriptors that stored objects hold are freed for requests and for newer objects."""
    cache = yard.start_cache()
    with proxy_of(yard) as proxy:
        assert all(proxy.store(b"/o%d" % number, b"object") for number in range(200))
        resource.prlimit(cache.pid, resource.RLIMIT_NOFILE, (100, 100))
        with proxy_of(yard) as newcomer:
            assert newcomer.fetch(b"/o199") == b"object"
            assert all(newcomer.store(b"/n%d" % number, b"new") for number in range(50))
            assert newcomer.fetch(b"/n49") == b"new"
        assert proxy.fetch(b"/o199") == b"object"
        assert proxy.fetch(b"/o0") is None
    assert len(cache.events("out of descriptors")) == 1, "once a minute"
    assert not cache.events("object not stored")
    assert_ends_well(cache)
