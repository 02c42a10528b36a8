"""A client's tickets for long transfers: each is used or given back; no failure loses one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, NameMissing, PeerGone
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Admission, Ticket
from shmchannel.streams.layout import SPACE_AVAILABLE_OFFSET
from shmchannel.streams.pool import GROWTH_CHUNKS
from tests.support.channels import CAPACITY, address_in, body_of
from tests.support.pairs import Entry, MemoryPair, Pair
from tests.support.waiting import WATCHDOG_S

LONG, SHORT = b"/long", b"/short"
STRIPE = 4
SEM_VALUE_MAX = 0x7FFF_FFFF


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Room for one long transfer, of an object that is known to be long, beside a short one."""
    with MemoryPair(segments=6, segments_per_transfer_max=STRIPE) as made:
        made.cache.entries[LONG] = Entry(body_of(STRIPE * GROWTH_CHUNKS * CAPACITY))
        made.cache.entries[SHORT] = Entry(body_of(CAPACITY))
        for key in (LONG, SHORT):
            made.fetch(key)
        yield made
        assert made.is_whole()
        assert admission_of(made).free == 1


def admission_of(pair: Pair) -> Admission:
    assert pair.pool.admission is not None
    return pair.pool.admission


def entered(pair: Pair) -> Ticket:
    ticket = admission_of(pair).try_enter()
    assert ticket is not None
    return ticket


def get(pair: Pair, key: bytes, ticket: Ticket | None = None) -> IncomingTransfer:
    return pair.client.get(key, Deadline.after(WATCHDOG_S), ticket=ticket)


def end(transfer: IncomingTransfer) -> None:
    with transfer:
        if transfer.last:
            transfer.finish()
        else:
            transfer.cancel()


def test_a_long_object_takes_a_free_place_and_gives_it_back(pair: Pair) -> None:
    assert not pair.client.should_enqueue(LONG)
    transfer = get(pair, LONG)
    assert len(transfer.lease.segments) == STRIPE
    assert admission_of(pair).full
    assert pair.client.should_enqueue(LONG)
    assert not pair.client.should_enqueue(SHORT)
    assert not pair.client.should_enqueue(b"/unknown")
    beside = get(pair, LONG)
    assert len(beside.lease.segments) == 1, "half of the two that are free"
    assert beside.lease.ticket is None
    end(beside)
    assert admission_of(pair).full
    end(transfer)


def test_a_place_that_was_waited_for_is_used(pair: Pair) -> None:
    ticket = entered(pair)
    transfer = get(pair, LONG, ticket)
    assert transfer.lease.ticket is ticket
    end(transfer)
    assert not ticket.held


def test_a_place_that_was_left_is_no_place(pair: Pair) -> None:
    ticket = entered(pair)
    ticket.leave()
    transfer = get(pair, LONG, ticket)
    assert transfer.lease.ticket is not ticket
    end(transfer)


def test_a_short_object_has_no_use_for_a_place(pair: Pair) -> None:
    ticket = entered(pair)
    transfer = get(pair, SHORT, ticket)
    assert not ticket.held
    end(transfer)


@pytest.mark.parametrize("chunks", [0, 1, 2 * GROWTH_CHUNKS - 1])
def test_an_object_that_is_short_now_lines_up_no_more(pair: Pair, chunks: int) -> None:
    pair.cache.entries[LONG] = Entry(body_of(chunks * CAPACITY))
    pair.fetch(LONG)
    ticket = entered(pair)
    assert not pair.client.should_enqueue(LONG)
    ticket.leave()
    transfer = get(pair, LONG)
    assert (len(transfer.lease.segments), transfer.lease.ticket) == (1, None)
    end(transfer)


def test_an_object_that_is_gone_lines_up_no_more(pair: Pair) -> None:
    del pair.cache.entries[LONG]
    end(get(pair, LONG))
    ticket = entered(pair)
    assert not pair.client.should_enqueue(LONG)
    ticket.leave()


def test_a_short_range_of_a_long_object_leaves_it_a_long_one(pair: Pair) -> None:
    end(pair.client.get(LONG, Deadline.after(WATCHDOG_S), length=1))
    ticket = entered(pair)
    assert pair.client.should_enqueue(LONG)
    ticket.leave()


@pytest.mark.parametrize("waited", [False, True])
def test_no_segment_in_time(pair: Pair, waited: bool) -> None:
    held = [pair.pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(6)]
    ticket = entered(pair) if waited else None
    with pytest.raises(ChannelTimeout):
        pair.client.get(LONG, Deadline(0), ticket=ticket)
    assert not admission_of(pair).full
    for lease in held:
        lease.give_back()


@pytest.mark.parametrize("waited", [False, True])
def test_no_cache(pair: Pair, waited: bool) -> None:
    pair.queue.set_stopping()
    with pytest.raises((NameMissing, PeerGone)):
        get(pair, LONG, entered(pair) if waited else None)
    assert not admission_of(pair).full


def test_a_semaphore_that_cannot_be_posted_costs_its_segments_and_no_place() -> None:
    """The other side can have written anything into it; the lease ends all the same."""
    with Pair(segments=STRIPE, segments_per_transfer_max=STRIPE) as real:
        real.cache.entries[LONG] = Entry(body_of(STRIPE * GROWTH_CHUNKS * CAPACITY))
        real.fetch(LONG)
        transfer = get(real, LONG)
        segment = transfer.lease.segments[0]
        ctypes.c_uint32.from_address(address_in(segment, SPACE_AVAILABLE_OFFSET)).value = SEM_VALUE_MAX
        with pytest.raises((ValueError, OSError)):
            transfer.close()
        assert real.pool.stats().segments_leased == 0
        assert admission_of(real).free == 1
        assert real.fetch(LONG) == real.cache.entries[LONG].body


def test_a_cache_that_does_not_answer(pair: Pair) -> None:
    pair.cache.hold.clear()
    with pytest.raises(ChannelTimeout):
        pair.client.get(LONG, Deadline.after(0.02), ticket=entered(pair))
    assert not admission_of(pair).full
    assert pair.pool.stats().retired_total == STRIPE
    pair.cache.hold.set()
