"""ChannelServer: the cache's end. Receives commands, maps the segments they name, and lets a handler answer.

The kernel's queue is the waiting line: it ranks by priority, is bounded, and wakes exactly one of the workers that wait
in receive(). So the worker that receives is the boss of that moment, and no command makes a hop between threads.

A PUT lasts as long as its proxy takes to have the body, so only some workers serve them at a time: whoever has served
one takes the next of those that wait. The others are there for whoever asks for an object.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from time import monotonic_ns
from typing import Protocol

from shmchannel import faults
from shmchannel.errors import CommandError, ShmChannelError
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.objects.commands import Command, CommandKind, decode
from shmchannel.process.identity import own_identity
from shmchannel.stats import ServerStats
from shmchannel.streams.admission import Admission, Ticket
from shmchannel.streams.attachments import AttachmentTable
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.transfer import TransferState

log = logging.getLogger(__name__)

STALL_SECONDS = 30.0
_GET, _PUT, _UPDATE = CommandKind.GET, CommandKind.PUT, CommandKind.UPDATE
LOG_INTERVAL_NS = 60_000_000_000
PUTS_WAITING_MAX = 1024


class Handler(Protocol):
    """What a cache does with commands; called by many threads."""

    def get(self, command: Command, writer: ChunkWriter) -> TransferState:
        """Answer a GET through the writer."""
        ...

    def put(self, command: Command, reader: ChunkReader) -> None:
        """Take an object from the reader, commit it, and answer its terminal chunk (reader.finish)."""
        ...

    def update(self, command: Command, reader: ChunkReader) -> None:
        """Take an object's new metadata from the reader and answer its terminal chunk (reader.finish)."""
        ...

    def purge(self, command: Command) -> int:
        """Remove objects, or mark them; returns how many there were."""
        ...


class _Counter:
    """A count of one kind of event, added to by many threads."""

    __slots__ = ("_lock", "total")

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, count: int = 1) -> None:
        with self._lock:
            self.total += count


class ChannelServer:
    """Serves one command at a time for each thread that calls serve_one()."""

    def __init__(
        self,
        queue: CommandQueue,
        handler: Handler,
        *,
        stall_s: float = STALL_SECONDS,
        puts_at_once: int = 1,
        attachments: AttachmentTable | None = None,
    ) -> None:
        """`puts_at_once`: fewer than there are threads, so that PUTs never hold all of them."""
        self._queue = queue
        self._handler = handler
        self._stall_s = stall_s
        self._identity = own_identity()
        self._attachments = attachments or AttachmentTable()
        self._malformed, self._expired, self._broken = _Counter(), _Counter(), _Counter()
        self._puts = Admission(puts_at_once)
        self._puts_ready: deque[tuple[Command, Ticket]] = deque()
        self._lock = threading.Lock()
        self._served_total = self._chunks_total = 0
        self._next_log_ns = 0

    def serve_one(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for a command and serve it; False when none came.

        Raises nothing for what a proxy does wrong: that is counted, logged at most once a minute, and dropped.
        """
        message = self.receive(timeout_s)
        if message is None:
            return False
        self.serve(message)
        return True

    def receive(self, timeout_s: float) -> bytes | None:
        """Wait up to `timeout_s` seconds for a command; what comes back is to be given to serve()."""
        return self._queue.receive(timeout_s)

    def serve(self, message: bytes) -> None:
        """Serve one command; raises as little as serve_one()."""
        if faults.ARMED:
            faults.reach("cache.received")
        try:
            command = decode(message)
        except CommandError as error:
            self._malformed.add()
            self._log_now_and_then("command dropped", error)
            return
        if command.kind is _PUT:
            self._line_up(command)
        else:
            self._serve_in_time(command)

    def _line_up(self, command: Command) -> None:
        """Serve a PUT, and those whose turn comes by its end; or leave it to a worker that serves one now."""

        def ready(ticket: Ticket | None) -> None:
            if ticket is None:
                self._expired.add()
            else:
                self._puts_ready.append((command, ticket))

        if self._puts.waiting >= PUTS_WAITING_MAX:
            self._expired.add()
            return
        self._puts.enqueue(ready)
        while self._puts_ready:
            try:
                put, ticket = self._puts_ready.popleft()
            except IndexError:  # another worker was faster
                return
            try:
                self._serve_in_time(put)
            except Exception:
                log.exception("job failed")
            finally:
                ticket.leave()

    def _serve_in_time(self, command: Command) -> None:
        if 0 < command.deadline_ns <= monotonic_ns():
            self._expired.add()  # the proxy has given up and retired its segments
            return
        try:
            self._serve(command)
        except ShmChannelError as error:
            self._broken.add()
            self._log_now_and_then("transfer broken", error)

    def _serve(self, command: Command) -> None:
        if not command.segments:
            raise CommandError(f"{command.kind.name} without a segment for the answer")
        segments, watch = self._attachments.take(command.segments)
        clean = False
        chunk_count = 0
        try:
            if faults.ARMED:
                faults.reach("cache.attached")
            if command.kind is _PUT:
                self._handler.put(command, ChunkReader(segments, watch, self._stall_s))
            elif command.kind is _UPDATE:
                self._handler.update(command, ChunkReader(segments, watch, self._stall_s))
            else:
                writer = ChunkWriter(segments, watch, self._stall_s, self._identity)
                self._answer(command, writer)
                chunk_count = writer.posted
            clean = True
            with self._lock:
                self._served_total += 1
                self._chunks_total += chunk_count
        finally:
            if clean:
                self._attachments.put_back(segments)
            else:
                self._attachments.drop(segments)

    def _answer(self, command: Command, writer: ChunkWriter) -> None:
        if command.kind is _GET:
            self._handler.get(command, writer)
            return
        count = self._handler.purge(command) if command.kind is CommandKind.PURGE else 0
        writer.answer_empty(count)

    def _log_now_and_then(self, event: str, error: Exception) -> None:
        now = monotonic_ns()
        if now >= self._next_log_ns:
            self._next_log_ns = now + LOG_INTERVAL_NS
            log.warning(
                event, extra={"reason": str(error), "malformed": self._malformed.total, "broken": self._broken.total}
            )

    def sweep(self) -> None:
        """Forget the segments of proxies that are gone, and PUTs that waited too long; called now and then."""
        self._attachments.sweep()
        self._puts.expire(self._stall_s)

    def stats(self) -> ServerStats:
        """A snapshot."""
        return ServerStats(
            served_total=self._served_total,
            malformed_total=self._malformed.total,
            expired_total=self._expired.total,
            broken_total=self._broken.total,
            chunks_total=self._chunks_total,
            attached=self._attachments.count,
        )

    def close(self) -> None:
        """Unmap everything; the queue is its owner's."""
        self._attachments.close()
