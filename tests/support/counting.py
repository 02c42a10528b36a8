"""A proxy's daemon before a cache of the test's own process, which notes what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import time

from shmchannel.deadline import Deadline
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.objects.commands import Command
from shmchannel.objects.server import ChannelServer
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.transfer import TransferState
from shmchannel.workers import WorkerPool
from simplecached.serving.handler import CacheHandler
from simplecached.stores.memory_store import MemoryStore
from tests.http.client import Reply
from tests.support.client import Answer
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import encode
from webproxy.http.fields import Fields
from workloads.origin_stub import OriginStub, Route

STORE_BYTES = 1 << 28


class CountingHandler(CacheHandler):
    """The cache's own handler, which notes what it is asked."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(None, store, lookup_delay_s=0.0, between_bytes_timeout_s=WATCHDOG_S)
        self.seen: list[tuple[str, bytes]] = []
        self.paused: list[bytes] = []

    def get(self, command: Command, writer: ChunkWriter) -> TransferState:
        self._note(command)
        state = super().get(command, writer)
        if writer.paused:
            self.paused.append(command.key)
        return state

    def put(self, command: Command, reader: ChunkReader) -> None:
        self._note(command)
        super().put(command, reader)

    def update(self, command: Command, reader: ChunkReader) -> None:
        self._note(command)
        super().update(command, reader)

    def purge(self, command: Command) -> int:
        self._note(command)
        return super().purge(command)

    def _note(self, command: Command) -> None:
        self.seen.append((command.kind.name, command.key))


class CountedPair:
    """The proxy's daemon, and what its cache holds and was asked."""

    def __init__(self, handler: CountingHandler, store: MemoryStore, origin: OriginStub, port: int) -> None:
        self.handler = handler
        self.store = store
        self.origin = origin
        self.port = port

    def has(self, key: bytes) -> bool:
        """Whether the object is stored: its fill ends after its client has the last byte."""
        return any(entry.key == key for entry in self.store.records())

    def hold(self, path: str, body: bytes, *, lifetime_s: int = 600) -> None:
        """Have an object stored, with the ETag "1", which the origin confirms when it is asked."""
        now = time()
        etag = b'"1"'
        stored = StoredResponse(
            status=200,
            fields=Fields([(b"ETag", etag)]),
            request_time=now,
            response_time=now,
            initial_age_s=0,
            lifetime_s=lifetime_s,
            body_bytes=len(body),
        )
        self.origin.add(path, [Route(body=body, headers={"ETag": etag.decode(), "Cache-Control": "max-age=600"})])
        writer = self.store.begin(path.encode(), len(body), encode(stored))
        writer.write(memoryview(body))
        writer.commit()

    def commands(self, act: Callable[[], Reply | Answer], until: Callable[[], bool] = lambda: True) -> list[str]:
        """The kinds of the commands that an act costs, until its end."""
        self.handler.seen.clear()
        act()
        wait_until(until)
        return [kind for kind, _ in self.handler.seen]


@contextmanager
def counted_pair(directory: Path, *arguments: str) -> Iterator[CountedPair]:
    """`arguments` are the proxy's."""
    with ExitStack() as resources:
        yard = resources.enter_context(DaemonYard(directory))
        queue = CommandQueue.create(yard.queue)
        resources.callback(queue.close)
        store = MemoryStore(STORE_BYTES)
        resources.callback(store.close)
        handler = CountingHandler(store)
        resources.callback(handler.close)
        server = ChannelServer(queue, handler, between_bytes_timeout_s=WATCHDOG_S, puts_at_once=2)
        resources.callback(server.close)
        workers = WorkerPool("cache", 4, lambda _index: _serve(server))
        workers.start()

        def stop() -> None:
            workers.request_stop()
            assert not workers.join(Deadline.after(WATCHDOG_S))

        resources.callback(stop)
        queue.set_ready()
        origin = resources.enter_context(OriginStub({}))
        env = {"WEBPROXY_PURGE_NETWORKS": "127.0.0.0/8"}
        proxy = yard.start_proxy("-s", origin.url, "-t", "4", *arguments, env=env)
        yield CountedPair(handler, store, origin, proxy.port)
        proxy.stop()


def _serve(server: ChannelServer) -> None:
    server.serve_one(0.02)
