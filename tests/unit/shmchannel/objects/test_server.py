"""The server's own parts; client and server together are tested in tests/contract."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, monotonic_ns

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects import server as server_module
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import Command, CommandKind, encode
from shmchannel.objects.server import BETWEEN_BYTES_TIMEOUT_SECONDS, LOG_INTERVAL_NS, ChannelServer
from shmchannel.process.identity import own_identity
from shmchannel.streams import admission
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import ERROR, FAILED, LAST, SegmentRef
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import TransferState
from shmchannel.sync.semaphore import PeerLiveness
from shmchannel.testing import ManualPeer, MemoryAttachments, MemoryQueue, MemorySegment, MemorySender
from shmchannel.workers import WorkerPool
from tests.support.channels import memory_pool, unique_queue
from tests.support.pairs import DictCache
from tests.support.waiting import WATCHDOG_S, wait_until


def test_complaints_are_logged_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken proxy must not fill the disk."""
    queue = MemoryQueue.create(unique_queue())
    queue.set_ready()
    sender = MemorySender(queue.name)
    server = ChannelServer(queue, DictCache(), attachments=MemoryAttachments())

    def send_malformed(count: int) -> None:
        for _ in range(count):
            sender.send(b"nonsense", 1, Deadline.after(WATCHDOG_S))
            assert server.serve_one(WATCHDOG_S)

    with caplog.at_level(logging.WARNING, "shmchannel.objects.server"):
        send_malformed(5)
        assert len(caplog.records) == 1
        later = monotonic_ns() + LOG_INTERVAL_NS
        monkeypatch.setattr(server_module, "monotonic_ns", lambda: later)
        send_malformed(1)
        assert len(caplog.records) == 2
    assert server.stats().malformed_total == 6
    assert caplog.records[1].malformed == 6  # type: ignore[attr-defined]
    server.close()
    queue.close()


def test_nothing_to_serve() -> None:
    queue = MemoryQueue.create(unique_queue())
    server = ChannelServer(queue, DictCache(), attachments=MemoryAttachments())
    assert not server.serve_one(0.0)
    stats = server.stats()
    assert (stats.served_total, stats.malformed_total, stats.expired_total, stats.broken_total) == (0, 0, 0, 0)
    server.close()
    server.close()
    queue.close()


# -- PUTs take turns --------------------------------------------------------------------------------------------------
_NUMBERS = itertools.count()


