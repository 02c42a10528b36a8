"""BodyTransfer: a body paused anywhere resumes at the right byte, or ends short; all segments come back.

Long because every reason to pause and every way to fail is tried at each seam of the same few bodies.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import PeerGone
from shmchannel.objects.commands import Command
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import ERROR, FAILED, LAST, NOT_FOUND, OK, ObjectFacts
from shmchannel.streams.pool import WIDEN_CHUNKS
from shmchannel.streams.transfer import TransferState
from tests.support.channels import CAPACITY, body_of
from tests.support.handlers import getfile_handler
from tests.support.pairs import DictCache, Entry, MemoryPair, Pair
from tests.support.streams import ScriptedDemand, ScriptedStream, client_stream, source_of
from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_MS, WATCHDOG_S, wait_until
from webproxy.errors import BodyCutShort, CacheUnavailable, ClientGone
from webproxy.exchange import body_transfer
from webproxy.exchange.body_transfer import LOOK_MS, ROOM_MS, BodySource, BodyTransfer, SourceLost
from webproxy.exchange.getfile_request import GetfileRequest
from webproxy.getfile import Wire
from webproxy.store.cache_client import CacheClient
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Done, Event

KEY = b"/x"
BODY = body_of(5 * CAPACITY + 50)
CHUNKS = 6
NO_LIMIT = RateLimit(0, 1.0)


@pytest.fixture(params=[1, 4])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A cache that has the object, through leases of one segment or several."""
    with MemoryPair(segments=8, segments_per_transfer_max=request.param) as made:
        made.cache.entries[KEY] = Entry(BODY)
        yield made


def link_to(pair: Pair) -> CacheClient:
    return CacheClient(pair.client, patient=False)


def response_for(
    pair: Pair, stream: ClientStream, *, body: bytes = BODY, others_wait: Callable[[], bool] = bool
) -> BodyTransfer:
    return BodyTransfer(stream, KEY, len(body), 1, source_of(link_to(pair), others_wait))


def asked(link: CacheClient) -> IncomingTransfer:
    return link.get(KEY, Deadline.after(WATCHDOG_S))


def begin(response: BodyTransfer, link: CacheClient, *, first: Callable[[], None] = lambda: None) -> Event | None:
    """Send from the first byte on, as an exchange does behind its header; `first` happens when the first chunk came."""
    with asked(link) as transfer:
        first()
        return response.send(transfer, 0)


def until_the_end(response: BodyTransfer, link: CacheClient) -> None:
    """Resume at once after every pause, for any reason."""
    pause = begin(response, link)
    while pause is not None:
        pause = response.resume()


def is_clean(pair: Pair) -> bool:
    """Whether all segments are back, none of them retired."""
    return pair.is_whole() and not pair.pool.stats().retired_total


def test_slow_when_the_cache_has_handed_all_of_it_over() -> None:
    """It keeps nothing for a resume then: the bytes in its segments are sent though the object is gone."""
    body = body_of(32 * CAPACITY)
    with MemoryPair(segments=8, segments_per_transfer_max=4) as pair:
        pair.cache.entries[KEY] = Entry(body)
        assert pair.fetch(KEY) == body, "its length is known, and its lease as wide as may be"
        stream = ScriptedStream(30 * CAPACITY + 5)
        response = response_for(pair, stream, body=body)
        assert begin(response, link_to(pair)) is Event.WRITABLE
        del pair.cache.entries[KEY]
        stream.allowance += CAPACITY
        assert response.resume() is Event.WRITABLE
        stream.allowance = 1 << 30
        assert response.resume() is None
        assert stream.received == body
        assert is_clean(pair)


# -- pauses ----------------------------------------------------------------------------------------------------------
def test_all_at_once(pair: Pair) -> None:
    stream = ScriptedStream()
    assert begin(response_for(pair, stream), link_to(pair)) is None
    assert stream.received == BODY
    assert stream.announced == [True] * (CHUNKS - 1) + [False], "only the last packet may leave unfilled"
    assert is_clean(pair)


