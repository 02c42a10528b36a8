"""The transfer's rules as tables: state and header → arrival, or refusal. Orders of steps are in tests/property."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
from shmchannel.streams.transfer import Arrival, ConsumerTransfer, ProducerAction, ProducerTransfer, Ring, TransferState

CAPACITY = 100
SIZE = 250
Header = tuple[int, int, int, int]
Maker = Callable[[], ConsumerTransfer]


def consumer(
    size: int = SIZE, offset: int = 0, length: int = 0, metadata: int = 0, *, wanted: bool = True, count: int = 3
) -> ConsumerTransfer:
    """One that has begun."""
    transfer = ConsumerTransfer(count)
    transfer.begin(ObjectFacts(size, 1, metadata), offset, length, metadata_wanted=wanted)
    return transfer


def fresh() -> ConsumerTransfer:
    """Nothing of the body has come."""
    return consumer()


def midway() -> ConsumerTransfer:
    """The first chunk has come."""
    transfer = consumer()
    assert transfer.receive(OK, 100, 0, 0, CAPACITY) is Arrival.BODY
    transfer.ring.advance()
    return transfer


def asked_back() -> ConsumerTransfer:
    """Its turn has come to a segment that was asked back."""
    transfer = consumer()
    transfer.receive(OK, 100, 0, 0, CAPACITY)
    transfer.ask_back()
    for _ in range(3):
        transfer.ring.advance()
    return transfer


def cancelling() -> ConsumerTransfer:
    """It has cancelled in the first segment, and its turn has come to the second."""
    transfer = midway()
    transfer.ring.turn = 0
    transfer.cancel()
    transfer.ring.advance()
    return transfer


def with_metadata() -> ConsumerTransfer:
    """150 bytes of metadata were asked for."""
    return consumer(metadata=150)


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
        (with_metadata, (OK, 100, 0, METADATA), Arrival.METADATA_PART, TransferState.STREAMING),
        (with_metadata, (OK, 100, 0, METADATA | MARKED), Arrival.METADATA_PART, TransferState.STREAMING),
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
        (fresh, (OK, 100, 0, METADATA)),
        (fresh, (OK, 0, 0, RELEASED)),
        (fresh, (CANCELLED, 0, 0, LAST)),
        (fresh, (NOT_FOUND, 0, 0, 0)),
        (fresh, (NOT_FOUND, 1, 0, LAST)),
        (fresh, (FAILED, 0, 0, ERROR)),
        (fresh, (5, 0, 0, LAST)),
        (fresh, (OK, 10, 0, MARKED)),
        (fresh, (OK, 10, 0, METADATA | MARKED)),
        (fresh, (OK, 10, 0, 32)),
        (fresh, (NOT_FOUND, 0, 0, LAST | MARKED)),
        (lambda: consumer(100), (OK, 100, 0, LAST | MARKED)),
        (asked_back, (OK, 0, 0, RELEASED | MARKED)),
        (with_metadata, (OK, 100, 0, MARKED)),
        (with_metadata, (OK, 100, 0, METADATA | MARKED | LAST)),
        (with_metadata, (OK, 101, 0, METADATA | MARKED)),
        (midway, (OK, 100, 0, 0)),
        (midway, (OK, 100, 200, 0)),
        (lambda: consumer(100), (OK, 100, 0, 0)),
        (lambda: consumer(99), (OK, 100, 0, LAST)),
        (lambda: consumer(0), (OK, 1, 0, LAST)),
        (lambda: consumer(offset=10, length=20), (OK, 21, 10, LAST)),
        (lambda: consumer(metadata=9, wanted=False), (OK, 9, 0, METADATA)),
        (asked_back, (OK, 0, 0, RELEASED | LAST)),
        (with_metadata, (OK, 100, 0, 0)),
        (with_metadata, (OK, 0, 0, METADATA)),
        (with_metadata, (OK, 101, 0, METADATA)),
        (with_metadata, (OK, 50, 1, METADATA)),
        (with_metadata, (OK, 50, 0, METADATA | LAST)),
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


def test_metadata_in_two_then_the_body() -> None:
    transfer = with_metadata()
    transfer.receive(OK, 100, 0, METADATA, CAPACITY)
    with pytest.raises(PeerProtocolError):
        transfer.receive(OK, 51, 100, METADATA, CAPACITY)
    assert transfer.receive(OK, 50, 100, METADATA, CAPACITY) is Arrival.METADATA_PART
    assert transfer.receive(OK, 100, 0, 0, CAPACITY) is Arrival.BODY


@pytest.mark.parametrize("flags", [METADATA, METADATA | MARKED], ids=["plain", "marked"])
def test_metadata_is_marked_in_all_its_chunks_or_in_none(flags: int) -> None:
    transfer = with_metadata()
    assert not transfer.invalidated
    transfer.receive(OK, 100, 0, flags, CAPACITY)
    assert transfer.invalidated is (flags != METADATA)
    with pytest.raises(PeerProtocolError, match="marked"):
        transfer.receive(OK, 50, 100, flags ^ MARKED, CAPACITY)
    transfer.receive(OK, 50, 100, flags, CAPACITY)
    transfer.receive(OK, 100, 0, 0, CAPACITY)
    assert transfer.invalidated is (flags != METADATA)


def test_too_much_metadata() -> None:
    with pytest.raises(PeerProtocolError, match=str(METADATA_BYTES_MAX)):
        consumer(metadata=METADATA_BYTES_MAX + 1)
    consumer(metadata=METADATA_BYTES_MAX)


def test_cancel_is_answered_in_the_same_segment() -> None:
    transfer = cancelling()
    assert transfer.receive(OK, 100, 100, 0, CAPACITY) is Arrival.DISCARD
    transfer.ring.advance()
    assert transfer.receive(OK, 100, 200, 0, CAPACITY) is Arrival.DISCARD
    transfer.ring.advance()
    with pytest.raises(PeerProtocolError, match="CANCEL"):
        transfer.receive(OK, 100, 300, 0, CAPACITY)


def test_what_a_state_does_not_allow() -> None:
    requested = ConsumerTransfer(2)
    with pytest.raises(LeaseError):
        requested.cancel()
    with pytest.raises(LeaseError):
        requested.ask_back()
    done = consumer(0)
    done.receive(OK, 0, 0, LAST, CAPACITY)
    with pytest.raises(LeaseError, match="complete"):
        done.cancel()
    twice = consumer(count=3)
    twice.ask_back()
    with pytest.raises(LeaseError):
        twice.ask_back()
    alone = consumer(count=1)
    assert not alone.may_ask_back()
    with pytest.raises(LeaseError):
        alone.ask_back()


def test_one_segment_always_remains() -> None:
    transfer = consumer(count=3)
    for expected in (True, True, False):
        assert transfer.may_ask_back() is expected
        if expected:
            transfer.ask_back()
            transfer.ring.advance()


def test_ring_leaves_out_and_goes_on() -> None:
    ring = Ring(4)
    assert [ring.advance() for _ in range(5)] == [1, 2, 3, 0, 1]
    assert ring.drop() == 2
    assert [ring.advance() for _ in range(4)] == [3, 0, 2, 3]
    assert ring.drop() == 0, "behind the last one comes the first"
    assert ring.drop() == 2
    assert ring.advance() == ring.current == 2
    with pytest.raises(LeaseError):
        ring.drop()


@pytest.mark.parametrize(
    ("flags", "count", "order", "state"),
    [
        (0, 1, ProducerAction.FILL, TransferState.STREAMING),
        (CANCEL, 1, ProducerAction.CANCEL, TransferState.CANCELLED),
        (CANCEL, 3, ProducerAction.CANCEL, TransferState.CANCELLED),
        (RELEASE, 2, ProducerAction.RELEASE, TransferState.STREAMING),
    ],
)
def test_orders(flags: int, count: int, order: ProducerAction, state: TransferState) -> None:
    producer = ProducerTransfer(count)
    assert producer.order(flags) is order
    assert producer.state is state


@pytest.mark.parametrize(("flags", "count"), [(RELEASE, 1), (CANCEL | RELEASE, 3), (4, 3), (2**63, 3)])
def test_orders_that_do_not_exist(flags: int, count: int) -> None:
    with pytest.raises(PeerProtocolError):
        ProducerTransfer(count).order(flags)


def test_ends() -> None:
    assert [state.name for state in TransferState if state.ended] == ["COMPLETE", "NOT_FOUND", "FAILED", "CANCELLED"]
