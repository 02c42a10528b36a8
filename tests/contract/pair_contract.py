"""The contract between client and server, over shared memory and over the fakes.

Long because it is one class for both, as in the other contracts: each kind is held to all of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import (
    ChannelTimeout,
    NameMissing,
    PeerGone,
    PeerProtocolError,
    PoolExhausted,
    RequestFailed,
    UsageError,
)
from shmchannel.objects.commands import METADATA_BYTES_MAX, Command, CommandKind, Priority, encode
from shmchannel.objects.server import Handler
from shmchannel.process.identity import own_identity
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import OK, PREAMBLE, ObjectFacts, SegmentRef
from shmchannel.streams.transfer import TransferState
from tests.support.channels import CAPACITY, body_of, in_thread, outcome, reading
from tests.support.pairs import DictCache, Entry, Pair, body_of_transfer
from tests.support.waiting import WATCHDOG_S, wait_until

BODY = body_of(40 * CAPACITY + 1)
"""Worth several segments, once its size is known from a first answer."""


def soon() -> Deadline:
    """The watchdog."""
    return Deadline.after(WATCHDOG_S)


HOW_A_GET_BREAKS = ("raises", "returns", "raises in mid-body", "source raises", "source returns None", "other channel")
HOW_A_PUT_BREAKS = ("raises", "returns", "raises in mid-body", "raises at the end", "returns at the end")


class BreakingCache(DictCache):
    """Serves /whole, and breaks in the way that a test names with every other key."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.entries[b"/whole"] = Entry(BODY)

    def get(self, command: Command, writer: ChunkWriter) -> TransferState | None:
        """Break before, in or without an answer."""
        if command.key == b"/whole":
            return super().get(command, writer)
        if self.how == "returns":
            return None
        if self.how == "other channel":
            raise NameMissing("of another channel that the handler uses", 0)
        if self.how == "raises":
            raise ValueError("a bug")
        writer.begin(ObjectFacts(len(BODY), 1, 3))
        if self.how == "raises in mid-body":
            writer.send_preamble(b"abc")
            raise ValueError("a bug")
        return writer.send(self.read_into, 0, len(BODY), b"abc")

    def read_into(self, views: Sequence[memoryview], offset: int) -> int:
        """A source that breaks in the fourth chunk."""
        if offset < 3 * CAPACITY:
            return reading(BODY)(views, offset)
        if self.how == "source raises":
            raise ValueError("a bug")
        return None  # type: ignore[return-value]

    def put(self, command: Command, reader: ChunkReader) -> None:
        """Break before, in or behind the body, or say nothing."""
        if self.how == "raises":
            raise ValueError("a bug")
        if self.how == "returns":
            return
        reader.begin(soon(), preamble_wanted=True)
        if self.how == "raises in mid-body":
            raise ValueError("a bug")
        while not reader.last:
            reader.advance()
        if self.how == "raises at the end":
            raise ValueError("a bug")

    def update(self, command: Command, reader: ChunkReader) -> None:
        """As put()."""
        self.put(command, reader)

    def purge(self, command: Command) -> int:
        """Break."""
        if self.how == "raises":
            raise ValueError("a bug")
        return None  # type: ignore[return-value]


