"""ChunkReader and ChunkWriter: drive the pure transfer over mapped segments.

They wait, post and copy; transfer.py decides.

    producer (ChunkWriter)                    consumer (ChunkReader)
    take space_available                      take data_available
    fill chunk, header                        check header, use chunk
    post data_available            ──▶        [CANCEL | RELEASE in the header]
                                   ◀──        post space_available

The consumer answers the terminal chunk (LAST, NOT_FOUND, FAILED, CANCELLED) with a post too: for a GET that puts the
semaphores back where they began; for a PUT it is the acknowledgement that the object is stored (or, with CANCEL, that
it is not), and the producer, who owns the segments, takes it and posts it again for the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.errors import PeerProtocolError
from shmchannel.layout import (
    CANCEL,
    CANCELLED,
    ERROR,
    FAILED,
    LAST,
    METADATA,
    NOT_FOUND,
    OK,
    RELEASE,
    RELEASED,
    ObjectFacts,
    ProcessIdentity,
)
from shmchannel.segment import Segment
from shmchannel.semaphore import PeerLiveness
from shmchannel.transfer import (
    BODY,
    COMPLETE,
    END,
    GIVEN_BACK,
    METADATA_PART,
    STREAMING,
    ConsumerTransfer,
    Order,
    ProducerTransfer,
    TransferState,
)

ReadInto = Callable[[memoryview, int], int]
"""Fill the view from this offset of the object on; returns the bytes written, 0 at the end. Copies without the GIL."""


_UNKNOWN = ObjectFacts(0, 0, 0)


class ShrinkableLease(Protocol):
    """What a reader needs of a lease whose segments others may wait for."""

    def should_shrink(self) -> bool:
        """True while somebody waits whom no segment is promised to."""
        ...

    def promise(self, number: int) -> None:
        """The segment has been asked back from the producer."""
        ...

    def give_back_one(self, number: int) -> None:
        """The segment came back."""
        ...


class ChunkReader:
    """The consuming end.

    After begin(), `chunk` (or `address` and `length`) is the current part of the body, valid until the next call,
    `last` tells that it is the last one, and `facts` are the object's.
    """

    __slots__ = (
        "_lease",
        "_number",
        "_peer",
        "_segment",
        "_segments",
        "_stall_s",
        "_transfer",
        "facts",
        "last",
        "length",
        "metadata",
    )

    def __init__(
        self, segments: Sequence[Segment], peer: PeerLiveness, stall_s: float, lease: ShrinkableLease | None = None
    ) -> None:
        self._segments = segments
        self._peer = peer
        self._stall_s = stall_s
        self._lease = lease
        self._transfer = ConsumerTransfer(len(segments))
        self._number = 0
        self._segment = segments[0]
        self.length = 0
        self.last = False
        self.facts = _UNKNOWN
        self.metadata = b""

    @property
    def state(self) -> TransferState:
        """Where the transfer stands."""
        return self._transfer.state

    @property
    def chunk(self) -> memoryview:
        """A view of the current body chunk."""
        return self._segment.chunk[: self.length]

    @property
    def address(self) -> int:
        """Where the current body chunk lies in memory."""
        return self._segment.chunk_address

    def begin(
        self, deadline: Deadline, offset: int = 0, length: int = 0, *, metadata_wanted: bool = False
    ) -> TransferState:
        """Wait for the first chunk; returns the state: STREAMING or COMPLETE with a chunk, or another end.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        segment = self._segment
        segment.data_available.take_until(deadline, self._peer)
        transfer = self._transfer
        self.facts = facts = segment.header.read_object()
        transfer.begin(facts, offset, length, metadata_wanted=metadata_wanted)
        self._take_current()
        while not self.length and transfer.state is STREAMING:
            self.advance()
        return transfer.state

    def advance(self) -> None:
        """Give the current chunk's space back and wait for the next.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        while True:
            segment = self._segment
            lease = self._lease
            if lease is not None and lease.should_shrink() and self._transfer.may_ask_back():
                self._transfer.ask_back()
                segment.header.write_request(RELEASE)
                lease.promise(self._number)
            segment.space_available.post()
            if faults.ARMED:
                faults.reach("proxy.posted")
            self._number = number = self._transfer.ring.advance()
            self._segment = segment = self._segments[number]
            segment.data_available.take(self._stall_s, self._peer)
            if self._take_current():
                return

    def _take_current(self) -> bool:
        """Judge the chunk in the current segment; True when it is one of the body or the transfer ended."""
        while True:
            segment = self._segment
            status, length, offset, flags = segment.header.read_chunk()
            arrival = self._transfer.receive(status, length, offset, flags, segment.chunk_capacity)
            if arrival is BODY:
                self.length = length
                self.last = flags != 0
                return True
            if arrival is METADATA_PART:
                self.metadata += bytes(segment.chunk[:length])
                return False
            if arrival is not GIVEN_BACK:
                self.length = 0
                self.last = arrival is END
                return True
            self._drop_current()
            self._segment.data_available.take(self._stall_s, self._peer)

    def _drop_current(self) -> None:
        self._segment.space_available.post()  # the producer took it to say RELEASED: leave the segment as it began
        number = self._number
        self._number = self._transfer.drop()
        self._segment = self._segments[self._number]
        if self._lease is not None:
            self._lease.give_back_one(number)

    def finish(self, *, refused: bool = False) -> None:
        """Answer the terminal chunk; the transfer has ended cleanly and the semaphores stand as they began."""
        if not self._transfer.state.ended:
            raise PeerProtocolError(f"the transfer is still {self._transfer.state.value}")
        self.length = 0
        self._segment.header.write_request(CANCEL if refused else 0)
        self._segment.space_available.post()

    def abandon(self) -> None:
        """Tell the producer to stop, for a transfer whose segments are about to be retired; never waits.

        Otherwise it would wait for space that nobody gives until its stall limit. Which segment it comes to next is
        not known here (the answer may be late, or wrong), so each one says CANCEL and has space.
        """
        for number in self._transfer.ring.slots:  # what was given back in the stream serves others by now
            segment = self._segments[number]
            segment.header.write_request(CANCEL)
            segment.space_available.post()

    def cancel(self) -> None:
        """End a streaming transfer early and cleanly: set CANCEL, then discard what is on the way.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        self.length = 0
        self._lease = None  # no more shrinking: the whole lease comes back in a moment
        self._transfer.cancel()
        self._segment.header.write_request(CANCEL)
        while not self._transfer.state.ended:
            self.advance()
        self.finish(refused=True)  # also when the producer of a PUT had handed over its last chunk before it saw CANCEL


