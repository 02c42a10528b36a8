"""The contract of a pool, over shared memory and over the fakes; the part about tickets is in ticket_contract.py.

Long because it is one class, so that each kind of segment is held to all of it.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import (
    ChannelTimeout,
    LimitReached,
    NameMissing,
    PoolExhausted,
    UsageError,
)
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import ProcessIdentity
from shmchannel.process.naming import pool_guard_path
from shmchannel.streams.admission import ADMISSION_SEGMENT_BYTES_MAX
from shmchannel.streams.layout import SEGMENTS_MAX
from shmchannel.streams.pool import WIDEN_CHUNKS, Lease, SegmentPool
from shmchannel.streams.segment import Segment
from tests.support.channels import SEGMENT_BYTES, in_thread, unique_pool
from tests.support.waiting import WATCHDOG_S, wait_until

PoolFactory = Callable[..., SegmentPool]


class Maker:
    """Creates segments as the type does, until told to refuse, or to do something first."""

    def __init__(self, segment_type: type[Segment]) -> None:
        self._create = segment_type.create
        self.refuses = False
        self.first: Callable[[], None] = lambda: None

    def __call__(self, name: str, segment_bytes: int, owner: ProcessIdentity) -> Segment:
        self.first()
        if self.refuses:
            raise LimitReached(f"create segment {name}", errno.ENOSPC)
        return self._create(name, segment_bytes, owner)


def soon() -> Deadline:
    """The watchdog."""
    return Deadline.after(WATCHDOG_S)


def sizes_until_empty(pool: SegmentPool, want: int | None = None) -> list[int]:
    """How wide the leases are that can be had one after the other."""
    leases: list[Lease] = []
    while (lease := pool.try_lease(want)) is not None:
        leases.append(lease)
    sizes = [len(lease.segments) for lease in leases]
    for lease in leases:
        lease.give_back()
    return sizes


def in_line(pool: SegmentPool, count: int) -> bool:
    """Whether so many threads wait."""
    return pool.stats().waiting == count


def names_of(lease: Lease) -> list[str]:
    """The names of its segments."""
    return [segment.name for segment in lease.segments]


class PoolMaker:
    """Makes pools for a contract; subclasses name the type of segment."""

    segment_type: type[Segment]

    @pytest.fixture
    def maker(self) -> Maker:
        return Maker(self.segment_type)

    @pytest.fixture
    def make_pool(self, maker: Maker) -> Iterator[PoolFactory]:
        with ExitStack() as pools:

            def make(
                count: int,
                *,
                segments_per_transfer_max: int = 4,
                waiters_max: int = 100,
                segment_bytes: int = SEGMENT_BYTES,
            ) -> SegmentPool:
                name = unique_pool()
                guard = ProcessGuard.acquire(pool_guard_path(name))
                pool = SegmentPool(
                    name,
                    guard,
                    count,
                    segment_bytes,
                    segments_per_transfer_max=segments_per_transfer_max,
                    waiters_max=waiters_max,
                    create=maker,
                )
                pools.callback(pool.close)
                return pool

            yield make

    def exists(self, name: str) -> bool:
        """Whether a segment of this name can be attached."""
        try:
            self.segment_type.attach(name).close()
        except NameMissing:
            return False
        return True


class PoolContract(PoolMaker):
    """The contract itself."""

    # -- leases --------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize(("count", "width"), [(0, 4), (-1, 4), (4, 0), (4, SEGMENTS_MAX + 1)])
    def test_numbers_out_of_range(self, maker: Maker, count: int, width: int) -> None:
        with pytest.raises(UsageError, match=str(width if count > 0 else count)):
            SegmentPool(unique_pool(), None, count, SEGMENT_BYTES, segments_per_transfer_max=width, create=maker)
        with pytest.raises(UsageError):
            SegmentPool.create(count, SEGMENT_BYTES, segments_per_transfer_max=width)

    def test_widest_stripe(self, make_pool: PoolFactory) -> None:
        assert sizes_until_empty(make_pool(2 * SEGMENTS_MAX, segments_per_transfer_max=SEGMENTS_MAX))[0] == SEGMENTS_MAX

    @pytest.mark.parametrize(
        ("count", "width", "sizes"),
        [
            (1, 4, [1]),
            (2, 4, [1, 1]),
            (3, 4, [1, 1, 1]),
            (4, 4, [2, 1, 1]),
            (8, 4, [4, 2, 1, 1]),
            (8, 1, [1] * 8),
            (8, 3, [3, 2, 1, 2]),
            (20, 4, [4, 4, 4, 4, 4]),
            (20, 64, [10, 5, 2, 3]),
        ],
    )
    def test_takes_half_of_what_is_free_or_the_fourth_an_equal_share(
        self, make_pool: PoolFactory, count: int, width: int, sizes: list[int]
    ) -> None:
        pool = make_pool(count, segments_per_transfer_max=width)
        assert sizes_until_empty(pool) == sizes
        assert sizes_until_empty(pool) == sizes, "all of it came back"
        assert sizes_until_empty(pool, want=1) == [1] * count

    def test_four_streams_come_to_equal_shares(self, make_pool: PoolFactory) -> None:
        pool = make_pool(8, segments_per_transfer_max=4)
        leases = [pool.lease(soon()) for _ in range(4)]
        assert [len(lease.segments) for lease in leases] == [4, 2, 1, 1]
        for number in range(4):
            leases[number].give_back()
            leases[number] = pool.lease(soon())
        assert [len(lease.segments) for lease in leases] == [2, 2, 2, 2]

    def test_a_lease_that_ended_twice_counts_once(self, make_pool: PoolFactory) -> None:
        pool = make_pool(8, segments_per_transfer_max=4)
        lease = pool.lease(soon())
        lease.give_back()
        lease.retire()
        lease.give_back()
        assert sizes_until_empty(pool) == [4, 2, 1, 1]
        assert pool.stats().retired_total == 0

    def test_wants_no_more_than_the_stripe(self, make_pool: PoolFactory) -> None:
        pool = make_pool(12, segments_per_transfer_max=3)
        assert sizes_until_empty(pool, want=100) == sizes_until_empty(pool)
        assert sizes_until_empty(pool, want=2) == [2] * 6
        assert pool.stats().widest_lease == 3

    def test_segments_differ_and_belong_to_the_pool(self, make_pool: PoolFactory) -> None:
        pool = make_pool(5)
        leases = [pool.lease(soon(), 1) for _ in range(5)]
        names = {name for lease in leases for name in names_of(lease)}
        assert len(names) == 5
        assert all(name.startswith(f"/{pool.name}-") for name in names)
        assert pool.try_lease() is None
        assert pool.stats().segments_leased == 5
        for lease in leases:
            lease.give_back()
        assert pool.stats().segments_leased == 0

    def test_first_come_first_served(self, make_pool: PoolFactory) -> None:
        pool = make_pool(2)
        held = [pool.lease(soon(), 1), pool.lease(soon(), 1)]
        order: list[int] = []
        turn = threading.Lock()

        def wait_in_line(number: int) -> None:
            lease = pool.lease(soon())
            with turn:
                order.append(number)
            lease.give_back()

        threads = []
        for number in range(6):
            threads.append(threading.Thread(target=wait_in_line, args=(number,)))
            threads[-1].start()
            wait_until(partial(in_line, pool, number + 1))
        assert pool.try_lease() is None
        held[0].give_back()
        for thread in threads:
            thread.join()
        assert order == list(range(6)), "one segment went round, from each to the one behind"
        held[1].give_back()

    def test_who_waits_gets_one(self, make_pool: PoolFactory) -> None:
        pool = make_pool(8, segments_per_transfer_max=8)
        held = [pool.lease(soon()) for _ in range(4)]
        with in_thread(lambda: pool.lease(soon())) as granted:
            wait_until(lambda: pool.waiting)
            held[0].give_back()
        assert len(granted.result().segments) == 1
        assert pool.stats().segments_leased == 5

    def test_timeout(self, make_pool: PoolFactory) -> None:
        pool = make_pool(1)
        held = pool.lease(soon())
        with pytest.raises(ChannelTimeout):
            pool.lease(Deadline.after(0.01))
        with pytest.raises(ChannelTimeout):
            pool.lease(Deadline(0))
        assert pool.stats().waiting == pool.waiting == 0
        assert pool.stats().timeouts_total == 2
        held.give_back()
        assert sizes_until_empty(pool) == [1], "nothing went to who had given up"

    def test_bounded_line(self, make_pool: PoolFactory) -> None:
        pool = make_pool(1, waiters_max=1)
        held = pool.lease(soon())
        with in_thread(lambda: pool.lease(soon())) as granted:
            wait_until(lambda: pool.waiting)
            with pytest.raises(PoolExhausted):
                pool.lease(soon())
            held.give_back()
        granted.result().give_back()
        assert pool.stats().refused_total == 1

    # -- shrinking -----------------------------------------------------------------------------------------------
    def test_shrinks_only_while_somebody_waits(self, make_pool: PoolFactory) -> None:
        pool = make_pool(4, segments_per_transfer_max=4)
        wide, first, second = pool.lease(soon()), pool.lease(soon()), pool.lease(soon())
        assert len(wide.segments) == 2
        assert not wide.should_shrink()
        with in_thread(lambda: pool.lease(soon())) as granted:
            wait_until(lambda: pool.waiting)
            assert wide.should_shrink()
            asked_back = wide.segments[1]
            wide.promise(asked_back)
            assert pool.promised == 1
            assert not wide.should_shrink(), "the one who waits has been promised a segment"
            assert not first.should_shrink()
            wide.give_back_one(asked_back)
        assert granted.result().segments == [asked_back]
        assert pool.stats().shrunk_total == 1
        assert pool.promised == 0
        for lease in (wide, first, second, granted.result()):
            lease.give_back()
        assert pool.stats().segments_leased == 0

    @pytest.mark.parametrize("end", [Lease.give_back, Lease.retire])
    def test_promise_ends_with_the_lease(self, make_pool: PoolFactory, end: Callable[[Lease], None]) -> None:
        pool = make_pool(4)
        lease = pool.lease(soon())
        lease.promise(lease.segments[1])
        for _ in range(2):
            end(lease)
            assert pool.promised == 0
        assert sizes_until_empty(pool) == [2, 1, 1]

    def test_only_what_was_asked_back_comes_back(self, make_pool: PoolFactory) -> None:
        pool = make_pool(4)
        lease = pool.lease(soon())
        first = lease.segments[0]
        with pytest.raises(KeyError):
            lease.give_back_one(first)
        lease.promise(first)
        lease.give_back_one(first)
        with pytest.raises(KeyError):
            lease.give_back_one(first)
        lease.retire()
        assert sizes_until_empty(pool) == [2, 1, 1]
        assert pool.stats().retired_total == 1

    def test_could_grow(self, make_pool: PoolFactory) -> None:
        pool = make_pool(9, segments_per_transfer_max=4, segment_bytes=ADMISSION_SEGMENT_BYTES_MAX + 4096)
        narrow = pool.lease(soon(), 1)
        assert not narrow.could_grow(WIDEN_CHUNKS - 1), "the rest is not worth it"
        assert narrow.could_grow(WIDEN_CHUNKS)
        others = [pool.lease(soon(), 1) for _ in range(6)]
        assert not narrow.could_grow(1000), "two are free, and half of three would be no more"
        narrow.give_back()
        for lease in others:
            lease.give_back()
        wide = pool.lease(soon())
        assert len(wide.segments) == 4
        assert not wide.could_grow(1000), "as wide as it may be"
        last = wide.segments[3]
        wide.promise(last)
        wide.give_back_one(last)
        assert not wide.could_grow(1000), "not twice as wide"
        wide.give_back()

    def test_nobody_grows_while_somebody_waits(self, make_pool: PoolFactory) -> None:
        pool = make_pool(1)
        lease = pool.lease(soon())
        with in_thread(lambda: pool.lease(soon())) as granted:
            wait_until(lambda: pool.waiting)
            assert not lease.could_grow(1000)
            lease.give_back()
        granted.result().give_back()

    # -- retiring ------------------------------------------------------------------------------------------------
    def test_retire_replaces(self, make_pool: PoolFactory) -> None:
        pool = make_pool(4)
        lease = pool.lease(soon())
        old = names_of(lease)
        others = self.segment_type.attach(old[0])
        lease.retire()
        assert not any(map(self.exists, old))
        others.chunk[:4] = b"late"  # a late peer writes into memory that nobody reads
        others.close()
        leases = [pool.lease(soon(), 1) for _ in range(4)]
        for lease in leases:
            assert set(names_of(lease)).isdisjoint(old)
            assert all(map(self.exists, names_of(lease)))
            assert not any(lease.segments[0].chunk)
            lease.give_back()
        stats = pool.stats()
        assert (stats.segments_total, stats.retired_total, stats.segments_leased) == (4, 2, 0)

    def test_retired_goes_to_who_waits(self, make_pool: PoolFactory) -> None:
        pool = make_pool(1)
        held = pool.lease(soon())
        old = names_of(held)
        with in_thread(lambda: pool.lease(soon())) as granted:
            wait_until(lambda: pool.waiting)
            held.retire()
        assert names_of(granted.result()) != old
        assert not self.exists(old[0])

    def test_end_of_a_lease_happens_once(self, make_pool: PoolFactory) -> None:
        pool = make_pool(2)
        lease = pool.lease(soon())
        lease.give_back()
        lease.give_back()
        lease.retire()
        assert pool.stats().retired_total == 0
        assert sizes_until_empty(pool) == [1, 1]

    def test_replacement_refused_then_made(self, make_pool: PoolFactory, maker: Maker) -> None:
        pool = make_pool(2)
        maker.refuses = True
        pool.lease(soon()).retire()
        assert sizes_until_empty(pool) == [1], "it serves on with what it has"
        pool.lease(soon()).retire()
        with pytest.raises(PoolExhausted, match="No space left"):
            pool.lease(soon())
        assert pool.stats().segments_total == 0
        maker.refuses = False
        pool.lease(soon()).give_back()
        assert sizes_until_empty(pool) == [1, 1], "whole again"

    def test_refusal_does_not_hide_the_error_of_the_transfer(self, make_pool: PoolFactory, maker: Maker) -> None:
        pool = make_pool(1)
        maker.refuses = True
        pool.lease(soon()).retire()

    def test_waiter_that_is_interrupted_gives_back_what_it_was_granted(
        self, make_pool: PoolFactory, maker: Maker
    ) -> None:
        pool = make_pool(2)
        lost, kept = pool.lease(soon(), 1), pool.lease(soon(), 1)
        maker.refuses = True
        lost.retire()

        def interrupt() -> None:
            kept.give_back()  # goes to the waiter, who is about to be interrupted
            raise KeyboardInterrupt

        maker.first = interrupt
        with pytest.raises(KeyboardInterrupt):
            pool.lease(soon())
        assert pool.stats().waiting == 0
        assert sizes_until_empty(pool) == [1]

    # -- the end -------------------------------------------------------------------------------------------------
    def test_close_removes_what_is_in_use_too(self, make_pool: PoolFactory) -> None:
        pool = make_pool(5)
        given, retired = pool.lease(soon()), pool.lease(soon())
        names = [f"/{pool.name}-{number}" for number in range(5)]
        assert all(map(self.exists, names))
        given.segments[0].chunk[:1] = b"x"
        pool.close()
        assert not any(map(self.exists, names))
        given.segments[0].chunk[:1] = b"y"  # still mapped for the thread that uses it
        given.give_back()
        retired.retire()
        pool.close()
        for ask in (lambda: pool.lease(soon()), pool.try_lease):
            with pytest.raises(UsageError):
                ask()

    def test_close_wakes_who_waits(self, make_pool: PoolFactory) -> None:
        pool = make_pool(1)
        pool.lease(soon())

        def wait_in_line() -> None:
            with pytest.raises(UsageError):
                pool.lease(soon())

        with in_thread(wait_in_line), in_thread(wait_in_line):
            wait_until(lambda: pool.stats().waiting == 2)
            pool.close()

    def test_close_while_a_replacement_is_made(self, make_pool: PoolFactory, maker: Maker) -> None:
        pool = make_pool(1)
        lease = pool.lease(soon())
        maker.first = pool.close
        lease.retire()
        assert not self.exists(f"/{pool.name}-1")

    def test_close_with_a_view_of_a_chunk_left(self, make_pool: PoolFactory) -> None:
        pool = make_pool(2)
        lease = pool.lease(soon())
        view = lease.segments[0].chunk[:1]
        lease.give_back()
        pool.close()
        assert not self.exists(f"/{pool.name}-0")
        ProcessGuard.acquire(pool_guard_path(pool.name)).close()
        view.release()

    def test_retire_with_a_view_of_a_chunk_left(self, make_pool: PoolFactory) -> None:
        pool = make_pool(2)
        lease = pool.lease(soon())
        view = lease.segments[0].chunk[:1]
        lease.retire()
        assert sizes_until_empty(pool) == [1, 1]
        view.release()

    # -- many threads --------------------------------------------------------------------------------------------
    def test_no_segment_has_two_users(self, make_pool: PoolFactory) -> None:
        pool = make_pool(3, segments_per_transfer_max=2)
        in_use: set[str] = set()
        turn = threading.Lock()

        def use(seed: int) -> None:
            choose = random.Random(seed)
            for _ in range(60):
                lease = pool.lease(soon())
                with turn:
                    assert in_use.isdisjoint(names_of(lease))
                    in_use.update(names_of(lease))
                names = names_of(lease)
                if len(names) > 1 and lease.should_shrink():
                    last = lease.segments[-1]
                    lease.promise(last)
                    with turn:
                        names.remove(last.name)
                        in_use.discard(last.name)
                    lease.give_back_one(last)
                with turn:
                    in_use.difference_update(names)
                if choose.random() < 0.1:
                    lease.retire()
                else:
                    lease.give_back()

        with ExitStack() as threads:
            for seed in range(8):
                threads.enter_context(in_thread(partial(use, seed)))
        stats = pool.stats()
        assert (stats.segments_total, stats.segments_leased, stats.waiting, pool.promised) == (3, 0, 0, 0)
        assert stats.leases_total == 480
