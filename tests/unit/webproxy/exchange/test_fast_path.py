"""FastPath gives exactly the reply that the exchange would, for the plain case, and stands back from every other."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from time import time
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.objects.hot_table_files import FileName, HotTableFile, HotTableFiles
from shmchannel.objects.hot_table_layout import FileRef, HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from tests.support.http_values import NOW, stored_response
from tests.support.streams import source_of
from webproxy.caching.decision import Action, decide
from webproxy.caching.freshness import current_age
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import encode
from webproxy.exchange import fast_path
from webproxy.exchange.fast_path import (
    KNOWN_MAX,
    REPLY_BYTES_MAX,
    TERMS,
    CachedReply,
    FastPath,
    MemoizedRequest,
)
from webproxy.exchange.response_heads import CLOSES, STAYS, STAYS_AND_SAYS_SO, Connection, ResponseHeads
from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, RequestHead
from webproxy.origin.routing import OriginRule, OriginTable, host_pattern
from webproxy.store.cache_client import CacheClient
from webproxy.store.store import NoStore
from webproxy.transport.client_stream import Shutdown

BODY = b"0123456789"
STORED = StoredResponse(
    status=200,
    fields=Fields(((b"Content-Type", b"text/plain; a=%d"), (b"ETag", b'"1"'))),
    request_time=NOW - 10,
    response_time=NOW - 10,
    initial_age_s=3,
    lifetime_s=60,
    body_bytes=len(BODY),
)
REPLIES = ResponseHeads(b"test")


class Watch:
    """Stands for a EntryVersion: tells of one entry of a dictionary."""

    def __init__(self, hot_table: HotTable, key: bytes, entry: HotTableEntry) -> None:
        self._hot_table, self._key, self._entry = hot_table, key, entry

    def holds(self) -> bool:
        return self._hot_table.entries.get(self._key) is self._entry


class HotTable:
    """A cache's hot entries and the number of lookups; stands in for the CacheClient."""

    def __init__(self) -> None:
        self.entries: dict[bytes, HotTableEntry] = {b"/x": HotTableEntry(1, encode(STORED), BODY)}
        self.made = 0
        self.file: HotTableFile | None = None
        self.peek = self.entries.get

    def hold_file(self, key: bytes, entry: HotTableEntry) -> HotTableFile | None:
        return self.file

    def watch(self, key: bytes, entry: HotTableEntry) -> Watch | None:
        self.made += 1
        watch = Watch(self, key, entry)
        return watch if watch.holds() else None


@pytest.fixture
def hot_table() -> HotTable:
    return HotTable()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [NOW]
    monkeypatch.setattr(fast_path, "time", lambda: now[0])
    return now


@pytest.fixture
def shutdown() -> Shutdown:
    return Shutdown()


@pytest.fixture
def quick(hot_table: HotTable, clock: list[float], shutdown: Shutdown) -> FastPath:
    cache = cast("CacheClient", hot_table)
    return FastPath(source_of(cache), OriginTable(), REPLIES, shutdown)


def reply_of(quick: FastPath, request: RequestHead, connection: Connection = STAYS) -> bytes:
    """The bytes of a reply that is whole; none without one."""
    reply = quick.reply(request, connection)
    assert reply is None or reply.file is None
    return b"" if reply is None else reply.data


def answered(quick: FastPath, request: RequestHead, data: bytes, connection: Connection = STAYS) -> CachedReply | None:
    """The reply to a request that arrived alone in these bytes."""
    reply = quick.reply(request, connection)
    if reply is not None:
        quick.memoize(data, request, reply)
    return reply


