"""PURE: the state machine of one transfer, both ends. Values in, values out; chunk reader and writer do the waiting.

    IDLE → REQUESTED → STREAMING → COMPLETE | NOT_FOUND | FAILED | CANCELLED

A transfer uses the segments of its lease in turn. Producer and consumer go round in the same order, so that both agree
which segment is next, also when the ring shrinks: the consumer asks with RELEASE, the producer coming to that segment
answers RELEASED and leaves it out, the consumer coming to it leaves it out too.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from shmchannel.errors import LeaseError, PeerProtocolError
from shmchannel.streams.layout import (
    CANCEL,
    CANCELLED,
    ERROR,
    FAILED,
    LAST,
    MARKED,
    METADATA,
    METADATA_BYTES_MAX,
    NOT_FOUND,
    OK,
    RELEASE,
    RELEASED,
    ObjectFacts,
)


class TransferState(Enum):
    """Where a transfer stands; the last four are ends."""

    IDLE = "idle"
    REQUESTED = "requested"
    STREAMING = "streaming"
    COMPLETE = "complete"
    NOT_FOUND = "not found"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True for the four ends."""
        return self in _ENDED


# Bound once: looking a member up in its class costs more than the comparison, and both ends do it for every chunk.
REQUESTED, STREAMING, COMPLETE = TransferState.REQUESTED, TransferState.STREAMING, TransferState.COMPLETE
_ENDED = (COMPLETE, TransferState.NOT_FOUND, TransferState.FAILED, TransferState.CANCELLED)


class Arrival(IntEnum):
    """What a chunk means to its consumer."""

    BODY = 1
    METADATA_PART = 2
    GIVEN_BACK = 3
    DISCARD = 4
    END = 5


class ProducerAction(IntEnum):
    """What the producer does with the segment it has come to."""

    FILL = 1
    RELEASE = 2
    CANCEL = 3


BODY, METADATA_PART, GIVEN_BACK, DISCARD, END = Arrival
_TERMINAL = {NOT_FOUND: TransferState.NOT_FOUND, FAILED: TransferState.FAILED, CANCELLED: TransferState.CANCELLED}


_NOTHING: frozenset[int] = frozenset()


class Ring:
    """Whose turn it is among the segments of a lease; `turn` indexes `slots`, which holds their numbers."""

    __slots__ = ("slots", "turn")

    def __init__(self, count: int) -> None:
        self.slots = [0] if count == 1 else list(range(count))
        self.turn = 0

    @property
    def current(self) -> int:
        """The number of the segment whose turn it is."""
        return self.slots[self.turn]

    def advance(self) -> int:
        """Go on to the next segment and return its number."""
        self.turn = turn = (self.turn + 1) % len(self.slots)
        return self.slots[turn]

    def drop(self) -> int:
        """Leave the current segment out; the turn goes to the one behind it, whose number is returned."""
        del self.slots[self.turn]
        if not self.slots:
            raise LeaseError("a transfer keeps at least one segment")
        if self.turn == len(self.slots):
            self.turn = 0
        return self.slots[self.turn]


