"""ChannelClient: the proxy's end. get() requests a key from a cache, put() offers it an object.

Every transfer holds a lease (transfers.py): use it as a context manager.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.errors import (
    PeerProtocolError,
    RequestFailed,
    ResourceError,
    ShmChannelError,
    UsageError,
    VersionMismatch,
)
from shmchannel.messages.posix_queue import CommandSender, MessageSender
from shmchannel.objects.commands import (
    BELOW,
    FACTS_ONLY,
    FROM_END,
    INVALIDATE,
    LEASE,
    METADATA_BYTES_MAX,
    METADATA_WANTED,
    PREFIX,
    TRACE_BYTES,
    VERSION,
    Command,
    CommandKind,
    Priority,
    announced_leases,
    announced_object_bytes,
    announced_version,
    encode,
)
from shmchannel.objects.hot_table_files import OPEN_MAX, HotTableFile, HotTableFiles
from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX, HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion, HotTableReader
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.objects.width_hints import WidthHints
from shmchannel.process.identity import own_identity
from shmchannel.streams.admission import Ticket
from shmchannel.streams.layout import ObjectFacts, SegmentRef
from shmchannel.streams.pool import Lease, SegmentPool
from shmchannel.streams.transfer import COMPLETE, STREAMING

BETWEEN_BYTES_TIMEOUT_SECONDS = 30.0

log = logging.getLogger(__name__)


class ChannelClient:
    """User of the pool and the queue: one for each cache, shared by all threads of a proxy."""

    def __init__(
        self,
        queue_name: str,
        pool: SegmentPool,
        *,
        between_bytes_timeout_s: float = BETWEEN_BYTES_TIMEOUT_SECONDS,
        on_step: Callable[[str], None] | None = None,
        open_sender: Callable[[str], MessageSender] = CommandSender,
        open_hot_table: Callable[[str], HotTableReader] = HotTableReader.attach,
        subject: Callable[[], bytes] = bytes,
        open_files_max: int = OPEN_MAX,
    ) -> None:
        """`on_step` is called at the end of each step of a get() (lease, queue, cache), for measuring.

        `subject` says what a command belongs to that this thread sends now, as a word, for the logs of both sides: the
        cache is told its last 16 characters. For none it is told a number of the command. At most `open_files_max` of
        the cache's files are open at a time.
        """
        self.queue_name = queue_name
        self._on_step = on_step
        self._subject = subject
        self._widths = WidthHints()
        self._open_sender = open_sender
        self._open_hot_table = open_hot_table
        self.pool = pool
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._lock = threading.Lock()
        self._sender: MessageSender | None = None
        self._replaced: MessageSender | None = None
        self._hot_table: tuple[MessageSender, HotTableReader] | None = None
        self._is_hot_table_wanted = True
        self.files = HotTableFiles(open_max=open_files_max)
        self._ids = itertools.count(1)
        self._trace_prefix = b"\0" + os.urandom(7)  # not taken for a word
        self._identity = own_identity()

    def connect(self) -> MessageSender:
        """The sender to the living cache, reopened if the reader of the old one is gone. Never waits.

        Raises:
            NameMissing: no cache lives on the queue name.
            ResourceError: the system refused.
            VersionMismatch: the cache speaks another version of the commands.
        """
        sender = self._sender
        if sender is not None and sender.ready():
            return sender
        with self._lock:
            if self._sender is not None and self._sender is not sender and self._sender.ready():
                return self._sender
            fresh = self._open_sender(self.queue_name)
            theirs = announced_version(fresh.announced)
            if theirs != VERSION:
                fresh.close()
                raise VersionMismatch(f"the cache on {self.queue_name}", theirs, VERSION)
            if self._replaced is not None:
                self._replaced.close()  # two caches ago: no thread of ours waits on it
            self._replaced, self._sender = self._sender, fresh
            self.files.forget()
            self._change_hot_table(fresh)
            return fresh

    def _change_hot_table(self, sender: MessageSender | None) -> None:
        """Release the hot table of the previous cache, and map that of `sender`'s, if it has one; the lock is held."""
        if self._hot_table is not None:
            hot_table, self._hot_table = self._hot_table[1], None
            hot_table.close()
        if sender is not None and self._is_hot_table_wanted:
            try:
                # It existed before its cache was ready. One that belongs to another cache by now is never used, because
                # its sender is found not to be ready.
                self._hot_table = (sender, self._open_hot_table(self.queue_name))
            except ShmChannelError:
                return  # a cache without a hot table, or of another version: everything is sent by the queue

    def use_hot_table(self, *, is_wanted: bool) -> None:
        """Use the hot table, as at first, or not: then peek() finds nothing, and no watch() holds. Never waits.

        For a user who knows that the cache has not been told yet to remove some of it.
        """
        with self._lock:
            if self._is_hot_table_wanted is not is_wanted:
                self._is_hot_table_wanted = is_wanted
                self._change_hot_table(self._sender)

    def peek(self, key: bytes) -> HotTableEntry | None:
        """The object, if it is in the hot table of a ready cache; costs no message. Never raises.

        A small body that the table has by its file is read from there, which may wait for the disk; otherwise this
        never blocks. None says nothing about the object: ask with get(), which also finds a new cache.
        """
        pair = self._hot_table
        if pair is None:
            return None
        sender, hot_table = pair
        if not sender.ready():
            return None
        entry = hot_table.get(key)
        if entry is None or entry.file is None or entry.file.size_bytes > BODY_BYTES_MAX:
            return entry
        watch = hot_table.watch(key, entry, sender.ready)
        body = None if watch is None else self.files.read(sender.reader_pid, entry.file, watch.holds)
        return None if body is None else entry._replace(body=body, file=None)

    def hold_file(self, key: bytes, entry: HotTableEntry) -> HotTableFile | None:
        """The file of a large object that peek() found in the hot table, for sendfile(2).

        None if it cannot be opened from here: ask with get(). Never waits for the cache, never raises.
        """
        pair = self._hot_table
        if pair is None or entry.file is None:
            return None
        sender, hot_table = pair
        return self.files.hold(sender.reader_pid, entry.file, entry.version, lambda: hot_table.get(key) == entry)

    def watch(self, key: bytes, entry: HotTableEntry) -> EntryVersion | None:
        """Tells whether peek() would still return the object it found; None if it would not now."""
        pair = self._hot_table
        if pair is None:
            return None
        sender, hot_table = pair
        return hot_table.watch(key, entry, sender.ready, sender.reader_pid)

    @property
    def object_bytes_max(self) -> int | None:
        """The largest object that the cache stores, as it announced; None if it did not, or no cache has been met."""
        sender = self._sender
        return None if sender is None else announced_object_bytes(sender.announced)

    @property
    def connected(self) -> bool:
        """Whether a living cache is available."""
        try:
            return self.connect().ready()
        except (ResourceError, VersionMismatch):
            return False

    def get(
        self,
        key: bytes,
        deadline: Deadline,
        *,
        offset: int = 0,
        length: int = 0,
        version: int = 0,
        metadata_wanted: bool = False,
        priority: int = int(Priority.NORMAL),
        ticket: Ticket | None = None,
        void_lease: int | None = None,
    ) -> IncomingTransfer:
        """Request [offset, offset + length) of an object (length 0: to its end; version 0: any), and wait.

        A negative offset counts back from the end; FACTS_ONLY requests only facts and metadata. The transfer holds a
        lease: use it as a context manager. Blocks until the first chunk or the deadline. A `ticket` waited for gives a
        long transfer the full width; it is left when the transfer ends, has no use for it, or this raises.

        With a `void_lease`, and of any version: if there is no such object, ask who fetches it (`fetch_lease`), unless
        the cache does not know. It is the number of a lease whose holder does not fetch the object, or 0.

        Raises:
            NameMissing, PeerGone: there is no cache, or it has ended; a new attempt may find a new one.
            ChannelTimeout, PoolExhausted: no segment, no space in the queue or no answer in time.
            PeerProtocolError: the cache's answer is invalid.
        """
        width = self._widths.width_for(key) if offset != FACTS_ONLY else 1
        ticket = self._ticket(width, ticket)
        try:
            sender = self.connect()
            lease = self.pool.lease(deadline, width, ticket=ticket)
        except BaseException:
            if ticket is not None:
                ticket.leave()
            raise
        on_step = self._on_step
        if on_step is not None:
            on_step("lease")
        transfer = IncomingTransfer(lease, sender, self._between_bytes_timeout_s)
        try:
            flags = (METADATA_WANTED if metadata_wanted else 0) | (FROM_END if offset < 0 else 0)
            if void_lease is not None and announced_leases(sender.announced):
                flags, version = flags | LEASE, void_lease
            self._send(sender, lease, deadline, CommandKind.GET, key, priority, flags, abs(offset), length, version)
            if on_step is not None:
                on_step("queue")
            transfer.begin(deadline, offset, length, preamble_wanted=metadata_wanted)
            if faults.ARMED:
                faults.reach("proxy.received")
        except BaseException:
            transfer.close()
            raise
        if width > 1:  # possibly learned from an answer that was longer
            size_bytes = transfer.facts.size_bytes if transfer.found else 0
            self._widths.correct(key, size_bytes // transfer.chunk_capacity)
        elif not transfer.last:
            self._widths.remember(key, transfer.facts.size_bytes // transfer.chunk_capacity)
        if on_step is not None:
            on_step("cache")
        if log.isEnabledFor(logging.DEBUG):
            facts = {"state": transfer.state.name, "size_bytes": transfer.facts.size_bytes} if transfer.found else {}
            log.debug("command answered", extra={"key": key, "found": transfer.found} | facts)
        return transfer

    def should_enqueue(self, key: bytes) -> bool:
        """Whether the key's object is long, by its last answer, and the pool has no ticket free; no lock."""
        admission = self.pool.admission
        return (
            admission is not None
            and admission.full
            and self._widths.width_for(key) >= self.pool.segments_per_transfer_max
        )

    def is_large(self, key: bytes) -> bool:
        """Whether the key's object came in more than one chunk, as far as is remembered; no lock."""
        return self._widths.knows(key)

    def _ticket(self, width: int, ticket: Ticket | None) -> Ticket | None:
        """The ticket of a long transfer, waited for or free just now; one that is not needed is left."""
        admission = self.pool.admission
        if admission is not None and width >= self.pool.segments_per_transfer_max:
            return ticket if ticket is not None and ticket.held else admission.try_enter()
        if ticket is not None:
            ticket.leave()
        return None

    def put(
        self,
        key: bytes,
        size_bytes: int,
        metadata: bytes,
        lease: Lease,
        deadline: Deadline,
        *,
        fetched_under: int = 0,
    ) -> OutgoingTransfer:
        """Offer an object of `size_bytes` bytes to the cache through a lease of the caller's (SegmentPool.try_lease).

        It was `fetched_under` the fetch lease of this number, if any: the cache refuses it after a purge of that.

        Waits for space in the queue up to the deadline. The transfer owns the lease from here on, even if this raises.

        Raises:
            UsageError: the metadata is longer than a cache accepts.
            NameMissing, PeerGone, ChannelTimeout: as get().
        """
        return self._offer(
            CommandKind.PUT, key, fetched_under, size_bytes, metadata, lease, deadline, int(Priority.LOW)
        )

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline) -> bool:
        """Replace the metadata of a stored object of this version (0: any) and end its invalidation; the body is kept.

        Returns False if the object is gone or of another version, or the cache has no space for the new metadata; the
        old metadata is then kept. Blocks until the cache answers, up to the deadline.

        Raises:
            UsageError: the metadata is longer than a cache accepts.
            NameMissing, PeerGone, ChannelTimeout, PoolExhausted: as get(); the outcome is unknown.
        """
        lease = self.pool.lease(deadline, 1)
        with self._offer(
            CommandKind.UPDATE, key, version, 0, metadata, lease, deadline, int(Priority.NORMAL)
        ) as transfer:
            transfer.pump(lambda _views, _offset: 0, 0, wait=True)
            return transfer.commit()

    def _offer(
        self, kind: CommandKind, key: bytes, version: int, size_bytes: int, metadata: bytes,
        lease: Lease, deadline: Deadline, priority: int,
    ) -> OutgoingTransfer:  # fmt: skip
        """Send a command whose producer is the proxy, and the metadata; the transfer owns the lease in any case."""
        try:
            if len(metadata) > METADATA_BYTES_MAX:
                raise UsageError(f"metadata of {len(metadata)} bytes, at most {METADATA_BYTES_MAX}")
            sender = self.connect()
            # A fill waits as long for its first chunk to be taken, however little time its client has left.
            taken_by = (
                Deadline.after(self._between_bytes_timeout_s)
                if kind is CommandKind.PUT
                else deadline.sooner(self._between_bytes_timeout_s)
            )
            until = None if kind is CommandKind.PUT else deadline
            transfer = OutgoingTransfer(lease, sender, size_bytes, self._between_bytes_timeout_s, self._identity, until)
            self._send(sender, lease, deadline, kind, key, priority, 0, 0, size_bytes, version, taken_by.expires_ns)
            transfer.begin(ObjectFacts(size_bytes, 0, len(metadata)))
        except BaseException:
            lease.retire()
            raise
        try:
            transfer.send_preamble(metadata)
        except BaseException:
            transfer.close()
            raise
        return transfer

    def purge(
        self,
        key: bytes,
        deadline: Deadline,
        *,
        prefix: bool = False,
        below: bool = False,
        invalidate: bool = False,
        is_wanted: Callable[[], bool] | None = None,
    ) -> int:
        """Remove an object; returns the number of objects. Errors as get(); ChannelTimeout also when `is_wanted` ends.

        With `prefix` every object whose key begins with `key`; with `below` first everything below it (`key NUL ...`),
        then the object. With `invalidate` they are kept, and IncomingTransfer.invalidated is true for them until they
        are stored or updated again; one without metadata, which cannot report it, is removed.
        """
        flags = (PREFIX if prefix else 0) | (BELOW if below else 0) | (INVALIDATE if invalidate else 0)
        return self._ask(CommandKind.PURGE, key, flags, deadline, is_wanted)

    def ping(self, deadline: Deadline) -> None:
        """Return once a worker of the cache has answered. Errors as get()."""
        self._ask(CommandKind.PING, b"", 0, deadline)

    def _ask(
        self, kind: CommandKind, key: bytes, flags: int, deadline: Deadline, is_wanted: Callable[[], bool] | None = None
    ) -> int:
        sender = self.connect()
        lease = self.pool.lease(deadline, 1)
        with IncomingTransfer(lease, sender, self._between_bytes_timeout_s) as transfer:
            if is_wanted is not None:
                transfer.wait_only_while(is_wanted)
            self._send(sender, lease, deadline, kind, key, int(Priority.URGENT), flags)
            transfer.begin(deadline)
            if transfer.state is STREAMING:
                raise PeerProtocolError(f"{kind.name} was answered with a body")
            transfer.finish()
            if transfer.state is not COMPLETE:
                raise RequestFailed(f"{kind.name} failed at {sender.describe()}")
            return transfer.facts.version

    def _send(
        self, sender: MessageSender, lease: Lease, deadline: Deadline, kind: CommandKind, key: bytes, priority: int,
        flags: int, offset: int = 0, length: int = 0, version: int = 0, expires_ns: int = 0,
    ) -> None:  # fmt: skip
        """Send a command with the segments of a lease; it expires with the deadline, or at a time of its own."""
        for segment in lease.segments:
            if segment.checked_for is not sender:  # one comparison for each; the previous cache may have been faulty
                segment.check_at_rest(sender)
        request_id = next(self._ids)
        refs = tuple([SegmentRef(s.wire_name, s.header.prepare(), s.segment_bytes) for s in lease.segments])
        if faults.ARMED:
            faults.reach("proxy.leased")
        subject = self._subject()
        trace_id = subject[-TRACE_BYTES:] or self._trace_prefix + request_id.to_bytes(8, "little")
        expires_ns = expires_ns or deadline.expires_ns
        command = Command(kind, key, refs, expires_ns, offset, length, version, flags, priority, request_id, trace_id)
        if log.isEnabledFor(logging.DEBUG):  # the cache's lines are of the same request
            facts = {"command": kind.name, "key": key, "segments": len(refs)}
            log.debug("command sent", extra=facts if subject else facts | {"request": trace_id.hex()})
        sender.send(encode(command), priority, deadline)
        if faults.ARMED:
            faults.reach("proxy.sent")

    def close(self) -> None:
        """Close the queue handles; the pool belongs to its owner."""
        with self._lock:
            for sender in (self._sender, self._replaced):
                if sender is not None:
                    sender.close()
            self._sender = self._replaced = None
            self.files.forget()
            self._change_hot_table(None)
