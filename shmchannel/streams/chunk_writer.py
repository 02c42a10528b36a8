"""ChunkWriter: the producing end of a transfer over mapped segments; chunk_reader.py says how both take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shmchannel import faults
from shmchannel.process.identity import ProcessIdentity
from shmchannel.streams.layout import (
    CANCELLED,
    ERROR,
    FAILED,
    LAST,
    MARKED,
    METADATA,
    NOT_FOUND,
    OK,
    RELEASED,
    ObjectFacts,
)
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import (
    COMPLETE,
    ProducerAction,
    ProducerTransfer,
    TransferState,
)
from shmchannel.sync.semaphore import PeerLiveness, next_look

ReadInto = Callable[[Sequence[memoryview], int], int]
"""Fill the views, one behind the other, from this offset of the object on: os.preadv without its descriptor.

Returns the bytes written, 0 at the end. Copies without the GIL.
"""


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

    def send(
        self, read_into: ReadInto, offset: int, end: int, metadata: bytes = b"", *, invalidated: bool = False
    ) -> TransferState:
        """Stream [offset, end) of an object, chunk by chunk, straight into the segments; metadata goes ahead of it.

        The metadata tells whether the object is `marked`; without metadata nothing does.

        Returns COMPLETE, CANCELLED by the consumer, or FAILED when `read_into` came short (the consumer was told).

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must not be used again.
        """
        sent = 0
        flags = METADATA | MARKED if invalidated else METADATA
        while sent < len(metadata):
            if not self.take_turn(self._stall_s):
                return self._transfer.state
            length = min(len(metadata) - sent, self._segment.chunk_capacity)
            self._segment.chunk[:length] = metadata[sent : sent + length]
            self.post(OK, length, sent, flags)
            sent += length
        return self._send_body(read_into, offset, end, fresh=not sent)

    def _send_body(self, read_into: ReadInto, offset: int, end: int, *, fresh: bool) -> TransferState:
        """In one frame what take_turn() and post() do for a driver that fills chunk by chunk: a body has thousands."""
        transfer = self._transfer
        ring = transfer.ring
        segment = self._segment
        armed, look = faults.ARMED, next_look()
        while True:
            space_available = segment.space_available
            if not space_available.try_take() and space_available.wait_until(look):
                space_available.wait(self._stall_s, self._peer)
                look = next_look()
            if segment.header.read_request() and not self._may_fill():
                if transfer.state is TransferState.CANCELLED:
                    return transfer.state
                segment = self._segment
                continue
            left = end - offset
            capacity = segment.chunk_capacity
            if left > capacity:
                length = read_into((segment.chunk,), offset)
            else:
                length = read_into((segment.chunk[:left],), offset)
                if length == left:
                    break
            if length <= 0:  # the file is shorter than it said
                self.fail()
                return transfer.state
            if armed and fresh and offset:
                faults.reach("cache.streaming")
            segment.header.write_chunk(OK, length, offset, 0)
            segment.data_available.post()
            self.posted += 1
            if armed and not offset:
                faults.reach("cache.first_chunk")
            offset += length
            self._segment = segment = self._segments[ring.advance()]
        self.post(OK, length, offset, LAST)
        transfer.state = COMPLETE
        return COMPLETE

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
        if self._transfer.order(request) is ProducerAction.CANCEL:
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

    def abandon(self) -> None:
        """Tell the consumer that no more comes, for a transfer whose segments are about to be retired; never waits.

        Otherwise it would wait for data until its stall limit. Which segment it looks at next is not known here, so
        each one says FAILED: nothing that a consumer reads while this is written makes a whole object of a part.
        """
        for number in self._transfer.ring.slots:  # what was given back in the stream serves others by now
            segment = self._segments[number]
            segment.header.write_chunk(FAILED, 0, 0, LAST | ERROR)
            segment.data_available.post()

    def answer_empty(self, version: int) -> None:
        """Answer with an empty object whose version carries a number: the reply to commands that move no bytes."""
        self.begin(ObjectFacts(0, version, 0))
        if self.take_turn(self._stall_s):
            self.post(OK, 0, 0, LAST)
