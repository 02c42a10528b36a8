"""A whole pair in one process: pool and client as a proxy has them, queue, server and workers as a cache has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, cast

from shmchannel.deadline import Deadline
from shmchannel.messages.posix_queue import CommandQueue, CommandSender, MessageQueue, MessageSender
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import BELOW, INVALIDATE, METADATA_WANTED, PREFIX, Command
from shmchannel.objects.server import ChannelServer, Handler
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.naming import pool_guard_path, queue_guard_path
from shmchannel.process.reaper import unlink_queue
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import ObjectFacts
from shmchannel.streams.pool import WAITERS_MAX, SegmentPool
from shmchannel.streams.transfer import TransferState
from shmchannel.testing import ManualPeer, MemoryAttachments, MemoryQueue, MemorySender
from shmchannel.workers import WorkerPool
from tests.support.channels import SEGMENT_BYTES, memory_pool, reading, unique_queue
from tests.support.holders import free_lock
from tests.support.waiting import WATCHDOG_S


class Entry(NamedTuple):
    """One object of a DictCache."""

    body: bytes
    metadata: bytes = b""
    version: int = 1
    invalidated: bool = False


class DictCache(Handler):
    """A handler over a dictionary; refuses objects longer than `longest` when it has seen their first chunk."""

    def __init__(self, longest: int = 1 << 30) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.longest = longest
        self.commands: list[Command] = []
        self.hold = threading.Event()
        self.hold.set()

    def get(self, command: Command, writer: ChunkWriter) -> TransferState | None:
        """Answer from the dictionary."""
        self.commands.append(command)
        self.hold.wait(WATCHDOG_S)
        entry = self.entries.get(command.key)
        if entry is None or command.version not in (0, entry.version):
            below = command.key + b"\0"
            writer.refuse(flagged=not any(key.startswith(below) for key in self.entries))
            return writer.state
        size = len(entry.body)
        metadata = entry.metadata if command.flags & METADATA_WANTED else b""
        start, end = command.range_in(size)
        writer.begin(ObjectFacts(size, entry.version, len(metadata)))
        return writer.send(reading(entry.body), start, end, metadata, flagged=entry.invalidated)

    def put(self, command: Command, reader: ChunkReader) -> None:
        """Keep the object when all of it came."""
        self.commands.append(command)
        reader.begin(Deadline.after(WATCHDOG_S), preamble_wanted=True)
        body = bytes(reader.chunk)
        if reader.facts.size_bytes > self.longest:
            reader.refuse()
            return
        while not reader.last:
            reader.advance()
            body += bytes(reader.chunk)
        if reader.state is not TransferState.COMPLETE:
            reader.refuse()
            return
        self.entries[command.key] = Entry(body, reader.preamble, len(self.entries) + 1)
        reader.finish()

    def update(self, command: Command, reader: ChunkReader) -> None:
        """Replace the metadata of an object of that version when all of it came."""
        self.commands.append(command)
        reader.begin(Deadline.after(WATCHDOG_S), preamble_wanted=True)
        entry = self.entries.get(command.key)
        known = entry is not None and command.version in (0, entry.version)
        if entry is not None and known and reader.state is TransferState.COMPLETE:
            self.entries[command.key] = entry._replace(metadata=reader.preamble, invalidated=False)
            reader.finish()
        else:
            reader.refuse()

    def purge(self, command: Command) -> int:
        """Remove one, or all that begin with the key, or one with all below it, or invalidate them."""
        self.commands.append(command)
        prefix = command.key if command.flags & PREFIX else command.key + b"\0"
        several = command.flags & (PREFIX | BELOW)
        gone = [key for key in self.entries if key == command.key or (several and key.startswith(prefix))]
        for key in gone:
            entry = self.entries.pop(key)
            if command.flags & INVALIDATE and entry.metadata:
                self.entries[key] = entry._replace(invalidated=True)
        return len(gone)


class _Relay:
    """A handler that passes everything on to the one that the pair has at that moment."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair.handler, name)


