"""StoredDelivery: a stored response as the answer of one request: from the hot table, from a transfer, or gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import replace

import pytest

from shmchannel.objects.hot_table_files import FileName, HotTableFile, HotTableFiles
from tests.support.http_sockets import http_connection
from tests.support.http_values import NOW, request, stored_response
from tests.support.pairs import MemoryPair
from tests.support.scripted_origin import ScriptedOrigin
from tests.support.streams import ScriptedStream, source_of
from tests.support.tcp import connected
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.exchange.context import PausedHit, RequestContext
from webproxy.exchange.deliver_stored import ObjectGone, StoredDelivery
from webproxy.exchange.response_heads import STAYS, ResponseHeads
from webproxy.origin.routing import OriginRule, Target
from webproxy.origin.via import Via
from webproxy.store.cache_client import CacheClient
from webproxy.store.lookup import StoredHit
from webproxy.transport import sockets
from webproxy.transport.job import KEEP_ALIVE, Event, RequestOutcome, WaitsFor

BODY = bytes(range(250)) * 400
STORED = stored_response(b'ETag: "1"', body_bytes=len(BODY))
TARGET = Target(b"/x", OriginRule(url="http://o"), "http://o", b"/x", b"/x")
Send = Callable[..., tuple[RequestOutcome, bytes]]


def delivery(pair: MemoryPair) -> StoredDelivery:
    """From the pair's cache, and from no origin."""
    source = source_of(CacheClient(pair.client, patient=False))
    return StoredDelivery(source, ScriptedOrigin().rest(), Via(b"us", b"0"))


@pytest.fixture
def send(pair: MemoryPair) -> Send:
    """Answer a request of these fields by what was found; the result, and all that the client got."""
    answers = delivery(pair)

    def answer(found: StoredHit, *fields: bytes, method: bytes = b"GET") -> tuple[RequestOutcome, bytes]:
        with connected(server_buffer_bytes=4 * len(BODY), client_buffer_bytes=4 * len(BODY)) as (fd, client):
            connection = http_connection(fd)
            context = RequestContext(
                connection, request(*fields, method=method), STAYS, NOW, ResponseHeads(b"us"), TARGET
            )
            try:
                condition = evaluate_conditions(context.request, found.stored, NOW)
                outcome = answers.send(context, found, 11, None, condition, "hit")
            finally:
                sockets.close(fd)
            assert context.result == "hit"
            return outcome, b"".join(iter(lambda: client.recv(65_536), b""))

    return answer


def test_from_the_hot_table(send: Send) -> None:
    outcome, sent = send(StoredHit(b"/x", STORED, 1, body=BODY))
    assert outcome is KEEP_ALIVE
    head, _, body = sent.partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200 OK\r\n"), b"Age: 11" in head, body == BODY) == (True, True, True)


def test_a_body_that_was_left_is_opened_again(pair: MemoryPair, send: Send) -> None:
    pair.store(b"/x", BODY)
    outcome, sent = send(StoredHit(b"/x", STORED, 1))
    assert (outcome, sent.partition(b"\r\n\r\n")[2] == BODY) == (KEEP_ALIVE, True)
    assert pair.is_whole()


@pytest.mark.parametrize("version", [0, 2], ids=["gone", "replaced"])
def test_a_body_that_is_gone_is_noticed_before_anything_was_sent(pair: MemoryPair, send: Send, version: int) -> None:
    if version:
        pair.store(b"/other", b"")
        pair.store(b"/x", BODY)
    with pytest.raises(ObjectGone):
        send(StoredHit(b"/x", STORED, 1))
    assert pair.is_whole()


def test_without_a_cache_too(pair: MemoryPair, send: Send) -> None:
    pair.kill_cache()
    with pytest.raises(ObjectGone):
        send(StoredHit(b"/x", STORED, 1))


def test_head_and_304_need_no_body(send: Send) -> None:
    for sent in (
        send(StoredHit(b"/x", STORED, 1), method=b"HEAD")[1],
        send(StoredHit(b"/x", STORED, 1), b'If-None-Match: "1"')[1],
    ):
        assert sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("body", [BODY, None], ids=["hot table", "transfer"])
def test_parts(pair: MemoryPair, send: Send, body: bytes | None) -> None:
    pair.store(b"/x", BODY)
    _, one = send(StoredHit(b"/x", STORED, 1, body=body), b"Range: bytes=1000-50000")
    assert one.partition(b"\r\n\r\n")[2] == BODY[1000:50001]
    _, several = send(StoredHit(b"/x", STORED, 1, body=body), b"Range: bytes=0-9,90000-90009")
    assert several.count(BODY[:10]) >= 1
    assert BODY[90000:90010] in several
    _, none = send(StoredHit(b"/x", STORED, 1, body=body), b"Range: bytes=100000-")
    assert none.startswith(b"HTTP/1.1 416 ")
    assert pair.is_whole()


