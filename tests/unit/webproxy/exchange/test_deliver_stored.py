"""StoredDelivery: a stored response as the answer of one request, from the hot table, from a transfer, or gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from shmchannel.objects.hot_table_files import FileName, HotTableFile, HotTableFiles
from shmchannel.objects.hot_table_reader import EntryVersion
from tests.support.http_sockets import http_connected
from tests.support.http_values import NOW, request, stored_response
from tests.support.pairs import MemoryPair
from tests.support.tcp import at_end, connected
from webproxy.exchange import body_transfer
from webproxy.exchange.body_transfer import Pause
from webproxy.exchange.context import RequestContext, Result
from webproxy.exchange.deliver_stored import ObjectGone, StoredDelivery
from webproxy.exchange.getfile_request import Paused
from webproxy.exchange.response_heads import STAYS, ResponseHeads
from webproxy.origin.routing import OriginRule, Target
from webproxy.store.cache_client import CacheClient
from webproxy.store.lookup import StoredHit
from webproxy.transport import sockets
from webproxy.transport.cached_reply import CachedReply
from webproxy.transport.client_stream import ClientStream, RateLimit
from webproxy.transport.http1_connection import HttpConnection

BODY = bytes(range(250)) * 400
STORED = stored_response(b'ETag: "1"', body_bytes=len(BODY))
TARGET = Target(b"/x", OriginRule(url="http://o"), "http://o", b"/x", b"/x")
Send = Callable[..., tuple[Result | None, bytes]]


@pytest.fixture
def pair() -> Iterator[MemoryPair]:
    living = MemoryPair()
    with living:
        yield living


@pytest.fixture
def send(pair: MemoryPair) -> Send:
    """Answer a request of these fields by what was found; the result, and all that the client got."""
    answers = StoredDelivery(
        CacheClient(pair.client, patient=False), ResponseHeads(b"us"), cache_wait_s=1.0, others_wait=lambda: False
    )

    def answer(found: StoredHit, *fields: bytes, method: bytes = b"GET") -> tuple[Result | None, bytes]:
        with connected(server_buffer_bytes=4 * len(BODY), client_buffer_bytes=4 * len(BODY)) as (fd, client):
            connection = HttpConnection(ClientStream(fd, RateLimit(0, 1.0), lambda: False), head_bytes_max=8192)
            context = RequestContext(connection, request(*fields, method=method), TARGET, STAYS, NOW)
            try:
                result = answers.send(context, found, 11, None, "hit")
            finally:
                sockets.close(fd)
            return result, b"".join(iter(lambda: client.recv(65_536), b""))

    return answer


def test_from_the_hot_table(send: Send) -> None:
    result, sent = send(StoredHit(b"/x", STORED, 1, body=BODY))
    assert result == ("hit", True)
    head, _, body = sent.partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200 OK\r\n"), b"Age: 11" in head, body == BODY) == (True, True, True)


def test_a_body_that_was_left_is_opened_again(pair: MemoryPair, send: Send) -> None:
    pair.store(b"/x", BODY)
    result, sent = send(StoredHit(b"/x", STORED, 1))
    assert (result, sent.partition(b"\r\n\r\n")[2] == BODY) == (("hit", True), True)
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


def test_a_condition_for_the_origin_is_left_to_it(send: Send) -> None:
    assert send(StoredHit(b"/x", STORED, 1, body=BODY), b'If-Match: "2"') == (None, b"")


PART = replace(STORED, body_bytes=len(BODY) + 10, incomplete=True)


def test_a_part_of_an_incomplete_response(pair: MemoryPair, send: Send) -> None:
    pair.store(b"/x", BODY)
    found = StoredHit(b"/x", PART, 1, held_bytes=len(BODY))
    result, sent = send(found, b"Range: bytes=%d-%d" % (len(BODY) - 5, len(BODY) - 1))
    head, _, body = sent.partition(b"\r\n\r\n")
    assert (result, body) == (("hit", True), BODY[-5:])
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


# -- whole replies ----------------------------------------------------------------------------------------------------
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def file() -> HotTableFile:
    fd = os.memfd_create("object")
    os.write(fd, BODY)
    return HotTableFile(HotTableFiles(), 0, FileName(1, 2, 1), fd, len(BODY))


def quick(data: bytes, file: HotTableFile | None = None, *, closes: bool = False) -> CachedReply:
    watch = cast("EntryVersion", None)
    return CachedReply(b"/x", data, file, closes=closes, stored=STORED, age_s=11, watch=watch)


def answers(pair: MemoryPair) -> StoredDelivery:
    cache = CacheClient(pair.client, patient=False)
    return StoredDelivery(cache, ResponseHeads(b"us"), cache_wait_s=1.0, others_wait=lambda: True)


@pytest.mark.parametrize("large", [False, True])
def test_a_whole_reply(pair: MemoryPair, file: HotTableFile, large: bool) -> None:
    reply = quick(HEAD, file) if large else quick(HEAD + BODY)
    with http_connected(server_buffer_bytes=4 * len(BODY), client_buffer_bytes=4 * len(BODY)) as (connection, client):
        assert answers(pair).send_quick(connection, reply) is True
        sockets.close(connection.fd)
        assert at_end(client) == HEAD + BODY


def test_a_whole_reply_that_pauses(pair: MemoryPair, file: HotTableFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client did not take at once is a response that goes on where it stopped, on the same connection."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    made = answers(pair)
    with http_connected(server_buffer_bytes=4096, client_buffer_bytes=4096) as (connection, client):
        paused = made.send_quick(connection, quick(HEAD, file))
        assert isinstance(paused, Paused)
        response = paused.response
        assert (response.connection, response.end, response.key) == (connection, len(BODY), b"/x")
        pair.client.files.keep(file)
        got = client.recv(1 << 20)
        while (again := made.go_on(response, Pause.WIDEN)) is not None:
            assert again.response is response
            got += client.recv(1 << 20)
        sockets.close(connection.fd)
        assert got + at_end(client) == HEAD + BODY


def test_a_whole_reply_that_pauses_and_closes(pair: MemoryPair, file: HotTableFile) -> None:
    with http_connected(server_buffer_bytes=4096, client_buffer_bytes=4096) as (connection, _client):
        paused = answers(pair).send_quick(connection, quick(HEAD, file, closes=True))
        assert isinstance(paused, Paused)
        assert paused.response.connection is None
        sockets.close(connection.fd)


def test_a_whole_reply_without_room(pair: MemoryPair, file: HotTableFile) -> None:
    with http_connected(server_buffer_bytes=4096, client_buffer_bytes=4096) as (connection, _client):
        while sockets.send(connection.fd, bytes(65_536)):
            pass
        before = connection.stream.sent_bytes
        assert answers(pair).send_quick(connection, quick(HEAD, file)) is False
        assert connection.stream.sent_bytes == before
        sockets.close(connection.fd)
