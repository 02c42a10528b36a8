"""FastPath sends a complete reply from memory or from the cache's file, which pauses or is held for a slow client."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import cast

import pytest

from shmchannel.objects.hot_table_files import FileName, HotTableFile, HotTableFiles
from shmchannel.objects.hot_table_reader import EntryVersion
from tests.support.http_sockets import http_connected
from tests.support.http_values import request, stored_response
from tests.support.pairs import MemoryPair
from tests.support.streams import ScriptedStream, source_of
from tests.support.tcp import at_end
from webproxy.exchange import body_transfer
from webproxy.exchange.context import PausedHit
from webproxy.exchange.fast_path import CachedReply, FastPath
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.origin.routing import OriginTable
from webproxy.store.cache_client import CacheClient
from webproxy.transport import sockets
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.job import KEEP_ALIVE, Done, Event, WaitsFor

BODY = bytes(range(250)) * 400
STORED = stored_response(b'ETag: "1"', body_bytes=len(BODY))
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def file() -> HotTableFile:
    fd = os.memfd_create("object")
    os.write(fd, BODY)
    return HotTableFile(HotTableFiles(), 0, FileName(1, 2, 1), fd, len(BODY))


def quick(data: bytes, file: HotTableFile | None = None, *, closes: bool = False) -> CachedReply:
    watch = cast("EntryVersion", None)
    return CachedReply(b"/x", data, file, closes, STORED, 11, watch)


def fast_path(pair: MemoryPair) -> FastPath:
    cache = CacheClient(pair.client, patient=False)
    return FastPath(source_of(cache, lambda: True), OriginTable(), ResponseHeads(b"us"), Shutdown())


@pytest.mark.parametrize("large", [False, True])
def test_a_whole_reply(pair: MemoryPair, file: HotTableFile, large: bool) -> None:
    reply = quick(HEAD, file) if large else quick(HEAD + BODY)
    with http_connected(server_buffer_bytes=4 * len(BODY), client_buffer_bytes=4 * len(BODY)) as (connection, client):
        assert fast_path(pair).send(connection, request(), reply) is KEEP_ALIVE
        sockets.close(connection.fd)
        assert at_end(client) == HEAD + BODY


@pytest.mark.parametrize(
    ("keep_alive", "behind", "lingers"),
    [(False, b"", False), (False, b"GET /", True), (True, b"", True)],
    ids=["the client closes", "it has sent more", "the proxy closes"],
)
def test_only_a_client_that_sends_no_more_is_not_waited_for(
    pair: MemoryPair, keep_alive: bool, behind: bytes, lingers: bool
) -> None:
    asked = replace(request(), keep_alive=keep_alive)
    with http_connected(closing=True) as (connection, _client):
        if behind:
            connection.feed(behind)
        assert fast_path(pair).send(connection, asked, quick(HEAD, closes=True)) == Done(connection, lingers=lingers)


def test_a_whole_reply_that_pauses(pair: MemoryPair, file: HotTableFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not take all at once gets the rest later, from where it stopped, on the same connection."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    made = fast_path(pair)
    with http_connected(server_buffer_bytes=4096, client_buffer_bytes=4096) as (connection, client):
        outcome = made.send(connection, request(), quick(HEAD, file))
        assert isinstance(outcome, WaitsFor)
        paused = connection.paused
        assert isinstance(paused, PausedHit)
        body = paused.body
        assert (outcome.job, connection.is_last, connection.path) == (connection, False, b"/x")
        pair.client.files.keep(file)
        got = client.recv(1 << 20)
        while body.resume() is not None:
            got += client.recv(1 << 20)
        sockets.close(connection.fd)
        assert got + at_end(client) == HEAD + BODY


def test_a_whole_reply_that_pauses_and_closes(pair: MemoryPair, file: HotTableFile) -> None:
    with http_connected(server_buffer_bytes=4096, client_buffer_bytes=4096) as (connection, _client):
        outcome = fast_path(pair).send(connection, request(), quick(HEAD, file, closes=True))
        assert isinstance(outcome, WaitsFor)
        assert connection.is_last
        sockets.close(connection.fd)


@pytest.mark.parametrize("large", [False, True])
def test_a_whole_reply_without_room(pair: MemoryPair, file: HotTableFile, large: bool) -> None:
    """It waits from its first byte on, or from within the head."""
    with http_connected(server_buffer_bytes=4096, client_buffer_bytes=4096) as (connection, client):
        before = 0
        while sent := sockets.send(connection.fd, bytes(65_536)):
            before += sent
        reply = quick(HEAD, file) if large else quick(HEAD + BODY)
        assert fast_path(pair).send(connection, request(), reply) == WaitsFor(connection, Event.WRITABLE)
        paused = connection.paused
        assert isinstance(paused, PausedHit)
        body = paused.body
        pair.client.files.keep(file)
        got = client.recv(1 << 20)
        while body.resume() is not None:
            got += client.recv(1 << 20)
        sockets.close(connection.fd)
        assert (got + at_end(client))[before:] == HEAD + BODY


@pytest.mark.parametrize("accepted", range(len(HEAD) + 1))
def test_a_head_that_is_accepted_in_part(pair: MemoryPair, file: HotTableFile, accepted: int) -> None:
    with http_connected(closing=True) as (connection, _client):
        stream = ScriptedStream(accepted)
        connection.stream = stream
        pair.client.files.keep(file)
        assert isinstance(fast_path(pair).send(connection, request(), quick(HEAD, file)), WaitsFor)
        paused = connection.paused
        assert isinstance(paused, PausedHit)
        body = paused.body
        assert (stream.received, body.position) == (HEAD[:accepted], accepted - len(HEAD))
        stream.allowance = 1 << 30
        assert body.resume() is None
        assert stream.received == HEAD + BODY
