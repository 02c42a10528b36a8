"""ChunkReader: the consuming end of a transfer over mapped segments; chunk_writer.py is the other one.

Both wait, post and copy; transfer.py decides.

    producer (ChunkWriter)                    consumer (ChunkReader)
    take space_available                      take data_available
    fill chunk, header                        check header, use chunk
    post data_available            ──▶        [CANCEL | RELEASE in the header]
                                   ◀──        post space_available

The consumer answers the terminal chunk (LAST, NOT_FOUND, FAILED, CANCELLED) with a post too. If it owns the segments,
that puts the semaphores back where they began. If the producer owns them, the post acknowledges that the object is
stored (or, with CANCEL, that it is not): the producer takes it, and posts again to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.streams.layout import (
    CANCEL,
    OK,
    PAUSE,
    RELEASE,
    ObjectFacts,
)
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import (
    BODY,
    END,
    GIVEN_BACK,
    PREAMBLE_PART,
    REQUESTED,
    STREAMING,
    ConsumerTransfer,
    TransferState,
)
from shmchannel.sync.semaphore import PeerLiveness, next_look

SendChunk = Callable[[object, int, bool], int]
"""Send this many bytes from a ctypes pointer, with more to follow or not; returns how many were accepted."""


_UNKNOWN = ObjectFacts(0, 0, 0)


class ShrinkableLease(Protocol):
    """What a reader needs from a lease whose segments others may want."""

    def should_shrink(self) -> bool:
        """Whether somebody waits to whom no segment is promised."""
        ...

    def promise(self, number: int) -> None:
        """The segment has been asked back from the producer."""
        ...

    def give_back_one(self, number: int) -> None:
        """The segment was returned."""
        ...


class ChunkReader:
    """The consuming end.

    After begin(), `chunk` (or `address` and `length`) is the current part of the body, valid until the next call,
    `last` tells that it is the last one, and `facts` are the object's.
    """

    __slots__ = (
        "_between_bytes_timeout_s",
        "_lease",
        "_number",
        "_peer",
        "_segment",
        "_segments",
        "_transfer",
        "facts",
        "last",
        "length",
        "preamble",
    )

    def __init__(
        self,
        segments: Sequence[Segment],
        peer: PeerLiveness,
        between_bytes_timeout_s: float,
        lease: ShrinkableLease | None = None,
    ) -> None:
        self._segments = segments
        self._peer = peer
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._lease = lease
        self._transfer = ConsumerTransfer(len(segments))
        self._number = 0
        self._segment = segments[0]
        self.length = 0
        self.last = False
        self.facts = _UNKNOWN
        self.preamble = b""

    @property
    def state(self) -> TransferState:
        """The state of the transfer."""
        return self._transfer.state

    @property
    def flagged(self) -> bool:
        """The user flag; it comes with the preamble, or with the answer that there is no such object."""
        return self._transfer.flagged

    @property
    def answered(self) -> bool:
        """Whether the terminal chunk has been answered."""
        return self._transfer.answered

    @property
    def position(self) -> int:
        """The offset in the object of the end of the current chunk."""
        return self._transfer.position

    @property
    def end(self) -> int:
        """The offset in the object of the end of the transfer."""
        return self._transfer.end

    @property
    def chunk(self) -> memoryview:
        """A view of the current body chunk."""
        return self._segment.chunk[: self.length]

    @property
    def address(self) -> int:
        """The address of the current body chunk."""
        return self._segment.chunk_address

    def begin(
        self, deadline: Deadline, offset: int = 0, length: int = 0, *, preamble_wanted: bool = False
    ) -> TransferState:
        """Wait for the first chunk; returns the state: STREAMING or COMPLETE with a chunk, or another end.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        segment = self._segment
        if not segment.data_available.try_take():
            segment.data_available.wait(deadline.remaining(), self._peer)
        transfer = self._transfer
        self.facts = facts = segment.header.read_object()
        transfer.begin(facts, offset, length, preamble_wanted=preamble_wanted)
        self._take_current()
        while not self.length and transfer.state is STREAMING:
            self.advance()
        return transfer.state

    def advance(self) -> None:
        """Release the current chunk and wait for the next.

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
            segment.data_available.take(self._between_bytes_timeout_s, self._peer)
            if self._take_current():
                return

    def drain(self, send: SendChunk, chunk_count: int) -> int:
        """Release the current chunk and send the following ones, at most `chunk_count`.

        Returns how much was sent of the chunk that is then current: it was not accepted whole, or is the last one, or
        the last of the count. Equivalent to repeated advance(), but in one frame, because a body has thousands of
        chunks. A segment is asked back at the beginning only.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired. And whatever `send` raises.
        """
        lease = self._lease
        advanced = lease is not None and lease.should_shrink()
        if advanced:
            self.advance()
        transfer, segment = self._transfer, self._segment
        ring, segments = transfer.ring, self._segments
        position, end = transfer.position, transfer.end
        length, armed, look = self.length, faults.ARMED, next_look()
        try:
            while True:
                if not advanced:
                    segment.space_available.post()
                    if armed:
                        faults.reach("proxy.posted")
                    self._number = number = ring.advance()
                    self._segment = segment = segments[number]
                    data_available = segment.data_available
                    if not data_available.try_take() and data_available.wait_until(look):
                        data_available.wait(self._between_bytes_timeout_s, self._peer)
                    length = segment.chunk_capacity
                    if position + length < end and segment.header.read_chunk() == [OK, length, position, 0]:
                        position += length  # as transfer.receive() would: a full chunk in mid-body, nearly always
                    else:
                        transfer.advance_to(position)
                        self._take_current()
                        segment, position, length = self._segment, transfer.position, self.length
                advanced = False
                sent = send(segment.chunk_pointer, length, not self.last) if length else 0
                chunk_count -= 1
                if sent < length or self.last or chunk_count <= 0:
                    return sent
        finally:
            transfer.advance_to(position)
            self.length = length

    def _take_current(self) -> bool:
        """Judge the chunk in the current segment; True if it is a body chunk or the transfer ended."""
        while True:
            segment = self._segment
            status, length, offset, flags = segment.header.read_chunk()
            arrival = self._transfer.receive(status, length, offset, flags, segment.chunk_capacity)
            if arrival is BODY:
                self.length = length
                self.last = flags != 0
                return True
            if arrival is PREAMBLE_PART:
                self.preamble += bytes(segment.chunk[:length])
                return False
            if arrival is not GIVEN_BACK:
                self.length = 0
                self.last = arrival is END
                return True
            self._drop_current()
            self._segment.data_available.take(self._between_bytes_timeout_s, self._peer)

    def _drop_current(self) -> None:
        self._segment.space_available.post()  # the producer took it to write RELEASED: leave the segment as it began
        number = self._number
        self._number = self._transfer.drop()
        self._segment = self._segments[self._number]
        if self._lease is not None:
            self._lease.give_back_one(number)

    def finish(self, *, refused: bool = False) -> None:
        """Answer the terminal chunk; the transfer has ended cleanly, with the semaphores at their initial values."""
        self._transfer.finish()
        self.length = 0
        self._segment.header.write_request(CANCEL if refused else 0)
        self._segment.space_available.post()

    def refuse(self, limit_s: float | None = None) -> None:
        """Tell the producer that its object is not stored, however much of it has come; does nothing once answered.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: it missed a turn, each of which has `limit_s`, by default the
                between-bytes timeout; the segments must not be used again.
        """
        transfer = self._transfer
        if transfer.answered:
            return
        if limit_s is not None:
            self._between_bytes_timeout_s = limit_s
        if transfer.state is REQUESTED:
            self.begin(Deadline.after(self._between_bytes_timeout_s), preamble_wanted=True)
        if transfer.state.ended:
            self.finish(refused=True)
        else:
            self.cancel()

    def abandon(self) -> None:
        """Tell the producer to stop, for a transfer whose segments are about to be retired; never waits.

        Otherwise it would wait for space that nobody gives until its between-bytes timeout. Which segment it comes to
        next is not known here (the answer may be late, or wrong), so each one says CANCEL and has space.
        """
        for number in self._transfer.ring.numbers:  # returned segments serve others by now
            segment = self._segments[number]
            segment.header.write_request(CANCEL)
            segment.space_available.post()

    def cancel(self) -> None:
        """End a streaming transfer early and cleanly: set CANCEL, then discard what is on the way.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        self._begin_cancel(CANCEL)
        while not self._transfer.state.ended:
            self.advance()
        self.finish(refused=True)  # even if the producer had handed over its last chunk before it saw CANCEL

    def pause(self, used: int = 0) -> bytes:
        """As cancel(), for a consumer that will ask for the rest later: the producer may keep what it needs for that.

        A producer that had handed over its last chunk before it saw PAUSE has ended, and keeps nothing: then the body
        behind the first `used` bytes of the current chunk is returned, at most what the segments hold. Raises as
        cancel().
        """
        transfer = self._transfer
        end = transfer.end
        may_have_ended = end - transfer.position <= len(transfer.ring) * self._segment.chunk_capacity
        position, rest = transfer.position - self.length + used, b""
        if may_have_ended:
            rest = bytes(self.chunk[used:])
        self._begin_cancel(PAUSE)
        while not transfer.state.ended:
            self.advance()
            if may_have_ended:
                segment = self._segment
                status, length, offset, _ = segment.header.read_chunk()
                if status == OK and offset == position + len(rest) and length <= segment.chunk_capacity:
                    rest += bytes(segment.chunk[:length])
        self.finish(refused=True)
        return rest if position + len(rest) == end else b""

    def _begin_cancel(self, request: int) -> None:
        self.length = 0
        self._lease = None  # no more shrinking: the whole lease returns in a moment
        self._transfer.cancel()
        self._segment.header.write_request(request)