def get(target: bytes = b"/x", *fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", target, (1, 1), Fields(((b"Host", b"h"), *fields)))


@pytest.mark.parametrize("connection", [STAYS, STAYS_AND_SAYS_SO, CLOSES])
def test_the_reply_is_the_one_of_the_rules(quick: FastPath, connection: Connection) -> None:
    decision = decide(get(), STORED, NOW)
    assert decision.action is Action.HIT
    expected = REPLIES.hit(STORED, decision.age_s, connection) + BODY
    for _ in range(2):
        reply = quick.reply(get(), connection)
        assert reply is not None
        assert (reply.data, reply.file, reply.key, reply.closes) == (expected, None, b"/x", connection.closes)


def test_the_head_follows_the_age_and_the_connection(quick: FastPath, hot_table: HotTable, clock: list[float]) -> None:
    ages = []
    for second in (0, 0, 0.9, 7, 0):
        clock[0] = NOW + second
        ages.append(reply_of(quick, get()).split(b"Age: ")[1].split(b"\r\n")[0])
    assert ages == [b"13", b"13", b"13", b"20", b"13"]
    assert b"Connection: close" in reply_of(quick, get(), CLOSES)
    assert b"Connection: keep-alive" in reply_of(quick, get(), STAYS_AND_SAYS_SO)
    assert b"Connection" not in reply_of(quick, get())
    assert hot_table.made == 5, "made anew for another age, and for another kind of connection"


def test_a_stale_one_is_left_to_the_exchange(quick: FastPath, clock: list[float]) -> None:
    clock[0] = NOW + 47
    assert quick.reply(get(), STAYS) is None
    clock[0] = NOW + 46
    assert quick.reply(get(), STAYS) is not None
    clock[0] = NOW + 47
    assert quick.reply(get(), STAYS) is None


def test_changed_metadata_and_a_new_body_show_at_once(quick: FastPath, hot_table: HotTable) -> None:
    quick.reply(get(), STAYS)
    fresh = replace(STORED, fields=Fields(((b"X-New", b"1"),)))
    hot_table.entries[b"/x"] = HotTableEntry(1, encode(fresh), BODY)
    assert b"X-New: 1" in reply_of(quick, get())
    hot_table.entries[b"/x"] = HotTableEntry(2, encode(replace(fresh, body_bytes=3)), b"abc")
    assert reply_of(quick, get()).endswith(b"Content-Length: 3\r\n\r\nabc")
    del hot_table.entries[b"/x"]
    assert quick.reply(get(), STAYS) is None


@pytest.mark.parametrize(
    "entry",
    [
        HotTableEntry(1, encode(replace(STORED, status=206)), BODY),
        HotTableEntry(1, encode(replace(STORED, selecting=((b"accept", None),))), BODY),
        HotTableEntry(1, encode(replace(STORED, body_bytes=11)), BODY),
        HotTableEntry(1, b"nothing that we wrote", BODY),
    ],
    ids=["partial", "what varies", "another length", "no metadata of ours"],
)
def test_what_cannot_be_used_is_left_to_the_exchange(
    quick: FastPath, hot_table: HotTable, entry: HotTableEntry
) -> None:
    hot_table.entries[b"/x"] = entry
    assert quick.reply(get(), STAYS) is None


@pytest.mark.parametrize("target", [b"/none", b"*", b"http://h/x", b"/%0g%00\x01"])
def test_other_targets(quick: FastPath, target: bytes) -> None:
    assert quick.reply(get(target), STAYS) is None


def test_other_methods_and_bodies(quick: FastPath) -> None:
    assert quick.reply(replace(get(), method=b"HEAD"), STAYS) is None
    assert quick.reply(replace(get(), framing=Framing.CHUNKED), STAYS) is None


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_request_with_terms(quick: FastPath, name: bytes) -> None:
    assert quick.reply(get(b"/x", (name.title(), b"x")), STAYS) is None
    assert quick.reply(get(), STAYS) is not None
    assert quick.reply(get(b"/x", (name.title(), b"x")), STAYS) is None


def test_targets_of_one_key_share_the_reply(quick: FastPath, hot_table: HotTable) -> None:
    assert quick.reply(get(b"/x"), STAYS) is quick.reply(get(b"/a/../x"), STAYS) is not None
    assert hot_table.made == 1


def test_a_file_of_the_caches_own(quick: FastPath, hot_table: HotTable, clock: list[float]) -> None:
    """It came by no response, so its age counts from when it was first seen."""
    clock[0] = time() + 0.5
    hot_table.entries[b"/file"] = HotTableEntry(7, b"", BODY)
    reply = reply_of(quick, get(b"/file"))
    assert b"\r\nAge: 0\r\n" in reply
    assert b"\r\nDate: " in reply
    assert reply.endswith(BODY)


def test_a_large_object_comes_with_its_file(quick: FastPath, hot_table: HotTable, open_file: HotTableFile) -> None:
    """The head is that of any reply; without its file it is left to the exchange."""
    large = replace(STORED, body_bytes=100_000)
    hot_table.entries[b"/x"] = HotTableEntry(1, encode(large), b"", FileRef(3, 4, 5, 100_000))
    assert quick.reply(get(b"/x"), STAYS) is None
    hot_table.file = open_file
    reply = quick.reply(get(b"/x"), STAYS)
    assert reply is not None
    assert (reply.data, reply.file) == (REPLIES.hit(large, 13, STAYS), open_file)


@pytest.fixture
def open_file() -> HotTableFile:
    return HotTableFile(HotTableFiles(), 0, FileName(4, 5, 1), os.memfd_create("object"), 100_000)


# -- by their bytes ---------------------------------------------------------------------------------------------------
RAW = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


def test_what_was_answered_is_recognised_while_its_reply_holds(
    quick: FastPath, hot_table: HotTable, clock: list[float]
) -> None:
    assert quick.recognise(RAW) is None
    request = get()
    reply = answered(quick, request, RAW)
    assert quick.recognise(RAW) == (request, reply, b"")
    assert quick.recognise(RAW[:-1]) is None
    clock[0] += 1
    assert quick.recognise(RAW) is None
    again = answered(quick, request, RAW)
    assert again is not reply
    assert quick.recognise(RAW) == (request, again, b"")
    hot_table.entries[b"/x"] = HotTableEntry(2, encode(STORED), BODY)
    assert quick.recognise(RAW) is None


def test_what_was_not_answered_or_may_not_be_kept_is_not_recognised(quick: FastPath) -> None:
    assert answered(quick, get(b"/none"), b"GET /none") is None
    assert answered(quick, get(b"/x", (b"Range", b"bytes=0-1")), RAW) is None
    assert quick.reply(get(), STAYS) is not None  # its bytes came with others, or tell of a person
    assert [quick.recognise(data) for data in (b"GET /none", RAW, b"")] == [None, None, None]


def test_nothing_is_recognised_when_no_connection_stays(quick: FastPath, shutdown: Shutdown) -> None:
    answered(quick, get(), RAW)
    shutdown.draining = True
    quick.forget()
    assert quick.recognise(RAW) is None
    assert answered(quick, get(), RAW, CLOSES) is not None
    assert quick.recognise(RAW) is None


# -- what is kept -----------------------------------------------------------------------------------------------------
def test_what_is_kept_is_bounded(quick: FastPath, hot_table: HotTable) -> None:
    for number in range(KNOWN_MAX + 10):
        hot_table.entries[b"/%d" % number] = hot_table.entries[b"/x"]
        assert answered(quick, get(b"/%d" % number), b"GET /%d" % number) is not None
    assert quick.recognise(b"GET /%d" % number) is not None
    known = sum(quick.recognise(b"GET /%d" % each) is not None for each in range(number + 1))
    assert known == number + 1 - KNOWN_MAX, "the others were dropped together"


def test_its_bytes_are_bounded(quick: FastPath, hot_table: HotTable) -> None:
    body = bytes(16_384)
    large = HotTableEntry(1, encode(replace(STORED, body_bytes=len(body))), body)
    for number in range(2 * REPLY_BYTES_MAX // len(body)):
        hot_table.entries[b"/%d" % number] = large
        assert answered(quick, get(b"/%d" % number), b"%d" % number) is not None
        replies = [quick.recognise(b"%d" % each) for each in range(number + 1)] if number % 50 == 0 else []
        assert sum(len(known.reply.data) for known in replies if known) <= REPLY_BYTES_MAX + 2 * len(body)


def test_what_holds_no_more_is_let_go_of_with_its_file(
    quick: FastPath, hot_table: HotTable, clock: list[float], open_file: HotTableFile
) -> None:
    hot_table.entries[b"/file"] = HotTableEntry(
        1, encode(replace(STORED, body_bytes=100_000)), b"", FileRef(3, 4, 5, 100_000)
    )
    hot_table.file = open_file
    answered(quick, get(b"/file"), b"file")
    hot_table.file = None
    answered(quick, get(), RAW)
    users = sys.getrefcount(open_file)
    quick.expire()
    assert quick.recognise(b"file") is not None
    del hot_table.entries[b"/file"]
    quick.expire()
    assert sys.getrefcount(open_file) == users - 1
    assert quick.recognise(RAW) is not None
    reply = quick.reply(get(), STAYS)
    users = sys.getrefcount(reply)
    clock[0] += 1
    quick.expire()
    assert sys.getrefcount(reply) == users - 2, "neither as a reply nor as that of a request"


# -- one reply --------------------------------------------------------------------------------------------------------
class StandIn:
    """Stands for an EntryVersion."""

    def __init__(self, holds: bool) -> None:
        self._holds = holds

    def holds(self) -> bool:
        return self._holds


def reply_at(moment: float, *, there: bool = True) -> CachedReply:
    stored = stored_response(body_bytes=3)
    watch = cast("EntryVersion", StandIn(there))
    age_s = current_age(stored, moment)
    return CachedReply(b"/x", b"head", None, False, stored, age_s, watch)


@given(made=st.floats(NOW - 5, NOW + 5), asked=st.floats(NOW - 5, NOW + 5))
def test_holds_at_its_age_only(made: float, asked: float) -> None:
    stored = stored_response(body_bytes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_path, "time", lambda: asked)
        assert reply_at(made).holds() == (current_age(stored, made) == current_age(stored, asked))
        assert not reply_at(asked, there=False).holds()


def test_a_known_request_tells_its_target() -> None:
    request = RequestHead(b"GET", b"/x?a", (1, 1), Fields(()))
    assert MemoizedRequest(request, reply_at(NOW)).target == b"/x?a"


def test_nothing_is_known_where_an_origin_depends_on_the_host(hot_table: HotTable, shutdown: Shutdown) -> None:
    origins = OriginTable([OriginRule(url="http://o", host=host_pattern(b"h"))])
    quick = FastPath(source_of(cast("CacheClient", hot_table)), origins, REPLIES, shutdown)
    assert answered(quick, get(), RAW) is None
    assert quick.recognise(RAW) is None


def test_nothing_is_known_without_a_cache(shutdown: Shutdown) -> None:
    quick = FastPath(source_of(NoStore()), OriginTable(), REPLIES, shutdown)
    assert answered(quick, get(), RAW) is None
    assert quick.recognise(RAW) is None


def test_a_long_target_is_answered_and_not_kept(quick: FastPath, hot_table: HotTable) -> None:
    for size, kept in ((fast_path.KNOWN_TARGET_BYTES_MAX, True), (fast_path.KNOWN_TARGET_BYTES_MAX + 1, False)):
        target = b"/" + b"x" * (size - 1)
        request = get(target)
        references = sys.getrefcount(target)
        assert quick.reply(request, STAYS) is None
        assert (sys.getrefcount(target) > references) is kept
        hot_table.entries[target] = hot_table.entries[b"/x"]
        assert reply_of(quick, get(bytes(bytearray(target)))).endswith(BODY)
