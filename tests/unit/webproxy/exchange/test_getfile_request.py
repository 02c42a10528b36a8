"""GetfileRequestHandler: what a client is told for each outcome of cache and origin."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.commands import METADATA_WANTED, Command
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_layout import FileRef, HotTableEntry
from shmchannel.streams.admission import Ticket
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import ERROR, FAILED, LAST, OK, ObjectFacts
from shmchannel.streams.pool import GROWTH_CHUNKS
from shmchannel.streams.transfer import TransferState
from tests.support.channels import CAPACITY, body_of
from tests.support.failing import failing
from tests.support.handlers import OneVariant, ScriptedFetches, getfile_handler
from tests.support.http_values import fields, stored_response
from tests.support.pairs import DictCache, Entry, MemoryPair
from tests.support.scripted_origin import OriginAnswer, ScriptedOrigin
from tests.support.steps import wait_for
from tests.support.tcp import at_end, connected
from tests.support.waiting import WATCHDOG_S
from webproxy.caching.stored_codec import encode
from webproxy.errors import (
    CacheUnavailable,
    FetchAborted,
    OriginBadReply,
    OriginError,
    OriginRefused,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
    Overloaded,
)
from webproxy.exchange.getfile_request import GetfileRequest, GetfileRequestHandler
from webproxy.fetch.spool import BodyFound, BodyMissing, Spool, SpoolReader
from webproxy.getfile import Wire
from webproxy.origin.response_head import OriginResponse
from webproxy.store.cache_client import CacheClient
from webproxy.store.lookup import StoredHit
from webproxy.store.store import Missing, NoStore, Store
from webproxy.transport import sockets
from webproxy.transport.job import Done, Event, Outcome, WaitsFor

BODY = os.urandom(100_000)


class NoCache(NoStore):
    """A cache that is not to be had, and notes what it was asked; its hot table may still be looked at."""

    def __init__(self, *hot_table: tuple[bytes, HotTableEntry]) -> None:
        self.hot_table = dict(hot_table)
        self.asked: list[bytes] = []

    def peek(self, key: bytes) -> HotTableEntry | None:  # type: ignore[override]
        return self.hot_table.get(key)

    def get(
        self,
        key: bytes,
        deadline: Deadline,
        *,
        offset: int = 0,
        length: int = 0,
        version: int = 0,
        metadata_wanted: bool = False,
        ticket: Ticket | None = None,
        void_lease: int | None = None,
    ) -> Missing:
        self.asked.append(key)
        raise CacheUnavailable("no cache")


NO_ORIGIN = ScriptedFetches(nobody_has=b"/x")


def exchange(
    store: Store,
    fetches: ScriptedFetches,
    wire: Wire = Wire.CRLF,
    variants: OneVariant | None = None,
) -> GetfileRequestHandler:
    return getfile_handler(store, fetches, wire=wire, variants=variants)


def served(made: GetfileRequestHandler, path: bytes = b"/x", *, waited: list[Ticket | None] | None = None) -> bytes:
    """The reply to a client; `waited` names whatever its request has waited for."""
    with connected(closing=True) as (fd, client):
        asked = GetfileRequest(made, fd, path)
        if waited is not None:
            asked.has_waited = True
            (asked.ticket,) = waited
        while isinstance(outcome := asked.run(), WaitsFor):
            wait_for(outcome.event, fd)
        assert outcome == Done(asked)
        sockets.end_sending(fd)
        return at_end(client)


SPOOLS: list[Spool] = []


def reader(answer: BodyFound | BodyMissing | None, body: bytes = b"", error: OriginError | None = None) -> SpoolReader:
    """A reader of a fetch that came to its end like this."""
    spool = Spool(None, memory_bytes_max=0)
    SPOOLS[:] = [spool]
    made = spool.reader()
    if answer is not None:
        spool.answer(answer)
    if body:
        spool.write(body)
    spool.end(error)
    return made


@pytest.mark.parametrize(("wire", "reply"), [(Wire.CRLF, b"GETFILE ERROR\r\n\r\n"), (Wire.SPACE, b"GETFILE ERROR 0\n")])
def test_no_cache_and_no_origin_is_an_error(wire: Wire, reply: bytes) -> None:
    made = exchange(NoCache(), NO_ORIGIN, wire)
    assert served(made) == reply
    assert made.outcomes.totals() == {"error": 1}


@pytest.mark.parametrize(
    "error",
    [
        OriginTimeout("t"),
        OriginUnreachable("u"),
        OriginBadReply("b", status=502),
        OriginTooLarge("l"),
        OriginRefused("r"),
        FetchAborted("a"),
    ],
)
def test_every_failure_of_the_origin_is_an_error(error: OriginError) -> None:
    assert served(exchange(NoStore(), ScriptedFetches(lambda: reader(None, error=error)))) == b"GETFILE ERROR\r\n\r\n"
    assert served(exchange(NoCache(), ScriptedFetches(failing(error)))) == b"GETFILE ERROR\r\n\r\n"


def test_too_many_fetches_is_an_error() -> None:
    assert served(exchange(NoStore(), ScriptedFetches(failing(Overloaded("full"))))) == b"GETFILE ERROR\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "reply"), [(Wire.CRLF, b"GETFILE FILE_NOT_FOUND\r\n\r\n"), (Wire.SPACE, b"GETFILE FILE_NOT_FOUND 0\n")]
)
def test_what_the_origin_lacks_is_not_found(wire: Wire, reply: bytes) -> None:
    made = exchange(NoCache(), ScriptedFetches(lambda: reader(BodyMissing())), wire)
    assert served(made) == reply
    assert made.outcomes.totals() == {"not found": 1}


@pytest.mark.parametrize("size", [0, 1, len(BODY)])
@pytest.mark.parametrize(("wire", "end"), [(Wire.CRLF, b"\r\n\r\n"), (Wire.SPACE, b" ")])
def test_a_fetched_body_follows_its_length(wire: Wire, end: bytes, size: int) -> None:
    made = exchange(NoStore(), ScriptedFetches(lambda: reader(BodyFound(size), BODY[:size])), wire)
    assert served(made) == b"GETFILE OK %d" % size + end + BODY[:size]
    assert made.outcomes.totals() == {"fetched": 1}


@pytest.mark.parametrize("error", [OriginTimeout("stalled"), None])
def test_a_body_that_breaks_is_short_and_nothing_follows(error: OriginError | None) -> None:
    made = exchange(NoStore(), ScriptedFetches(lambda: reader(BodyFound(len(BODY)), BODY[:60_000], error)))
    assert served(made) == b"GETFILE OK %d\r\n\r\n" % len(BODY) + BODY[:60_000]
    assert made.outcomes.totals() == {"cut short": 1}


def test_the_key_is_the_normalised_path_for_cache_and_origin() -> None:
    cache, fetches = NoCache(), ScriptedFetches(lambda: reader(BodyMissing()))
    served(exchange(cache, fetches), b"/a/../%2e/b")
    assert cache.asked == fetches.asked == [b"/b"]


def test_the_cache_is_asked_again_when_it_was_filled_meanwhile() -> None:
    cache, fetches = NoCache(), ScriptedFetches(lambda: None, lambda: reader(BodyFound(2), b"ok"))
    assert served(exchange(cache, fetches)) == b"GETFILE OK 2\r\n\r\nok"
    assert len(cache.asked) == len(fetches.asked) == 2


def test_a_client_that_left_is_counted_and_its_reader_leaves(tmp_path: Path) -> None:
    readers: list[SpoolReader] = []

    def opened() -> SpoolReader:
        readers.append(reader(BodyFound(len(BODY) * 100), BODY))
        return readers[0]

    made = exchange(NoStore(), ScriptedFetches(opened))
    with connected() as (fd, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # the end is a reset
        client.close()
        asked = GetfileRequest(made, fd, b"/x")
        assert asked.run() == Done(asked)
        asked.close()
    assert made.outcomes.totals() == {"client gone": 1}
    assert SPOOLS[0].fd == -1, "its only reader has left"


# -- the hot table ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("body", [b"", b"abc", BODY], ids=["empty", "small", "more than a socket takes at once"])
@pytest.mark.parametrize(("wire", "end"), [(Wire.CRLF, b"\r\n\r\n"), (Wire.SPACE, b" ")])
def test_what_lies_on_the_hot_table_is_sent_without_a_question(wire: Wire, end: bytes, body: bytes) -> None:
    cache, fetches = NoCache((b"/b", HotTableEntry(1, b"metadata", body))), ScriptedFetches()
    made = exchange(cache, fetches, wire)
    assert served(made, b"/a/../b") == b"GETFILE OK %d" % len(body) + end + body
    assert (cache.asked, fetches.asked) == ([], [])
    assert made.outcomes.totals() == {"hit": 1}


def test_a_reply_from_the_hot_table_that_the_socket_takes_in_parts_waits_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = exchange(NoCache((b"/x", HotTableEntry(1, b"", BODY))), NO_ORIGIN)
    with connected() as (fd, client):
        asked = GetfileRequest(made, fd, b"/x")
        with monkeypatch.context() as patch:
            patch.setattr("webproxy.exchange.getfile_request.sockets.send", lambda fd, data: os.write(fd, data[:7]))
            assert asked.run() == WaitsFor(asked, Event.WRITABLE)
        assert made.outcomes.totals() == {}
        assert asked.run() == Done(asked)
        asked.close()
        assert at_end(client) == b"GETFILE OK %d\r\n\r\n" % len(BODY) + BODY
    assert made.outcomes.totals() == {"hit": 1}


def test_a_client_that_left_before_its_reply_from_the_hot_table() -> None:
    made = exchange(NoCache((b"/x", HotTableEntry(1, b"", BODY))), NO_ORIGIN)
    with connected() as (fd, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        asked = GetfileRequest(made, fd, b"/x")
        assert asked.run() == Done(asked)
        asked.close()
    assert made.outcomes.totals() == {"client gone": 1}


# -- paths that no origin has ----------------------------------------------------------------------------------------
def test_a_path_that_no_origin_has_is_not_found_and_nobody_is_asked() -> None:
    fetches = ScriptedFetches(nobody_has=b"/x")
    made = exchange(NoStore(), fetches)
    assert served(made) == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
    assert fetches.asked == []
    assert made.outcomes.totals() == {"not found": 1}


def test_a_path_that_no_origin_has_may_be_in_the_cache() -> None:
    """Such as a file of a static directory."""
    fetches = ScriptedFetches(nobody_has=b"/x")
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        pair.cache.entries[b"/x"] = Entry(b"abc")
        made = exchange(CacheClient(pair.client, patient=False), fetches)
        assert served(made) == b"GETFILE OK 3\r\n\r\nabc"
        del pair.cache.entries[b"/x"]
        assert served(made) == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
        assert pair.is_whole()
    assert fetches.asked == []


def test_an_absent_cache_does_not_make_a_path_without_origin_not_found() -> None:
    """The cache might have it: 404 would be a lie that its client keeps."""
    made = exchange(NoCache(), ScriptedFetches(nobody_has=b"/x"))
    assert served(made) == b"GETFILE ERROR\r\n\r\n"
    assert made.outcomes.totals() == {"error": 1}


def test_an_object_that_the_cache_cannot_read_and_no_origin_has_is_an_error() -> None:
    class Unreadable(DictCache):
        def get(self, command: Command, writer: ChunkWriter) -> TransferState:
            writer.fail()
            return writer.state

    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        pair.handler = Unreadable()
        for fetches in (NO_ORIGIN, ScriptedFetches(nobody_has=b"/x")):
            assert served(exchange(CacheClient(pair.client, patient=False), fetches)) == b"GETFILE ERROR\r\n\r\n"
        asked = ScriptedFetches(lambda: reader(BodyFound(2), b"ok"))
        assert served(exchange(CacheClient(pair.client, patient=False), asked)) == b"GETFILE OK 2\r\n\r\nok"
        assert pair.is_whole()


# -- long objects ----------------------------------------------------------------------------------------------------
def test_a_long_object_is_answered_when_its_turn_has_come() -> None:
    """Until then its client is told nothing, and no worker has it."""
    body = body_of(2 * GROWTH_CHUNKS * CAPACITY)
    with MemoryPair(segments=2, segments_per_transfer_max=2) as pair:
        assert pair.pool.admission is not None
        pair.cache.entries[b"/x"] = Entry(body)
        made = exchange(CacheClient(pair.client, patient=False), NO_ORIGIN)
        reply = b"GETFILE OK %d\r\n\r\n" % len(body) + body
        assert served(made) == reply
        ticket = pair.pool.admission.try_enter()
        assert ticket is not None
        asked = GetfileRequest(made, -1, b"/x")
        assert asked.run() == WaitsFor(asked, Event.TICKET)
        for waited in (ticket, None):  # its turn has come, or it has waited too long
            assert served(made, waited=[waited]) == reply
        assert not ticket.held
        assert pair.is_whole()
        assert made.outcomes.totals() == {"hit": 3}


@pytest.mark.parametrize("gone", ["the object", "the cache"])
def test_a_place_is_left_before_an_origin_is_waited_for(gone: str) -> None:
    body = body_of(2 * GROWTH_CHUNKS * CAPACITY)
    with MemoryPair(segments=2, segments_per_transfer_max=2) as pair:
        assert pair.pool.admission is not None
        pair.cache.entries[b"/x"] = Entry(body)
        pair.fetch(b"/x")
        ticket = pair.pool.admission.try_enter()
        assert ticket is not None
        if gone == "the cache":
            pair.queue.set_stopping()
        else:
            del pair.cache.entries[b"/x"]
        held: list[bool] = []

        def fetched() -> SpoolReader:
            held.append(ticket.held)
            return reader(BodyFound(2), b"ok")

        made = exchange(CacheClient(pair.client, patient=False), ScriptedFetches(fetched))
        assert served(made, waited=[ticket]) == b"GETFILE OK 2\r\n\r\nok"
        assert held == [False]


# -- what varies -----------------------------------------------------------------------------------------------------
VARIANT_KEY = b"/x\0id"
STORED = stored_response(body_bytes=len(BODY))


def held_file(pair: MemoryPair) -> HotTableFile:
    """BODY in a file, as found on the hot table."""
    fd = os.memfd_create("object")
    try:
        os.write(fd, BODY)
        status = os.fstat(fd)
        reference = FileRef(fd, status.st_dev, status.st_ino, len(BODY))
        file = pair.client.files.hold(os.getpid(), reference, 1, lambda: True)
    finally:
        os.close(fd)
    assert file is not None
    return file


def with_variant(pair: MemoryPair, form: str, *, expected: bool) -> GetfileRequestHandler:
    """A cache with a variant, which is found `form`."""
    link = CacheClient(pair.client, patient=False)
    pair.cache.entries[VARIANT_KEY] = Entry(BODY)

    def found() -> StoredHit:
        if form == "on the hot table":
            return StoredHit(VARIANT_KEY, STORED, 1, body=BODY)
        if form == "in a file":
            return StoredHit(VARIANT_KEY, STORED, 1, file=held_file(pair))
        return StoredHit(VARIANT_KEY, STORED, 1, transfer=link.get(VARIANT_KEY, Deadline.after(WATCHDOG_S)))

    variants = OneVariant(found, expected=expected)
    return exchange(link, ScriptedFetches(failing(OriginError("not asked"))), variants=variants)


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("form", ["by a question", "on the hot table", "in a file"])
def test_a_variant_is_a_hit(form: str, expected: bool) -> None:
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        made = with_variant(pair, form, expected=expected)
        assert served(made) == b"GETFILE OK %d\r\n\r\n" % len(BODY) + BODY
        assert made.outcomes.totals() == {"hit": 1}
        asked = [command.key for command in pair.cache.commands]
        assert (b"/x" in asked) is not expected
        assert pair.is_whole()


def test_what_lies_at_the_key_goes_before_a_variant_that_nobody_expects() -> None:
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        made = with_variant(pair, "on the hot table", expected=False)
        pair.cache.entries[b"/x"] = Entry(b"plain")
        assert served(made) == b"GETFILE OK 5\r\n\r\nplain"


def test_without_its_variant_a_key_is_a_miss() -> None:
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        for expected in (False, True):
            variants = OneVariant(lambda: None, expected=expected)
            fetches = ScriptedFetches(lambda: reader(BodyFound(2), b"ok"))
            made = exchange(CacheClient(pair.client, patient=False), fetches, variants=variants)
            assert served(made) == b"GETFILE OK 2\r\n\r\nok"


def test_a_cache_that_is_lost_between_key_and_variant_is_a_miss() -> None:
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        fetches = ScriptedFetches(lambda: reader(BodyFound(2), b"ok"))
        made = exchange(
            CacheClient(pair.client, patient=False),
            fetches,
            variants=OneVariant(failing(CacheUnavailable("gone")), expected=False),
        )
        assert served(made) == b"GETFILE OK 2\r\n\r\nok"


# -- answers that wait ------------------------------------------------------------------------------------------------
def test_an_answer_that_waits_goes_on_where_it_stopped_whoever_continues_it() -> None:
    spool = Spool(None)
    made = exchange(NoStore(), ScriptedFetches(spool.reader))
    with connected(closing=True) as (fd, client):
        asked = GetfileRequest(made, fd, b"/x")

        def waits() -> bool:
            outcomes: list[Outcome] = []
            thread = threading.Thread(target=lambda: outcomes.append(asked.run()))
            thread.start()
            thread.join()
            return isinstance(outcomes[0], WaitsFor)

        assert [waits(), waits()] == [True] * 2, "also when it is woken in vain"
        spool.answer(BodyFound(6))
        assert waits()
        for part in (b"abc", b"def"):
            spool.write(part)
            assert waits() is (part == b"abc")
        spool.end()
        sockets.end_sending(fd)
        assert at_end(client) == b"GETFILE OK 6\r\n\r\nabcdef"
    assert made.outcomes.totals() == {"fetched": 1}
    assert spool.fd == -1


@pytest.mark.parametrize("answer", [None, BodyFound(6)], ids=["before the answer", "in the body"])
def test_a_client_that_leaves_while_it_waits_is_counted_once_and_its_reader_leaves(answer: BodyFound | None) -> None:
    spool = Spool(None)
    made = exchange(NoStore(), ScriptedFetches(spool.reader))
    with connected(closing=True) as (fd, _client):
        asked = GetfileRequest(made, fd, b"/x")
        if answer is not None:
            spool.answer(answer)
        assert isinstance(asked.run(), WaitsFor)
        asked.has_left = True
        assert asked.run() == Done(asked)
    assert made.outcomes.totals() == {"client gone": 1}
    assert not spool.wanted


def test_a_request_that_is_given_up_while_it_waits_leaves_its_fetch() -> None:
    spool = Spool(None)
    made = exchange(NoStore(), ScriptedFetches(spool.reader))
    with connected() as (fd, client):
        asked = GetfileRequest(made, fd, b"/x")
        assert isinstance(asked.run(), WaitsFor)
        assert spool.wanted
        asked.close()
        assert at_end(client) == b""
    assert not spool.wanted


def test_a_fetch_that_fails_after_a_wait_is_an_error() -> None:
    spool = Spool(None)
    made = exchange(NoStore(), ScriptedFetches(spool.reader))
    with connected(closing=True) as (fd, client):
        asked = GetfileRequest(made, fd, b"/x")
        assert isinstance(asked.run(), WaitsFor)
        spool.end(OriginTimeout("t"))
        assert asked.run() == Done(asked)
        sockets.end_sending(fd)
        assert at_end(client) == b"GETFILE ERROR\r\n\r\n"
    assert made.outcomes.totals() == {"error": 1}
    assert made.failures.totals() == {"OriginTimeout": 1}


# -- a body that outlives its cache ----------------------------------------------------------------------------------
LONG = body_of(3 * CAPACITY + 10)
METADATA = encode(stored_response(b'ETag: "1"', body_bytes=len(LONG)))


class HalfReadable(DictCache):
    """Cannot read more than the first chunk."""

    def get(self, command: Command, writer: ChunkWriter) -> TransferState:
        """Send one chunk, and fail."""
        metadata = METADATA if command.flags & METADATA_WANTED else b""
        writer.begin(ObjectFacts(len(LONG), 1, len(metadata)))
        if metadata:
            writer.send_preamble(metadata)
        assert writer.take_turn(WATCHDOG_S)
        writer.ring[0].chunk[:] = LONG[:CAPACITY]
        writer.post(OK, CAPACITY, 0, 0)
        if writer.take_turn(WATCHDOG_S):
            writer.post(FAILED, 0, 0, LAST | ERROR)
        return writer.state


def test_a_large_object_is_asked_for_with_its_metadata() -> None:
    """Once it is known to be large; a small one never is."""
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        pair.cache.entries[b"/x"] = Entry(LONG, metadata=METADATA)
        pair.cache.entries[b"/small"] = Entry(b"small", metadata=METADATA)
        made = exchange(CacheClient(pair.client, patient=False), ScriptedFetches())
        for path, body, asked in ((b"/x", LONG, [0, 1]), (b"/x", LONG, [1]), (b"/small", b"small", [0])):
            pair.cache.commands.clear()
            assert served(made, path) == b"GETFILE OK %d\r\n\r\n" % len(body) + body
            assert [command.flags & METADATA_WANTED for command in pair.cache.commands] == asked
        assert pair.is_whole()


def test_the_rest_of_a_body_comes_from_the_origin() -> None:
    """Whatever it was that the cache had, the origin is asked with the fields of getfile."""
    position = CAPACITY
    content_range = b"Content-Range: bytes %d-%d/%d" % (position, len(LONG) - 1, len(LONG))
    head = OriginResponse(status=206, fields=fields(b'ETag: "1"', content_range), length=len(LONG) - position)
    origin = ScriptedOrigin(OriginAnswer(head, (LONG[position:],)))
    with MemoryPair(segments=2, segments_per_transfer_max=1) as pair:
        pair.handler = HalfReadable()
        made = getfile_handler(CacheClient(pair.client, patient=False), ScriptedFetches(), origin=origin)
        assert served(made) == b"GETFILE OK %d\r\n\r\n" % len(LONG) + LONG
        assert made.outcomes.totals() == {"hit": 1}
    assert origin.asked[0].url == "http://o/x"
    assert origin.asked[0].fields.get(b"range") == b"bytes=%d-" % position
    assert origin.asked[0].follow_redirects
