"""PURE: the state machine of one transfer, both ends. Values in, values out; chunk reader and writer do the waiting.

Theory of operation. A transfer moves one body, with an opaque preamble ahead of it if the consumer wants one, through
the segments of a lease. Producer and consumer use these round robin, so both know which segment is next without
being told. Each end has a machine of its own; neither is written from outside, only told what happened:

    consumer   REQUESTED ── begin ──▶ STREAMING ── receive ──▶ COMPLETE | NOT_FOUND | FAILED | CANCELLED ── finish
    producer                          STREAMING ── hand_over ─▶ COMPLETE | NOT_FOUND | FAILED
                                      STREAMING ── action ────▶ CANCELLED

* receive() trusts no number of a header: offset, length and flags must be what comes next, or it raises. What a chunk
  means is its result (Arrival); the driver copies, discards or drops a segment accordingly.
* action() reads the consumer's request in the current segment: fill it, leave it out, or stop.
* Cancelling takes a round trip: the consumer sets CANCEL in one segment, or PAUSE if it will ask for the rest later,
  and discards data in flight up to the terminal chunk. A producer that had sent its last chunk before it saw the flag
  has ended too, and the consumer still reports CANCELLED.
* A ring shrinks in place: the consumer asks with RELEASE, the producer coming to that segment answers RELEASED and
  leaves it out, the consumer coming to it leaves it out too. The last segment is never asked back.
* Invariants (tests/property/test_transfer.py runs both machines in every order of steps): no step of a well-behaved
  peer is refused, nobody waits for ever, both rings end equal, and every semaphore is back where it began.

A timeout or a dead peer is not an event here: no state is safe then, and the driver retires the segments.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from shmchannel.errors import LeaseError, PeerProtocolError
from shmchannel.streams.layout import (
    CANCEL,
    CANCELLED,
    ERROR,
    FAILED,
    FLAGGED,
    LAST,
    NOT_FOUND,
    OK,
    OTHER_VERSION,
    PAUSE,
    PREAMBLE,
    PREAMBLE_BYTES_MAX,
    RELEASE,
    RELEASED,
    ObjectFacts,
)


class TransferState(Enum):
    """The state of a transfer; the last four are final."""

    IDLE = "idle"
    REQUESTED = "requested"
    STREAMING = "streaming"
    COMPLETE = "complete"
    NOT_FOUND = "not found"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it is one of the final states."""
        return self in _ENDED


# Bound once: looking up a member costs more than the comparison, and both ends do it for every chunk.
REQUESTED, STREAMING, COMPLETE = TransferState.REQUESTED, TransferState.STREAMING, TransferState.COMPLETE
_ENDED = (COMPLETE, TransferState.NOT_FOUND, TransferState.FAILED, TransferState.CANCELLED)


class Arrival(IntEnum):
    """The meaning of a chunk for the consumer."""

    BODY = 1
    PREAMBLE_PART = 2
    GIVEN_BACK = 3
    DISCARD = 4
    END = 5


class ProducerAction(IntEnum):
    """What the producer does with the current segment."""

    FILL = 1
    RELEASE = 2
    CANCEL = 3


BODY, PREAMBLE_PART, GIVEN_BACK, DISCARD, END = Arrival
_TERMINAL = {NOT_FOUND: TransferState.NOT_FOUND, FAILED: TransferState.FAILED, CANCELLED: TransferState.CANCELLED}
_TERMINAL_FLAGS = {NOT_FOUND: (LAST, LAST | FLAGGED), FAILED: (LAST, LAST | ERROR), CANCELLED: (LAST,)}
_POSTED = {
    OK: COMPLETE,
    NOT_FOUND: TransferState.NOT_FOUND,
    FAILED: TransferState.FAILED,
    OTHER_VERSION: TransferState.FAILED,  # no consumer of this version knows it: it is for those of another
}


_NOTHING: frozenset[int] = frozenset()