@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_slow_at_every_chunk_position(pair: Pair, chunk: int, beside: int) -> None:
    """The client stops before, at and behind each seam; it gets the rest from that byte on, of that version."""
    link, stop = link_to(pair), max(0, chunk * CAPACITY + beside)
    stream = ScriptedStream(stop)
    response = response_for(pair, stream)
    assert begin(response, link) is Event.WRITABLE
    assert response.position == stop
    assert is_clean(pair), "who is paused holds no segment"
    assert response.resume() is Event.WRITABLE, "it takes nothing yet"
    assert response.position == stop
    stream.allowance = 1 << 30
    assert response.resume() is None
    assert stream.received == BODY
    resumed = 0 if stop >= (CHUNKS - 1) * CAPACITY else 1 if len(BODY) - stop <= CAPACITY else 2
    again = [(stop, 1)] * resumed  # the rest of the last chunk is kept, and needs no command
    assert [(command.offset, command.version) for command in pair.cache.commands] == [(0, 0), *again]
    assert is_clean(pair)


@pytest.mark.parametrize("heir", [None, Entry(body_of(100), version=2)], ids=["gone", "replaced"])
def test_slow_in_the_last_chunk(pair: Pair, heir: Entry | None) -> None:
    """For the cache it is over with that chunk, and what becomes of the object is all the same."""
    stream = ScriptedStream(len(BODY) - 40)
    response = response_for(pair, stream)
    assert begin(response, link_to(pair)) is Event.WRITABLE
    assert is_clean(pair)
    del pair.cache.entries[KEY]
    if heir is not None:
        pair.cache.entries[KEY] = heir
    for _ in range(3):
        stream.allowance += 10
        assert response.resume() is Event.WRITABLE
        assert response.position == stream.allowance
    stream.allowance += 10
    assert response.resume() is None
    assert stream.received == BODY


def test_a_client_that_makes_room_keeps_its_worker_while_nobody_waits(pair: Pair) -> None:
    """Each send may take a part of a chunk; what others want ends that at the next one."""
    stream = ScriptedStream(0, is_patient=True)
    grown = []

    def others_wait() -> bool:
        stream.allowance += 7
        grown.append(stream.allowance)
        return stream.allowance > 3 * CAPACITY

    response = response_for(pair, stream, others_wait=others_wait)
    assert begin(response, link_to(pair)) is Event.WRITABLE
    assert CAPACITY < response.position < len(BODY)
    stream.allowance = 1 << 30
    assert response.resume() is None
    assert stream.received == BODY
    assert is_clean(pair)


class LateStream(ScriptedStream):
    """A client that makes room when it has been waited for three times."""

    waits_ms: ClassVar[list[int]] = []

    def has_room_within(self, wait_ms: int) -> bool:
        """Each third time."""
        self.waits_ms.append(wait_ms)
        if len(self.waits_ms) % 3:
            return False
        self.allowance += CAPACITY
        return True


@pytest.mark.parametrize("spare", [False, True])
def test_a_client_that_takes_its_time_keeps_a_worker_that_nobody_needs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, spare: bool
) -> None:
    monkeypatch.setattr(LateStream, "waits_ms", [])
    source = BodySource(link_to(pair), WATCHDOG_S, ScriptedDemand(spare=spare))
    stream = LateStream(5)
    response = BodyTransfer(stream, KEY, len(BODY), 1, source)
    assert begin(response, link_to(pair)) is (None if spare else Event.WRITABLE)
    assert stream.received == (BODY if spare else BODY[:5])
    assert stream.waits_ms[:3] == ([ROOM_MS, LOOK_MS, LOOK_MS] if spare else [ROOM_MS])
    assert is_clean(pair)


