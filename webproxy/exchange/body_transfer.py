"""BodyTransfer: the body of one hit being sent to its client; it can pause after any byte and be resumed later.

**States.** *Sending*, within send() or resume(), with a transfer from the cache or an open file; *paused*, between two
of these, when it is a descriptor and a few numbers and holds no segment, no worker of the cache and no thread; at its
end. The rest of a last chunk is kept here while it is paused: the cache has finished with the object by then.

**Events** that pause it are what it waits for: WRITABLE (the client accepts nothing while others wait, or for long),
TURN (its slice is over and others wait), TICKET (a long one, when tickets are short), WIDTH (a new transfer would get
more segments at once). It resumes with a new transfer from its offset, of the same version of the object.

**Invariants.** `position` is exact whenever it pauses. Every transfer is ended cleanly, or by an exception that retires
its segments. A ticket is left by whoever was given it, on every way out. Not one byte of another version is sent: a
body whose object is gone ends short (BodyCutShort).

**Why not otherwise.** Keeping the transfer while the client is slow would let a few slow clients hold every segment.
Looking at the clock and at who waits after each chunk costs more than small chunks do: it is done once in a batch.
"""

from __future__ import annotations

import os
from time import monotonic_ns
from typing import NamedTuple, Protocol

from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Ticket
from shmchannel.streams.transfer import TransferState
from webproxy.errors import BodyCutShort, CacheUnavailable, ClientGone
from webproxy.store.store import Missing, Store
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event

SLICE_NS = 5_000_000
"""A response that others wait for gives its worker up after so long."""

PATIENCE_NS = 1_000_000_000
"""A client that takes nothing for so long is slow, also when nobody waits for the worker."""

TURN_BYTES, TURN_CHUNKS = 1 << 24, 64
"""A response gives up the segments or the place that others wait for after so many bytes and so many chunks: going on
anew costs as much as some dozens of small chunks, and the cache has read a few large ones in vain."""

BATCH_CHUNKS, BATCH_BYTES = 8, 1 << 21
"""A response looks at the time, at who waits, and for a wider lease after its first chunk, and then whenever so many
chunks or so many bytes went out."""

PIECE_BYTES_MIN, PIECE_BYTES, PIECE_BYTES_MAX = 1 << 18, 1 << 20, 1 << 22
"""Of a file so much is sent between two looks: PIECE_BYTES at first, then the double while the client takes it at once,
and the least when it does not."""


class Demand(Protocol):
    """Whether somebody else wants what a job holds."""

    def others_wait(self) -> bool:
        """True when every worker is busy and another job waits for one; never blocks."""


class BodySource(NamedTuple):
    """Where bodies come from, shared by all of them."""

    store: Store
    wait_s: float
    """How long the store may take to begin."""
    demand: Demand