class Ring:
    """The order of the segments of a lease, by their numbers."""

    __slots__ = ("_numbers", "_turn")

    def __init__(self, count: int) -> None:
        self._numbers = [0] if count == 1 else list(range(count))
        self._turn = 0

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The remaining segments, in order."""
        return tuple(self._numbers)

    @property
    def current(self) -> int:
        """The current segment."""
        return self._numbers[self._turn]

    def advance(self) -> int:
        """Move to the next segment and return its number."""
        self._turn = turn = (self._turn + 1) % len(self._numbers)
        return self._numbers[turn]

    def drop(self) -> int:
        """Remove the current segment; returns the number of the next."""
        if len(self._numbers) == 1:
            raise LeaseError("a transfer keeps at least one segment")
        del self._numbers[self._turn]
        if self._turn == len(self._numbers):
            self._turn = 0
        return self._numbers[self._turn]


class ConsumerTransfer:
    """The consumer: checks each header against what must come next."""

    __slots__ = (
        "_answered",
        "_asked_back",
        "_cancelled_at",
        "_cancelling",
        "_end",
        "_flagged",
        "_position",
        "_preamble_bytes",
        "_preamble_left",
        "_ring",
        "_state",
    )

    def __init__(self, segment_count: int) -> None:
        self._ring = Ring(segment_count)
        self._state = REQUESTED
        self._position = 0
        self._end = 0
        self._flagged = False
        self._preamble_bytes = self._preamble_left = 0
        self._asked_back: frozenset[int] = _NOTHING
        self._cancelling = False
        self._cancelled_at = -1
        self._answered = False

    @property
    def state(self) -> TransferState:
        """The state of the transfer."""
        return self._state

    @property
    def position(self) -> int:
        """The offset in the object of the next body byte expected."""
        return self._position

    @property
    def end(self) -> int:
        """The offset in the object of the end."""
        return self._end

    @property
    def flagged(self) -> bool:
        """The user flag that came with the preamble, or with the answer that there is no such object."""
        return self._flagged

    @property
    def ring(self) -> Ring:
        """The remaining segments; the driver moves on."""
        return self._ring

    @property
    def answered(self) -> bool:
        """Whether the terminal chunk has been answered."""
        return self._answered

    def begin(self, facts: ObjectFacts, offset: int, length: int, *, preamble_wanted: bool) -> None:
        """Accept the object's facts from the first chunk; the range was [offset, offset + length), 0 = to the end.

        A negative offset counts back from the object's end.

        Raises:
            PeerProtocolError: the preamble is too long.
        """
        size, _, preamble_bytes = facts
        if preamble_bytes > PREAMBLE_BYTES_MAX:
            raise PeerProtocolError(f"preamble of {preamble_bytes} bytes, at most {PREAMBLE_BYTES_MAX}")
        self._state = STREAMING
        self._position = position = min(offset, size) if offset >= 0 else max(0, size + offset)
        self._end = max(position, min(offset + length, size)) if length else size
        if preamble_wanted:
            self._preamble_bytes = self._preamble_left = preamble_bytes

    def receive(self, status: int, length: int, offset: int, flags: int, capacity: int) -> Arrival:
        """Judge the current chunk; `capacity` is the capacity of its segment in bytes.

        Raises:
            PeerProtocolError: it cannot be what comes next.
        """
        if status == OK and flags <= LAST and not self._cancelling:
            position = self._position
            end = position + length
            if offset == position and length <= capacity and not self._preamble_left:
                if flags == 0 and length > 0 and end < self._end:
                    self._position = end
                    return BODY
                if flags == LAST and end == self._end:
                    self._position = end
                    self._state = COMPLETE
                    return BODY
            raise PeerProtocolError(
                f"chunk [{offset}, +{length}) flags {flags} in a segment of {capacity}:"
                f" expected offset {position}, end {self._end}"
            )
        return self._receive_rare(status, length, offset, flags, capacity)

    def _receive_rare(self, status: int, length: int, offset: int, flags: int, capacity: int) -> Arrival:
        if status == OK and flags == RELEASED:
            if self._ring.current not in self._asked_back:
                raise PeerProtocolError("a segment was returned that was not asked back")
            return GIVEN_BACK
        if status == OK and self._cancelling:
            if flags & LAST:  # it had finished before it saw the flag
                self._state = TransferState.CANCELLED
                return END
            if self._ring.current == self._cancelled_at:
                raise PeerProtocolError("the segment that carried CANCEL has more of the body")
            return DISCARD
        if status == OK and flags in (PREAMBLE, PREAMBLE | FLAGGED):
            self._take_preamble(length, offset, capacity, flagged=flags != PREAMBLE)
            return PREAMBLE_PART
        if status not in _TERMINAL or flags not in _TERMINAL_FLAGS[status] or length:
            raise PeerProtocolError(f"chunk with status {status}, flags {flags:#x}, length {length}")
        if status == CANCELLED and not self._cancelling:
            raise PeerProtocolError("cancelled by the wrong side")
        self._flagged = flags & FLAGGED != 0
        self._state = _TERMINAL[status]
        return END

    def _take_preamble(self, length: int, offset: int, capacity: int, *, flagged: bool) -> None:
        done = self._preamble_bytes - self._preamble_left
        if not 0 < length <= min(capacity, self._preamble_left) or offset != done:
            raise PeerProtocolError(
                f"preamble chunk [{offset}, +{length}): expected {done}, {self._preamble_left} left"
            )
        if done and flagged != self._flagged:
            raise PeerProtocolError("a preamble is flagged in all of its chunks or in none")
        self._flagged = flagged
        self._preamble_left -= length

    def advance_to(self, position: int) -> None:
        """The driver has taken full chunks in mid-body up to `position`, as receive() would have."""
        if not self._position <= position <= self._end:
            raise LeaseError(f"position {position} is outside of [{self._position}, {self._end}]")
        self._position = position

    def may_ask_back(self) -> bool:
        """Whether a segment can be asked back with at least one left to stream through."""
        return self._state is STREAMING and len(self._ring) - len(self._asked_back) > 1

    def ask_back(self) -> None:
        """The current segment will carry RELEASE when it is posted."""
        if self._ring.current in self._asked_back or not self.may_ask_back():
            raise LeaseError("this segment cannot be asked back")
        self._asked_back |= {self._ring.current}

    def drop(self) -> int:
        """The current segment was returned: remove it; returns the number of the next."""
        self._asked_back -= {self._ring.current}
        return self._ring.drop()

    def cancel(self) -> None:
        """The current segment will carry CANCEL when it is posted; further data is discarded."""
        if self._state is not STREAMING:
            raise LeaseError(f"a transfer that is {self._state.value} cannot be cancelled")
        self._cancelling = True
        self._cancelled_at = self._ring.current

    def finish(self) -> None:
        """The terminal chunk will be answered: the last step of this side."""
        if not self._state.ended:
            raise LeaseError(f"a transfer that is {self._state.value} has no last chunk to answer")
        self._answered = True


class ProducerTransfer:
    """The producer: what to do with each segment."""

    __slots__ = ("_paused", "_ring", "_state")

    def __init__(self, segment_count: int) -> None:
        self._ring = Ring(segment_count)
        self._state = STREAMING
        self._paused = False

    @property
    def paused(self) -> bool:
        """True when the consumer cancelled in order to ask for the rest later."""
        return self._paused

    @property
    def state(self) -> TransferState:
        """The state of the transfer."""
        return self._state

    @property
    def ring(self) -> Ring:
        """The remaining segments; the driver moves on in mid-body, and removes what is returned."""
        return self._ring

    def action(self, request_flags: int) -> ProducerAction:
        """The consumer's request in its line, read after space_available was taken.

        Raises:
            PeerProtocolError: unknown flags, or the last segment is asked back.
        """
        if request_flags == 0:
            return ProducerAction.FILL
        if request_flags in (CANCEL, PAUSE):
            self._state = TransferState.CANCELLED
            self._paused = request_flags == PAUSE
            return ProducerAction.CANCEL
        if request_flags == RELEASE and len(self._ring) > 1:
            return ProducerAction.RELEASE
        raise PeerProtocolError(f"consumer's flags {request_flags:#x} with {len(self._ring)} segments in the ring")

    def hand_over(self, status: int, flags: int) -> int:
        """The chunk in the current segment has been posted; returns the number of the next segment.

        After a terminal chunk that is the same one, where the consumer's answer will arrive.
        """
        if self._state is not STREAMING:
            raise LeaseError(f"a transfer that is {self._state.value} has no more chunks")
        if flags & LAST:
            self._state = _POSTED[status]
            return self._ring.current
        return self._ring.advance()
