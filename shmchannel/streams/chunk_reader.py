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

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.streams.layout import CANCEL, OK, PAUSE, RELEASE
from shmchannel.streams.pool import Lease
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


class ChunkReader(ConsumerTransfer[Segment]):
    """The consuming end.

    After begin(), `chunk` (or `address` and `length`) is the current part of the body, valid until the next call,
    `position` is the offset in the object of its end, `last` tells that it is the last one, and `facts` are the
    object's.
    """

    __slots__ = ("_between_bytes_timeout_s", "_lease", "_peer", "last", "length", "preamble")

    def __init__(
        self,
        segments: Sequence[Segment],
        peer: PeerLiveness,
        between_bytes_timeout_s: float,
        lease: Lease | None = None,
    ) -> None:
        super().__init__(segments)
        self._peer = peer
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._lease = lease
        self.length = 0
        self.last = False
        self.preamble = b""

    @property
    def chunk(self) -> memoryview:
        """A view of the current body chunk."""
        return self.ring[0].chunk[: self.length]

    @property
    def address(self) -> int:
        """The address of the current body chunk."""
        return self.ring[0].chunk_address

    def begin(
        self, deadline: Deadline, offset: int = 0, length: int = 0, *, preamble_wanted: bool = False
    ) -> TransferState:
        """Wait for the first chunk; returns the state: STREAMING or COMPLETE with a chunk, or another end.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        segment = self.ring[0]
        if not segment.data_available.try_take():
            segment.data_available.wait(deadline.remaining(), self._peer)
        self.accept(segment.header.read_object(), offset, length, preamble_wanted=preamble_wanted)
        self._take_current()
        while not self.length and self.state is STREAMING:
            self.advance()
        return self.state

    def advance(self) -> None:
        """Release the current chunk and wait for the next.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        while True:
            segment = self.ring[0]
            lease = self._lease
            if lease is not None and lease.should_shrink() and self.may_ask_back():
                self.ask_back()
                segment.header.write_request(RELEASE)
                lease.promise(segment)
            segment.space_available.post()
            if faults.ARMED:
                faults.reach("proxy.posted")
            self.ring.rotate(-1)
            self.ring[0].data_available.take(self._between_bytes_timeout_s, self._peer)
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
        ring, segment = self.ring, self.ring[0]
        position, end, length = self.position, self.end, self.length
        armed, look = faults.ARMED, next_look()
        try:
            while True:
                if not advanced:
                    segment.space_available.post()
                    if armed:
                        faults.reach("proxy.posted")
                    ring.rotate(-1)
                    segment = ring[0]
                    data_available = segment.data_available
                    if not data_available.try_take() and data_available.wait_until(look):
                        data_available.wait(self._between_bytes_timeout_s, self._peer)
                    length = segment.chunk_capacity
                    if position + length < end and segment.header.read_chunk() == [OK, length, position, 0]:
                        position += length  # as receive() would: a full chunk in mid-body, nearly always
                    else:
                        self.advance_to(position)
                        self._take_current()
                        segment, position, length = ring[0], self.position, self.length
                advanced = False
                sent = send(segment.chunk_pointer, length, not self.last) if length else 0
                chunk_count -= 1
                if sent < length or self.last or chunk_count <= 0:
                    return sent
        finally:
            self.advance_to(position)
            self.length = length

    def _take_current(self) -> bool:
        """Judge the chunk in the current segment; True if it is a body chunk or the transfer ended."""
        while True:
            segment = self.ring[0]
            status, length, offset, flags = segment.header.read_chunk()
            arrival = self.receive(status, length, offset, flags, segment.chunk_capacity)
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
            segment.space_available.post()  # the producer took it to write RELEASED: leave the segment as it began
            if self._lease is not None:
                self._lease.give_back_one(segment)
            self.ring[0].data_available.take(self._between_bytes_timeout_s, self._peer)

    def finish(self, *, refused: bool = False) -> None:
        """Answer the terminal chunk; the transfer has ended cleanly, with the semaphores at their initial values."""
        self.answer()
        self.length = 0
        self.ring[0].header.write_request(CANCEL if refused else 0)
        self.ring[0].space_available.post()

    def refuse(self, limit_s: float | None = None) -> None:
        """Tell the producer that its object is not stored, however much of it has come; does nothing once answered.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: it missed a turn, each of which has `limit_s`, by default the
                between-bytes timeout; the segments must not be used again.
        """
        if self.answered:
            return
        if limit_s is not None:
            self._between_bytes_timeout_s = limit_s
        if self.state is REQUESTED:
            self.begin(Deadline.after(self._between_bytes_timeout_s), preamble_wanted=True)
        if self.state.ended:
            self.finish(refused=True)
        else:
            self.cancel()

    def abandon(self) -> None:
        """Tell the producer to stop, for a transfer whose segments are about to be retired; never waits.

        Otherwise it would wait for space that nobody gives until its between-bytes timeout. Which segment it comes to
        next is not known here (the answer may be late, or wrong), so each one says CANCEL and has space.
        """
        for segment in self.ring:  # returned segments serve others by now
            segment.header.write_request(CANCEL)
            segment.space_available.post()

    def cancel(self) -> None:
        """End a streaming transfer early and cleanly: set CANCEL, then discard what is on the way.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must be retired.
        """
        self._begin_cancel(CANCEL)
        while not self.state.ended:
            self.advance()
        self.finish(refused=True)  # even if the producer had handed over its last chunk before it saw CANCEL

    def pause(self, used: int = 0) -> bytes:
        """As cancel(), for a consumer that will ask for the rest later: the producer may keep what it needs for that.

        A producer that had handed over its last chunk before it saw PAUSE has ended, and keeps nothing: then the body
        behind the first `used` bytes of the current chunk is returned, at most what the segments hold. Raises as
        cancel().
        """
        may_have_ended = self.end - self.position <= len(self.ring) * self.ring[0].chunk_capacity
        position, rest = self.position - self.length + used, b""
        if may_have_ended:
            rest = bytes(self.chunk[used:])
        self._begin_cancel(PAUSE)
        while not self.state.ended:
            self.advance()
            if may_have_ended:
                segment = self.ring[0]
                status, length, offset, _ = segment.header.read_chunk()
                if status == OK and offset == position + len(rest) and length <= segment.chunk_capacity:
                    rest += bytes(segment.chunk[:length])
        self.finish(refused=True)
        return rest if position + len(rest) == self.end else b""

    def _begin_cancel(self, request: int) -> None:
        self.length = 0
        self._lease = None  # no more shrinking: the whole lease returns in a moment
        self.begin_cancel()
        self.ring[0].header.write_request(request)
