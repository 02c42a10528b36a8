"""Either end dies while a lease shrinks in mid-stream, over shared memory and over the fakes.

The test itself is the producer and the consumer, turn by turn, so that each death comes at a known moment: before the
producer saw RELEASE, with RELEASED on its way, after the segment went to whom it was asked back for.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import NameMissing, PeerGone, ShmChannelError
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import pool_guard_path
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import LAST, OK, ObjectFacts
from shmchannel.streams.pool import Lease, SegmentPool
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import TransferState
from shmchannel.testing import ManualPeer
from tests.support.channels import (
    CAPACITY,
    FIRST_SEMAPHORES,
    SEGMENT_BYTES,
    body_of,
    in_thread,
    outcome,
    reading,
    semaphores,
    unique_pool,
)
from tests.support.waiting import WATCHDOG_S, wait_until

CHUNKS = 8
BODY = body_of(CHUNKS * CAPACITY - 3)
WIDTHS = (2, 3, 5)
POSITIONS = range(CHUNKS - 1)
_SLICE_NS = 1_000_000


def soon() -> Deadline:
    """The watchdog."""
    return Deadline.after(WATCHDOG_S)


class Stepped:
    """One GET whose ends take their turns when the test says so, over the pool's only lease that is wider than one."""

    def __init__(self, segment_type: type[Segment], width: int, resources: ExitStack) -> None:
        self._type = segment_type
        self._resources = resources
        name = unique_pool()
        guard = ProcessGuard.acquire(pool_guard_path(name))
        self.pool = SegmentPool(
            name, guard, 2 * width, SEGMENT_BYTES, segments_per_transfer_max=width, create=segment_type.create
        )
        resources.callback(self.pool.close)
        self.lease = self.pool.lease(soon())
        self.names = [segment.name for segment in self.lease.segments]
        assert len(self.names) == width
        while self.pool.try_lease(1) is not None:
            pass  # all the others are in use, so the next lease has to wait
        self.proxy_lives, self.cache_lives = ManualPeer("the proxy"), ManualPeer("the cache")
        self.attached = self.attach(self.lease)
        self.writer = ChunkWriter(self.attached, self.proxy_lives, WATCHDOG_S, own_identity())
        # It asks for nothing more, so any peer does for a sender.
        self.transfer = IncomingTransfer(self.lease, self.cache_lives, WATCHDOG_S)  # type: ignore[arg-type]
        self.body = b""
        self._thread = ThreadPoolExecutor(1)
        resources.callback(self._thread.shutdown)

    def attach(self, lease: Lease) -> list[Segment]:
        """The segments as a producer has them; prepared, as the owner does before each transfer."""
        attached = []
        for segment in lease.segments:
            segment.header.prepare()
            attached.append(self._type.attach(segment.name))
            self._resources.callback(attached[-1].close)
        return attached

    def exists(self, name: str) -> bool:
        """Whether a segment of this name can be attached."""
        try:
            self._type.attach(name).close()
        except NameMissing:
            return False
        return True

    def produce(self) -> None:
        """All that there is space for; RELEASE is obeyed on the way."""
        while self.writer.posted < CHUNKS and self.writer.take_turn(wait=False):
            self.post()

    def produce_and_die(self, count: int) -> None:
        """Produce `count` more chunks, each when there is space; an answer to RELEASE does not count."""
        while count and self.writer.posted < CHUNKS and self.writer.take_turn(WATCHDOG_S):
            self.post()
            count -= 1
        self.cache_lives.end()

    def post(self) -> None:
        """The next chunk, in the segment whose turn it is."""
        offset = self.writer.posted * CAPACITY
        part = BODY[offset : offset + CAPACITY]
        self.writer.ring[0].chunk[: len(part)] = part
        self.writer.post(OK, len(part), offset, LAST if offset + CAPACITY >= len(BODY) else 0)

    def consume(self) -> None:
        """One chunk."""
        self.transfer.advance()
        self.body += bytes(self.transfer.chunk)

    def consume_all(self) -> None:
        """To the clean end."""
        while not self.transfer.last:
            self.consume()
        self.transfer.finish()

    def send_rest(self) -> TransferState | type[ShmChannelError]:
        """The producer as the library has it, from here on."""
        if self.writer.posted == CHUNKS:
            return TransferState.COMPLETE
        return outcome(lambda: self.writer.send(reading(BODY), self.writer.posted * CAPACITY, len(BODY)))

    def begin_and_ask_back(self, position: int) -> Future[Lease]:
        """Stream up to chunk `position`, then give its segment back with RELEASE, because somebody waits for one."""
        self.writer.begin(ObjectFacts(len(BODY), 1, 0))
        self.produce()
        self.transfer.begin(soon())
        self.body = bytes(self.transfer.chunk)
        for _ in range(position):
            self.consume()
            self.produce()
        waiter = self._thread.submit(self.pool.lease, soon())
        wait_until(lambda: self.pool.stats().waiting == 1)
        self.consume()
        assert self.pool.promised == 1
        return waiter

    def end(self) -> None:
        """As a `with` of the transfer does after an error."""
        self.transfer.close()
        assert self.pool.promised == 0
        assert self.pool.stats().segments_total == 2 * len(self.names)


