"""ChannelServer: the answering end. It receives commands, maps the segments they name, and has a handler answer.

Theory of operation. Each message becomes one of these:

    malformed   not a command of this version                        dropped
    expired     its deadline has passed: the asker has retired       dropped
                its segments
    broken      its segments cannot be mapped, or the asker died,    the mappings are dropped
                stalled or broke the protocol
    failed      the handler raised, or returned without an answer    the asker is told at once; the mappings are dropped
    served      answered                                             the mappings are kept

* The kernel's queue is the line of waiting commands: bounded, ordered by priority, and it wakes exactly one of the
  threads in receive(). The thread that receives a command serves it, so no command passes between threads.
* An asker whose segments are mapped never waits for its deadline because of a handler: the server checks whether the
  transfer has been answered, and fails or refuses it otherwise.
* A PUT lasts as long as its producer takes, so only some threads serve PUTs (Admission). A thread that has served one
  takes the next that has its ticket; the others remain for everybody else.
* Faults of an asker are never raised here: they are counted, and logged at most once a minute.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from time import monotonic_ns
from typing import TypeAlias

from shmchannel import faults
from shmchannel.deadline import PEER_CHECK_SECONDS
from shmchannel.errors import CommandError, ShmChannelError, VersionMismatch
from shmchannel.messages.posix_queue import MessageQueue
from shmchannel.objects.commands import OLD_VERSION, VERSION, Command, CommandKind, announcement, decode, other_version
from shmchannel.process.identity import own_identity
from shmchannel.stats import ServerStats
from shmchannel.streams.admission import Admission, Ticket
from shmchannel.streams.attachments import AttachmentTable
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import TransferState
from shmchannel.sync.semaphore import PeerLiveness

log = logging.getLogger(__name__)

BETWEEN_BYTES_TIMEOUT_SECONDS = 30.0
_GET, _PUT, _UPDATE = CommandKind.GET, CommandKind.PUT, CommandKind.UPDATE
LOG_INTERVAL_NS = 60_000_000_000
PUTS_WAITING_MAX = 1024
VERSION_SECONDS = 1.0
"""Time limit for each turn of a proxy of another version while it is being refused."""


class Handler:
    """Answers commands: subclass it and override the methods of those you answer. Called by many threads.

    A command that is not overridden, a method that raises, and one that returns without an answer fail in the same way:
    the client is told at once, the log says why, and the thread serves the next command.
    """

    object_bytes_max: int | None = None
    """The largest object that put() keeps, announced to clients; None if there is no limit."""

    grants_leases = False
    """Whether get() knows what to answer to a GET with LEASE, announced to clients."""

    def get(self, command: Command, writer: ChunkWriter) -> TransferState | None:
        """Answer a GET: writer.begin() and send(), refuse() if there is no such object, or fail().

        The return value is ignored: the writer knows how the transfer ended.
        """
        raise NotImplementedError(f"{type(self).__name__} answers no GET: it has no method get()")

    def put(self, command: Command, reader: ChunkReader) -> None:
        """Receive an object from the reader, store it, and answer its last chunk: reader.finish(), or refuse()."""
        raise NotImplementedError(f"{type(self).__name__} takes no PUT: it has no method put()")

    def update(self, command: Command, reader: ChunkReader) -> None:
        """Receive an object's new metadata from the reader and answer: reader.finish(), or refuse()."""
        raise NotImplementedError(f"{type(self).__name__} takes no UPDATE: it has no method update()")

    def purge(self, command: Command) -> int:
        """Remove objects, or invalidate them; returns their number."""
        raise NotImplementedError(f"{type(self).__name__} takes no PURGE: it has no method purge()")


CommandObserver: TypeAlias = Callable[[CommandKind | None, str, int], None]
"""Is told of the end of each command: its kind if that is known, what became of it, and how many nanoseconds it took.

It is called by the thread that served it, and must not block or raise.
"""