class PairContract:
    """Subclasses name the kind of pair."""

    pair_type: Callable[..., Pair]

    @contextmanager
    def whole_pair(self, **options: Any) -> Iterator[Pair]:
        """A pair that at the end has every segment back in its pool, none of them retired."""
        with self.pair_type(**options) as pair:
            yield pair
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 0

    # -- GET -----------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("width", [1, 2, 4])
    def test_get(self, width: int) -> None:
        with self.pair_type(segments_per_transfer_max=width, segments=8) as pair:
            for size in (0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 40 * CAPACITY):
                key = b"/%d" % size
                pair.cache.entries[key] = Entry(body_of(size))
                for _ in range(2):
                    assert pair.fetch(key) == body_of(size)
                    assert pair.is_whole()
            stats = pair.pool.stats()
            assert (stats.retired_total, stats.widest_lease) == (0, width), "the second time the size was known"
            wait_until(lambda: pair.server.stats().served_total == 12)
            assert pair.server.stats().chunks_total == 2 * (1 + 1 + 1 + 1 + 2 + 40)

    def test_miss(self) -> None:
        with self.pair_type() as pair, pair.client.get(b"/none", soon()) as transfer:
            assert not transfer.found
            assert transfer.state is TransferState.NOT_FOUND
            transfer.finish()
            transfer.close()
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 0

    def test_range_and_version(self) -> None:
        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY, version=7)
            assert pair.fetch(b"/a", offset=100, length=200) == BODY[100:300]
            assert pair.fetch(b"/a", offset=len(BODY) - 1) == BODY[-1:]
            assert pair.fetch(b"/a", offset=len(BODY) + 1) == b""
            for version, found in ((7, True), (8, False)):
                with pair.client.get(b"/a", soon(), offset=5, version=version) as transfer:
                    assert transfer.found is found
                    assert transfer.facts.version == (7 if found else 0)
                    assert transfer.length == (CAPACITY if found else 0)
                    if transfer.found:
                        transfer.cancel()
                    else:
                        transfer.finish()
            assert pair.is_whole()

    def test_metadata_where_asked_for(self) -> None:
        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(b"body", b"m" * 300)
            for wanted in (False, True):
                with pair.client.get(b"/a", soon(), metadata_wanted=wanted) as transfer:
                    assert transfer.metadata == (b"m" * 300 if wanted else b"")
                    assert bytes(transfer.chunk) == b"body"
                    assert transfer.last
                    transfer.finish()

    def test_address_of_the_chunk(self) -> None:
        import ctypes

        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            with pair.client.get(b"/a", soon()) as transfer:
                assert ctypes.string_at(transfer.address, transfer.length) == BODY[:CAPACITY]
                transfer.advance()
                assert ctypes.string_at(transfer.address, transfer.length) == BODY[CAPACITY : 2 * CAPACITY]
                transfer.cancel()

    def test_command_says_what_was_asked(self) -> None:
        with self.pair_type() as pair:
            before = Deadline.after(0)
            deadline = soon()
            for _ in range(2):
                with pair.client.get(
                    b"/a?b", deadline, offset=3, length=4, version=5, priority=int(Priority.HIGH)
                ) as transfer:
                    transfer.finish()
            first, second = pair.cache.commands
            assert first[:2] == (CommandKind.GET, b"/a?b")
            assert (first.offset, first.length, first.version, first.priority) == (3, 4, 5, 2)
            assert before.expires_ns < first.deadline_ns == deadline.expires_ns
            assert second.request_id == first.request_id + 1
            assert first.trace_id != second.trace_id
            assert {ref.segment_bytes for ref in first.segments} == {pair.pool.segment_bytes}

    def test_steps_are_told(self) -> None:
        steps: list[str] = []
        with self.pair_type(on_step=steps.append) as pair:
            pair.fetch(b"/none")
            assert steps == ["lease", "queue", "cache"]

    @pytest.mark.parametrize("chunks", range(4))
    def test_cancel_keeps_the_segments(self, chunks: int) -> None:
        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            with pair.client.get(b"/a", soon()) as transfer:
                for _ in range(chunks):
                    transfer.advance()
                transfer.cancel()
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 0
            assert pair.fetch(b"/a") == BODY

    def test_left_in_mid_stream(self) -> None:
        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            with pair.client.get(b"/a", soon()) as transfer:
                transfer.advance()
                leased = pair.pool.stats().segments_leased
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == leased
            wait_until(lambda: pair.server.stats().served_total == 1, what="the worker's end, long before its timeout")
            assert pair.server.stats().broken_total == 0
            assert pair.fetch(b"/a") == BODY

    def test_error_in_the_block(self) -> None:
        with self.pair_type(between_bytes_timeout_s=1.0) as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            with pytest.raises(ZeroDivisionError), pair.client.get(b"/a", soon()):
                raise ZeroDivisionError
            assert pair.is_whole()

    def test_many_at_once(self) -> None:
        with self.pair_type(segments=3, segments_per_transfer_max=3, workers=3) as pair:
            sizes = (0, 1, CAPACITY, 3 * CAPACITY, 20 * CAPACITY + 3)
            for size in sizes:
                pair.cache.entries[b"/%d" % size] = Entry(body_of(size))

            def ask(seed: int) -> None:
                choose = random.Random(seed)
                for _ in range(40):
                    size = choose.choice(sizes)
                    if size > CAPACITY and choose.random() < 0.2:
                        with pair.client.get(b"/%d" % size, soon()) as transfer:
                            transfer.advance()
                            if transfer.last:
                                transfer.finish()
                            else:
                                transfer.cancel()
                    else:
                        assert pair.fetch(b"/%d" % size) == body_of(size)

            with ExitStack() as threads:
                for seed in range(6):
                    threads.enter_context(in_thread(partial(ask, seed)))
            assert pair.is_whole()
            stats = pair.pool.stats()
            assert (stats.leases_total, stats.retired_total) == (240, 0)
            wait_until(lambda: pair.server.stats().served_total == 240)
            assert pair.server.stats().broken_total == 0

    def test_wide_lease_shrinks_for_who_waits(self) -> None:
        with self.whole_pair(segments=4, segments_per_transfer_max=2, workers=2) as pair:
            pair.cache.entries[b"/long"] = Entry(BODY)
            pair.cache.entries[b"/short"] = Entry(b"short")
            assert pair.fetch(b"/long") == BODY
            with pair.client.get(b"/long", soon()) as transfer:
                body = bytes(transfer.chunk)
                others = [pair.pool.lease(soon(), 1), pair.pool.lease(soon(), 1)]
                assert pair.pool.stats().segments_leased == 4
                with in_thread(lambda: pair.fetch(b"/short")) as short:
                    wait_until(lambda: pair.pool.waiting)
                    for _ in range(3):
                        transfer.advance()
                        body += bytes(transfer.chunk)
                    assert short.result(WATCHDOG_S) == b"short", "served while the long one stands still"
                while not transfer.last:
                    transfer.advance()
                    body += bytes(transfer.chunk)
                transfer.finish()
            assert body == BODY
            for lease in others:
                lease.give_back()

    # -- PUT -----------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("size", [0, 1, CAPACITY, CAPACITY + 1, 10 * CAPACITY])
    def test_put(self, size: int) -> None:
        with self.pair_type() as pair:
            assert pair.store(b"/new", body_of(size), b"type: text")
            assert pair.cache.entries[b"/new"] == Entry(body_of(size), b"type: text", 1)
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 0
            assert pair.fetch(b"/new") == body_of(size)

    def test_put_as_it_comes(self) -> None:
        """The object arrives in small pieces; only whole chunks go out until its end is there."""
        with self.pair_type() as pair:
            transfer = pair.client.put(b"/new", len(BODY), b"", pair.pool.lease(soon()), soon())
            with transfer:
                for available in range(0, len(BODY), 50):
                    transfer.pump(reading(BODY), available, wait=False)
                    assert transfer.position <= available
                    assert not transfer.complete
                transfer.pump(reading(BODY), len(BODY), wait=True)
                assert transfer.complete
                assert transfer.position == len(BODY)
                assert transfer.commit()
            assert pair.cache.entries[b"/new"].body == BODY
            assert pair.is_whole()

    @pytest.mark.parametrize("size", [1, CAPACITY + 1, 2 * CAPACITY, 10 * CAPACITY])
    def test_put_refused(self, size: int) -> None:
        with self.whole_pair(segments=8, segments_per_transfer_max=4) as pair:
            pair.cache.longest = 0
            assert not pair.store(b"/big", body_of(size))
            assert not pair.cache.entries

    @pytest.mark.parametrize("sent", [0, CAPACITY, 3 * CAPACITY])
    def test_put_aborted(self, sent: int) -> None:
        with self.pair_type() as pair:
            with pair.client.put(b"/half", len(BODY), b"meta", pair.pool.lease(soon()), soon()) as transfer:
                transfer.pump(reading(BODY), sent, wait=True)
                transfer.abort()
            assert not pair.cache.entries
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 0
            wait_until(lambda: pair.server.stats().served_total == 1)

    def test_put_left_in_mid_stream(self) -> None:
        """The cache is told: it does not wait for more until its between-bytes timeout."""
        with self.pair_type() as pair:
            with pair.client.put(b"/half", len(BODY), b"", pair.pool.lease(soon()), soon()) as transfer:
                transfer.pump(reading(BODY), 3 * CAPACITY, wait=True)
                leased = pair.pool.stats().segments_leased
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == leased
            wait_until(lambda: pair.server.stats().served_total == 1)
            assert not pair.cache.entries

    def test_put_whose_source_comes_short(self) -> None:
        with self.pair_type() as pair:
            with (
                pytest.raises(UsageError, match="source"),
                pair.client.put(b"/half", len(BODY), b"", pair.pool.lease(soon()), soon()) as transfer,
            ):
                transfer.pump(reading(BODY[:-1]), len(BODY), wait=True)
            assert pair.is_whole()
            wait_until(lambda: pair.server.stats().served_total == 1)
            assert not pair.cache.entries

    @pytest.mark.parametrize("semaphore", ["space_available", "data_available"])
    def test_what_a_bad_cache_posted_too_often_costs_the_next_one_a_request(self, semaphore: str) -> None:
        """It would let the next one write into a chunk that is still being sent."""
        with self.pair_type(segments=1, segments_per_transfer_max=1) as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            assert pair.fetch(b"/a") == BODY
            lease = pair.pool.lease(soon(), 1)
            getattr(lease.segments[0], semaphore).post()
            lease.give_back()
            pair.kill_cache()
            pair.start_heir()
            with pytest.raises(PeerProtocolError, match="left its semaphores in a wrong state"):
                pair.fetch(b"/a")
            assert pair.is_whole()
            assert pair.fetch(b"/a") == BODY
            assert pair.pool.stats().retired_total == 1

    def test_puts_that_stand_still_leave_workers_to_others(self) -> None:
        with self.pair_type(workers=2, segments=8, segments_per_transfer_max=1) as pair, ExitStack() as fills:
            pair.cache.entries[b"/a"] = Entry(BODY)
            puts = {}
            for key in (b"/1", b"/2", b"/3"):
                transfer = pair.client.put(key, len(BODY), b"", pair.pool.lease(soon(), 1), soon())
                puts[key] = fills.enter_context(transfer)
                transfer.pump(reading(BODY), CAPACITY, wait=False)
                wait_until(lambda: pair.cache.commands, what="the first has a worker: they end in this order")
            assert pair.fetch(b"/a") == BODY, "one worker waits for chunks, the other serves"
            for key in (b"/1", b"/2", b"/3"):
                puts[key].pump(reading(BODY), len(BODY), wait=True)
                assert puts[key].commit()
                assert pair.cache.entries[key].body == BODY

    def test_put_with_too_much_metadata(self) -> None:
        with self.pair_type() as pair:
            with pytest.raises(UsageError, match=str(METADATA_BYTES_MAX)):
                pair.client.put(b"/a", 1, bytes(METADATA_BYTES_MAX + 1), pair.pool.lease(soon()), soon())
            assert pair.is_whole()

    # -- UPDATE and invalidation --------------------------------------------------------------------------------
    @pytest.mark.parametrize("size", [0, 1, CAPACITY, CAPACITY + 1, METADATA_BYTES_MAX])
    def test_update(self, size: int) -> None:
        with self.whole_pair() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY, b"old", version=7, invalidated=True)
            metadata = body_of(size)
            assert pair.client.update(b"/a", 7, metadata, soon())
            assert pair.cache.entries == {b"/a": Entry(BODY, metadata, version=7)}
            (command,) = pair.cache.commands
            assert command[:2] == (CommandKind.UPDATE, b"/a")
            assert (command.offset, command.length, command.version, command.flags) == (0, 0, 7, 0)
            assert len(command.segments) == 1

    @pytest.mark.parametrize("version", [0, 7, 8])
    def test_update_of_a_version(self, version: int) -> None:
        with self.whole_pair() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY, b"old", version=7)
            assert pair.client.update(b"/a", version, b"new", soon()) is (version != 8)
            assert pair.cache.entries[b"/a"].metadata == (b"old" if version == 8 else b"new")
            assert not pair.client.update(b"/gone", 0, b"new", soon())
            assert list(pair.cache.entries) == [b"/a"]

    def test_update_with_too_much_metadata(self) -> None:
        with self.pair_type() as pair:
            with pytest.raises(UsageError, match=str(METADATA_BYTES_MAX)):
                pair.client.update(b"/a", 0, bytes(METADATA_BYTES_MAX + 1), soon())
            assert pair.is_whole()
            assert not pair.cache.commands

    def test_update_nobody_answers(self) -> None:
        """It is the deadline that ends it, and not the between-bytes timeout."""
        with self.pair_type(workers=0, between_bytes_timeout_s=1e6) as pair:
            with pytest.raises(ChannelTimeout):
                pair.client.update(b"/a", 0, bytes(3 * CAPACITY), Deadline.after(0.02))
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 1

    def test_update_whose_cache_dies(self) -> None:
        with self.pair_type(workers=0) as pair:
            with in_thread(lambda: outcome(lambda: pair.client.update(b"/a", 0, b"new", soon()))) as updated:
                wait_until(lambda: pair.queue.waiting)
                pair.kill_cache()
            assert updated.result() is PeerGone
            assert pair.is_whole()

    def test_update_whose_proxy_dies(self) -> None:
        """Between two chunks of the metadata: the old one stays, and so does invalidated."""
        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY, b"old", invalidated=True)
            lease = pair.pool.lease(soon(), 1)
            sender = pair.client.connect()
            writer = ChunkWriter(lease.segments, sender, WATCHDOG_S, own_identity())
            refs = tuple(
                SegmentRef(each.wire_name, each.header.prepare(), each.segment_bytes) for each in lease.segments
            )
            command = Command(CommandKind.UPDATE, b"/a", refs, soon().expires_ns)
            writer.begin(ObjectFacts(0, 0, CAPACITY + 1))
            sender.send(encode(command), 1, soon())
            assert writer.take_turn(WATCHDOG_S)
            writer.post(OK, CAPACITY, 0, PREAMBLE)
            wait_until(lambda: lease.segments[0].space_available.value)
            pair.kill_proxy()
            wait_until(lambda: pair.server.stats().broken_total == 1)
            assert pair.cache.entries == {b"/a": Entry(BODY, b"old", invalidated=True)}
            lease.retire()

    @pytest.mark.parametrize("prefix", [False, True])
    def test_invalidate(self, prefix: bool) -> None:
        with self.pair_type() as pair:
            pair.cache.entries = {b"/a": Entry(BODY, b"m" * 300), b"/ab": Entry(BODY), b"/b": Entry(BODY, b"meta")}
            assert pair.client.purge(b"/a", soon(), prefix=prefix, invalidate=True) == (2 if prefix else 1)
            assert {key: entry.invalidated for key, entry in pair.cache.entries.items()} == (
                {b"/a": True, b"/b": False} if prefix else {b"/a": True, b"/ab": False, b"/b": False}
            )
            for wanted in (False, True):
                with pair.client.get(b"/a", soon(), metadata_wanted=wanted) as transfer:
                    assert transfer.invalidated is wanted
                    assert body_of_transfer(transfer) == BODY
            with pair.client.get(b"/b", soon(), metadata_wanted=True) as transfer:
                assert not transfer.invalidated
                transfer.cancel()
            assert pair.client.update(b"/a", 0, b"new", soon())
            with pair.client.get(b"/a", soon(), metadata_wanted=True) as transfer:
                assert (transfer.invalidated, transfer.metadata) == (False, b"new")
                transfer.cancel()
            assert pair.is_whole()

    # -- the rest ------------------------------------------------------------------------------------------------
    def test_purge_and_ping(self) -> None:
        with self.whole_pair() as pair:
            pair.cache.entries = {b"/a/1": Entry(b"1"), b"/a/2": Entry(b"2"), b"/b": Entry(b"3")}
            pair.client.ping(soon())
            assert pair.client.purge(b"/a/1", soon()) == 1
            assert pair.client.purge(b"/a/1", soon()) == 0
            assert pair.client.purge(b"/a/", soon()) == 0
            assert pair.client.purge(b"/", soon(), prefix=True) == 2

    def test_no_cache(self) -> None:
        with self.pair_type() as pair:
            assert pair.client.connected
            pair.kill_cache()
            wait_until(lambda: not pair.client.connected)
            for ask in (
                lambda: pair.client.get(b"/a", soon()),
                lambda: pair.client.ping(soon()),
                lambda: pair.client.put(b"/a", 1, b"", pair.pool.lease(soon()), soon()),
                lambda: pair.client.update(b"/a", 1, b"", soon()),
            ):
                with pytest.raises(NameMissing):
                    ask()
            assert pair.is_whole()

    def test_heir_is_found(self) -> None:
        with self.pair_type() as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            for _ in range(3):
                assert pair.fetch(b"/a") == BODY
                pair.kill_cache()
                wait_until(lambda: not pair.client.connected)
                pair.start_heir()
                wait_until(lambda: pair.client.connected)
            assert pair.fetch(b"/a") == BODY

    def test_cache_dies_before_it_answers(self) -> None:
        with self.pair_type() as pair:
            pair.cache.hold.clear()
            with in_thread(lambda: _asked(pair)):
                wait_until(lambda: pair.cache.commands)
                leased = pair.pool.stats().segments_leased
                pair.kill_cache()
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == leased

    def test_cache_dies_in_mid_stream(self) -> None:
        with self.pair_type(workers=0) as pair:
            with in_thread(lambda: pair.client.get(b"/a", soon())) as asked:
                message = pair.queue.receive(WATCHDOG_S)
                assert message is not None
                pair.cache.entries[b"/a"] = Entry(BODY)
                with in_thread(lambda: _served(pair, message)):
                    transfer = asked.result(WATCHDOG_S)
                    leased = pair.pool.stats().segments_leased
                    pair.kill_cache()
                    with transfer:
                        transfer.advance()
                        pair.kill_proxy()
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == leased

    def test_no_answer_in_time(self) -> None:
        with self.pair_type() as pair:
            pair.cache.hold.clear()
            with pytest.raises(ChannelTimeout):
                pair.client.get(b"/a", Deadline.after(0.02))
            assert pair.is_whole()
            assert pair.pool.stats().retired_total == 1
            pair.cache.hold.set()
            assert pair.fetch(b"/a") is None, "a late answer went nowhere"

    def test_no_segment_in_time(self) -> None:
        with self.pair_type(segments=1) as pair:
            lease = pair.pool.lease(soon())
            with pytest.raises(ChannelTimeout):
                pair.client.get(b"/a", Deadline.after(0.01))
            lease.give_back()
        with self.pair_type(segments=1, waiters_max=0) as pair:
            lease = pair.pool.lease(soon())
            with pytest.raises(PoolExhausted):
                pair.client.get(b"/a", soon())
            lease.give_back()

    # -- what the server refuses ---------------------------------------------------------------------------------
    def test_expired_command_is_dropped(self) -> None:
        with self.pair_type(workers=0) as pair:
            with pytest.raises(ChannelTimeout):
                pair.client.get(b"/a", Deadline.after(0.01))
            assert pair.server.serve_one(0.0)
            assert pair.server.stats().expired_total == 1
            assert not pair.cache.commands
            assert not pair.server.serve_one(0.0)

    @pytest.mark.parametrize("message", [b"", b"GETFILE GET /\r\n\r\n", bytes(8192)])
    def test_malformed_message_is_dropped(self, message: bytes) -> None:
        with self.pair_type() as pair:
            pair.client.connect().send(message, 3, soon())
            wait_until(lambda: pair.server.stats().malformed_total == 1)
            assert pair.fetch(b"/none") is None

    def test_command_that_lies_about_segments(self) -> None:
        with self.pair_type(workers=0) as pair:
            lease = pair.pool.lease(soon())
            refs = [SegmentRef(s.wire_name, s.header.prepare(), s.segment_bytes) for s in lease.segments]
            good = refs[0]
            lies: list[tuple[SegmentRef, ...]] = [
                (),
                (good, good),
                (good._replace(generation=good.generation + 1),),
                (good._replace(generation=0),),
                (good._replace(segment_bytes=good.segment_bytes + 1),),
                (good, refs[1]._replace(segment_bytes=0)),
                (good._replace(name=f"/{pair.pool.name}-999".encode()),),
            ]
            for number, segments in enumerate(lies):
                pair.client.connect().send(encode(Command(CommandKind.GET, b"/a", segments)), 1, soon())
                assert pair.server.serve_one(WATCHDOG_S)
                assert pair.server.stats().broken_total == number + 1
            assert not pair.cache.commands
            lease.give_back()

    @pytest.mark.parametrize("how", HOW_A_GET_BREAKS)
    def test_get_of_a_handler_that_breaks(self, how: str) -> None:
        """The asker is told at once, and the worker serves the next one."""
        with self.pair_type(workers=1, handler=BreakingCache(how)) as pair:
            with pair.client.get(b"/a", soon(), metadata_wanted=True) as transfer:
                body = bytes(transfer.chunk)
                while not transfer.last:
                    transfer.advance()
                    body += bytes(transfer.chunk)
                assert transfer.state is TransferState.FAILED
                transfer.finish()
            assert BODY.startswith(body)
            assert pair.fetch(b"/whole") == BODY
            assert pair.is_whole()
            stats = pair.server.stats()
            counted = {"other channel": (0, 1), "source returns None": (0, 0)}.get(how, (1, 0))
            assert (stats.failed_total, stats.broken_total) == counted
            assert pair.pool.stats().retired_total == 0

    @pytest.mark.parametrize("size", [0, 1, CAPACITY, 10 * CAPACITY])
    @pytest.mark.parametrize("how", HOW_A_PUT_BREAKS)
    def test_put_to_a_handler_that_breaks(self, how: str, size: int) -> None:
        with self.pair_type(workers=1, handler=BreakingCache(how)) as pair:
            assert not pair.store(b"/a", body_of(size), b"m" * 200)
            assert not pair.client.update(b"/a", 0, b"m" * 200, soon())
            assert pair.fetch(b"/whole") == BODY
            assert pair.is_whole()
            assert pair.server.stats().failed_total == 2
            assert pair.pool.stats().retired_total == 0

    @pytest.mark.parametrize("how", ["raises", "returns"])
    def test_purge_of_a_handler_that_breaks(self, how: str) -> None:
        with self.pair_type(workers=1, handler=BreakingCache(how)) as pair:
            with pytest.raises(RequestFailed, match="PURGE failed"):
                pair.client.purge(b"/a", soon())
            pair.client.ping(soon())
            assert pair.is_whole()
            assert pair.server.stats().failed_total == 1

    def test_handler_that_does_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        """It refuses whatever comes, and the log says what it lacks."""

        class Idle(Handler):
            pass

        with self.pair_type(workers=1, handler=Idle()) as pair:
            with pair.client.get(b"/a", soon()) as transfer:
                assert transfer.state is TransferState.FAILED
                transfer.finish()
            assert not pair.store(b"/a", BODY, b"meta")
            assert not pair.client.update(b"/a", 0, b"meta", soon())
            with pytest.raises(RequestFailed):
                pair.client.purge(b"/a", soon())
            pair.client.ping(soon())
            assert pair.is_whole()
            assert pair.server.stats().failed_total == 4
            assert pair.pool.stats().retired_total == 0
        assert "Idle answers no GET" in caplog.records[0].reason  # type: ignore[attr-defined]

    def test_proxy_dies_in_mid_stream(self) -> None:
        with self.pair_type(workers=0) as pair:
            pair.cache.entries[b"/a"] = Entry(BODY)
            with in_thread(lambda: pair.client.get(b"/a", soon())) as asked:
                with in_thread(lambda: pair.server.serve_one(WATCHDOG_S)):
                    transfer = asked.result(WATCHDOG_S)
                    pair.kill_proxy()
                transfer.close()
            stats = pair.server.stats()
            assert (stats.served_total, stats.broken_total, stats.attached) == (0, 1, 0)

    def test_attachments_are_kept_and_swept(self) -> None:
        with self.pair_type(segments=4) as pair:
            pair.fetch(b"/none")
            wait_until(lambda: pair.server.stats().attached == 1)
            pair.server.sweep()
            assert pair.server.stats().attached == 1
            pair.kill_proxy()
            pair.server.sweep()
            assert pair.server.stats().attached == 0


def _asked(pair: Pair, deadline: Deadline | None = None, error: type[Exception] = PeerGone) -> None:
    with pytest.raises(error):
        pair.client.get(b"/a", deadline or soon())


def _served(pair: Pair, message: bytes) -> None:
    pair.server.serve(message)
