"""BodyTransfer: the body of one hit being sent to its client; it can pause after any byte and be resumed later.

**States.** *Sending*, in begin_body() or resume(), with a transfer from the cache or an open file; *paused*, between
two of these, when it is a descriptor and a few numbers and holds no segment, no worker of the cache and no thread; at
its end. The rest of a last chunk is kept here while it is paused: the cache has finished with the object by then; so is
the rest of a head. Several ranges are one body with several parts: at the end of one the head of the next is the rest.

**Events** that pause it are what it waits for: WRITABLE (the client accepts nothing while others wait, or for a
moment), TURN (its slice is over and others wait), TICKET (a long one, when tickets are short). It resumes with a new
transfer from its offset, of the same version of the object; it also begins a new one where that gets more segments at
once.

**Invariants.** `position` is exact whenever it pauses. Every transfer is ended cleanly, or by an exception that retires
its segments. A ticket is left by whoever was given it, on every way out. Not one byte of another version is sent: a
body whose object is gone ends here (SourceLost), with `position` as exact, so that whoever can may send the rest. No
send waits; a worker waits for a client for ROOM_MS, but not for one that made no room the last time while jobs wait for
a worker; a little longer while workers are idle.

**Why not otherwise.** Keeping the transfer while the client is slow would let a few slow clients hold every segment.
Parking as soon as a send is not accepted whole would send a client that reads quickly around through two other threads
each time that it has emptied a third of its socket's buffer. Looking at the clock and at who waits after each chunk
costs more than small chunks do: it is done once in a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from time import monotonic_ns
from typing import NamedTuple, Protocol

from shmchannel.deadline import Deadline
from shmchannel.errors import PeerProtocolError, ShmChannelError
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Ticket
from shmchannel.streams.transfer import TransferState
from webproxy.errors import BodyCutShort, CacheUnavailable, ClientGone
from webproxy.store.store import Missing, Store
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event

SLICE_NS = 5_000_000
"""A response yields its worker after this time if others wait for it."""

ROOM_MS, LOOK_MS = 5, 20
"""A client that makes no room in its socket for ROOM_MS is slow, even if nobody waits for the worker. It is waited for
longer only where a pause costs a new transfer, while other workers are idle, which is looked at each LOOK_MS.
"""

PATIENCE_NS = 1_000_000_000
"""The limit of that."""

TURN_BYTES, TURN_CHUNKS = 1 << 24, 64
"""A response gives up the segments or the ticket that others wait for after this many bytes and this many chunks:
restarting costs as much as some dozens of small chunks, and the cache has read a few large ones in vain.
"""

BATCH_CHUNKS, BATCH_BYTES = 8, 1 << 21
"""A response checks the time, waiting jobs, and for a wider lease after its first chunk, and then whenever this many
chunks or bytes were sent.
"""

PIECE_BYTES = 1 << 22
"""How much of a file is sent between two checks, if the client's socket takes it."""


class Demand(Protocol):
    """Whether somebody else needs the resources of a job."""

    def others_wait(self) -> bool:
        """Whether every worker is busy and another job waits for one; never blocks."""

    def has_spare(self) -> bool:
        """Whether workers are idle: the caller may wait with its own."""


class BodySource(NamedTuple):
    """The source of bodies, shared by all transfers."""

    store: Store
    wait_s: float
    """Time limit for the store to begin."""
    demand: Demand


class Part(NamedTuple):
    """Bytes to send as they are, and then those of the object from `first` to `end`."""

    head: bytes
    first: int
    end: int


class SourceLost(BodyCutShort):
    """The cache does not give the rest: what the client has of `body`, up to its position, is exact."""

    def __init__(self, text: str, body: BodyTransfer) -> None:
        super().__init__(text)
        self.body = body


