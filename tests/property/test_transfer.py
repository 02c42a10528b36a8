"""The transfer's two machines: any header is judged or refused, and both agree under every order of their steps."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shmchannel.errors import PeerProtocolError
from shmchannel.streams.layout import CANCEL, CANCELLED, LAST, OK, PREAMBLE, RELEASE, ObjectFacts
from shmchannel.streams.transfer import Arrival, ConsumerTransfer, ProducerTransfer, TransferState
from tests.support.examples import examples

_NUMBER = st.one_of(st.integers(0, 6), st.sampled_from([127, 128, 129, 2**63, 2**64 - 1]))
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 1, 2, 3, 4, 9]),
        _NUMBER,
        _NUMBER,
        st.sampled_from([0, 0, 1, 2, 3, 4, 8, 12, 16, 24, 2**40]),
    ),
    max_size=12,
)


@given(
    headers=_HEADERS,
    facts=st.builds(ObjectFacts, _NUMBER, _NUMBER, _NUMBER),
    offset=_NUMBER,
    length=_NUMBER,
    preamble_wanted=st.booleans(),
    cancel_at=st.integers(0, 12),
    ask_back_at=st.sets(st.integers(0, 12)),
)
@examples(400)
def test_consumer_survives_any_header(
    headers: list[tuple[int, int, int, int]],
    facts: ObjectFacts,
    offset: int,
    length: int,
    preamble_wanted: bool,
    cancel_at: int,
    ask_back_at: set[int],
) -> None:
    consumer = ConsumerTransfer(range(3))
    taken = 0
    try:
        consumer.accept(facts, offset, length, preamble_wanted=preamble_wanted)
        begin = consumer.position
        for number, header in enumerate(headers):
            arrival = consumer.receive(*header, 128)
            if arrival is Arrival.BODY:
                taken += header[1]
                assert header[1] <= 128
            if consumer.state.ended:
                break
            if arrival is Arrival.GIVEN_BACK:
                continue
            if number == cancel_at:
                consumer.begin_cancel()
            elif number in ask_back_at and consumer.may_ask_back():
                consumer.ask_back()
            consumer.ring.rotate(-1)
    except PeerProtocolError:
        return
    assert consumer.position == begin + taken <= max(begin, facts.size_bytes)


@given(st.lists(st.one_of(st.sampled_from([0, 1, 2, 3]), st.integers(0, 2**64 - 1)), max_size=12), st.integers(1, 4))
@examples(200)
def test_producer_survives_any_request(requests: list[int], count: int) -> None:
    producer = ProducerTransfer(range(count))
    try:
        for flags in requests:
            if not flags:
                producer.hand_over(OK, 0)
            elif producer.comply(flags) == (CANCELLED, LAST):
                assert producer.state is TransferState.CANCELLED
                return
    except PeerProtocolError:
        return
    assert producer.state is TransferState.STREAMING
    assert producer.ring


@dataclass
class Slot:
    """One simulated segment: a chunk waits in it, or space does, and what the consumer asked."""

    has_chunk: bool = False
    has_space: bool = True
    request: int = 0
    chunk: tuple[int, int, int, int] = (0, 0, 0, 0)


class Simulation:
    """Both machines over simulated segments; step_producer() and step_consumer() return False when they would wait."""

    def __init__(self, count: int, size: int, capacity: int, preamble: int) -> None:
        self.slots = [Slot() for _ in range(count)]
        self.capacity, self.size, self.preamble = capacity, size, preamble
        self.producer, self.consumer = ProducerTransfer(range(count)), ConsumerTransfer(range(count))
        self.sent = self.preamble_sent = 0
        self.received: list[tuple[int, int]] = []
        self.preamble_received = 0
        self.cancelling = False
        self.began = False

    def step_producer(self) -> bool:
        slot = self.slots[self.producer.ring[0]]
        if self.producer.state.ended or not slot.has_space:
            return False
        slot.has_space = False
        if slot.request:
            status, flags = self.producer.comply(slot.request)
            slot.chunk = (status, 0, 0, flags)
        elif self.preamble_sent < self.preamble:
            length = min(self.capacity, self.preamble - self.preamble_sent)
            slot.chunk = (OK, length, self.preamble_sent, PREAMBLE)
            self.preamble_sent += length
            self.producer.hand_over(OK, PREAMBLE)
        else:
            length = min(self.capacity, self.size - self.sent)
            last = self.sent + length == self.size
            slot.chunk = (OK, length, self.sent, LAST if last else 0)
            self.sent += length
            self.producer.hand_over(OK, LAST if last else 0)
        slot.has_chunk = True
        return True

    def step_consumer(self, wish: str) -> bool:
        consumer = self.consumer
        slot = self.slots[consumer.ring[0]]
        if consumer.state.ended or not slot.has_chunk:
            return False
        slot.has_chunk = False
        if not self.began:
            self.began = True
            consumer.accept(ObjectFacts(self.size, 1, self.preamble), 0, 0, preamble_wanted=True)
        status, length, offset, flags = slot.chunk
        arrival = consumer.receive(status, length, offset, flags, self.capacity)
        if arrival is Arrival.BODY:
            self.received.append((offset, length))
        elif arrival is Arrival.PREAMBLE_PART:
            self.preamble_received += length
        slot.has_space = True
        if arrival is not Arrival.GIVEN_BACK and not consumer.state.ended:
            if wish == "cancel" and not self.cancelling and arrival is Arrival.BODY:
                consumer.begin_cancel()
                self.cancelling = True
                slot.request = CANCEL
            elif wish == "release" and not self.cancelling and consumer.may_ask_back():
                consumer.ask_back()
                slot.request = RELEASE
            consumer.ring.rotate(-1)
        return True


@given(
    count=st.integers(1, 5),
    size=st.integers(0, 40),
    capacity=st.integers(1, 8),
    preamble=st.integers(0, 12),
    schedule=st.lists(st.sampled_from(["produce", "produce", "consume", "release", "cancel"]), max_size=60),
    may_cancel=st.booleans(),
)
@examples(500)
def test_both_agree(count: int, size: int, capacity: int, preamble: int, schedule: list[str], may_cancel: bool) -> None:
    """In any order, no step is refused, neither side waits for ever, and every segment ends as it began."""
    simulation = Simulation(count, size, capacity, preamble)
    for step in schedule:
        if step == "produce":
            simulation.step_producer()
        else:
            simulation.step_consumer(step if may_cancel or step != "cancel" else "consume")
    while simulation.step_producer() or simulation.step_consumer("consume"):
        pass
    producer, consumer = simulation.producer, simulation.consumer
    assert producer.state.ended
    assert consumer.state.ended
    assert producer.ring == consumer.ring
    assert all(slot.has_space and not slot.has_chunk for slot in simulation.slots)
    position = 0
    for offset, length in simulation.received:
        assert offset == position
        position += length
    if not simulation.cancelling:
        assert consumer.state is producer.state is TransferState.COMPLETE
        assert position == size
        assert simulation.preamble_received == preamble
    else:
        assert consumer.state is TransferState.CANCELLED
        assert position <= size
