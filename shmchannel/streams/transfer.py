"""PURE: the state machine of one transfer, both ends. Values in, values out; chunk reader and writer do the waiting.

Theory of operation. A transfer moves one body, with an opaque preamble ahead of it if the consumer wants one, through
the segments of a lease. Producer and consumer use these round robin, so both know which segment is next without
being told. Each end has a machine of its own, which its driver inherits, and only tells what happened:

    consumer   REQUESTED ── accept ─▶ STREAMING ── receive ──▶ COMPLETE | NOT_FOUND | FAILED | CANCELLED ── answer
    producer                          STREAMING ── hand_over ─▶ COMPLETE | NOT_FOUND | FAILED
                                      STREAMING ── comply ────▶ CANCELLED

* receive() trusts no number of a header: offset, length and flags must be what comes next, or it raises. What a chunk
  means is its result (Arrival); the driver copies, discards or gives a segment back accordingly.
* comply() does what the consumer requests in the current segment: leave it out, or stop.
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

from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum, IntEnum
from typing import Generic, TypeVar

from shmchannel.errors import PeerProtocolError, UsageError
from shmchannel.streams.layout import (
    CANCEL,
    CANCELLED,
    ERROR,
    FAILED,
    FLAGGED,
    LAST,
    NOT_FOUND,
    OK,
    PAUSE,
    PREAMBLE,
    PREAMBLE_BYTES_MAX,
    RELEASE,
    RELEASED,
    ObjectFacts,
)

S = TypeVar("S", bound=Hashable)
"""A segment: the machines only put them in order, and tests use numbers."""


class TransferState(Enum):
    """The state of a transfer; the last four are final."""

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


BODY, PREAMBLE_PART, GIVEN_BACK, DISCARD, END = Arrival
_TERMINAL = {NOT_FOUND: TransferState.NOT_FOUND, FAILED: TransferState.FAILED, CANCELLED: TransferState.CANCELLED}
_TERMINAL_FLAGS = {NOT_FOUND: (LAST, LAST | FLAGGED), FAILED: (LAST, LAST | ERROR), CANCELLED: (LAST,)}
_UNKNOWN = ObjectFacts(0, 0, 0)


class ConsumerTransfer(Generic[S]):
    """The consumer: checks each header against what must come next.

    `ring` has the remaining segments, the current one first; the driver rotates it. `facts` are the object's,
    `position` is the offset in it of the next body byte expected, and `end` that of the end. `flagged` is the user flag
    that came with the preamble, or with the answer that there is no such object. `answered` says whether the terminal
    chunk has been answered. All of them are written here only.
    """

    __slots__ = (
        "_asked_back",
        "_cancelled_at",
        "_preamble_bytes",
        "_preamble_left",
        "answered",
        "end",
        "facts",
        "flagged",
        "position",
        "ring",
        "state",
    )

    def __init__(self, segments: Iterable[S]) -> None:
        self.ring = deque(segments)
        self.state = REQUESTED
        self.facts = _UNKNOWN
        self.position = self.end = 0
        self.flagged = self.answered = False
        self._preamble_bytes = self._preamble_left = 0
        self._asked_back: set[S] = set()
        self._cancelled_at: S | None = None

    def accept(self, facts: ObjectFacts, offset: int, length: int, *, preamble_wanted: bool) -> None:
        """Accept the object's facts from the first chunk; the range was [offset, offset + length), 0 = to the end.

        A negative offset counts back from the object's end.

        Raises:
            PeerProtocolError: the preamble is too long.
        """
        size, _, preamble_bytes = facts
        if preamble_bytes > PREAMBLE_BYTES_MAX:
            raise PeerProtocolError(f"preamble of {preamble_bytes} bytes, at most {PREAMBLE_BYTES_MAX}")
        self.facts = facts
        self.state = STREAMING
        self.position = position = min(offset, size) if offset >= 0 else max(0, size + offset)
        self.end = max(position, min(offset + length, size)) if length else size
        if preamble_wanted:
            self._preamble_bytes = self._preamble_left = preamble_bytes

    def receive(self, status: int, length: int, offset: int, flags: int, capacity: int) -> Arrival:
        """Judge the current chunk; `capacity` is the capacity of its segment in bytes.

        A segment that is given back has left the ring.

        Raises:
            PeerProtocolError: it cannot be what comes next.
        """
        if status == OK and flags <= LAST and self._cancelled_at is None:
            position = self.position
            end = position + length
            if offset == position and length <= capacity and not self._preamble_left:
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
            if self.ring[0] not in self._asked_back:
                raise PeerProtocolError("a segment was returned that was not asked back")
            self._asked_back.remove(self.ring.popleft())
            return GIVEN_BACK
        if status == OK and self._cancelled_at is not None:
            if flags & LAST:  # it had finished before it saw the flag
                self.state = TransferState.CANCELLED
                return END
            if self.ring[0] == self._cancelled_at:
                raise PeerProtocolError("the segment that carried CANCEL has more of the body")
            return DISCARD
        if status == OK and flags in (PREAMBLE, PREAMBLE | FLAGGED):
            self._take_preamble(length, offset, capacity, flagged=flags != PREAMBLE)
            return PREAMBLE_PART
        if flags not in _TERMINAL_FLAGS.get(status, ()) or length:
            raise PeerProtocolError(f"chunk with status {status}, flags {flags:#x}, length {length}")
        if status == CANCELLED and self._cancelled_at is None:
            raise PeerProtocolError("cancelled by the wrong side")
        self.flagged = flags & FLAGGED != 0
        self.state = _TERMINAL[status]
        return END

    def _take_preamble(self, length: int, offset: int, capacity: int, *, flagged: bool) -> None:
        done = self._preamble_bytes - self._preamble_left
        if not 0 < length <= min(capacity, self._preamble_left) or offset != done:
            raise PeerProtocolError(
                f"preamble chunk [{offset}, +{length}): expected {done}, {self._preamble_left} left"
            )
        if done and flagged != self.flagged:
            raise PeerProtocolError("a preamble is flagged in all of its chunks or in none")
        self.flagged = flagged
        self._preamble_left -= length

    def advance_to(self, position: int) -> None:
        """The driver has taken full chunks in mid-body up to `position`, as receive() would have."""
        if not self.position <= position <= self.end:
            raise UsageError(f"position {position} is outside of [{self.position}, {self.end}]")
        self.position = position

    def may_ask_back(self) -> bool:
        """Whether a segment can be asked back with at least one left to stream through."""
        return self.state is STREAMING and len(self.ring) - len(self._asked_back) > 1

    def ask_back(self) -> None:
        """The current segment will carry RELEASE when it is posted."""
        if self.ring[0] in self._asked_back or not self.may_ask_back():
            raise UsageError("this segment cannot be asked back")
        self._asked_back.add(self.ring[0])

    def begin_cancel(self) -> None:
        """The current segment will carry CANCEL when it is posted; further data is discarded."""
        if self.state is not STREAMING:
            raise UsageError(f"a transfer that is {self.state.value} cannot be cancelled")
        self._cancelled_at = self.ring[0]

    def answer(self) -> None:
        """The terminal chunk will be answered: the last step of this side."""
        if not self.state.ended:
            raise UsageError(f"a transfer that is {self.state.value} has no last chunk to answer")
        self.answered = True


class ProducerTransfer(Generic[S]):
    """The producer: what to do with each segment.

    `ring` has the remaining segments, the current one first; the driver rotates it in mid-body. `paused` is true when
    the consumer cancelled in order to ask for the rest later. All of them are written here only.
    """

    __slots__ = ("paused", "ring", "state")

    def __init__(self, segments: Iterable[S]) -> None:
        self.ring = deque(segments)
        self.state = STREAMING
        self.paused = False

    def comply(self, request_flags: int) -> tuple[int, int]:
        """Status and flags to post in the current segment as the consumer requests in it, instead of a chunk.

        A segment that is released has left the ring.

        Raises:
            PeerProtocolError: unknown flags, or the last segment is asked back.
        """
        if request_flags in (CANCEL, PAUSE):
            self.state = TransferState.CANCELLED
            self.paused = request_flags == PAUSE
            return CANCELLED, LAST
        if request_flags == RELEASE and len(self.ring) > 1:
            self.ring.popleft()
            return OK, RELEASED
        raise PeerProtocolError(f"consumer's flags {request_flags:#x} with {len(self.ring)} segments in the ring")

    def hand_over(self, status: int, flags: int) -> None:
        """The chunk in the current segment has been posted: move to the next.

        After a terminal chunk that is the same one, where the consumer's answer will arrive.
        """
        if self.state is not STREAMING:
            raise UsageError(f"a transfer that is {self.state.value} has no more chunks")
        if not flags & LAST:
            self.ring.rotate(-1)
        elif status == OK:
            self.state = COMPLETE
        else:  # no consumer of this version knows OTHER_VERSION
            self.state = _TERMINAL.get(status, TransferState.FAILED)