class BodyTransfer:
    """`position` is the offset of the next byte that the client has not got."""

    __slots__ = (
        "_rest",
        "_source",
        "_takes_turns",
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
        takes_turns: bool = True,
    ) -> None:
        """The bytes from `first` on, up to `end`, of an object of `size_bytes`.

        `takes_turns`: it waits for a ticket where others do; False for one that cannot pause.
        """
        self._source = source
        self.stream = stream
        self.key = key
        self.size_bytes = size_bytes
        self.version = version
        self.position = first
        self.end = size_bytes if end is None else end
        """Behind the last byte that the client is to get."""
        self._takes_turns = takes_turns
        self._rest = b""

    @property
    def path(self) -> bytes:
        """What a log line names it by."""
        return self.key

    def go_on(self, ticket: Ticket | None = None) -> Event | None:
        """Resume until the end, or until it waits for something that takes time. As resume()."""
        while self.position < self.end:
            event, ticket = self.resume(ticket), None
            if event is not Event.WIDTH:
                return event
        return None

    def resume(self, ticket: Ticket | None = None) -> Event | None:
        """Send from where it paused; returns None at the end, or what it waits for. The ticket is used and left.

        Raises:
            BodyCutShort: no cache, or the object changed or left it meanwhile.
            ClientGone: the connection is closed or broken.
        """
        try:
            # The rest goes first: a file that is there by now would give the same bytes.
            return self._send_rest() if self._rest else self._send_anew(ticket)
        finally:
            if ticket is not None:
                ticket.leave()

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
            raise BodyCutShort(str(error)) from error
        if isinstance(transfer, Missing):
            raise BodyCutShort("the object changed or left the cache in mid-body")
        with transfer:
            if transfer.facts[:2] != (self.size_bytes, self.version):
                raise BodyCutShort("the cache answered with another object than was asked for")
            return self.send(transfer, 0)

    def send(self, transfer: IncomingTransfer, sent: int) -> Event | None:
        """Send from the current chunk on, whose first `sent` bytes went out; as resume(). Ends the transfer cleanly."""
        send_chunk, reader = self.stream.send_chunk, transfer.reader
        batch_chunks = max(1, min(BATCH_CHUNKS, BATCH_BYTES // transfer.chunk_capacity))
        slice_end_ns = monotonic_ns() + SLICE_NS
        long_bytes = transfer.long_bytes
        turn_ends_at = reader.position + max(TURN_BYTES, TURN_CHUNKS * transfer.chunk_capacity)
        try:
            while True:
                if sent < reader.length:
                    sent = self._send_patiently(transfer, sent)
                self.position = reader.position - reader.length + sent
                if sent < reader.length:
                    return self._pause(transfer, Event.WRITABLE, sent)
                if reader.last:
                    self._end(transfer)
                    return None
                if monotonic_ns() > slice_end_ns:
                    event = self._what_ends_its_turn(transfer, turn_over=self.position >= turn_ends_at)
                    if event is not None:
                        return self._pause(transfer, event, sent)
                    slice_end_ns = monotonic_ns() + SLICE_NS
                left = self.end - self.position
                if left >= long_bytes:
                    if transfer.could_widen(left):
                        return self._pause(transfer, Event.WIDTH, sent)
                    if self._takes_turns and transfer.should_enqueue(left):
                        return self._pause(transfer, Event.TICKET, sent)
                sent = reader.drain(send_chunk, batch_chunks)
        except ClientGone:
            transfer.cancel_quietly()
            raise
        except ShmChannelError as error:
            raise BodyCutShort(str(error)) from error

    def _what_ends_its_turn(self, transfer: IncomingTransfer, *, turn_over: bool) -> Event | None:
        """Whether a response that has had its slice goes on later, because others wait for what it holds."""
        if not transfer.may_ask_again:
            return None
        if turn_over and transfer.ticket_wanted:
            return Event.TICKET
        return Event.TURN if self._source.demand.others_wait() or (turn_over and transfer.others_wait) else None

    def _send_patiently(self, transfer: IncomingTransfer, sent: int) -> int:
        """Send the rest of a chunk, while nobody waits for what this response holds; returns what is sent of it."""
        reader = transfer.reader
        patience_ends_ns = monotonic_ns() + PATIENCE_NS
        while True:
            taken = self.stream.send_memory(reader.address + sent, reader.length - sent, not reader.last)
            sent += taken
            if sent == reader.length:
                return sent
            # A cache that stops finishes what it has begun, and would not take it up again.
            if (transfer.last or transfer.may_ask_again) and (
                self._source.demand.others_wait() or transfer.others_wait
            ):
                return sent
            now = monotonic_ns()
            if taken:
                patience_ends_ns = now + PATIENCE_NS
            elif now > patience_ends_ns:
                return sent

    def _send_rest(self) -> Event | None:
        """What was taken out of the last chunk, when its client took no more of it."""
        taken = self.stream.send_some(self._rest)
        self._rest = self._rest[taken:]
        self.position += taken
        return Event.WRITABLE if self._rest else None

    def _end(self, transfer: IncomingTransfer) -> None:
        complete = transfer.state is TransferState.COMPLETE
        transfer.finish()
        if not complete:
            raise BodyCutShort("the cache could not read the object to its end")

    def _pause(self, transfer: IncomingTransfer, event: Event, sent: int) -> Event:
        """End the transfer. A cache that had handed all of it over keeps nothing for a resume: the rest stays here."""
        self._rest = transfer.pause(sent)
        return event


class FileResponse(BodyTransfer):
    """One whose body is a file that was found on the hot table; without it, it goes on as any other."""

    __slots__ = ("_name", "_piece_bytes")

    def __init__(
        self,
        stream: ClientStream,
        key: bytes,
        file: HotTableFile,
        source: BodySource,
        first: int,
        end: int,
    ) -> None:
        super().__init__(stream, key, file.size_bytes, file.name.version, source, first, end)
        self._name = file.name
        self._piece_bytes = PIECE_BYTES

    def _send_anew(self, ticket: Ticket | None) -> Event | None:
        file = self._source.store.reopen_file(self._name)
        return super()._send_anew(ticket) if file is None else self.send_file(file)

    def send_file(self, file: HotTableFile) -> Event | None:
        """Send from the file; otherwise as resume()."""
        event = self._send_file(file.fd)
        if event is not None:
            file.keep_paused()
        return event

    def _send_file(self, fd: int) -> Event | None:
        send_file = self.stream.send_file
        now = monotonic_ns()
        slice_end_ns, patience_ends_ns = now + SLICE_NS, now + PATIENCE_NS
        while True:
            wanted = min(self.end - self.position, self._piece_bytes)
            sent = send_file(fd, self.position, wanted)
            self.position += sent
            if self.position >= self.end:
                return None
            before, now = now, monotonic_ns()
            if sent:
                patience_ends_ns = now + PATIENCE_NS
            elif os.fstat(fd).st_size < self.end:  # somebody else's hand: the cache itself never changes it
                raise BodyCutShort("the object's file was made shorter")
            elif now > patience_ends_ns:
                return Event.WRITABLE
            at_once = now - before <= SLICE_NS
            self._piece_bytes = min(2 * self._piece_bytes, PIECE_BYTES_MAX) if at_once else PIECE_BYTES_MIN
            if now > slice_end_ns:
                if self._source.demand.others_wait():
                    return Event.WRITABLE if sent < wanted else Event.TURN
                slice_end_ns = now + SLICE_NS