class ChunkWriter:
    """The producing end; `posted` counts the chunks handed over."""

    __slots__ = ("_identity", "_peer", "_segment", "_segments", "_stall_s", "_transfer", "posted")

    def __init__(
        self, segments: Sequence[Segment], peer: PeerLiveness, stall_s: float, identity: ProcessIdentity
    ) -> None:
        self._segments = segments
        self._peer = peer
        self._stall_s = stall_s
        self._identity = identity
        self._transfer = ProducerTransfer(len(segments))
        self._segment = segments[0]
        self.posted = 0

    def begin(self, facts: ObjectFacts) -> None:
        """Say what the object is; goes out with the first chunk."""
        self._segments[0].header.write_object(*facts, self._identity)

    def send(self, read_into: ReadInto, offset: int, end: int, metadata: bytes = b"") -> TransferState:
        """Stream [offset, end) of an object, chunk by chunk, straight into the segments; metadata goes ahead of it.

        Returns COMPLETE, CANCELLED by the consumer, or FAILED when `read_into` came short (the consumer was told).

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must not be used again.
        """
        sent = 0
        while sent < len(metadata):
            if not self.take_turn(self._stall_s):
                return self._transfer.state
            length = min(len(metadata) - sent, self._segment.chunk_capacity)
            self._segment.chunk[:length] = metadata[sent : sent + length]
            self.post(OK, length, sent, METADATA)
            sent += length
        while self.take_turn(self._stall_s):
            segment = self._segment
            left = end - offset
            length = (
                read_into(segment.chunk if left >= segment.chunk_capacity else segment.chunk[:left], offset)
                if left
                else 0
            )
            if left and length <= 0:  # the file is shorter than it said
                self.post(FAILED, 0, 0, LAST | ERROR)
                self._transfer.state = TransferState.FAILED
                break
            if faults.ARMED and sent == 0 and offset:
                faults.reach("cache.streaming")
            if length == left:
                self.post(OK, length, offset, LAST)
                self._transfer.state = COMPLETE
                break
            self.post(OK, length, offset, 0)
            if faults.ARMED and not offset:
                faults.reach("cache.first_chunk")
            offset += length
        return self._transfer.state

    def refuse(self, *, failed: bool = False) -> None:
        """Answer with one terminal chunk and no body: NOT_FOUND, or FAILED."""
        if self.take_turn(self._stall_s):
            self.post(FAILED if failed else NOT_FOUND, 0, 0, LAST | ERROR if failed else LAST)
            self._transfer.state = TransferState.FAILED if failed else TransferState.NOT_FOUND

    def take_turn(self, limit_s: float) -> bool:
        """Come to the next segment that is to be filled, waiting for its space; False when the consumer cancelled."""
        while True:
            segment = self._segment
            segment.space_available.take(limit_s, self._peer)
            if not segment.header.read_request() or self._may_fill():
                return True
            if self._transfer.state is TransferState.CANCELLED:
                return False

    def try_turn(self) -> bool:
        """As take_turn() without waiting: False also when there is no space now."""
        while self._segment.space_available.try_take():
            if self._may_fill():
                return True
            if self._transfer.state is TransferState.CANCELLED:
                return False
        return False

    def _may_fill(self) -> bool:
        request = self._segment.header.read_request()
        if not request:
            return True
        if self._transfer.order(request) is Order.CANCEL:
            self._segment.header.write_chunk(CANCELLED, 0, 0, LAST)
            self._segment.data_available.post()
            return False
        self._segment.header.write_chunk(OK, 0, 0, RELEASED)
        self._segment.data_available.post()
        self._segment = self._segments[self._transfer.ring.drop()]
        return False

    @property
    def state(self) -> TransferState:
        """Where the transfer stands."""
        return self._transfer.state

    @property
    def segment(self) -> Segment:
        """The segment whose turn it is; between take_turn() and post() its chunk is the producer's to write."""
        return self._segment

    def post(self, status: int, length: int, offset: int, flags: int) -> None:
        """Hand the filled chunk over; the turn goes to the next segment unless it was the last chunk."""
        segment = self._segment
        segment.header.write_chunk(status, length, offset, flags)
        segment.data_available.post()
        self.posted += 1
        if not flags & LAST:
            self._segment = self._segments[self._transfer.ring.advance()]

    def wait_acknowledged(self, limit_s: float) -> bool:
        """PUT, after the terminal chunk: wait for the consumer's answer; True when it stored the object."""
        self._segment.space_available.take(limit_s, self._peer)
        stored = self._segment.header.read_request() == 0
        self._segment.space_available.post()
        return stored

    def set_complete(self) -> None:
        """The last chunk has been posted by a driver that fills the segments itself."""
        self._transfer.state = COMPLETE

    def fail(self) -> None:
        """The source of the chunk whose turn was taken broke: tell the consumer, in place of the chunk."""
        self.post(FAILED, 0, 0, LAST | ERROR)
        self._transfer.state = TransferState.FAILED

    def answer_empty(self, version: int) -> None:
        """Answer with an empty object whose version carries a number: the reply to commands that move no bytes."""
        self.begin(ObjectFacts(0, version, 0))
        if self.take_turn(self._stall_s):
            self.post(OK, 0, 0, LAST)