PART = replace(STORED, body_bytes=len(BODY) + 10, incomplete=True)


def test_a_part_of_an_incomplete_response(pair: MemoryPair, send: Send) -> None:
    pair.store(b"/x", BODY)
    found = StoredHit(b"/x", PART, 1, held_bytes=len(BODY))
    outcome, sent = send(found, b"Range: bytes=%d-%d" % (len(BODY) - 5, len(BODY) - 1))
    head, _, body = sent.partition(b"\r\n\r\n")
    assert (outcome, body) == (KEEP_ALIVE, BODY[-5:])
    assert b"Content-Range: bytes %d-%d/%d" % (len(BODY) - 5, len(BODY) - 1, len(BODY) + 10) in head
    assert pair.is_whole()


@pytest.mark.parametrize("lines", [(), (b"Range: bytes=-5",), (b"Range: bytes=0-0", b'If-Range: "2"')])
def test_an_incomplete_response_gives_nothing_that_it_has_not(
    pair: MemoryPair, send: Send, lines: tuple[bytes, ...]
) -> None:
    pair.store(b"/x", BODY)
    with pytest.raises(ObjectGone):
        send(StoredHit(b"/x", PART, 1, held_bytes=len(BODY)), *lines)
    assert pair.is_whole()


# -- a client that does not take all of it --------------------------------------------------------------------------
RANGES = b"Range: bytes=0-9,30000-69999,90000-90009"


def multipart_of(sent: bytes) -> list[bytes]:
    """The contents of the parts, in order."""
    head, _, body = sent.partition(b"\r\n\r\n")
    boundary = head.partition(b"boundary=")[2].split(b"\r\n")[0]
    assert int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) == len(body)
    parts = body.split(b"--" + boundary)
    assert parts[-1] == b"--\r\n"
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]]


def file_of(pair: MemoryPair) -> HotTableFile:
    fd = os.memfd_create("object")
    os.write(fd, BODY)
    file = HotTableFile(HotTableFiles(), 0, FileName(1, 2, 1), fd, len(BODY))
    pair.client.files.keep(file)
    return file


@pytest.mark.parametrize("source", ["memory", "file", "transfer"])
@pytest.mark.parametrize("step", [1, 7, 1000, 70_000])
def test_several_ranges_wait_wherever_their_client_stops(pair: MemoryPair, source: str, step: int) -> None:
    """No worker waits: the rest is continued when there is room, from that byte on."""
    pair.store(b"/x", BODY)
    found = StoredHit(b"/x", STORED, 1)
    if source == "memory":
        found.body = BODY
    elif source == "file":
        found.file = file_of(pair)
    ranges = RANGES if step >= 1000 else b"Range: bytes=0-9,500-599,90000-90009"
    stream = ScriptedStream(0)
    with connected(closing=True) as (fd, _client):
        connection = http_connection(fd)
        connection.stream = stream
        context = RequestContext(connection, request(ranges), STAYS, NOW, ResponseHeads(b"us"), TARGET)
        answers = delivery(pair)
        answering = answers.send(context, found, 11, None, evaluate_conditions(context.request, STORED, NOW), "hit")
        found.cancel_quietly()
        waits = 0
        if isinstance(answering, Generator):
            for wait in answering:
                assert wait is Event.WRITABLE
                stream.allowance += step
                waits += 1
        else:
            assert answering == WaitsFor(connection, Event.WRITABLE)
            paused = connection.paused
            assert isinstance(paused, PausedHit)
            body = paused.body
            while (wait := body.resume()) is not None:
                assert wait is Event.WRITABLE
                assert pair.is_whole(), "who is paused holds no segment"
                stream.allowance += step
                waits += 1
    assert waits >= len(stream.received) // step
    wanted = [BODY[:10], BODY[500:600] if step < 1000 else BODY[30_000:70_000], BODY[90_000:90_010]]
    assert multipart_of(stream.received) == wanted
    assert pair.is_whole()


def test_a_small_answer_waits_in_steps(pair: MemoryPair) -> None:
    stream = ScriptedStream(0)
    with connected(closing=True) as (fd, _client):
        connection = http_connection(fd)
        connection.stream = stream
        context = RequestContext(connection, request(method=b"HEAD"), STAYS, NOW, ResponseHeads(b"us"), TARGET)
        answers = delivery(pair)
        found = StoredHit(b"/x", STORED, 1)
        answering = answers.send(context, found, 11, None, Condition.PROCEED, "hit")
        assert isinstance(answering, Generator)
        for wait in answering:
            assert wait is Event.WRITABLE
            assert not context.result
            stream.allowance += 1
        assert context.result == "hit"
        assert stream.received == context.heads.hit(STORED, 11, STAYS)
