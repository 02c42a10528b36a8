"""SIGKILL and SIGSTOP in mid-UPDATE: metadata and validity are the old or the new ones, and the body is served on."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, PeerGone
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from tests.faults.harness import assert_ends_well, assert_forgets
from tests.support import names
from tests.support.channels import in_thread, reading
from tests.support.daemons import DaemonYard
from tests.support.stores import PROJECT, rows_written
from tests.support.waiting import WATCHDOG_S, wait_until

KEY, BODY, OLD, NEW = b"/key", b"body", b"old", b"new" * 1000

# A proxy that updates the key and dies: before the metadata, between two chunks of it, or behind the last one.
SCRIPT = """
    import os, signal, sys
    from shmchannel.objects.client import ChannelClient
    from shmchannel.streams.chunk_writer import ChunkWriter
    from shmchannel.deadline import Deadline
    from shmchannel.streams.pool import SegmentPool

    queue, chunks = sys.argv[1], int(sys.argv[2])
    post = ChunkWriter.post
    def post_or_die(writer, *chunk):
        if writer.posted == chunks:
            print(pool.name, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        post(writer, *chunk)
    ChunkWriter.post = post_or_die
    pool = SegmentPool.create(1, 1384)
    ChannelClient(queue, pool).update(b"/key", 0, b"new" * 1000, Deadline.after(30))
"""


@contextmanager
def client_of(queue: str) -> Iterator[ChannelClient]:
    """A proxy's end in this process."""
    pool = SegmentPool.create(4, 4096)
    client = ChannelClient(queue, pool)
    try:
        yield client
    finally:
        client.close()
        pool.close()


def store_invalidated(client: ChannelClient) -> None:
    """The object with its old metadata, and invalidated."""

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        views[0][:] = BODY
        return len(BODY)

    deadline = Deadline.after(WATCHDOG_S)
    with client.put(KEY, len(BODY), OLD, client.pool.lease(deadline, 1), deadline) as transfer:
        transfer.pump(read_into, len(BODY), wait=True)
        assert transfer.commit()
    assert client.purge(KEY, deadline, invalidate=True) == 1


def found(client: ChannelClient) -> tuple[bytes, bytes, bool]:
    """Body, metadata, and whether it is invalidated."""
    with client.get(KEY, Deadline.after(WATCHDOG_S), metadata_wanted=True) as transfer:
        answer = bytes(transfer.chunk), transfer.metadata, transfer.invalidated
        transfer.finish()
        return answer


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    return ("--store", str(tmp_path / "store")) if request.param == "directory" else ()


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_proxy_dies_in_an_update(yard: DaemonYard, store: tuple[str, ...], chunks: int) -> None:
    """A body of 3,000 bytes goes in three chunks of metadata; the empty last one is never posted."""
    cache = yard.start_cache(*store)
    with client_of(yard.queue) as client:
        store_invalidated(client)
        pool_name = killed_proxy(yard.queue, chunks)
        assert_forgets(cache, pool_name)
        assert found(client) == (BODY, OLD, True)
        assert client.update(KEY, 0, NEW, Deadline.after(WATCHDOG_S))
        assert found(client) == (BODY, NEW, False)
    assert_ends_well(cache)


def killed_proxy(queue: str, chunks: int) -> str:
    """Run the script to its death; returns the name of its pool, whose names are removed."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), queue, str(chunks)], cwd=PROJECT, stdout=subprocess.PIPE
    )
    output, _ = process.communicate(timeout=WATCHDOG_S)
    assert process.returncode == -signal.SIGKILL
    names.remove(names.names_of({process.pid}))  # unless a daemon that has started since has swept them
    names.note_ended(process.pid)
    return output.decode().strip()


@pytest.mark.parametrize(
    "change",
    [
        lambda client, deadline: client.update(KEY, 0, NEW, deadline),
        lambda client, deadline: client.purge(KEY, deadline),
        lambda client, deadline: client.purge(KEY, deadline, invalidate=True),
    ],
    ids=["update", "purge", "invalidate"],
)
def test_cache_dies_when_it_withdraws_an_object(
    yard: DaemonYard, tmp_path: Path, change: Callable[[ChannelClient, Deadline], object]
) -> None:
    """From the hot table, where proxies see nothing of it from then on; it was not acknowledged, and may be undone."""
    flags = ("--store", str(tmp_path / "store"))
    hot = {"SIMPLECACHED_HOT_TABLE_BYTES": "1m"}
    cache = yard.start_cache(*flags, env={"GFCACHE_FAULT": "cache.withdrawing", **hot})
    with client_of(yard.queue) as client:
        deadline = Deadline.after(WATCHDOG_S)
        store_valid(client)
        wait_until(lambda: rows_written(flags[1]) == 1, what="the object survives a kill")
        entry = client.peek(KEY)
        assert entry is not None
        watch = client.watch(KEY, entry)
        assert watch is not None
        with pytest.raises(PeerGone):
            change(client, deadline)
        assert cache.wait_exit() == -signal.SIGKILL
        assert not watch.holds()
        assert client.peek(KEY) is None
        successor = yard.start_cache(*flags, env=hot)
        assert client.peek(KEY) is None
        body, metadata, _ = found(client)
        assert (body, metadata in (OLD, NEW)) == (BODY, True)
        assert client.purge(KEY, Deadline.after(WATCHDOG_S)) == 1
        assert client.peek(KEY) is None
    assert_ends_well(successor)


def store_valid(client: ChannelClient) -> None:
    """The object with its old metadata."""
    deadline = Deadline.after(WATCHDOG_S)
    with client.put(KEY, len(BODY), OLD, client.pool.lease(deadline, 1), deadline) as transfer:
        transfer.pump(reading(BODY), len(BODY), wait=True)
        assert transfer.commit()


def test_cache_stops_when_it_withdraws_an_object(yard: DaemonYard) -> None:
    """It is off the hot table before; all others are served from there while the cache stands still."""
    cache = yard.start_cache(env={"GFCACHE_FAULT": "cache.withdrawing:1:stop", "SIMPLECACHED_HOT_TABLE_BYTES": "1m"})
    with client_of(yard.queue) as client:
        store_valid(client)
        assert client.peek(KEY) is not None
        with in_thread(lambda: client.purge(KEY, Deadline.after(WATCHDOG_S))) as purge:
            wait_until(cache.is_stopped, what="the cache has come to its point")
            assert client.peek(KEY) is None
            cache.signal(signal.SIGCONT)
            assert purge.result() == 1
        assert client.peek(KEY) is None
    assert_ends_well(cache)


def test_cache_dies_in_an_update(yard: DaemonYard, tmp_path: Path) -> None:
    flags = ("--store", str(tmp_path / "store"))
    cache = yard.start_cache(*flags, env={"GFCACHE_FAULT": "cache.update_uncommitted"})
    with client_of(yard.queue) as client:
        store_invalidated(client)
        wait_until(lambda: rows_written(flags[1]) == 1, what="the object survives a kill")
        with pytest.raises(PeerGone):
            client.update(KEY, 0, NEW, Deadline.after(WATCHDOG_S))
        assert cache.wait_exit() == -signal.SIGKILL
        successor = yard.start_cache(*flags)
        assert names.names_of({cache.pid}) == []
        wait_until(lambda: client.connected, what="the next cache")
        assert found(client) == (BODY, OLD, True)
        assert client.update(KEY, 0, NEW, Deadline.after(WATCHDOG_S))
        successor.kill()
        third = yard.start_cache(*flags)
        wait_until(lambda: client.connected, what="the next cache")
        assert found(client) == (BODY, NEW, False), "what was acknowledged is kept"
    assert_ends_well(third)


def test_late_cache_in_an_update(yard: DaemonYard, store: tuple[str, ...]) -> None:
    """Its proxy does not know the result: the cache may still apply the whole update once it is continued."""
    cache = yard.start_cache(*store, env={"GFCACHE_FAULT": "cache.update_uncommitted:1:stop"})
    with client_of(yard.queue) as client:
        store_invalidated(client)
        with pytest.raises(ChannelTimeout):
            client.update(KEY, 0, NEW, Deadline.after(2.0))
        wait_until(cache.is_stopped, what="the cache has come to its point")
        cache.signal(signal.SIGCONT)
        assert found(client) in [(BODY, OLD, True), (BODY, NEW, False)]
        assert client.update(KEY, 0, NEW + b"er", Deadline.after(WATCHDOG_S))
        assert found(client) == (BODY, NEW + b"er", False)
    assert_ends_well(cache)
