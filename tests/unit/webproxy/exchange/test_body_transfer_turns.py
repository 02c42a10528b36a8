"""BodyTransfer among others: long ones take turns with a full width, and nobody waits for ever for what one holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_layout import FileRef
from shmchannel.streams.admission import Admission, Ticket
from shmchannel.streams.pool import WIDEN_CHUNKS, SegmentPool
from tests.support.channels import CAPACITY, body_of
from tests.support.pairs import Entry, MemoryPair, Pair
from tests.support.streams import ScriptedStream, source_of
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import BodyCutShort, ClientGone
from webproxy.exchange import body_transfer
from webproxy.exchange.body_transfer import BodyTransfer, FileResponse
from webproxy.store.cache_client import CacheClient
from webproxy.transport.job import Event

KEY = b"/long"
BODY = body_of((WIDEN_CHUNKS + 20) * CAPACITY)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A cache that has a long object, and room for one long transfer at a time; each look finds its slice over."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    monkeypatch.setattr(body_transfer, "TURN_BYTES", 3 * CAPACITY)
    monkeypatch.setattr(body_transfer, "TURN_CHUNKS", 3)
    with MemoryPair(segments=4, segments_per_transfer_max=4) as made:
        made.cache.entries[KEY] = Entry(BODY)
        yield made
        assert made.is_whole()
        assert not made.pool.stats().retired_total
        assert not admission_of(made).full


def admission_of(pair: Pair) -> Admission:
    admission = pair.pool.admission
    assert admission is not None
    return admission


def link_to(pair: Pair) -> CacheClient:
    return CacheClient(pair.client, patient=False)


def response_for(pair: Pair, stream: ScriptedStream, others_wait: Callable[[], bool] = bool) -> BodyTransfer:
    return BodyTransfer(stream, KEY, len(BODY), 1, source_of(link_to(pair), others_wait))


def begin(response: BodyTransfer, pair: Pair) -> Event | None:
    with link_to(pair).get(KEY, Deadline.after(WATCHDOG_S)) as transfer:
        return response.send(transfer, 0)


def test_a_long_one_lines_up_after_its_first_chunk_and_goes_on_with_a_full_width(pair: Pair) -> None:
    stream = ScriptedStream()
    response = response_for(pair, stream)
    taken = admission_of(pair).try_enter()
    assert taken is not None
    assert begin(response, pair) is Event.TICKET
    assert response.position == CAPACITY
    assert pair.pool.stats().widest_lease == 1
    tickets: list[Ticket | None] = []
    admission_of(pair).enqueue(tickets.append)
    taken.leave()
    assert response.resume(tickets[0]) is None
    assert pair.pool.stats().widest_lease == 4
    assert stream.received == BODY


def test_a_rest_that_is_not_worth_it_does_not_line_up(pair: Pair) -> None:
    stream = ScriptedStream()
    first = len(BODY) - WIDEN_CHUNKS * CAPACITY
    response = BodyTransfer(stream, KEY, len(BODY), 1, source_of(link_to(pair)), first)
    taken = admission_of(pair).try_enter()
    assert taken is not None
    assert response.resume() is None
    assert stream.received == BODY[-WIDEN_CHUNKS * CAPACITY :]
    taken.leave()


def test_two_take_turns(pair: Pair) -> None:
    """Each gives its place up after its turn while the other waits, and stands behind it; the last has no turns."""
    streams = [ScriptedStream(), ScriptedStream()]
    responses = [response_for(pair, stream) for stream in streams]
    order: list[int] = []
    ready: list[tuple[int, Ticket | None]] = []

    def enqueue(number: int) -> None:
        admission_of(pair).enqueue(lambda ticket: ready.append((number, ticket)))

    pair.fetch(KEY)  # how long it is, is known
    enqueue(0)
    enqueue(1)
    while ready:
        number, ticket = ready.pop(0)
        before = responses[number].position
        pause = responses[number].resume(ticket)
        order.append(number)
        if pause is not None:
            assert pause is Event.TICKET
            assert responses[number].position - before >= 3 * CAPACITY
            enqueue(number)
    assert [stream.received for stream in streams] == [BODY, BODY]
    assert order[:6] == [0, 1, 0, 1, 0, 1]


def test_who_waits_for_the_only_segment_gets_it_after_a_turn() -> None:
    """A lease of one segment cannot shrink: without an end of its turn it would keep others out for all of its body."""
    with pytest.MonkeyPatch.context() as patch, MemoryPair(segments=1, segments_per_transfer_max=1) as alone:
        patch.setattr(body_transfer, "SLICE_NS", -1)
        patch.setattr(body_transfer, "TURN_BYTES", 5 * CAPACITY)
        patch.setattr(body_transfer, "TURN_CHUNKS", 2)
        alone.cache.entries[KEY] = Entry(BODY)
        link, stream = link_to(alone), ScriptedStream()
        response = response_for(alone, stream)
        with ThreadPoolExecutor(1) as threads:
            with link.get(KEY, Deadline.after(WATCHDOG_S)) as transfer:
                waiter = threads.submit(lambda: link.get(KEY, Deadline.after(WATCHDOG_S)))
                wait_until(lambda: alone.pool.stats().waiting == 1, what="somebody who waits")
                assert response.send(transfer, 0) is Event.TURN
                assert 5 * CAPACITY <= response.position < len(BODY)
            with waiter.result() as other:
                other.cancel_quietly()
        assert response.resume() is None
        assert stream.received == BODY
        assert alone.is_whole()


def test_nobody_waits_and_there_are_no_turns(pair: Pair) -> None:
    stream = ScriptedStream()
    pair.fetch(KEY)
    assert begin(response_for(pair, stream), pair) is None
    assert stream.received == BODY


def test_a_slow_client_leaves_its_place_to_who_waits(pair: Pair) -> None:
    pair.fetch(KEY)
    stream = ScriptedStream(allowance=2 * CAPACITY, is_patient=True)
    response = response_for(pair, stream)
    tickets: list[Ticket | None] = []
    with link_to(pair).get(KEY, Deadline.after(WATCHDOG_S)) as transfer:
        admission_of(pair).enqueue(tickets.append)
        assert response.send(transfer, 0) is Event.WRITABLE
        assert not tickets
    (ticket,) = tickets
    assert ticket is not None
    ticket.leave()


def ticket_of(pair: Pair) -> Ticket:
    ticket = admission_of(pair).try_enter()
    assert ticket is not None
    return ticket


def test_a_place_is_left_however_the_response_goes_on(pair: Pair) -> None:
    stream = ScriptedStream(allowance=len(BODY) - 5)
    slow = response_for(pair, stream)
    begin(slow, pair)
    while len(stream.received) < stream.allowance:
        assert slow.resume() is not None
    ticket = ticket_of(pair)
    assert slow.resume(ticket) is Event.WRITABLE
    assert not ticket.held

    gone = response_for(pair, ScriptedStream(allowance=0, leaves=True))
    ticket = ticket_of(pair)
    with pytest.raises(ClientGone):
        gone.resume(ticket)
    assert not ticket.held

    other_version = BodyTransfer(ScriptedStream(), KEY, len(BODY), 7, source_of(link_to(pair)))
    ticket = ticket_of(pair)
    with pytest.raises(BodyCutShort):
        other_version.resume(ticket)
    assert not ticket.held


def test_a_place_is_left_when_there_is_no_cache(pair: Pair) -> None:
    response = response_for(pair, ScriptedStream())
    ticket = ticket_of(pair)
    pair.queue.set_stopping()
    with pytest.raises(BodyCutShort):
        response.resume(ticket)
    assert not ticket.held


def test_a_file_needs_no_place(pair: Pair) -> None:
    source = os.memfd_create("object")
    os.write(source, BODY)
    status = os.fstat(source)
    reference = FileRef(source, status.st_dev, status.st_ino, len(BODY))
    file: HotTableFile | None = pair.client.files.hold(os.getpid(), reference, 1, lambda: True)
    assert file is not None
    stream = ScriptedStream()
    response = FileResponse(stream, KEY, file, source_of(link_to(pair)), 0, len(BODY))
    ticket = ticket_of(pair)
    assert response.resume(ticket) is None
    assert stream.received == BODY
    assert not ticket.held
    del file
    pair.client.files.forget()
    os.close(source)


def test_a_pool_of_large_segments_has_no_turns() -> None:
    with MemoryPair(segments=2, segment_bytes=65536) as large:
        pool: SegmentPool = large.pool
        assert pool.admission is None
        assert not large.client.should_enqueue(KEY)