class HoldingCache(DictCache):
    """Serves a PUT when the test says so; fails for the key /bad."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[bytes] = []
        self.go_on = threading.Event()

    def put(self, command: Command, reader: ChunkReader) -> None:
        self.begun.append(command.key)
        assert self.go_on.wait(WATCHDOG_S)
        if command.key == b"/bad":
            raise RuntimeError("of the test's")
        reader.refuse()


def put_of(key: bytes, *, deadline_ns: int = 0) -> bytes:
    refs = (SegmentRef(b"gf-1-00000001-0", 1, 4096),)
    return encode(Command(CommandKind.PUT, key, refs, deadline_ns, length=1))


@pytest.fixture
def holding() -> Iterator[tuple[ChannelServer, HoldingCache]]:
    queue, cache = MemoryQueue.create(unique_queue()), HoldingCache()
    server = ChannelServer(queue, cache, attachments=OneSegment())
    yield server, cache
    cache.go_on.set()
    server.close()
    queue.close()


class OneSegment(MemoryAttachments):
    """All that is asked for is one and the same segment, in which each proxy has given its object up."""

    def __init__(self) -> None:
        self.proxy = ManualPeer()
        super().__init__(self.proxy)
        self.segment = MemorySegment.create(f"gf-{os.getpid()}-00000001-{next(_NUMBERS)}", 4096, own_identity())

    def take(self, refs: Sequence[SegmentRef]) -> tuple[list[Segment], PeerLiveness]:
        self.segment.header.write_chunk(FAILED, 0, 0, LAST | ERROR)
        self.segment.data_available.post()
        return [self.segment], self.proxy

    def put_back(self, segments: Sequence[Segment]) -> None:
        """It stays."""

    def drop(self, segments: Sequence[Segment]) -> None:
        """It stays."""

    def close(self) -> None:
        self.segment.unlink()
        self.segment.close()


def test_puts_wait_without_a_worker(holding: tuple[ChannelServer, HoldingCache]) -> None:
    server, cache = holding
    with ThreadPoolExecutor(1) as crew:
        first = crew.submit(server.serve, put_of(b"/1"))
        wait_until(lambda: cache.begun)
        for key in (b"/bad", b"/2", b"/3"):
            server.serve(put_of(key))  # comes back at once
        assert cache.begun == [b"/1"]
        cache.go_on.set()
        first.result(WATCHDOG_S)
    assert cache.begun == [b"/1", b"/bad", b"/2", b"/3"], "by the one worker, also behind one that failed"
    server.serve(put_of(b"/4"))
    assert cache.begun[-1] == b"/4"
    assert (server.stats().served_total, server.stats().failed_total) == (4, 1)


def test_a_put_whose_time_is_over_is_not_served(
    holding: tuple[ChannelServer, HoldingCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, cache = holding
    monkeypatch.setattr(server_module, "PUTS_WAITING_MAX", 2)
    with ThreadPoolExecutor(1) as crew:
        first = crew.submit(server.serve, put_of(b"/1"))
        wait_until(lambda: cache.begun)
        server.serve(put_of(b"/late", deadline_ns=monotonic_ns() + 1))
        server.serve(put_of(b"/2"))
        server.serve(put_of(b"/one too many"))
        assert server.stats().expired_total == 1
        cache.go_on.set()
        first.result(WATCHDOG_S)
        assert cache.begun == [b"/1", b"/2"]
        assert server.stats().expired_total == 2
        cache.go_on.clear()
        again = crew.submit(server.serve, put_of(b"/1"))
        wait_until(lambda: len(cache.begun) == 3)
        server.serve(put_of(b"/2"))
        later = monotonic() + BETWEEN_BYTES_TIMEOUT_SECONDS
        monkeypatch.setattr(admission, "monotonic", lambda: later)
        server.sweep()
        assert server.stats().expired_total == 3
        cache.go_on.set()
        again.result(WATCHDOG_S)
    assert cache.begun == [b"/1", b"/2", b"/1"]


def test_the_end_of_each_command_is_told() -> None:
    """With its kind and what became of it; the time that it took, if it was begun."""
    ends: list[tuple[CommandKind | None, str, bool]] = []
    queue = MemoryQueue.create(unique_queue())
    queue.set_ready()
    sender = MemorySender(queue.name)
    server = ChannelServer(
        queue,
        DictCache(),
        attachments=MemoryAttachments(),
        on_end=lambda kind, result, took_ns: ends.append((kind, result, took_ns > 0)),
    )
    gone = (SegmentRef(b"/gf-1-00000000-0", 1, 4096),)
    expired = Command(kind=CommandKind.GET, key=b"/x", segments=gone, deadline_ns=1)
    broken = Command(kind=CommandKind.PUT, key=b"/x", segments=gone)
    for message in (b"nonsense", encode(expired), encode(broken)):
        sender.send(message, 1, Deadline.after(WATCHDOG_S))
        assert server.serve_one(WATCHDOG_S)
    assert ends == [(None, "malformed", False), (CommandKind.GET, "expired", True), (CommandKind.PUT, "broken", True)]
    server.close()
    queue.close()


# -- what its log lines are about -------------------------------------------------------------------------------------
def test_a_command_is_served_within_what_it_belongs_to() -> None:
    """Also one that has expired before it was looked at; nothing else is."""
    within: list[bytes] = []
    asked: list[bytes] = []

    @contextmanager
    def about(trace_id: bytes) -> Iterator[None]:
        within.append(trace_id)
        yield
        within.pop()

    class Asked(DictCache):
        def get(self, command: Command, writer: ChunkWriter) -> TransferState:
            asked.extend(within)
            return super().get(command, writer)

    queue = MemoryQueue.create(unique_queue())
    queue.set_ready()
    pool = memory_pool(1)
    server = ChannelServer(queue, Asked(), attachments=MemoryAttachments(), about=about)
    names = iter((b"a-1", b"a-name-of-more-than-16-bytes", b""))
    client = ChannelClient(queue.name, pool, open_sender=MemorySender, subject=lambda: next(names))
    threads = WorkerPool("cache", 1, lambda _index: server.serve_one(0.1))
    threads.start()
    for _ in range(3):
        with client.get(b"/nothing", Deadline.after(WATCHDOG_S)) as transfer:
            transfer.finish()
    threads.request_stop()
    assert not threads.join(Deadline.after(WATCHDOG_S))
    assert asked[:2] == [b"a-1".ljust(16, b"\0"), b"re-than-16-bytes"]
    assert asked[2].startswith(b"\0"), "no word"
    assert within == []
    for owned in (client, server, pool, queue):
        owned.close()