class ShrinkingContract:
    """Subclasses name the type of segment."""

    segment_type: type[Segment]

    @pytest.fixture(autouse=True)
    def _look_often_who_lives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shmchannel.sync.semaphore.SLICE_NS", _SLICE_NS)

    def stepped(self, width: int, resources: ExitStack) -> Stepped:
        """One GET to be stepped."""
        return Stepped(self.segment_type, width, resources)

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("position", POSITIONS)
    def test_producer_dies(self, position: int, width: int) -> None:
        """Once before it saw RELEASE, then after its answer and after each further chunk from a narrower ring."""
        for answered, more in [(False, 0), *((True, more) for more in range(CHUNKS - position))]:
            with ExitStack() as resources:
                get = self.stepped(width, resources)
                waiter = get.begin_and_ask_back(position)
                if answered:
                    get.produce()
                with in_thread(partial(get.produce_and_die, more)):
                    ended = outcome(get.consume_all)
                assert get.body == BODY[: get.writer.posted * CAPACITY]
                if get.writer.posted == CHUNKS:
                    assert ended is None
                    self.assert_served(get, waiter, retired=0)
                    continue
                assert ended is PeerGone
                if answered:
                    self.assert_new_user_unhurt(get, waiter, position % width)
                else:
                    self.assert_served(get, waiter, retired=width)
                    assert waiter.result().segments[0].name not in get.names, "the dead may have been about to fill it"

    def assert_served(self, get: Stepped, waiter: Future[Lease], *, retired: int) -> None:
        """The waiter gets a segment, at the latest when the transfer has ended."""
        get.end()
        assert get.pool.stats().retired_total == retired
        lease = waiter.result(WATCHDOG_S)
        assert [semaphores(segment) for segment in lease.segments] == [FIRST_SEMAPHORES]
        assert [get.exists(name) for name in get.names] == [not retired] * len(get.names)

    def assert_new_user_unhurt(self, get: Stepped, waiter: Future[Lease], number: int) -> None:
        """The segment that came back has a new user in mid-stream while the others are told to stop, and retired."""
        lease = waiter.result(WATCHDOG_S)
        assert [segment.name for segment in lease.segments] == [get.names[number]]
        lives = ManualPeer()
        writer = ChunkWriter(get.attach(lease), lives, WATCHDOG_S, own_identity())
        writer.begin(ObjectFacts(CAPACITY + 1, 2, 0))
        assert writer.take_turn(WATCHDOG_S)
        writer.ring[0].chunk[:] = BODY[-CAPACITY:]
        writer.post(OK, CAPACITY, 0, 0)
        get.end()
        assert get.pool.stats().retired_total == len(get.names) - 1
        assert [get.exists(name) for name in get.names] == [name == get.names[number] for name in get.names]
        reader = ChunkReader(lease.segments, lives, WATCHDOG_S)
        assert reader.begin(soon()) is TransferState.STREAMING
        assert bytes(reader.chunk) == BODY[-CAPACITY:]
        assert not writer.take_turn(wait=False)
        lease.segments[0].space_available.post()  # the half of advance() that does not wait
        assert writer.take_turn(WATCHDOG_S), "nobody has told it to stop"
        lease.retire()

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("position", POSITIONS)
    def test_consumer_dies(self, position: int, width: int) -> None:
        """The producer ends by PeerGone, or has handed all over; what it gave back it touches no more."""
        for answered, more in [(False, 0), *((True, more) for more in range(CHUNKS - position - 1))]:
            with ExitStack() as resources:
                get = self.stepped(width, resources)
                waiter = get.begin_and_ask_back(position)
                if answered:
                    get.produce()
                given_back = get.attached[position % width]
                before = bytes(given_back.chunk), given_back.header.read_chunk()
                with in_thread(get.send_rest) as produced:
                    for _ in range(more):
                        get.consume()
                    get.proxy_lives.end()
                assert produced.result() is (PeerGone if get.writer.posted < CHUNKS else TransferState.COMPLETE)
                assert get.body == BODY[: (position + 2 + more) * CAPACITY]
                if answered:
                    assert (bytes(given_back.chunk), given_back.header.read_chunk()) == before
                get.pool.close()  # in place of the sweep that removes what the dead left
                assert [get.exists(name) for name in get.names] == [False] * width
                waiter.exception(WATCHDOG_S)