def test_a_stopping_cache_would_not_resume_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker waits for the client then, even if others wait for the worker."""
    monkeypatch.setattr(LateStream, "waits_ms", [])
    stream = LateStream(5)
    with asked(link_to(pair)) as transfer:
        pair.queue.set_stopping()
        assert response_for(pair, stream, others_wait=lambda: True).send(transfer, 0) in (None, Event.WRITABLE)
    assert len(stream.received) > 4 * CAPACITY
    assert is_clean(pair)


def test_a_slow_client_gives_way_to_who_waits_for_a_segment() -> None:
    with MemoryPair(segments=1) as alone:
        alone.cache.entries[KEY] = Entry(BODY)
        link, stream = link_to(alone), ScriptedStream(10, is_patient=True)
        response = response_for(alone, stream)
        with ThreadPoolExecutor(1) as threads, asked(link) as transfer:
            waiter = threads.submit(lambda: asked(link))
            wait_until(lambda: alone.pool.stats().waiting == 1, what="somebody who waits")
            assert response.send(transfer, 0) is Event.WRITABLE
            transfer.close()
            with waiter.result() as other:
                other.cancel_quietly()


def test_the_part_that_went_with_the_header_is_not_sent_again(pair: Pair) -> None:
    link, stream = link_to(pair), ScriptedStream()
    with asked(link) as transfer:
        sent = stream.send_memory(transfer.address, 10)
        assert response_for(pair, stream).send(transfer, sent) is None
    assert stream.received == BODY
    assert is_clean(pair)


@pytest.mark.parametrize("seed", range(20))
def test_any_history_of_pauses(pair: Pair, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Dribbles, and workers wanted by others, in any order: the body is the body."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    script = random.Random(seed)
    link, stream = link_to(pair), ScriptedStream(script.randrange(300))
    response = response_for(pair, stream, others_wait=lambda: script.random() < 0.3)
    pause = begin(response, link)
    while pause is not None:
        assert stream.received == BODY[: response.position]
        assert is_clean(pair)
        if pause is Event.WRITABLE:
            stream.allowance += script.randrange(300)
        pause = response.resume()
    assert stream.received == BODY
    assert is_clean(pair)


def test_yields_after_its_slice_when_others_wait(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice without length: one chunk in each turn."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    link, stream = link_to(pair), ScriptedStream()
    response = response_for(pair, stream, others_wait=lambda: True)
    pauses = [begin(response, link)]
    while pauses[-1] is not None:
        assert is_clean(pair)
        pauses.append(response.resume())
    assert pauses == [Event.TURN] * (CHUNKS - 1) + [None]
    assert stream.received == BODY


@pytest.mark.parametrize(("slice_ns", "others_wait"), [(-1, False), (3_600_000_000_000, True)])
def test_keeps_its_worker(pair: Pair, monkeypatch: pytest.MonkeyPatch, slice_ns: int, *, others_wait: bool) -> None:
    """While nobody waits, or within its slice."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", slice_ns)
    stream = ScriptedStream()
    assert begin(response_for(pair, stream, others_wait=lambda: others_wait), link_to(pair)) is None
    assert stream.received == BODY


def test_keeps_its_worker_when_a_cache_that_stops_would_not_be_asked_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    link, stream = link_to(pair), ScriptedStream()
    with asked(link) as transfer:
        pair.queue.set_stopping()
        assert response_for(pair, stream, others_wait=lambda: True).send(transfer, 0) is None
    assert stream.received == BODY
    assert is_clean(pair)


def test_widens_when_segments_come_free() -> None:
    """Begun with the only free segment; as soon as there are more it uses four."""
    body = body_of((WIDEN_CHUNKS + 10) * CAPACITY)
    with MemoryPair(segments=8, segments_per_transfer_max=4) as pair:
        pair.cache.entries[KEY] = Entry(body)
        link, stream = link_to(pair), ScriptedStream(2 * CAPACITY)
        response = response_for(pair, stream, body=body)
        held = [pair.pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(7)]
        assert begin(response, link) is Event.WRITABLE, "no reason to pause for width"
        assert pair.pool.stats().widest_lease == 1
        stream.allowance = 1 << 30
        with link.get(KEY, Deadline.after(WATCHDOG_S), offset=response.position, version=1) as transfer:
            for lease in held:
                lease.give_back()
            assert response.send(transfer, 0) is None
        assert response.position == 3 * CAPACITY
        assert response.resume() is None
        assert pair.pool.stats().widest_lease == 4
        assert stream.received == body
        assert is_clean(pair)


# -- a range of the body ---------------------------------------------------------------------------------------------
RANGES = [
    (0, 1),
    (0, CAPACITY),
    (5, CAPACITY + 5),
    (CAPACITY, 3 * CAPACITY),
    (2 * CAPACITY - 1, 2 * CAPACITY + 1),
    (7, len(BODY)),
    (len(BODY) - 1, len(BODY)),
]