class ChannelServer:
    """Serves one command at a time for each thread that calls serve_one()."""

    def __init__(
        self,
        queue: MessageQueue,
        handler: Handler,
        *,
        between_bytes_timeout_s: float = BETWEEN_BYTES_TIMEOUT_SECONDS,
        puts_at_once: int = 1,
        attachments: AttachmentTable | None = None,
        on_end: CommandObserver | None = None,
        about: Callable[[bytes], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`puts_at_once`: fewer than the threads, so that PUTs never occupy all of them.

        A command is served within `about` its trace id: whatever is logged there can say what it belongs to.
        """
        self._queue = queue
        queue.announce(announcement(handler.object_bytes_max, grants_leases=handler.grants_leases))
        self._handler = handler
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._identity = own_identity()
        self._attachments = attachments or AttachmentTable()
        self._on_end = on_end
        self._about = about
        self._counts = {"malformed": 0, "expired": 0, "broken": 0, "failed": 0}
        self._puts = Admission(puts_at_once)
        self._puts_ready: deque[tuple[Command, Ticket]] = deque()
        self._lock = threading.Lock()
        self._served_total = self._chunks_total = 0
        self._next_log_ns = self._next_version_log_ns = 0

    def serve_one(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for a command and serve it; False if none arrived.

        Faults of a proxy are not raised: they are counted, logged at most once a minute, and dropped.
        """
        message = self._queue.receive(timeout_s)
        if message is None:
            return False
        self.serve(message)
        return True

    def serve(self, message: bytes) -> None:
        """Serve one command; as little is raised as by serve_one()."""
        if faults.ARMED:
            faults.reach("cache.received")
        try:
            command = decode(message)
        except CommandError as error:
            self._count("malformed")
            self._tell_end(None, "malformed")
            theirs = other_version(message)
            if theirs is None:
                self._log_now_and_then("command dropped", error)
            else:
                self._refuse_version(message, theirs)
            return
        if command.kind is _PUT:
            self._enqueue(command)
        else:
            self._answer(command)

    def _refuse_version(self, message: bytes, theirs: int) -> None:
        """Say that a proxy speaks another version; one of the last version is told at once, and need not wait."""
        now = monotonic_ns()
        if now >= self._next_version_log_ns:
            self._next_version_log_ns = now + LOG_INTERVAL_NS
            log.error("proxy of another version", extra={"reason": str(VersionMismatch("a proxy", theirs, VERSION))})
        if theirs != OLD_VERSION:
            return  # where its commands have what is not known
        try:
            command = decode(message, theirs)
            if not command.segments:
                return
            segments, watch = self._attachments.take(command.segments)
        except ShmChannelError as error:
            log.debug("proxy of another version not told", extra={"reason": str(error)})
            return
        try:
            if command.kind in (_PUT, _UPDATE):
                ChunkReader(segments, watch, VERSION_SECONDS).refuse()
            else:
                ChunkWriter(segments, watch, VERSION_SECONDS, self._identity).refuse_version()
        except ShmChannelError as error:
            log.debug("proxy of another version not told", extra={"reason": str(error)})
        finally:
            self._attachments.drop(segments)

    def _enqueue(self, command: Command) -> None:
        """Serve a PUT and those that get its ticket after it, or leave it to a thread that serves one now."""

        def ready(ticket: Ticket | None) -> None:
            if ticket is None:
                self._expire(command)
            else:
                self._puts_ready.append((command, ticket))

        if self._puts.waiting >= PUTS_WAITING_MAX:
            self._expire(command)
            return
        self._puts.enqueue(ready)
        while self._puts_ready:
            try:
                put, ticket = self._puts_ready.popleft()
            except IndexError:  # another worker was faster
                return
            try:
                self._answer(put)
            finally:
                ticket.leave()

    def _expire(self, command: Command) -> None:
        """A PUT has waited for too long, or too many wait."""
        self._count("expired")
        self._tell_end(_PUT, "expired")
        with self._about(command.trace_id):
            _tell_served(command, "expired", 0)

    def _answer(self, command: Command) -> None:
        with self._about(command.trace_id):
            began_ns = monotonic_ns()
            result = self._execute(command, began_ns)
            self._tell_end(command.kind, result, began_ns)
            _tell_served(command, result, began_ns)

    def _tell_end(self, kind: CommandKind | None, result: str, began_ns: int = 0) -> None:
        if self._on_end is not None:
            self._on_end(kind, result, monotonic_ns() - began_ns if began_ns else 0)

    def _execute(self, command: Command, now_ns: int) -> str:
        """Returns what became of it."""
        if 0 < command.deadline_ns <= now_ns:
            self._count("expired")
            return "expired"
        try:
            if not command.segments:
                raise CommandError(f"{command.kind.name} without a segment for the answer")
            segments, peer = self._attachments.take(command.segments)
            clean = False
            try:
                if faults.ARMED:
                    faults.reach("cache.attached")
                clean = self._handle(command, segments, peer)
            finally:
                if clean:
                    self._attachments.put_back(segments)
                else:
                    self._attachments.drop(segments)
        except ShmChannelError as error:
            self._count("broken")
            self._log_now_and_then("transfer broken", error)
            return "broken"
        return "served" if clean else "failed"

    def _handle(self, command: Command, segments: Sequence[Segment], peer: PeerLiveness) -> bool:
        """Have the handler execute the command; returns whether it did."""
        handler, kind = self._handler, command.kind
        end: ChunkReader | ChunkWriter
        error: Exception | None = None
        chunk_count = 0
        try:
            if kind is _PUT or kind is _UPDATE:
                end = reader = ChunkReader(segments, peer, self._between_bytes_timeout_s)
                (handler.put if kind is _PUT else handler.update)(command, reader)
            else:
                end = writer = ChunkWriter(segments, peer, self._between_bytes_timeout_s, self._identity)
                if kind is _GET:
                    handler.get(command, writer)
                else:
                    writer.answer_empty(handler.purge(command) if kind is CommandKind.PURGE else 0)
                chunk_count = writer.posted
        except Exception as raised:  # noqa: BLE001 - reported to the client and logged
            error = raised
        if error is not None or not end.answered:
            self._fail(command, end, peer, error)
            return False
        with self._lock:
            self._served_total += 1
            self._chunks_total += chunk_count
        return True

    def _fail(
        self, command: Command, end: ChunkReader | ChunkWriter, peer: PeerLiveness, error: Exception | None
    ) -> None:
        """Tell the asker now, not by its deadline, that the handler has raised or has left it without an answer."""
        tell = end.refuse if isinstance(end, ChunkReader) else end.fail
        if isinstance(error, ShmChannelError):
            # Most likely it is of this very transfer, and nobody listens; or of another channel that the handler uses.
            if peer.alive():
                with suppress(ShmChannelError):
                    tell(PEER_CHECK_SECONDS)
            raise error
        self._count("failed")
        if isinstance(error, NotImplementedError):
            self._log_now_and_then("command refused", error)
        else:
            facts = {"kind": command.kind.name, "key": command.key, "reason": str(error or "it did not answer")}
            log.error("handler failed", exc_info=error, extra=facts)
        tell(self._between_bytes_timeout_s)

    def _count(self, event: str) -> None:
        with self._lock:
            self._counts[event] += 1

    def _log_now_and_then(self, event: str, error: Exception) -> None:
        now = monotonic_ns()
        if now >= self._next_log_ns:
            self._next_log_ns = now + LOG_INTERVAL_NS
            log.warning(event, extra={"reason": str(error), **self._counts})

    def sweep(self) -> None:
        """Forget the segments of askers that are gone and PUTs that have waited too long; for housekeeping."""
        self._attachments.sweep()
        self._puts.expire(self._between_bytes_timeout_s)

    def stats(self) -> ServerStats:
        """A snapshot."""
        return ServerStats(
            served_total=self._served_total,
            malformed_total=self._counts["malformed"],
            expired_total=self._counts["expired"],
            broken_total=self._counts["broken"],
            failed_total=self._counts["failed"],
            chunks_total=self._chunks_total,
            attached=self._attachments.count,
        )

    def close(self) -> None:
        """Unmap everything; the queue belongs to its owner."""
        self._attachments.close()


def _tell_served(command: Command, result: str, began_ns: int) -> None:
    if log.isEnabledFor(logging.DEBUG):
        facts = {"command": command.kind.name, "key": command.key, "result": result}
        log.debug("command served", extra=facts | ({"us": (monotonic_ns() - began_ns) // 1000} if began_ns else {}))
