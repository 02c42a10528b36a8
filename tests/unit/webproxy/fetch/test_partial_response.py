"""PartialResponse: what one fetch asks for because of a part, and what it does with the part afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from tests.support.http_values import NOW, fields, request, stored_response
from webproxy.caching.stored import StoredResponse
from webproxy.errors import CacheUnavailable
from webproxy.fetch.partial_response import PartialResponse, whole_response
from webproxy.fetch.partial_store import PartialStore
from webproxy.fetch.spool import SpooledPrefix
from webproxy.http.messages import RequestHead
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import StoredHit

STORED = stored_response(b'ETag: "a"', b"X: 1", body_bytes=1000, incomplete=True)
PLAIN = fields(b"Accept: */*")
PREFIX = SpooledPrefix(-1, 600)


class FakeStore:
    """Remembers what was asked of it."""

    def __init__(self, stored: StoredResponse | None = STORED) -> None:
        self.part = None if stored is None else StoredHit(b"/x\0partial", stored, 7, held_bytes=400)
        self.looks = 0
        self.is_there = True
        self.keeps = True
        self.calls: list[tuple[object, ...]] = []

    def find(self, key: bytes, asked: RequestHead) -> StoredHit | None:
        self.looks += 1
        return self.part

    def copy(self, part: StoredHit, offset: int, take: Callable[[memoryview], None]) -> int:
        if not self.is_there:
            raise CacheUnavailable("gone")
        take(memoryview(b"abc"))
        return 3

    def keep(self, key: bytes, prefix: SpooledPrefix, stored: StoredResponse, size_bytes: int) -> bool:
        self.calls.append(("keep", key, prefix.written, size_bytes))
        return self.keeps

    def is_as_found(self, part: StoredHit) -> bool:
        return self.is_there

    def drop(self, key: bytes) -> None:
        self.calls.append(("drop", key))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def in_hand(store: FakeStore, validates: StoredHit | None = None) -> PartialResponse:
    return PartialResponse(cast("PartialStore", store), b"/x", request(), validates)


def rest(*lines: bytes, status: int = 206) -> OriginResponse:
    said = (b'ETag: "a"', b"Content-Range: bytes 400-999/1000", *lines)
    return OriginResponse(status=status, fields=fields(*said), length=600)


def test_its_rest_is_asked_for(store: FakeStore) -> None:
    part = in_hand(store)
    for _ in range(2):
        asked = part.rest_of(PLAIN, NOW)
        assert asked == fields(b"Accept: */*", b"Range: bytes=400-", b'If-Range: "a"')
    assert (store.looks, part.is_asked_for, part.held_bytes) == (1, True, 400)
    assert part.is_continued_by(rest(), NOW) is STORED


@pytest.mark.parametrize("stored", [None, stored_response(b'ETag: W/"a"', body_bytes=1000, incomplete=True)])
def test_without_one_that_could_go_on_all_is_asked_for(stored: StoredResponse | None) -> None:
    part = in_hand(FakeStore(stored))
    assert part.rest_of(PLAIN, NOW) == PLAIN
    assert not part.is_asked_for
    assert part.is_continued_by(rest(), NOW) is None


def test_without_one_there_is_nothing_to_leave_or_to_clear() -> None:
    part = in_hand(FakeStore(None))
    assert part.rest_of(PLAIN, NOW) == PLAIN
    assert part.is_as_found()
    part.clear(is_complete=True)


def test_what_is_validated_is_known_and_not_looked_for(store: FakeStore) -> None:
    whole = in_hand(store, StoredHit(b"/x", stored_response(), 1))
    assert whole.rest_of(PLAIN, NOW) == PLAIN
    part = in_hand(store, store.part)
    assert b"range" in part.rest_of(PLAIN, NOW)
    assert store.looks == 0


@pytest.mark.parametrize(
    "answer", [rest(status=416), rest(b"Content-Encoding: gzip"), rest(b"Content-Range: bytes 0-0/1000")]
)
def test_another_answer_does_not_continue_it(store: FakeStore, answer: OriginResponse) -> None:
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    assert part.is_continued_by(answer, NOW) is None


def test_it_is_copied_as_long_as_it_is_there(store: FakeStore) -> None:
    part, taken = in_hand(store), bytearray()
    part.rest_of(PLAIN, NOW)
    assert part.copy(0, taken.extend)
    store.is_there = False
    assert not part.copy(3, taken.extend)
    assert (taken, part.is_as_found()) == (b"abc", False)


@pytest.mark.parametrize(
    ("status", "is_complete", "calls"),
    [
        (200, False, [("drop", b"/x")]),
        (404, False, [("drop", b"/x")]),
        (503, False, []),
        (206, False, []),
        (206, True, [("drop", b"/x")]),
    ],
)
def test_what_becomes_of_it(store: FakeStore, status: int, is_complete: bool, calls: list[tuple[object, ...]]) -> None:
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    if status != 206:
        part.is_replaced_by(rest(status=status))
        assert not part.is_asked_for
    part.clear(is_complete=is_complete)
    assert store.calls == calls


def test_nothing_is_removed_that_was_not_found() -> None:
    store = FakeStore(None)
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    part.is_replaced_by(rest(status=200))
    part.clear(is_complete=True)
    assert store.calls == []


def test_a_longer_beginning_is_left_behind(store: FakeStore) -> None:
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    part.leave_behind(PREFIX, STORED, 1000)
    assert store.calls == [("keep", b"/x", 600, 1000)]


def test_what_began_with_a_part_that_was_purged_is_not_left_behind(store: FakeStore) -> None:
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    store.is_there = False
    part.leave_behind(PREFIX, STORED, 1000)
    assert store.calls == []


def test_a_useless_one_goes_also_when_no_other_takes_its_place(store: FakeStore) -> None:
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    part.is_replaced_by(rest(status=200))
    store.keeps = False
    part.leave_behind(PREFIX, STORED, 1000)
    assert store.calls == [("keep", b"/x", 600, 1000), ("drop", b"/x")]


def test_the_head_of_the_whole() -> None:
    """Also with what its rest has and is not stored for others."""
    head = whole_response(rest(b"X: 2", b"Set-Cookie: b", b"Age: 3", b"Connection: Z", b"Z: 1"), STORED)
    assert (head.status, head.length) == (200, 1000)
    assert head.fields == fields(b'ETag: "a"', b"X: 1", b"Set-Cookie: b", b"Age: 3")


def test_one_that_may_not_stay_is_used_and_then_removed(store: FakeStore) -> None:
    part = in_hand(store)
    part.rest_of(PLAIN, NOW)
    part.drop()
    assert part.copy(0, lambda _view: None)
    part.clear(is_complete=False)
    assert store.calls == [("drop", b"/x")]