class BodyTransfer:
    """`position` is the offset of the next byte to send, less what is left of the head before it."""

    __slots__ = (
        "_parts",
        "_rest",
        "_source",
        "end",
        "key",
        "position",
        "size_bytes",
        "stream",
        "version",
    )

    def __init__(
        self,
        stream: ClientStream,
        key: bytes,
        size_bytes: int,
        version: int,
        source: BodySource,
        first: int = 0,
        end: int | None = None,
        *,
        head: bytes = b"",
        parts: Iterable[Part] = (),
    ) -> None:
        """`head`, the bytes from `first` on, up to `end`, of an object of `size_bytes`, and `parts`."""
        self._source = source
        self.stream = stream
        self.key = key
        self.size_bytes = size_bytes
        self.version = version
        self._rest = head
        self.position = first - len(head)
        self.end = size_bytes if end is None else end
        """The end of what the client is to receive of the object before the next part."""
        self._parts = iter(parts)

    def resume(self, ticket: Ticket | None = None) -> Event | None:
        """Continue sending; returns None at the end, or what to wait for. The ticket is used and left.

        Raises:
            SourceLost: no cache, or the object changed or was evicted in the meantime.
            BodyCutShort: what the cache sends is invalid.
            ClientGone: the connection is closed or broken.
        """
        event = None
        while event is None and (self.position < self.end or self._begin_next_part()):
            try:
                # The rest is sent first: a file available by now would give the same bytes.
                event = self._send_rest() if self._rest else self._send_anew(ticket)
            finally:
                if ticket is not None:
                    ticket.leave()
                    ticket = None
        return event

    def _begin_next_part(self) -> bool:
        part = next(self._parts, None)
        if part is not None:
            self._rest, first, self.end = part
            self.position = first - len(self._rest)
        return part is not None

    def _send_anew(self, ticket: Ticket | None) -> Event | None:
        try:
            transfer = self._source.store.get(
                self.key,
                Deadline.after(self._source.wait_s),
                offset=self.position,
                length=self.end - self.position if self.end < self.size_bytes else 0,
                version=self.version,
                ticket=ticket,
            )
        except CacheUnavailable as error:
            raise SourceLost(str(error), self) from error
        if isinstance(transfer, Missing):
            raise SourceLost("the object was replaced or evicted in mid-body", self)
        with transfer:
            if transfer.facts[:2] != (self.size_bytes, self.version):
                raise SourceLost("the cache sent another object than requested", self)
            return self.send(transfer, 0)

    def close(self) -> None:
        """It is given up: while it is paused, nothing needs to be released."""

    def send(self, transfer: IncomingTransfer, sent: int) -> Event | None:
        """Send from the current chunk on, of which `sent` bytes were sent; as resume(). Ends the transfer cleanly.

        It also returns None before the end, where a new transfer would get more segments at once: resume() begins one.
        """
        send_chunk = self.stream.send_chunk
        batch_chunks = max(1, min(BATCH_CHUNKS, BATCH_BYTES // transfer.chunk_capacity))
        slice_end_ns = monotonic_ns() + SLICE_NS
        long_bytes = transfer.long_bytes
        turn_ends_at = transfer.position + max(TURN_BYTES, TURN_CHUNKS * transfer.chunk_capacity)
        try:
            while True:
                if sent < transfer.length:
                    sent = self._send_patiently(transfer, sent)
                self.position = transfer.position - transfer.length + sent
                if sent < transfer.length:
                    return self.pause(transfer, Event.WRITABLE, sent)
                if transfer.last:
                    self._finish(transfer)
                    return None
                if monotonic_ns() > slice_end_ns:
                    event = self._what_ends_its_turn(transfer, turn_over=self.position >= turn_ends_at)
                    if event is not None:
                        return self.pause(transfer, event, sent)
                    slice_end_ns = monotonic_ns() + SLICE_NS
                left = self.end - self.position
                if left >= long_bytes:
                    if transfer.could_widen(left):
                        self._rest = transfer.pause(sent)
                        return None
                    if transfer.should_enqueue(left):
                        return self.pause(transfer, Event.TICKET, sent)
                sent = transfer.drain(send_chunk, batch_chunks)
        except ClientGone:
            transfer.cancel_quietly()
            raise
        except ShmChannelError as error:
            raise self._cut_short(transfer, error) from error

    def _cut_short(self, transfer: IncomingTransfer, error: ShmChannelError) -> BodyCutShort:
        if isinstance(error, PeerProtocolError):  # it cannot be trusted with what it sent before, either
            return BodyCutShort(str(error))
        self.position = transfer.position  # each chunk is sent whole before the next one is waited for
        return SourceLost(str(error), self)

    def _finish(self, transfer: IncomingTransfer) -> None:
        complete = transfer.state is TransferState.COMPLETE
        transfer.finish()
        if not complete:
            raise SourceLost("the cache could not read the object to its end", self)

    def _what_ends_its_turn(self, transfer: IncomingTransfer, *, turn_over: bool) -> Event | None:
        """Whether a response that has used its time slice pauses, because others wait for its resources."""
        if not transfer.may_ask_again:
            return None
        if turn_over and transfer.ticket_wanted:
            return Event.TICKET
        return Event.TURN if self._source.demand.others_wait() or (turn_over and transfer.others_wait) else None

    def _send_patiently(self, transfer: IncomingTransfer, sent: int) -> int:
        """Send the rest of a chunk, while nobody waits for what this response holds; returns what is sent of it."""
        stream = self.stream
        while True:
            sent += stream.send_memory(transfer.address + sent, transfer.length - sent, not transfer.last)
            if sent == transfer.length:
                return sent
            if not self._gets_room(transfer):
                return sent

    def _gets_room(self, transfer: IncomingTransfer) -> bool:
        """Whether the client makes room while it may be waited for.

        A cache that stops completes running transfers, and would not resume this one.
        """
        demand, wait_ms, ends_ns = self._source.demand, ROOM_MS, monotonic_ns() + PATIENCE_NS
        while True:
            if transfer.last or transfer.may_ask_again:
                if transfer.others_wait or (demand.others_wait() and not self.stream.is_quick):
                    return False
                if wait_ms > ROOM_MS and not demand.has_spare():
                    return False
            if self.stream.has_room_within(wait_ms):
                return True
            if monotonic_ns() > ends_ns:
                return False
            wait_ms = LOOK_MS

    def _send_rest(self) -> Event | None:
        """What is left of a head, or the copied rest of the last chunk."""
        taken = self.stream.send_some(self._rest, more=self.position + len(self._rest) < self.end)
        self._rest = self._rest[taken:]
        self.position += taken
        return Event.WRITABLE if self._rest else None

    def pause(self, transfer: IncomingTransfer, event: Event, sent: int) -> Event:
        """End the transfer, of whose chunk `sent` bytes were sent; returns the event.

        A cache that had handed all of it over keeps nothing for a resume: the rest stays here.
        """
        self._rest += transfer.pause(sent)
        return event


def begin_body(
    stream: ClientStream,
    header: bytes,
    transfer: IncomingTransfer,
    key: bytes,
    source: BodySource,
    first: int = 0,
    end: int | None = None,
    parts: Sequence[Part] = (),
) -> tuple[BodyTransfer, Event] | None:
    """Send a header, a transfer that begins at `first`, and `parts`; returns the rest and what that waits for, if any.

    Raises:
        SourceLost, BodyCutShort, ClientGone: as BodyTransfer.resume().
    """
    with transfer:
        try:
            sent = stream.send_with_header(header, transfer.address, transfer.length, not transfer.last)
        except ClientGone:
            transfer.cancel_quietly()
            raise
        is_all = sent == len(header) + transfer.length and transfer.last and not parts
        if is_all and transfer.state is TransferState.COMPLETE:
            transfer.finish()
            return None
        size_bytes, version = transfer.facts[:2]
        body = BodyTransfer(stream, key, size_bytes, version, source, first, end, head=header[sent:], parts=parts)
        if sent >= len(header):
            event: Event | None = body.send(transfer, sent - len(header))
        else:
            event = body.pause(transfer, Event.WRITABLE, 0)
    event = event or body.resume()
    return None if event is None else (body, event)


class FileResponse(BodyTransfer):
    """A body in a file that was found in the hot table; without the file it continues like any other."""

    __slots__ = ("_name",)

    def __init__(
        self,
        stream: ClientStream,
        key: bytes,
        file: HotTableFile,
        source: BodySource,
        first: int,
        end: int,
        *,
        head: bytes = b"",
        parts: Iterable[Part] = (),
    ) -> None:
        super().__init__(stream, key, file.size_bytes, file.name.version, source, first, end, head=head, parts=parts)
        self._name = file.name

    def _send_anew(self, ticket: Ticket | None) -> Event | None:
        file = self._source.store.reopen_file(self._name)
        return super()._send_anew(ticket) if file is None else self.send_file(file)

    def begin(self, file: HotTableFile) -> Event | None:
        """Send from the file, if nothing is left of the head; otherwise as resume()."""
        if self._rest:
            file.keep_paused()
            return Event.WRITABLE
        return self.send_file(file) or self.resume()

    def send_file(self, file: HotTableFile) -> Event | None:
        """Send from the file up to the end of the part; otherwise as resume()."""
        event = self._send_file(file.fd)
        if event is not None:
            file.keep_paused()
        return event

    def _send_file(self, fd: int) -> Event | None:
        stream, others_wait = self.stream, self._source.demand.others_wait
        slice_end_ns = monotonic_ns() + SLICE_NS
        while True:
            wanted = min(self.end - self.position, PIECE_BYTES)
            sent = stream.send_file(fd, self.position, wanted)
            self.position += sent
            if self.position >= self.end:
                return None
            if sent < wanted:
                if not sent and os.fstat(fd).st_size < self.end:  # somebody else's hand: the cache never changes it
                    raise BodyCutShort("the object's file was truncated")
                if (others_wait() and not stream.is_quick) or not stream.has_room_within(ROOM_MS):
                    return Event.WRITABLE
            if monotonic_ns() > slice_end_ns:
                if others_wait():
                    return Event.TURN
                slice_end_ns = monotonic_ns() + SLICE_NS
