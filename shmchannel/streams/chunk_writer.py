"""ChunkWriter: the producing end of a transfer over mapped segments; chunk_reader.py says how both take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.process.identity import ProcessIdentity
from shmchannel.streams.layout import (
    ERROR,
    FAILED,
    FLAGGED,
    LAST,
    NOT_FOUND,
    OK,
    OTHER_VERSION,
    PREAMBLE,
    ObjectFacts,
)
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import STREAMING, ProducerTransfer, TransferState
from shmchannel.sync.semaphore import PeerLiveness, next_look

ReadInto = Callable[[Sequence[memoryview], int], int]
"""Fill the views in order from this offset of the object on: os.preadv without its descriptor.

Returns the number of bytes written, 0 at the end. Copies without the GIL.
"""


class ChunkWriter(ProducerTransfer[Segment]):
    """The producing end; `posted` counts the chunks handed over.

    Between take_turn() and post() the chunk of the current segment, `ring[0]`, is the producer's to write.
    """

    __slots__ = ("_between_bytes_timeout_s", "_has_turn", "_identity", "_peer", "_until", "posted")

    def __init__(
        self,
        segments: Sequence[Segment],
        peer: PeerLiveness,
        between_bytes_timeout_s: float,
        identity: ProcessIdentity,
        until: Deadline | None = None,
    ) -> None:
        """Each wait ends after `between_bytes_timeout_s` seconds, and all of them at the deadline, if any."""
        super().__init__(segments)
        self._peer = peer
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._until = until
        self._identity = identity
        self._has_turn = False
        self.posted = 0

    def begin(self, facts: ObjectFacts) -> None:
        """Set the object's facts, which are sent with the first chunk."""
        self.ring[0].header.write_object(*facts, self._identity)

    def send(
        self, read_into: ReadInto, offset: int, end: int, preamble: bytes = b"", *, flagged: bool = False
    ) -> TransferState:
        """Stream [offset, end) of an object, chunk by chunk, straight into the segments; the preamble goes ahead of it.

        The user flag travels with the preamble, and without one not at all.

        Returns COMPLETE, CANCELLED by the consumer, or FAILED when `read_into` came short (the consumer was told). What
        `read_into` raises is raised here, after the consumer was told.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the segments must not be used again.
        """
        if preamble:
            self.send_preamble(preamble, flagged=flagged)
            if self.state.ended:
                return self.state
        return self._send_body(read_into, offset, end, fresh=not preamble)

    def send_preamble(self, preamble: bytes, *, flagged: bool = False) -> None:
        """Hand the opaque preamble over, ahead of the body, until it is all there or the consumer cancels."""
        sent = 0
        flags = PREAMBLE | FLAGGED if flagged else PREAMBLE
        while sent < len(preamble) and self.take_turn():
            segment = self.ring[0]
            length = min(len(preamble) - sent, segment.chunk_capacity)
            segment.chunk[:length] = preamble[sent : sent + length]
            self.post(OK, length, sent, flags)
            sent += length

    def _send_body(self, read_into: ReadInto, offset: int, end: int, *, fresh: bool) -> TransferState:
        """What take_turn() and post() do, in one frame: a body has thousands of chunks."""
        ring, segment = self.ring, self.ring[0]
        armed, look = faults.ARMED, next_look()
        while True:
            space_available = segment.space_available
            if not space_available.try_take() and space_available.wait_until(look):
                space_available.wait(self._between_bytes_timeout_s, self._peer)
                look = next_look()
            if segment.header.read_request() and not self._may_fill():
                if self.state is TransferState.CANCELLED:
                    return self.state
                segment = ring[0]
                continue
            left = end - offset
            try:
                length = read_into((segment.chunk if left > segment.chunk_capacity else segment.chunk[:left],), offset)
            except BaseException:
                self._has_turn = True
                self.fail()
                raise
            if length == left:
                break
            if not length:  # the file is shorter than announced
                self._has_turn = True
                self.fail()
                return self.state
            if armed and fresh and offset:
                faults.reach("cache.streaming")
            segment.header.write_chunk(OK, length, offset, 0)
            segment.data_available.post()
            self.posted += 1
            if armed and not offset:
                faults.reach("cache.first_chunk")
            offset += length
            ring.rotate(-1)
            segment = ring[0]
        self.post(OK, length, offset, LAST)
        return self.state

    def refuse(self, *, flagged: bool = False, words: tuple[int, int] = (0, 0)) -> None:
        """Answer that there is no such object: one terminal chunk and no body, with the user flag or without.

        `words` travel in the places of the object's size and version.
        """
        if any(words):
            self.begin(ObjectFacts(*words, 0))
        self._end(NOT_FOUND, LAST | FLAGGED if flagged else LAST)

    def refuse_version(self) -> None:
        """Answer a consumer of another version with a status that it does not know, which ends its wait in an error."""
        self._end(OTHER_VERSION, LAST | ERROR)

    def fail(self, limit_s: float | None = None) -> None:
        """Send FAILED instead of the next chunk; does nothing if the transfer has ended.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: it did not take its turn within `limit_s`, by default the
                between-bytes timeout; the segments must not be used again.
        """
        self._end(FAILED, LAST | ERROR, limit_s)

    def _end(self, status: int, flags: int, limit_s: float | None = None) -> None:
        if not self.state.ended and (self._has_turn or self.take_turn(limit_s)):
            self.post(status, 0, 0, flags)

    def _limit_s(self, limit_s: float | None) -> float:
        if limit_s is not None:
            return limit_s
        return (
            self._between_bytes_timeout_s if self._until is None else self._until.slice(self._between_bytes_timeout_s)
        )

    def take_turn(self, limit_s: float | None = None, *, wait: bool = True) -> bool:
        """Wait for the space of the next segment to fill; False if the consumer cancelled.

        Without `wait` it never waits, and is also False if there is no space now.
        """
        while True:
            space_available = self.ring[0].space_available
            if not space_available.try_take():
                if not wait:
                    return False
                space_available.wait(self._limit_s(limit_s), self._peer)
            if self._may_fill():
                self._has_turn = True
                return True
            if self.state is TransferState.CANCELLED:
                return False

    def _may_fill(self) -> bool:
        segment = self.ring[0]
        request = segment.header.read_request()
        if not request:
            return True
        status, flags = self.comply(request)
        segment.header.write_chunk(status, 0, 0, flags)
        segment.data_available.post()
        return False

    @property
    def answered(self) -> bool:
        """Whether the last chunk has been handed over, whatever it says, or the consumer has cancelled."""
        return self.state is not STREAMING

    def post(self, status: int, length: int, offset: int, flags: int) -> None:
        """Hand over the filled chunk and move to the next segment, unless it was the last chunk."""
        segment = self.ring[0]
        segment.header.write_chunk(status, length, offset, flags)
        segment.data_available.post()
        self.posted += 1
        self._has_turn = False
        self.hand_over(status, flags)

    def wait_acknowledged(self, limit_s: float | None = None) -> bool:
        """After the terminal chunk, in segments of one's own: wait for the answer; True when the object was stored."""
        segment = self.ring[0]
        segment.space_available.take(self._limit_s(limit_s), self._peer)
        stored = segment.header.read_request() == 0
        segment.space_available.post()
        return stored

    def abandon(self) -> None:
        """Tell the consumer that no more comes, for a transfer whose segments are about to be retired; never waits.

        Otherwise it would wait for data until its between-bytes timeout. Which segment it looks at next is not known
        here, so each one says FAILED: nothing that a consumer reads while this is written makes a whole object of a
        part.
        """
        for segment in self.ring:  # returned segments serve others by now
            segment.header.write_chunk(FAILED, 0, 0, LAST | ERROR)
            segment.data_available.post()

    def answer_empty(self, version: int) -> None:
        """Answer with an empty object whose version carries a number: the reply to commands that move no bytes."""
        self.begin(ObjectFacts(0, version, 0))
        if self.take_turn():
            self.post(OK, 0, 0, LAST)
