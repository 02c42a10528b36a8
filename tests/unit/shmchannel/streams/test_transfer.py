"""The transfer's rules as tables: state and header → arrival, or refusal. Orders of steps are in tests/property."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable

import pytest

from shmchannel.errors import PeerProtocolError, UsageError
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
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
from shmchannel.streams.transfer import Arrival, ConsumerTransfer, ProducerTransfer, TransferState

CAPACITY = 100
SIZE = 250
Header = tuple[int, int, int, int]
Maker = Callable[[], ConsumerTransfer[int]]


def consumer(
    size: int = SIZE, offset: int = 0, length: int = 0, preamble: int = 0, *, wanted: bool = True, count: int = 3
) -> ConsumerTransfer[int]:
    """One that has begun."""
    transfer = ConsumerTransfer(range(count))
    transfer.accept(ObjectFacts(size, 1, preamble), offset, length, preamble_wanted=wanted)
    return transfer


def fresh() -> ConsumerTransfer[int]:
    """Nothing of the body has come."""
    return consumer()


def midway() -> ConsumerTransfer[int]:
    """The first chunk has come."""
    transfer = consumer()
    assert transfer.receive(OK, 100, 0, 0, CAPACITY) is Arrival.BODY
    transfer.ring.rotate(-1)
    return transfer


def asked_back() -> ConsumerTransfer[int]:
    """Its turn has come to a segment that was asked back."""
    transfer = consumer()
    transfer.receive(OK, 100, 0, 0, CAPACITY)
    transfer.ask_back()
    for _ in range(3):
        transfer.ring.rotate(-1)
    return transfer


def cancelling() -> ConsumerTransfer[int]:
    """It has cancelled in the first segment, and its turn has come to the second."""
    transfer = consumer()
    transfer.receive(OK, 100, 0, 0, CAPACITY)
    transfer.begin_cancel()
    transfer.ring.rotate(-1)
    return transfer


def with_preamble() -> ConsumerTransfer[int]:
    """150 bytes of preamble were asked for."""
    return consumer(preamble=150)


@pytest.mark.parametrize(
    ("make", "header", "arrival", "state"),
    [
        (fresh, (OK, 100, 0, 0), Arrival.BODY, TransferState.STREAMING),
        (fresh, (OK, 1, 0, 0), Arrival.BODY, TransferState.STREAMING),
        (midway, (OK, 100, 100, 0), Arrival.BODY, TransferState.STREAMING),
        (lambda: consumer(100), (OK, 100, 0, LAST), Arrival.BODY, TransferState.COMPLETE),
        (lambda: consumer(0), (OK, 0, 0, LAST), Arrival.BODY, TransferState.COMPLETE),
        (lambda: consumer(offset=200), (OK, 50, 200, LAST), Arrival.BODY, TransferState.COMPLETE),
        (lambda: consumer(offset=10, length=20), (OK, 20, 10, LAST), Arrival.BODY, TransferState.COMPLETE),
        (lambda: consumer(offset=240, length=20), (OK, 10, 240, LAST), Arrival.BODY, TransferState.COMPLETE),
        (lambda: consumer(offset=999), (OK, 0, 250, LAST), Arrival.BODY, TransferState.COMPLETE),
        (fresh, (NOT_FOUND, 0, 0, LAST), Arrival.END, TransferState.NOT_FOUND),
        (fresh, (FAILED, 0, 0, LAST | ERROR), Arrival.END, TransferState.FAILED),
        (midway, (FAILED, 0, 0, LAST | ERROR), Arrival.END, TransferState.FAILED),
        (asked_back, (OK, 0, 0, RELEASED), Arrival.GIVEN_BACK, TransferState.STREAMING),
        (cancelling, (OK, 100, 100, 0), Arrival.DISCARD, TransferState.STREAMING),
        (cancelling, (OK, 50, 200, LAST), Arrival.END, TransferState.CANCELLED),
        (cancelling, (CANCELLED, 0, 0, LAST), Arrival.END, TransferState.CANCELLED),
        (cancelling, (FAILED, 0, 0, LAST | ERROR), Arrival.END, TransferState.FAILED),
        (with_preamble, (OK, 100, 0, PREAMBLE), Arrival.PREAMBLE_PART, TransferState.STREAMING),
        (with_preamble, (OK, 100, 0, PREAMBLE | FLAGGED), Arrival.PREAMBLE_PART, TransferState.STREAMING),
    ],
)
def test_arrivals(make: Maker, header: Header, arrival: Arrival, state: TransferState) -> None:
    transfer = make()
    assert transfer.receive(*header, CAPACITY) is arrival
    assert transfer.state is state
    assert transfer.state.ended == (state is not TransferState.STREAMING)


@pytest.mark.parametrize(
    ("make", "header"),
    [
        (fresh, (0, 0, 0, 0)),
        (fresh, (OK, 0, 0, 0)),
        (fresh, (OK, 101, 0, 0)),
        (fresh, (OK, 2**64 - 1, 0, 0)),
        (fresh, (OK, 100, 1, 0)),
        (fresh, (OK, 100, 0, LAST)),
        (fresh, (OK, 100, 0, ERROR)),
        (fresh, (OK, 100, 0, PREAMBLE)),
        (fresh, (OK, 0, 0, RELEASED)),
        (fresh, (CANCELLED, 0, 0, LAST)),
        (fresh, (NOT_FOUND, 0, 0, 0)),
        (fresh, (NOT_FOUND, 1, 0, LAST)),
        (fresh, (FAILED, 0, 0, ERROR)),
        (fresh, (6, 0, 0, LAST)),
        (fresh, (OK, 10, 0, FLAGGED)),
        (fresh, (OK, 10, 0, PREAMBLE | FLAGGED)),
        (fresh, (OK, 10, 0, 32)),
        (fresh, (NOT_FOUND, 0, 0, LAST | ERROR)),
        (fresh, (FAILED, 0, 0, LAST | FLAGGED)),
        (fresh, (OTHER_VERSION, 0, 0, LAST | ERROR)),
        (lambda: consumer(100), (OK, 100, 0, LAST | FLAGGED)),
        (asked_back, (OK, 0, 0, RELEASED | FLAGGED)),
        (with_preamble, (OK, 100, 0, FLAGGED)),
        (with_preamble, (OK, 100, 0, PREAMBLE | FLAGGED | LAST)),
        (with_preamble, (OK, 101, 0, PREAMBLE | FLAGGED)),
        (midway, (OK, 100, 0, 0)),
        (midway, (OK, 100, 200, 0)),
        (lambda: consumer(100), (OK, 100, 0, 0)),
        (lambda: consumer(99), (OK, 100, 0, LAST)),
        (lambda: consumer(0), (OK, 1, 0, LAST)),
        (lambda: consumer(offset=10, length=20), (OK, 21, 10, LAST)),
        (lambda: consumer(preamble=9, wanted=False), (OK, 9, 0, PREAMBLE)),
        (asked_back, (OK, 0, 0, RELEASED | LAST)),
        (with_preamble, (OK, 100, 0, 0)),
        (with_preamble, (OK, 0, 0, PREAMBLE)),
        (with_preamble, (OK, 101, 0, PREAMBLE)),
        (with_preamble, (OK, 50, 1, PREAMBLE)),
        (with_preamble, (OK, 50, 0, PREAMBLE | LAST)),
    ],
)
def test_refusals(make: Maker, header: Header) -> None:
    with pytest.raises(PeerProtocolError):
        make().receive(*header, CAPACITY)


def test_body_in_three() -> None:
    transfer = consumer()
    for length, offset, flags in ((100, 0, 0), (100, 100, 0), (50, 200, LAST)):
        assert transfer.position == offset
        assert transfer.receive(OK, length, offset, flags, CAPACITY) is Arrival.BODY
    assert transfer.position == SIZE
    assert transfer.state is TransferState.COMPLETE


def test_preamble_in_two_then_the_body() -> None:
    transfer = with_preamble()
    transfer.receive(OK, 100, 0, PREAMBLE, CAPACITY)
    with pytest.raises(PeerProtocolError):
        transfer.receive(OK, 51, 100, PREAMBLE, CAPACITY)
    assert transfer.receive(OK, 50, 100, PREAMBLE, CAPACITY) is Arrival.PREAMBLE_PART
    assert transfer.receive(OK, 100, 0, 0, CAPACITY) is Arrival.BODY


@pytest.mark.parametrize("flags", [PREAMBLE, PREAMBLE | FLAGGED], ids=["plain", "flagged"])
def test_preamble_is_flagged_in_all_its_chunks_or_in_none(flags: int) -> None:
    transfer = with_preamble()
    assert not transfer.flagged
    transfer.receive(OK, 100, 0, flags, CAPACITY)
    assert transfer.flagged is (flags != PREAMBLE)
    with pytest.raises(PeerProtocolError, match="flagged"):
        transfer.receive(OK, 50, 100, flags ^ FLAGGED, CAPACITY)
    transfer.receive(OK, 50, 100, flags, CAPACITY)
    transfer.receive(OK, 100, 0, 0, CAPACITY)
    assert transfer.flagged is (flags != PREAMBLE)


def test_too_much_preamble() -> None:
    with pytest.raises(PeerProtocolError, match=str(PREAMBLE_BYTES_MAX)):
        consumer(preamble=PREAMBLE_BYTES_MAX + 1)
    consumer(preamble=PREAMBLE_BYTES_MAX)


def test_cancel_is_answered_in_the_same_segment() -> None:
    transfer = cancelling()
    assert transfer.receive(OK, 100, 100, 0, CAPACITY) is Arrival.DISCARD
    transfer.ring.rotate(-1)
    assert transfer.receive(OK, 100, 200, 0, CAPACITY) is Arrival.DISCARD
    transfer.ring.rotate(-1)
    with pytest.raises(PeerProtocolError, match="CANCEL"):
        transfer.receive(OK, 100, 300, 0, CAPACITY)


def test_what_a_state_does_not_allow() -> None:
    requested = ConsumerTransfer(range(2))
    with pytest.raises(UsageError):
        requested.begin_cancel()
    with pytest.raises(UsageError):
        requested.ask_back()
    done = consumer(0)
    done.receive(OK, 0, 0, LAST, CAPACITY)
    with pytest.raises(UsageError, match="complete"):
        done.begin_cancel()
    twice = consumer(count=3)
    twice.ask_back()
    with pytest.raises(UsageError):
        twice.ask_back()
    alone = consumer(count=1)
    assert not alone.may_ask_back()
    with pytest.raises(UsageError):
        alone.ask_back()


def test_one_segment_always_remains() -> None:
    transfer = consumer(count=3)
    for expected in (True, True, False):
        assert transfer.may_ask_back() is expected
        if expected:
            transfer.ask_back()
            transfer.ring.rotate(-1)


def test_ring_leaves_out_what_is_given_back() -> None:
    transfer = asked_back()
    assert list(transfer.ring) == [0, 1, 2]
    transfer.receive(OK, 0, 0, RELEASED, CAPACITY)
    assert list(transfer.ring) == [1, 2]
    assert transfer.may_ask_back()


@pytest.mark.parametrize(
    ("flags", "count", "answer", "state", "ring"),
    [
        (CANCEL, 1, (CANCELLED, LAST), TransferState.CANCELLED, [0]),
        (CANCEL, 3, (CANCELLED, LAST), TransferState.CANCELLED, [0, 1, 2]),
        (RELEASE, 2, (OK, RELEASED), TransferState.STREAMING, [1]),
    ],
)
def test_requests(flags: int, count: int, answer: tuple[int, int], state: TransferState, ring: list[int]) -> None:
    producer = ProducerTransfer(range(count))
    assert producer.comply(flags) == answer
    assert (producer.state, list(producer.ring)) == (state, ring)


@pytest.mark.parametrize(
    ("flags", "count"), [(0, 3), (RELEASE, 1), (CANCEL | RELEASE, 3), (CANCEL | PAUSE, 3), (8, 3), (2**63, 3)]
)
def test_requests_that_do_not_exist(flags: int, count: int) -> None:
    with pytest.raises(PeerProtocolError):
        ProducerTransfer(range(count)).comply(flags)


@pytest.mark.parametrize(("flags", "paused"), [(CANCEL, False), (PAUSE, True)])
def test_a_pause_is_told_apart_from_the_end(flags: int, paused: bool) -> None:
    producer = ProducerTransfer(range(3))
    assert producer.comply(flags) == (CANCELLED, LAST)
    assert (producer.state, producer.paused) == (TransferState.CANCELLED, paused)


@pytest.mark.parametrize("flagged", [False, True])
def test_the_user_flag_of_what_is_not_there(flagged: bool) -> None:
    transfer = fresh()
    assert transfer.receive(NOT_FOUND, 0, 0, LAST | FLAGGED if flagged else LAST, CAPACITY) is Arrival.END
    assert (transfer.state, transfer.flagged) == (TransferState.NOT_FOUND, flagged)


@pytest.mark.parametrize(("offset", "first"), [(-1, SIZE - 1), (-SIZE, 0), (-SIZE - 1, 0)])
def test_an_offset_from_the_end(offset: int, first: int) -> None:
    transfer = consumer(offset=offset)
    assert (transfer.position, transfer.end) == (first, SIZE)


def test_ends() -> None:
    assert [state.name for state in TransferState if state.ended] == ["COMPLETE", "NOT_FOUND", "FAILED", "CANCELLED"]


@pytest.mark.parametrize(("machine", "driver"), [(ConsumerTransfer, ChunkReader), (ProducerTransfer, ChunkWriter)])
def test_a_driver_does_not_write_into_its_machine(machine: type[object], driver: type[object]) -> None:
    written = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(driver)))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert not written & set(machine.__slots__)  # type: ignore[attr-defined]


def test_full_chunks_taken_by_the_driver() -> None:
    transfer = midway()
    transfer.advance_to(200)
    assert transfer.position == 200
    for position in (199, SIZE + 1):
        with pytest.raises(UsageError, match=str(position)):
            transfer.advance_to(position)
    assert transfer.receive(OK, 50, 200, LAST, CAPACITY) is Arrival.BODY


def test_the_answer_to_the_last_chunk() -> None:
    transfer = midway()
    with pytest.raises(UsageError, match="streaming"):
        transfer.answer()
    transfer.receive(OK, 100, 100, 0, CAPACITY)
    transfer.receive(OK, 50, 200, LAST, CAPACITY)
    assert not transfer.answered
    transfer.answer()
    assert transfer.answered


@pytest.mark.parametrize(
    ("status", "flags", "state"),
    [
        (OK, LAST, TransferState.COMPLETE),
        (NOT_FOUND, LAST, TransferState.NOT_FOUND),
        (FAILED, LAST | ERROR, TransferState.FAILED),
    ],
)
def test_what_was_handed_over_ends_the_producer(status: int, flags: int, state: TransferState) -> None:
    producer = ProducerTransfer(range(3))
    producer.hand_over(OK, PREAMBLE)
    producer.hand_over(OK, 0)
    producer.hand_over(status, flags)
    assert producer.ring[0] == 2, "the answer comes where the last chunk was"
    assert producer.state is state
    with pytest.raises(UsageError, match=state.value):
        producer.hand_over(OK, LAST)