def response_of(pair: Pair, stream: ClientStream, start: int, end: int) -> BodyTransfer:
    return BodyTransfer(stream, KEY, len(BODY), 1, source_of(link_to(pair)), start, end)


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_a_range_is_sent_from_its_first_byte_to_its_last(pair: Pair, start: int, end: int) -> None:
    stream = ScriptedStream()
    response = response_of(pair, stream, start, end)
    assert response.resume() is None
    assert stream.received == BODY[start:end]
    assert stream.announced[-1] is False, "its last packet may leave unfilled"
    assert response.position == end
    assert is_clean(pair)


@pytest.mark.parametrize("dribble", [1, 3, CAPACITY - 1, CAPACITY + 1])
@pytest.mark.parametrize(("start", "end"), RANGES[1:5])
def test_a_range_pauses_and_goes_on_and_ends_where_it_ends(pair: Pair, start: int, end: int, dribble: int) -> None:
    stream = ScriptedStream(max(1, (end - start) // 3))
    response = response_of(pair, stream, start, end)
    pause = response.resume()
    while pause is not None:
        assert pause is Event.WRITABLE
        assert response.position == start + len(stream.received)
        assert is_clean(pair)
        stream.allowance += max(dribble, (end - start) // 5)
        pause = response.resume()
    assert stream.received == BODY[start:end]
    asked_for = [
        (command.offset, command.offset + command.length if command.length else len(BODY))
        for command in pair.cache.commands
    ]
    assert all(start <= first < last == end for first, last in asked_for), "what was not asked for is not read"
    assert is_clean(pair)


def test_a_range_of_an_object_that_is_gone_is_cut_short(pair: Pair) -> None:
    stream = ScriptedStream(5)
    response = response_of(pair, stream, 3, 2 * CAPACITY)
    assert response.resume() is Event.WRITABLE
    pair.cache.entries[KEY] = Entry(body_of(len(BODY)), version=2)
    with pytest.raises(BodyCutShort, match="replaced or evicted"):
        response.resume()
    assert stream.received == BODY[3:8]
    assert is_clean(pair)


def test_a_short_range_does_not_pause_for_width() -> None:
    """A long body with a short range of it: what counts is what is left to send."""
    body = body_of((WIDEN_CHUNKS + 10) * CAPACITY)
    with MemoryPair(segments=8, segments_per_transfer_max=4) as pair:
        pair.cache.entries[KEY] = Entry(body)
        link, stream = link_to(pair), ScriptedStream()
        response = response_for(pair, stream, body=body)
        response.end = 3 * CAPACITY
        held = [pair.pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(7)]
        with link.get(KEY, Deadline.after(WATCHDOG_S), length=response.end) as transfer:
            for lease in held:
                lease.give_back()
            assert response.send(transfer, 0) is None
        assert stream.received == body[: 3 * CAPACITY]
        assert is_clean(pair)


def test_a_response_ends_with_its_body_unless_told(pair: Pair) -> None:
    response = response_for(pair, ScriptedStream())
    assert (response.position, response.end) == (0, len(BODY))


def test_real_sockets_and_segments() -> None:
    """A client that reads nothing until the response has paused, then all of it."""
    body = os.urandom(3_000_000)
    with (
        Pair(segments=4, segments_per_transfer_max=2, segment_bytes=65_536) as pair,
        connected(client_buffer_bytes=4096, server_buffer_bytes=4096, closing=True) as (fd, client),
        ThreadPoolExecutor(1) as crew,
    ):
        pair.cache.entries[KEY] = Entry(body)
        link, stream = link_to(pair), client_stream(fd, NO_LIMIT)
        response = response_for(pair, stream, body=body)
        pauses = [begin(response, link), response.resume()]
        assert pauses == [Event.WRITABLE, Event.WRITABLE]
        assert is_clean(pair)
        received = crew.submit(at_end, client)
        pause: Event | None = Event.WRITABLE
        while pause is not None:
            assert stream.has_room_within(WATCHDOG_MS)
            pause = response.resume()
        sockets.end_sending(fd)
        assert received.result(WATCHDOG_S) == body
        assert response.position == len(body)
        assert is_clean(pair)


# -- a client that is gone -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", [0, 1, CAPACITY, 2 * CAPACITY + 1, 5 * CAPACITY, len(BODY) - 1])
def test_client_gone(pair: Pair, stop: int) -> None:
    """Wherever it leaves, the cache's worker is told and no segment is lost."""
    link, stream = link_to(pair), ScriptedStream(stop, leaves=True)
    response = response_for(pair, stream)
    with pytest.raises(ClientGone):
        until_the_end(response, link)
    assert stream.received == BODY[:stop]
    assert is_clean(pair)
    wait_until(lambda: pair.server.stats().served_total == len(pair.cache.commands))


# -- an object, or a cache, that is gone -----------------------------------------------------------------------------
def paused_in_mid_body(pair: Pair) -> tuple[BodyTransfer, ScriptedStream]:
    stream = ScriptedStream(2 * CAPACITY + 5)
    response = response_for(pair, stream)
    assert begin(response, link_to(pair)) is Event.WRITABLE
    stream.allowance = 1 << 30
    return response, stream


@pytest.mark.parametrize("heir", [None, Entry(body_of(900), version=2), Entry(bytes(len(BODY)), version=2)])
def test_version_gone_cuts_the_body_short(pair: Pair, heir: Entry | None) -> None:
    """Removed, or replaced by another one, also of the same length: not one byte of that one is sent."""
    response, stream = paused_in_mid_body(pair)
    del pair.cache.entries[KEY]
    if heir is not None:
        pair.cache.entries[KEY] = heir
    with pytest.raises(BodyCutShort, match="replaced or evicted"):
        response.resume()
    assert stream.received == BODY[: 2 * CAPACITY + 5]
    assert is_clean(pair)


class LyingCache(DictCache):
    """Answers every GET with an object of this size and version, whatever was asked for."""

    def __init__(self, size: int, version: int) -> None:
        super().__init__()
        self._facts = ObjectFacts(size, version, 0)

    def get(self, command: Command, writer: ChunkWriter) -> TransferState:
        """Send zeros."""
        writer.begin(self._facts)
        return writer.send(lambda views, _offset: sum(map(len, views)), command.offset, self._facts.size_bytes)


@pytest.mark.parametrize(("size", "version"), [(len(BODY), 2), (len(BODY) + 1, 1), (3 * CAPACITY, 1)])
def test_a_cache_that_answers_with_another_object(pair: Pair, size: int, version: int) -> None:
    """It was asked for a version and a rest: what does not fit the announced length is not believed."""
    response, stream = paused_in_mid_body(pair)

    pair.handler = LyingCache(size, version)
    with pytest.raises(BodyCutShort, match="another object"):
        response.resume()
    assert stream.received == BODY[: 2 * CAPACITY + 5]
    assert pair.is_whole()


def test_cache_gone_while_paused(pair: Pair) -> None:
    response, stream = paused_in_mid_body(pair)
    pair.kill_cache()
    with pytest.raises(SourceLost) as caught:
        response.resume()
    assert isinstance(caught.value.__cause__, CacheUnavailable)
    assert stream.received == BODY[: 2 * CAPACITY + 5]
    assert (caught.value.body, response.position) == (response, 2 * CAPACITY + 5)
    assert is_clean(pair)


class BreakingCache(DictCache):
    """Sends the first chunk of the body, then does what `breaks` says instead of the next one."""

    def __init__(self, breaks: Callable[[ChunkWriter], None]) -> None:
        super().__init__()
        self._breaks = breaks

    def get(self, command: Command, writer: ChunkWriter) -> TransferState:
        """Break in mid-body."""
        writer.begin(ObjectFacts(len(BODY), 1, 0))
        assert writer.take_turn(WATCHDOG_S)
        writer.ring[0].chunk[:] = BODY[:CAPACITY]
        writer.post(OK, CAPACITY, 0, 0)
        self._breaks(writer)
        return writer.state


ENDS_IN_MID_BODY = [(NOT_FOUND, LAST), (FAILED, LAST | ERROR)]


def posting(status: int, length: int, offset: int, flags: int) -> BreakingCache:
    """A cache whose second chunk has this header."""

    def post(writer: ChunkWriter) -> None:
        assert writer.take_turn(WATCHDOG_S)
        writer.post(status, length, offset, flags)

    return BreakingCache(post)


@contextmanager
def falling_silent() -> Iterator[BreakingCache]:
    """A cache that does nothing more behind its first chunk until the block is left."""
    left = threading.Event()

    def wait(_writer: ChunkWriter) -> None:
        assert left.wait(WATCHDOG_S)

    try:
        yield BreakingCache(wait)
    finally:
        left.set()


@pytest.mark.parametrize(("status", "flags"), ENDS_IN_MID_BODY)
def test_the_cache_ends_in_mid_body(pair: Pair, status: int, flags: int) -> None:
    """With any final status, no more can be sent than has come; the transfer itself ended cleanly."""
    pair.handler = posting(status, 0, 0, flags)
    stream = ScriptedStream()
    with pytest.raises(SourceLost, match="to its end") as caught:
        begin(response_for(pair, stream), link_to(pair))
    assert stream.received == BODY[:CAPACITY]
    assert caught.value.body.position == CAPACITY
    assert is_clean(pair)


@pytest.mark.parametrize(("status", "flags"), ENDS_IN_MID_BODY)
@pytest.mark.parametrize(("wire", "header"), [(Wire.CRLF, b"GETFILE OK %d\r\n\r\n"), (Wire.SPACE, b"GETFILE OK %d ")])
def test_no_second_status_in_mid_body(pair: Pair, wire: Wire, header: bytes, status: int, flags: int) -> None:
    """NOT_FOUND behind a part of the body is for the client what any failure there is: a short close."""
    pair.handler = posting(status, 0, 0, flags)
    handler = getfile_handler(link_to(pair), wire=wire)
    with connected(closing=True) as (fd, client):
        asked = GetfileRequest(handler, fd, KEY)
        assert asked.run() == Done(asked)
        sockets.end_sending(fd)
        assert at_end(client) == header % len(BODY) + BODY[:CAPACITY]
    assert handler.outcomes.totals() == {"cut short": 1}
    assert is_clean(pair)


def test_the_cache_breaks_the_protocol_in_mid_body(pair: Pair) -> None:
    """A chunk that claims another place is not sent, and its segments are not used again."""
    pair.handler = posting(OK, CAPACITY, 3 * CAPACITY, 0)
    stream = ScriptedStream()
    with pytest.raises(BodyCutShort, match="expected offset") as caught:
        begin(response_for(pair, stream), link_to(pair))
    assert not isinstance(caught.value, SourceLost), "what it sent before is not to be completed"
    assert stream.received == BODY[:CAPACITY]
    assert pair.is_whole()
    assert pair.pool.stats().retired_total > 0


def test_the_cache_dies_in_mid_body(pair: Pair) -> None:
    """Its last whole chunk is sent; the wait for the next one ends with its life."""
    stream = ScriptedStream()
    with falling_silent() as pair.handler, pytest.raises(SourceLost) as caught:
        begin(response_for(pair, stream), link_to(pair), first=pair.kill_cache)
    assert isinstance(caught.value.__cause__, PeerGone)
    assert stream.received == BODY[:CAPACITY]
    assert caught.value.body.position == CAPACITY
    assert pair.is_whole()
    assert pair.pool.stats().retired_total > 0


# -- cancel_quietly() -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("advances", range(CHUNKS))
def test_leave_at_every_chunk(pair: Pair, advances: int) -> None:
    with asked(link_to(pair)) as transfer:
        for _ in range(advances):
            transfer.advance()
        transfer.cancel_quietly()
    assert is_clean(pair)
    assert pair.fetch(KEY) == BODY, "the segments serve the next one"


def test_leave_a_cache_that_does_not_answer() -> None:
    """It never raises: the segments are retired instead."""
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair, falling_silent() as pair.handler:
        with asked(link_to(pair)) as transfer:
            pair.kill_cache()
            transfer.cancel_quietly()
        assert pair.is_whole()
        assert pair.pool.stats().retired_total == 1