class Pair:
    """Both daemons' ends; `workers` 0 leaves it to the test to call serve().

    The cache answers by `handler`, at first `cache`, a DictCache; a test may put another one there at any time.
    """

    pool: SegmentPool
    queue: MessageQueue
    server: ChannelServer
    client: ChannelClient

    def __init__(
        self,
        *,
        segments: int = 4,
        segments_per_transfer_max: int = 4,
        workers: int = 2,
        between_bytes_timeout_s: float = WATCHDOG_S,
        segment_bytes: int = SEGMENT_BYTES,
        handler: Handler | None = None,
        waiters_max: int = WAITERS_MAX,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        self.cache = DictCache()
        self.handler: Handler = handler or self.cache
        self.queue_name = unique_queue()
        self._resources = ExitStack()
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._workers = workers
        self._count, self._bytes, self._waiters_max = segments, segment_bytes, waiters_max
        self._segments_per_transfer_max = segments_per_transfer_max
        self._on_step = on_step
        with self._resources as undo:
            undo.callback(self._remove_what_the_dead_left)
            self._open_proxy()
            self.start_cache()
            self._resources = undo.pop_all()

    def _open_proxy(self) -> None:
        self.pool = SegmentPool.create(
            self._count,
            self._bytes,
            segments_per_transfer_max=self._segments_per_transfer_max,
            waiters_max=self._waiters_max,
        )
        self._resources.callback(self.pool.close)
        self._open_client(CommandSender)

    def _open_client(self, open_sender: Callable[[str], MessageSender]) -> None:
        self.client = ChannelClient(
            self.queue_name,
            self.pool,
            between_bytes_timeout_s=self._between_bytes_timeout_s,
            on_step=self._on_step,
            open_sender=open_sender,
        )
        self._resources.callback(self.client.close)

    def _open_cache(self) -> None:
        self.queue = queue = CommandQueue.create(self.queue_name)
        self._resources.callback(queue.close)
        self.server = ChannelServer(
            self.queue, cast(Handler, _Relay(self)), between_bytes_timeout_s=self._between_bytes_timeout_s
        )

    def start_cache(self) -> None:
        """A cache comes to life, the first or the heir of a dead one."""
        self._open_cache()
        self._resources.callback(self.server.close)
        self.queue.set_ready()
        # The threads of this cache serve its server only, whatever comes after it.
        threads = WorkerPool("cache", self._workers, partial(_serve, self.server))
        threads.start()
        self._threads = threads
        self._resources.callback(self._stop, threads)

    def _stop(self, threads: WorkerPool) -> None:
        self.cache.hold.set()
        threads.request_stop()
        assert not threads.join(Deadline.after(WATCHDOG_S))

    def kill_cache(self) -> None:
        """End it as SIGKILL does; its threads go on for what a test wants to see."""
        free_lock(queue_guard_path(self.queue_name))

    def start_heir(self) -> None:
        """A new cache takes the name over from a killed one."""
        self._stop(self._threads)
        self.start_cache()

    def kill_proxy(self) -> None:
        """End it as SIGKILL does; what the test does with its pool from now on stands for what never happens."""
        free_lock(pool_guard_path(self.pool.name))

    def _remove_what_the_dead_left(self) -> None:
        for path in (queue_guard_path(self.queue_name), pool_guard_path(self.pool.name)):
            ProcessGuard.acquire(path).close()
        unlink_queue(self.queue_name)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *error: object) -> None:
        self._resources.close()

    def is_whole(self) -> bool:
        """Whether every segment is back in the pool."""
        stats = self.pool.stats()
        return stats.segments_total == self._count and not stats.segments_leased and not self.pool.promised

    def fetch(self, key: bytes, *, offset: int = 0, length: int = 0) -> bytes | None:
        """The body, or None for a miss."""
        with self.client.get(key, Deadline.after(WATCHDOG_S), offset=offset, length=length) as transfer:
            return body_of_transfer(transfer)

    def store(self, key: bytes, body: bytes, metadata: bytes = b"") -> bool:
        """Fill the cache; whether it kept the object."""
        deadline = Deadline.after(WATCHDOG_S)
        with self.client.put(key, len(body), metadata, self.pool.lease(deadline), deadline) as transfer:
            transfer.pump(reading(body), len(body), wait=True)
            return transfer.commit()


class MemoryPair(Pair):
    """The same over the fakes."""

    def _open_proxy(self) -> None:
        self.proxy_life = ManualPeer("the proxy")
        self.pool = memory_pool(
            self._count,
            self._bytes,
            segments_per_transfer_max=self._segments_per_transfer_max,
            waiters_max=self._waiters_max,
        )
        self._resources.callback(self.pool.close)
        self._open_client(MemorySender)

    def _open_cache(self) -> None:
        self.queue = MemoryQueue.create(self.queue_name)
        self._resources.callback(self.queue.close)
        self.server = ChannelServer(
            self.queue,
            cast(Handler, _Relay(self)),
            between_bytes_timeout_s=self._between_bytes_timeout_s,
            attachments=MemoryAttachments(self.proxy_life),
        )

    def kill_cache(self) -> None:
        """The fake has a verb for it."""
        assert isinstance(self.queue, MemoryQueue)
        self.queue.kill()

    def kill_proxy(self) -> None:
        """The fake has a verb for it."""
        self.proxy_life.end()


def body_of_transfer(transfer: IncomingTransfer) -> bytes | None:
    """The body to the clean end, or None for a miss."""
    body = bytes(transfer.chunk)
    while not transfer.last:
        transfer.advance()
        body += bytes(transfer.chunk)
    transfer.finish()
    return body if transfer.found else None


def _serve(server: ChannelServer, _index: int) -> None:
    server.serve_one(0.02)
