"""The contract of both ends of a channel, in shared memory and the fakes: every byte, every end, clean semaphores.

Producers run in a thread beside the test; nothing here depends on who is faster. Long because it is one
class, so that each kind of segment is held to all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, PeerGone, PeerProtocolError, UsageError
from shmchannel.process.identity import own_identity
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import CANCEL, LAST, OK, PREAMBLE_BYTES_MAX, ObjectFacts
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import TransferState
from tests.support.channels import (
    CAPACITY,
    ChannelBench,
    ScriptedLease,
    body_of,
    in_thread,
    outcome,
    read_rest,
    reading,
    semaphores,
    send_object,
)
from tests.support.waiting import WATCHDOG_S

SIZES = (0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 2 * CAPACITY, 11 * CAPACITY + 5)
WIDTHS = (1, 2, 3, 4, 5)
CHUNKS = 8
BODY = body_of(CHUNKS * CAPACITY - 3)


def begun(reader: ChunkReader, offset: int = 0, length: int = 0, *, preamble_wanted: bool = False) -> TransferState:
    """Begin under the watchdog."""
    return reader.begin(Deadline.after(WATCHDOG_S), offset, length, preamble_wanted=preamble_wanted)


def read_until_cancel(reader: ChunkReader, position: int) -> bytes:
    """The chunks up to number `position`, then a cancel while that one is the current chunk."""
    begun(reader)
    body = bytes(reader.chunk)
    for _ in range(position):
        reader.advance()
        body += bytes(reader.chunk)
    reader.cancel()
    return body


class ChannelContract:
    """Subclasses name the type of segment."""

    segment_type: type[Segment]

    def bench(self, width: int, **more: float) -> ChannelBench:
        """Both ends of one channel, to be used as a context."""
        return ChannelBench(self.segment_type, width, **more)  # type: ignore[arg-type]

    @contextmanager
    def clean_bench(self, width: int) -> Iterator[ChannelBench]:
        """A bench on which every segment stands at the end as it began."""
        with self.bench(width) as bench:
            yield bench
            assert bench.all_clean(), [semaphores(segment) for segment in bench.owned]

    # -- GET -----------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("size", SIZES)
    def test_get_whole(self, size: int, width: int) -> None:
        body = body_of(size)
        with self.bench(width) as bench:
            writer, reader, lease = bench.get_ends()
            with in_thread(lambda: send_object(writer, body, version=77)) as produced:
                begun(reader)
                assert read_rest(reader) == body
            assert produced.result() is writer.state is reader.state is TransferState.COMPLETE
            assert reader.facts == (size, 77, 0)
            assert writer.posted == max(1, -(-size // CAPACITY))
            assert bench.all_clean()
            assert not lease.promised

    def test_one_channel_many_transfers(self) -> None:
        with self.bench(3) as bench:
            for size in (900, 0, 10, 400, 128):
                writer, reader, _ = bench.get_ends(asks_at=())
                body = body_of(size)
                with in_thread(partial(send_object, writer, body)):
                    begun(reader)
                    assert read_rest(reader) == body
                assert bench.all_clean()
                bench.prepare()
            assert [segment.header.generation for segment in bench.attached] == [6, 6, 6]

    @pytest.mark.parametrize("width", [1, 3])
    @pytest.mark.parametrize(
        ("offset", "length"),
        [
            (0, 1),
            (1, 0),
            (5, CAPACITY),
            (CAPACITY, CAPACITY + 1),
            (len(BODY) - 1, 0),
            (len(BODY), 0),
            (len(BODY) + 9, 4),
        ],
    )
    def test_get_range(self, offset: int, length: int, width: int) -> None:
        start = min(offset, len(BODY))
        end = min(start + length, len(BODY)) if length else len(BODY)
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, BODY, offset=start, end=end)):
                begun(reader, offset, length)
                assert read_rest(reader) == BODY[start:end]
            assert reader.facts.size_bytes == len(BODY)

    @pytest.mark.parametrize("width", [1, 2, 5])
    @pytest.mark.parametrize("length", [1, CAPACITY, 3 * CAPACITY + 1])
    @pytest.mark.parametrize("size", [0, 3 * CAPACITY])
    def test_preamble_goes_ahead(self, size: int, length: int, width: int) -> None:
        body, preamble = body_of(size), body_of(length)[::-1]
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, body, preamble=preamble)):
                begun(reader, preamble_wanted=True)
                assert reader.preamble == preamble
                assert read_rest(reader) == body

    def test_longest_preamble(self) -> None:
        preamble = body_of(PREAMBLE_BYTES_MAX)
        with self.bench(2, segment_bytes=65_536) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, b"x", preamble=preamble)):
                begun(reader, preamble_wanted=True)
                assert reader.preamble == preamble
                assert read_rest(reader) == b"x"

    @pytest.mark.parametrize("width", [1, 4])
    @pytest.mark.parametrize("failed", [False, True])
    def test_refused(self, failed: bool, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            writer.fail() if failed else writer.refuse()
            state = begun(reader)
            assert state is writer.state is (TransferState.FAILED if failed else TransferState.NOT_FOUND)
            assert read_rest(reader) == b""

    @pytest.mark.parametrize("width", [1, 2, 5])
    @pytest.mark.parametrize("there", [0, 1, CAPACITY, 3 * CAPACITY + 7])
    def test_object_shorter_than_it_said(self, there: int, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()

            def produce() -> TransferState:
                writer.begin(ObjectFacts(len(BODY), 1, 0))
                return writer.send(reading(BODY[:there]), 0, len(BODY))

            with in_thread(produce) as produced:
                begun(reader)
                assert read_rest(reader) == BODY[:there]
            assert produced.result() is reader.state is TransferState.FAILED

    @pytest.mark.parametrize("width", [1, 2, 5])
    def test_source_raises_in_mid_body(self, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()

            def broken(views: Sequence[memoryview], offset: int) -> int:
                if offset + sum(map(len, views)) > 3 * CAPACITY:
                    raise OSError("bad sector")
                return reading(BODY)(views, offset)

            def produce() -> None:
                writer.begin(ObjectFacts(len(BODY), 1, 0))
                with pytest.raises(OSError, match="bad sector"):
                    writer.send(broken, 0, len(BODY))
                assert writer.state is TransferState.FAILED
                writer.fail()  # has nothing left to tell

            with in_thread(produce) as produced:
                begun(reader)
                assert read_rest(reader) == BODY[: 3 * CAPACITY]
            assert produced.result() is None
            assert writer.state is reader.state is TransferState.FAILED

    def test_answer_empty_carries_a_number(self) -> None:
        with self.clean_bench(1) as bench:
            writer, reader, _ = bench.get_ends()
            writer.answer_empty(12)
            assert begun(reader) is TransferState.COMPLETE
            reader.finish()
            assert reader.facts.version == 12

    # -- cancel and release --------------------------------------------------------------------------------------
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("position", range(CHUNKS - 1))
    def test_cancel_at(self, position: int, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, BODY)) as produced:
                assert read_until_cancel(reader, position) == BODY[: (position + 1) * CAPACITY]
            assert reader.state is TransferState.CANCELLED
            assert produced.result() in (TransferState.CANCELLED, TransferState.COMPLETE)

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("position", range(CHUNKS - 1))
    def test_pause_at(self, position: int, width: int) -> None:
        """The producer keeps what it needs for the rest, or had sent all of it, and that is returned; never both."""
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, BODY)) as produced:
                begun(reader)
                for _ in range(position):
                    reader.advance()
                rest = reader.pause(7)
            assert produced.result() in (TransferState.CANCELLED, TransferState.COMPLETE)
            assert writer.paused is (produced.result() is TransferState.CANCELLED)
            assert rest == (b"" if writer.paused else BODY[position * CAPACITY + 7 :])

    @pytest.mark.parametrize("width", [2, 5])
    def test_pause_after_the_producer_is_done(self, width: int) -> None:
        body = BODY[: width * CAPACITY]
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            assert send_object(writer, body) is TransferState.COMPLETE
            begun(reader)
            assert reader.pause() == body

    def test_cancel_during_preamble_is_too_early(self) -> None:
        with self.clean_bench(2) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, BODY, preamble=b"m" * 300)) as produced:
                begun(reader, preamble_wanted=True)
                reader.cancel()
            assert produced.result().ended

    def shrunk_get(
        self, width: int, asks_at: tuple[int, ...], consume: Callable[[ChunkReader], bytes]
    ) -> tuple[bytes, ScriptedLease]:
        """One GET of BODY whose lease asks for segments back; what was consumed, and the lease."""
        with self.bench(width) as bench:
            writer, reader, lease = bench.get_ends(asks_at)
            with in_thread(lambda: send_object(writer, BODY)) as produced:
                consumed = consume(reader)
            assert produced.result().ended
            assert bench.all_clean(), (width, asks_at, [semaphores(segment) for segment in bench.owned])
            return consumed, lease

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("position", range(CHUNKS - 1))
    def test_release_at(self, position: int, width: int) -> None:
        def consume(reader: ChunkReader) -> bytes:
            begun(reader)
            return read_rest(reader)

        body, lease = self.shrunk_get(width, (position,), consume)
        assert body == BODY
        assert lease.promised == ([] if width == 1 else [position % width])
        if position + width < CHUNKS:  # the producer came to it again before the end
            assert lease.given_back == lease.promised

    @pytest.mark.parametrize("width", WIDTHS)
    def test_release_twice(self, width: int) -> None:
        def consume(reader: ChunkReader) -> bytes:
            begun(reader)
            return read_rest(reader)

        for positions in itertools.combinations(range(CHUNKS - 1), 2):
            body, lease = self.shrunk_get(width, positions, consume)
            assert body == BODY, positions
            assert len(lease.promised) == min(2, width - 1), positions

    @pytest.mark.parametrize("width", WIDTHS)
    def test_release_at_every_chunk_leaves_one(self, width: int) -> None:
        def consume(reader: ChunkReader) -> bytes:
            begun(reader)
            return read_rest(reader)

        body, lease = self.shrunk_get(width, tuple(range(100)), consume)
        assert body == BODY
        assert len(lease.promised) == width - 1
        assert len(lease.given_back) == width - 1

    @pytest.mark.parametrize("width", [2, 3, 5])
    def test_release_and_cancel(self, width: int) -> None:
        for cancelled_at in range(1, CHUNKS - 1):
            for asks in itertools.chain(
                itertools.combinations(range(cancelled_at), 1), itertools.combinations(range(cancelled_at), 2)
            ):
                body, lease = self.shrunk_get(width, asks, partial(read_until_cancel, position=cancelled_at))
                assert body == BODY[: (cancelled_at + 1) * CAPACITY], (asks, cancelled_at)
                assert len(lease.promised) == min(len(asks), width - 1)

    @pytest.mark.parametrize("width", [2, 3, 5])
    def test_release_during_preamble(self, width: int) -> None:
        preamble = body_of(4 * CAPACITY)
        for position in range(8):
            with self.clean_bench(width) as bench:
                writer, reader, lease = bench.get_ends((position,))
                with in_thread(partial(send_object, writer, BODY, preamble=preamble)):
                    begun(reader, preamble_wanted=True)
                    assert read_rest(reader) == BODY
                assert reader.preamble == preamble
                assert lease.promised == [position % width]

    def test_given_back_segment_serves_another_transfer_at_once(self) -> None:
        with self.clean_bench(2) as bench:
            other = ChunkWriter(bench.attached[1:], bench.owner_lives, WATCHDOG_S, own_identity())

            class Reusing(ScriptedLease):
                def give_back_one(self, segment: Segment) -> None:
                    super().give_back_one(segment)
                    segment.header.prepare()
                    with in_thread(lambda: send_object(other, b"inner")):
                        inner = ChunkReader([segment], bench.other_lives, WATCHDOG_S)
                        begun(inner)
                        assert read_rest(inner) == b"inner"

            lease = Reusing(bench.owned, {1})
            writer, _, _ = bench.get_ends()
            reader = ChunkReader(bench.owned, bench.other_lives, WATCHDOG_S, lease)
            with in_thread(lambda: send_object(writer, BODY)):
                begun(reader)
                assert read_rest(reader) == BODY
            assert lease.given_back == [1]

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("flagged", [False, True])
    @pytest.mark.parametrize("size", [0, 1, CAPACITY, CAPACITY + 1, 3 * CAPACITY])
    def test_flag_comes_with_the_preamble(self, size: int, flagged: bool, width: int) -> None:
        preamble = body_of(size)
        with self.clean_bench(width) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(partial(send_object, writer, BODY, preamble=preamble, flagged=flagged)):
                begun(reader, preamble_wanted=True)
                assert reader.flagged is (flagged and size > 0)
                assert read_rest(reader) == BODY
            assert reader.preamble == preamble

    # -- PUT -----------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("size", SIZES)
    def test_put_whole(self, size: int, width: int) -> None:
        body, preamble = body_of(size), b"{}" * 100
        with self.clean_bench(width) as bench:
            writer, reader = bench.put_ends()

            def consume() -> bytes:
                begun(reader, preamble_wanted=True)
                return read_rest(reader)

            with in_thread(consume) as consumed:
                assert send_object(writer, body, preamble=preamble) is TransferState.COMPLETE
                assert writer.wait_acknowledged(WATCHDOG_S)
            assert consumed.result() == body
            assert reader.preamble == preamble

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("position", range(CHUNKS - 1))
    def test_put_refused_at(self, position: int, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader = bench.put_ends()
            with in_thread(lambda: read_until_cancel(reader, position)) as consumed:
                state = send_object(writer, BODY)
                assert not writer.wait_acknowledged(WATCHDOG_S), "refused, whatever had been handed over by then"
            assert state in (TransferState.CANCELLED, TransferState.COMPLETE)
            assert consumed.result() == BODY[: (position + 1) * CAPACITY]

    @pytest.mark.parametrize("width", [1, 2, 5])
    def test_put_refused_after_the_producer_is_done(self, width: int) -> None:
        """The last chunk lies in its segment already when the consumer refuses an earlier one."""
        body = BODY[: width * CAPACITY]
        with self.clean_bench(width) as bench:
            writer, reader = bench.put_ends()
            assert send_object(writer, body) is TransferState.COMPLETE
            begun(reader)
            if reader.last:
                reader.finish(refused=True)
            else:
                reader.cancel()
            assert not writer.wait_acknowledged(WATCHDOG_S)

    @pytest.mark.parametrize("width", [1, 3])
    def test_put_refused_at_the_last_chunk(self, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader = bench.put_ends()

            def consume() -> None:
                begun(reader)
                while not reader.last:
                    reader.advance()
                reader.finish(refused=True)

            with in_thread(consume) as consumed:
                assert send_object(writer, BODY) is TransferState.COMPLETE
                assert not writer.wait_acknowledged(WATCHDOG_S)
            assert consumed.result() is None

    @pytest.mark.parametrize("width", [1, 2, 5])
    @pytest.mark.parametrize("there", [0, 2 * CAPACITY])
    def test_put_aborted(self, there: int, width: int) -> None:
        with self.clean_bench(width) as bench:
            writer, reader = bench.put_ends()

            def consume() -> bytes:
                begun(reader)
                body = bytes(reader.chunk)
                while not reader.last:
                    reader.advance()
                    body += bytes(reader.chunk)
                reader.finish(refused=True)
                return body

            with in_thread(consume) as consumed:
                writer.begin(ObjectFacts(len(BODY), 1, 0))
                assert writer.send(reading(BODY[:there]), 0, len(BODY)) is TransferState.FAILED
                assert not writer.wait_acknowledged(WATCHDOG_S)
            assert consumed.result() == BODY[:there]
            assert reader.state is TransferState.FAILED

    # -- the other side dies, stalls or lies ---------------------------------------------------------------------
    @pytest.mark.parametrize("posted", [0, 1, 3])
    def test_producer_dies(self, posted: int) -> None:
        with self.bench(2) as bench:
            writer, reader, _ = bench.get_ends()
            writer.begin(ObjectFacts(len(BODY), 1, 0))

            def read_on() -> bytes:
                begun(reader)
                body = bytes(reader.chunk)
                for number in itertools.count(1):
                    if number == posted:
                        bench.other_lives.end()
                    reader.advance()
                    body += bytes(reader.chunk)
                raise AssertionError

            def produce() -> None:
                for number in range(posted):
                    assert writer.take_turn(WATCHDOG_S)
                    writer.ring[0].chunk[:] = BODY[number * CAPACITY : (number + 1) * CAPACITY]
                    writer.post(OK, CAPACITY, number * CAPACITY, 0)

            if not posted:
                bench.other_lives.end()
            with in_thread(produce):
                assert outcome(read_on) is PeerGone

    @pytest.mark.parametrize("consumed", [0, 2])
    def test_consumer_dies(self, consumed: int) -> None:
        with self.bench(2) as bench:
            writer, reader, _ = bench.get_ends()

            def consume() -> None:
                begun(reader)
                for _ in range(consumed):
                    reader.advance()
                bench.owner_lives.end()

            with in_thread(consume), pytest.raises(PeerGone, match="the owner"):
                send_object(writer, BODY)

    def test_put_consumer_dies_before_it_answers(self) -> None:
        with self.bench(1) as bench:
            writer, reader = bench.put_ends()
            assert send_object(writer, b"small") is TransferState.COMPLETE
            begun(reader)
            bench.other_lives.end()
            with pytest.raises(PeerGone, match="the other"):
                writer.wait_acknowledged(WATCHDOG_S)

    def test_dead_peer_during_cancel(self) -> None:
        with self.bench(2) as bench:
            writer, reader, _ = bench.get_ends()
            writer.begin(ObjectFacts(len(BODY), 1, 0))
            assert writer.take_turn(WATCHDOG_S)
            writer.post(OK, CAPACITY, 0, 0)
            begun(reader)
            bench.other_lives.end()
            with pytest.raises(PeerGone):
                reader.cancel()

    def test_stalls(self) -> None:
        with self.bench(1, between_bytes_timeout_s=0.02) as bench:
            writer, reader, _ = bench.get_ends()
            with pytest.raises(ChannelTimeout):
                reader.begin(Deadline.after(0.02))
            with pytest.raises(ChannelTimeout):
                send_object(writer, BODY)
            begun(reader)
            with pytest.raises(ChannelTimeout):
                reader.advance()

    def test_finish_in_mid_stream_is_refused(self) -> None:
        with self.clean_bench(2) as bench:
            writer, reader, _ = bench.get_ends()
            with in_thread(lambda: send_object(writer, BODY)):
                begun(reader)
                with pytest.raises(UsageError):
                    reader.finish()
                reader.cancel()

    @pytest.mark.parametrize(
        ("status", "length", "offset", "flags"),
        [
            (0, 0, 0, 0),
            (OK, CAPACITY + 1, 0, 0),
            (OK, 2**64 - 1, 0, 0),
            (OK, 1, 1, 0),
            (OK, 0, 0, 0),
            (OK, 1, 0, LAST),
            (OK, 0, 0, 4),
            (OK, 1, 0, 8),
            (4, 0, 0, LAST),
            (9, 0, 0, LAST),
            (2, 0, 0, 0),
            (3, 5, 0, LAST),
        ],
    )
    def test_lying_producer(self, status: int, length: int, offset: int, flags: int) -> None:
        with self.bench(2) as bench:
            writer, reader, _ = bench.get_ends()
            writer.begin(ObjectFacts(len(BODY), 1, 0))
            assert writer.take_turn(WATCHDOG_S)
            writer.ring[0].header.write_chunk(status, length, offset, flags)
            writer.ring[0].data_available.post()
            with pytest.raises(PeerProtocolError):
                begun(reader)

    def test_producer_that_never_answers_cancel(self) -> None:
        """It would keep the consumer for ever, one chunk at a time."""
        with self.bench(2) as bench:
            writer, reader, _ = bench.get_ends()
            writer.begin(ObjectFacts(10**9, 1, 0))

            def produce() -> None:
                for number in itertools.count():
                    segment = bench.attached[number % 2]
                    if outcome(partial(segment.space_available.take, WATCHDOG_S, bench.owner_lives)):
                        return
                    segment.header.write_chunk(OK, CAPACITY, number * CAPACITY, 0)
                    segment.data_available.post()

            with in_thread(produce):
                begun(reader)
                with pytest.raises(PeerProtocolError, match="CANCEL"):
                    reader.cancel()
                bench.owner_lives.end()

    @pytest.mark.parametrize("flags", [8, 1 << 63, CANCEL | 2, CANCEL | 4])
    def test_lying_consumer(self, flags: int) -> None:
        with self.bench(2) as bench:
            writer, _, _ = bench.get_ends()
            bench.owned[0].header.write_request(flags)
            with pytest.raises(PeerProtocolError):
                send_object(writer, BODY)

    def test_consumer_asks_the_last_segment_back(self) -> None:
        with self.bench(1) as bench:
            writer, _, _ = bench.get_ends()
            bench.owned[0].header.write_request(2)
            with pytest.raises(PeerProtocolError):
                send_object(writer, BODY)
