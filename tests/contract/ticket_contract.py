"""The pool's contract on tickets, the places among the long transfers, for each kind of segment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout
from shmchannel.streams.admission import ADMISSION_SEGMENT_BYTES_MAX, Ticket
from shmchannel.streams.pool import WIDEN_CHUNKS, Lease
from tests.contract.pool_contract import PoolFactory, PoolMaker, soon
from tests.support.channels import in_thread
from tests.support.waiting import wait_until


class PlaceContract(PoolMaker):
    """The contract itself."""

    def test_could_grow_to_a_full_width_where_there_are_places(self, make_pool: PoolFactory) -> None:
        pool = make_pool(9, segments_per_transfer_max=4, segment_bytes=ADMISSION_SEGMENT_BYTES_MAX)
        assert pool.admission is not None
        narrow = pool.lease(soon(), 1)
        held = [pool.lease(soon(), 1) for _ in range(7)]
        assert not narrow.should_enqueue(1000), "places are free"
        assert narrow.could_grow(WIDEN_CHUNKS), "to two, and not to half of that"
        tickets = [pool.admission.try_enter(), pool.admission.try_enter()]
        assert pool.admission.try_enter() is None
        assert not narrow.could_grow(1000), "it would have to wait for a place"
        assert narrow.should_enqueue(WIDEN_CHUNKS)
        assert not narrow.should_enqueue(WIDEN_CHUNKS - 1), "the rest is not worth it"
        for lease in held:
            lease.give_back()
        wide = pool.lease(soon(), ticket=tickets[0])
        assert len(wide.segments) == 4
        assert not wide.should_enqueue(1000)
        for segment in wide.segments[1:]:
            wide.promise(segment)
            wide.give_back_one(segment)
        assert wide.could_grow(1000)
        turns: list[Ticket | None] = []
        pool.admission.enqueue(turns.append)
        assert not wide.could_grow(1000), "its place would go to another"
        wide.give_back()
        assert len(turns) == 1

    @pytest.mark.parametrize("end", [Lease.give_back, Lease.retire])
    def test_a_place_ends_with_its_lease(self, make_pool: PoolFactory, end: Callable[[Lease], None]) -> None:
        """By the time the next one gets the place, the segments are free."""
        pool = make_pool(4, segments_per_transfer_max=4)
        assert pool.admission is not None
        first = pool.lease(soon(), ticket=pool.admission.try_enter())
        assert len(first.segments) == 4
        next_leases: list[Lease] = []
        pool.admission.enqueue(lambda ticket: next_leases.append(pool.lease(soon(), ticket=ticket)))
        for _ in range(2):
            end(first)
            assert [len(lease.segments) for lease in next_leases] == [4]
        assert pool.admission.full
        end(next_leases[0])
        assert not pool.admission.full

    def test_a_place_waits_for_its_first_segment_only(self, make_pool: PoolFactory) -> None:
        pool = make_pool(4, segments_per_transfer_max=4)
        assert pool.admission is not None
        others = [pool.lease(soon(), 1) for _ in range(4)]
        ticket = pool.admission.try_enter()
        with in_thread(lambda: pool.lease(soon(), ticket=ticket)) as granted:
            wait_until(lambda: pool.waiting)
            others[0].give_back()
        assert len(granted.result().segments) == 1
        with pytest.raises(ChannelTimeout):
            pool.lease(Deadline(0), ticket=granted.result().ticket)
        granted.result().give_back()
        assert not pool.admission.full
        for lease in others:
            lease.give_back()

    @pytest.mark.parametrize(
        ("count", "width", "tickets"), [(8, 4, 2), (1, 4, 1), (3, 4, 1), (11, 4, 2), (12, 4, 3), (5, 2, 2)]
    )
    def test_as_many_places_as_full_widths(self, make_pool: PoolFactory, count: int, width: int, tickets: int) -> None:
        admission = make_pool(count, segments_per_transfer_max=width).admission
        assert admission is not None
        assert admission.free == tickets
        assert make_pool(count, segments_per_transfer_max=1).admission is None
        assert (
            make_pool(
                count, segments_per_transfer_max=width, segment_bytes=ADMISSION_SEGMENT_BYTES_MAX + 4096
            ).admission
            is None
        )