class ConsumerTransfer:
    """The side that takes chunks: checks each header against what must come, and trusts no number in it.

    `position` is the offset in the object of the next body byte to come, `end` that of the byte behind the last,
    `marked` what the metadata chunks said.
    """

    __slots__ = (
        "_asked_back",
        "_cancelled_at",
        "_cancelling",
        "_metadata_left",
        "end",
        "facts",
        "invalidated",
        "position",
        "ring",
        "state",
    )

    def __init__(self, segment_count: int) -> None:
        self.ring = Ring(segment_count)
        self.state = REQUESTED
        self.facts: ObjectFacts | None = None
        self.position = 0
        self.end = 0
        self.invalidated = False
        self._metadata_left = 0
        self._asked_back: frozenset[int] = _NOTHING
        self._cancelling = False
        self._cancelled_at = -1

    def begin(self, facts: ObjectFacts, offset: int, length: int, *, metadata_wanted: bool) -> None:
        """Take the facts of the first chunk; the range asked for was [offset, offset + length), 0 = to the end.

        Raises:
            PeerProtocolError: the metadata is too long.
        """
        if facts.metadata_bytes > METADATA_BYTES_MAX:
            raise PeerProtocolError(f"metadata of {facts.metadata_bytes} bytes, at most {METADATA_BYTES_MAX}")
        self.facts = facts
        self.state = STREAMING
        self.position = position = min(offset, facts.size_bytes) if offset else 0
        self.end = max(position, min(offset + length, facts.size_bytes)) if length else facts.size_bytes
        self._metadata_left = facts.metadata_bytes if metadata_wanted else 0

    def receive(self, status: int, length: int, offset: int, flags: int, capacity: int) -> Arrival:
        """Judge the chunk whose turn it is; `capacity` is what its segment can hold, in bytes.

        Raises:
            PeerProtocolError: it cannot be what comes next.
        """
        if status == OK and flags <= LAST and not self._cancelling:
            position = self.position
            end = position + length
            if offset == position and length <= capacity and not self._metadata_left:
                if flags == 0 and length > 0 and end < self.end:
                    self.position = end
                    return BODY
                if flags == LAST and end == self.end:
                    self.position = end
                    self.state = COMPLETE
                    return BODY
            raise PeerProtocolError(
                f"chunk [{offset}, +{length}) flags {flags} in a segment of {capacity}:"
                f" expected offset {position}, end {self.end}"
            )
        return self._receive_rare(status, length, offset, flags, capacity)

    def _receive_rare(self, status: int, length: int, offset: int, flags: int, capacity: int) -> Arrival:
        if status == OK and flags == RELEASED:
            if self.ring.current not in self._asked_back:
                raise PeerProtocolError("a segment came back that was not asked for")
            return GIVEN_BACK
        if status == OK and self._cancelling:
            if flags & LAST:  # it had ended before it saw the flag
                self.state = TransferState.CANCELLED
                return END
            if self.ring.current == self._cancelled_at:
                raise PeerProtocolError("the segment that said CANCEL came back with more of the body")
            return DISCARD
        if status == OK and flags in (METADATA, METADATA | MARKED):
            self._take_metadata(length, offset, capacity, invalidated=flags != METADATA)
            return METADATA_PART
        if status not in _TERMINAL or flags not in (LAST, LAST | ERROR) or length:
            raise PeerProtocolError(f"chunk with status {status}, flags {flags:#x}, length {length}")
        if status == CANCELLED and not self._cancelling:
            raise PeerProtocolError("cancelled by the wrong side")
        self.state = _TERMINAL[status]
        return END

    def _take_metadata(self, length: int, offset: int, capacity: int, *, invalidated: bool) -> None:
        done = (self.facts.metadata_bytes if self.facts else 0) - self._metadata_left
        if not 0 < length <= min(capacity, self._metadata_left) or offset != done:
            raise PeerProtocolError(
                f"metadata chunk [{offset}, +{length}): expected {done}, {self._metadata_left} left"
            )
        if done and invalidated != self.invalidated:
            raise PeerProtocolError("an object is marked in all its metadata chunks or in none")
        self.invalidated = invalidated
        self._metadata_left -= length

    def may_ask_back(self) -> bool:
        """True while a segment can be asked back and one still remains to stream through."""
        return self.state is STREAMING and len(self.ring.slots) - len(self._asked_back) > 1

    def ask_back(self) -> None:
        """The current segment will be set RELEASE before it is posted."""
        if self.ring.current in self._asked_back or not self.may_ask_back():
            raise LeaseError("this segment cannot be asked back")
        self._asked_back |= {self.ring.current}

    def drop(self) -> int:
        """The current segment came back: leave it out; returns the number of the next."""
        self._asked_back -= {self.ring.current}
        return self.ring.drop()

    def cancel(self) -> None:
        """The current segment will be set CANCEL before it is posted; what still comes is discarded."""
        if self.state is not STREAMING:
            raise LeaseError(f"a transfer that is {self.state.value} cannot be cancelled")
        self._cancelling = True
        self._cancelled_at = self.ring.current


class ProducerTransfer:
    """The side that makes chunks: what to do with each segment it comes to."""

    __slots__ = ("ring", "state")

    def __init__(self, segment_count: int) -> None:
        self.ring = Ring(segment_count)
        self.state = STREAMING

    def order(self, request_flags: int) -> ProducerAction:
        """What the consumer's line asks for, read after space_available was taken.

        Raises:
            PeerProtocolError: flags that do not exist, or the last segment is asked back.
        """
        if request_flags == 0:
            return ProducerAction.FILL
        if request_flags == CANCEL:
            self.state = TransferState.CANCELLED
            return ProducerAction.CANCEL
        if request_flags == RELEASE and len(self.ring.slots) > 1:
            return ProducerAction.RELEASE
        raise PeerProtocolError(f"consumer's flags {request_flags:#x} with {len(self.ring.slots)} segments in the ring")
