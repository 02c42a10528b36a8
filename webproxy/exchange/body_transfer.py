"""BodyTransfer: the body of one hit being sent to its client; it can pause after any byte and be resumed later.

**States.** *Sending*, in begin_body() or resume(), with a transfer from the cache or an open file; *paused*, between
two of these, when it is a descriptor and a few numbers and holds no segment, no worker of the cache and no thread; at
its end. The rest of a last chunk is kept here while it is paused: the cache has finished with the object by then.

**Events** that pause it are what it waits for: WRITABLE (the client accepts nothing while others wait, or for long),
TURN (its slice is over and others wait), TICKET (a long one, when tickets are short). It resumes with a new transfer
from its offset, of the same version of the object; it also begins a new one where that gets more segments at once.

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
from webproxy.store.cache_client import Missing, Store
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event

SLICE_NS = 5_000_000
"""A response yields its worker after this time if others wait for it."""

PATIENCE_NS = 1_000_000_000
"""A client that reads nothing for this long is slow, even if nobody waits for the worker."""

TURN_BYTES, TURN_CHUNKS = 1 << 24, 64
"""A response gives up the segments or the ticket that others wait for after this many bytes and this many chunks:
restarting costs as much as some dozens of small chunks, and the cache has read a few large ones in vain.
"""

BATCH_CHUNKS, BATCH_BYTES = 8, 1 << 21
"""A response checks the time, waiting jobs, and for a wider lease after its first chunk, and then whenever this many
chunks or bytes were sent.
"""

PIECE_BYTES_MIN, PIECE_BYTES, PIECE_BYTES_MAX = 1 << 18, 1 << 20, 1 << 22
"""How much of a file is sent between two checks: PIECE_BYTES at first, then twice as much while the client accepts it
at once, and the minimum if it does not.
"""


class Demand(Protocol):
    """Whether somebody else needs the resources of a job."""

    def others_wait(self) -> bool:
        """Whether every worker is busy and another job waits for one; never blocks."""


class BodySource(NamedTuple):
    """The source of bodies, shared by all transfers."""

    store: Store
    wait_s: float
    """Time limit for the store to begin."""
    demand: Demand


class BodyTransfer:
    """`position` is the offset of the next byte to send."""

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
        """The end of what the client is to receive."""
        self._takes_turns = takes_turns
        self._rest = b""

    def resume(self, ticket: Ticket | None = None) -> Event | None:
        """Continue sending; returns None at the end, or what to wait for. The ticket is used and left.

        Raises:
            BodyCutShort: no cache, or the object changed or was evicted in the meantime.
            ClientGone: the connection is closed or broken.
        """
        event = None
        while event is None and self.position < self.end:
            try:
                # The rest is sent first: a file available by now would give the same bytes.
                event = self._send_rest() if self._rest else self._send_anew(ticket)
            finally:
                if ticket is not None:
                    ticket.leave()
                    ticket = None
        return event

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
            raise BodyCutShort("the object was replaced or evicted in mid-body")
        with transfer:
            if transfer.facts[:2] != (self.size_bytes, self.version):
                raise BodyCutShort("the cache sent another object than requested")
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
                    return self._pause(transfer, Event.WRITABLE, sent)
                if transfer.last:
                    _finish(transfer)
                    return None
                if monotonic_ns() > slice_end_ns:
                    event = self._what_ends_its_turn(transfer, turn_over=self.position >= turn_ends_at)
                    if event is not None:
                        return self._pause(transfer, event, sent)
                    slice_end_ns = monotonic_ns() + SLICE_NS
                left = self.end - self.position
                if left >= long_bytes:
                    if transfer.could_widen(left):
                        self._rest = transfer.pause(sent)
                        return None
                    if self._takes_turns and transfer.should_enqueue(left):
                        return self._pause(transfer, Event.TICKET, sent)
                sent = transfer.drain(send_chunk, batch_chunks)
        except ClientGone:
            transfer.cancel_quietly()
            raise
        except ShmChannelError as error:
            raise BodyCutShort(str(error)) from error

    def _what_ends_its_turn(self, transfer: IncomingTransfer, *, turn_over: bool) -> Event | None:
        """Whether a response that has used its time slice pauses, because others wait for its resources."""
        if not transfer.may_ask_again:
            return None
        if turn_over and transfer.ticket_wanted:
            return Event.TICKET
        return Event.TURN if self._source.demand.others_wait() or (turn_over and transfer.others_wait) else None

    def _send_patiently(self, transfer: IncomingTransfer, sent: int) -> int:
        """Send the rest of a chunk, while nobody waits for what this response holds; returns what is sent of it."""
        patience_ends_ns = monotonic_ns() + PATIENCE_NS
        while True:
            taken = self.stream.send_memory(transfer.address + sent, transfer.length - sent, not transfer.last)
            sent += taken
            if sent == transfer.length:
                return sent
            # A stopping cache completes running transfers, and would not resume this one.
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
        """The copied rest of the last chunk, if its client did not accept all of it."""
        taken = self.stream.send_some(self._rest)
        self._rest = self._rest[taken:]
        self.position += taken
        return Event.WRITABLE if self._rest else None

    def _pause(self, transfer: IncomingTransfer, event: Event, sent: int) -> Event:
        """End the transfer. A cache that had handed all of it over keeps nothing for a resume: the rest stays here."""
        self._rest = transfer.pause(sent)
        return event


def begin_body(
    stream: ClientStream,
    header: bytes,
    transfer: IncomingTransfer,
    key: bytes,
    source: BodySource,
    first: int = 0,
    end: int | None = None,
    *,
    takes_turns: bool = True,
) -> tuple[BodyTransfer, Event] | None:
    """Send a header and a transfer that begins at `first`; returns the rest of it and what that waits for, if any.

    Raises:
        BodyCutShort, ClientGone: as BodyTransfer.resume().
    """
    with transfer:
        try:
            sent = stream.send_with_header(header, transfer.address, transfer.length, not transfer.last)
        except ClientGone:
            transfer.cancel_quietly()
            raise
        if sent == transfer.length and transfer.last:
            _finish(transfer)
            return None
        size_bytes, version = transfer.facts[:2]
        body = BodyTransfer(stream, key, size_bytes, version, source, first, end, takes_turns=takes_turns)
        event = body.send(transfer, sent)
    event = event or body.resume()
    return None if event is None else (body, event)


def _finish(transfer: IncomingTransfer) -> None:
    complete = transfer.state is TransferState.COMPLETE
    transfer.finish()
    if not complete:
        raise BodyCutShort("the cache could not read the object to its end")


class FileResponse(BodyTransfer):
    """A body in a file that was found in the hot table; without the file it continues like any other."""

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
                raise BodyCutShort("the object's file was truncated")
            elif now > patience_ends_ns:
                return Event.WRITABLE
            at_once = now - before <= SLICE_NS
            self._piece_bytes = min(2 * self._piece_bytes, PIECE_BYTES_MAX) if at_once else PIECE_BYTES_MIN
            if now > slice_end_ns:
                if self._source.demand.others_wait():
                    return Event.WRITABLE if sent < wanted else Event.TURN
                slice_end_ns = now + SLICE_NS
