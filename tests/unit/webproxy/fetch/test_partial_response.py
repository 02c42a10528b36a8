"""PartialResponse: what one fetch asks for because of a part, and what it does with the part afterwards."""

from __future__ import annotations

from typing import cast

import pytest

from tests.support.fetching import NO_PARTIALS, PARTIAL, FakePartials
from tests.support.http_values import NOW, fields, request, stored_response
from webproxy.caching.stored import StoredResponse
from webproxy.fetch.partial_response import PartialResponse, PartialStore, whole_response
from webproxy.fetch.spool import SpooledPrefix
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import StoredHit

STORED = PARTIAL
PLAIN = fields(b"Accept: */*")
PREFIX = SpooledPrefix(-1, 600)


@pytest.fixture
def partials() -> FakePartials:
    return FakePartials()


def in_hand(partials: PartialStore | FakePartials, validates: StoredHit | None = None) -> PartialResponse:
    return PartialResponse(cast(PartialStore, partials), b"/x", request(), validates)


def rest(*lines: bytes, status: int = 206) -> OriginResponse:
    said = (b'ETag: "a"', b"Content-Range: bytes 400-999/1000", *lines)
    return OriginResponse(status=status, fields=fields(*said), length=600)


def test_its_rest_is_asked_for(partials: FakePartials) -> None:
    part = in_hand(partials)
    assert part.rest_of(PLAIN, NOW) == PLAIN, "nobody has looked for it"
    assert part.look(NOW)
    assert part.rest_of(PLAIN, NOW) == fields(b"Accept: */*", b"Range: bytes=400-", b'If-Range: "a"')
    assert (partials.looks, part.held_bytes, part.stored) == (1, 400, STORED)
    assert part.is_continued_by(rest(), NOW)


@pytest.mark.parametrize("stored", [None, stored_response(b'ETag: W/"a"', body_bytes=1000, incomplete=True)])
def test_without_one_that_could_be_completed_there_is_no_rest(stored: StoredResponse | None) -> None:
    part = in_hand(FakePartials(stored))
    assert not part.look(NOW)
    assert part.rest_of(PLAIN, NOW) == PLAIN
    assert not part.is_continued_by(rest(), NOW)


def test_without_a_cache_there_is_none() -> None:
    part = in_hand(NO_PARTIALS)
    assert not part.look(NOW)
    assert not part.is_as_found()
    part.leave_behind(PREFIX, STORED, 1000, began_with_it=False)
    part.clear(is_replaced=True)


def test_what_is_validated_is_known_and_not_looked_for(partials: FakePartials) -> None:
    whole = in_hand(partials, StoredHit(b"/x", stored_response(), 1))
    assert not whole.look(NOW)
    part = in_hand(partials, partials.part)
    assert part.held_bytes == 400
    assert part.look(NOW)
    assert partials.looks == 0


@pytest.mark.parametrize(
    "answer", [rest(status=416), rest(b"Content-Encoding: gzip"), rest(b"Content-Range: bytes 0-0/1000")]
)
def test_another_answer_does_not_continue_it(partials: FakePartials, answer: OriginResponse) -> None:
    part = in_hand(partials)
    part.look(NOW)
    assert not part.is_continued_by(answer, NOW)


def test_it_is_copied_as_long_as_it_is_there(partials: FakePartials) -> None:
    part, taken = in_hand(partials), bytearray()
    part.look(NOW)
    assert part.copy(0, taken.extend)
    assert part.is_as_found()
    partials.is_there = False
    assert not part.copy(3, taken.extend)
    assert (bytes(taken), part.is_as_found()) == (b"abc", False)


@pytest.mark.parametrize(
    ("is_useless", "is_replaced", "calls"),
    [(True, False, [("drop", b"/x")]), (False, True, [("drop", b"/x")]), (False, False, [])],
)
def test_what_becomes_of_it(
    partials: FakePartials, *, is_useless: bool, is_replaced: bool, calls: list[tuple[object, ...]]
) -> None:
    part = in_hand(partials)
    part.look(NOW)
    if is_useless:
        part.discard()
        assert part.held_bytes == 0
    part.clear(is_replaced=is_replaced)
    assert partials.calls == calls


def test_nothing_is_removed_that_was_not_found() -> None:
    partials = FakePartials(None)
    part = in_hand(partials)
    part.look(NOW)
    part.discard()
    part.clear(is_replaced=True)
    assert partials.calls == []


@pytest.mark.parametrize("began_with_it", [False, True])
def test_a_longer_beginning_is_left_behind(partials: FakePartials, *, began_with_it: bool) -> None:
    part = in_hand(partials)
    part.look(NOW)
    part.leave_behind(PREFIX, STORED, 1000, began_with_it=began_with_it)
    assert partials.calls == [("keep", b"/x", 600, 1000)]


def test_what_began_with_one_that_was_purged_is_not_left_behind(partials: FakePartials) -> None:
    part = in_hand(partials)
    part.look(NOW)
    partials.is_there = False
    part.leave_behind(PREFIX, STORED, 1000, began_with_it=True)
    assert partials.calls == []


def test_a_useless_one_goes_also_when_no_other_takes_its_place(partials: FakePartials) -> None:
    part = in_hand(partials)
    part.look(NOW)
    part.discard()
    partials.keeps = False
    part.leave_behind(PREFIX, STORED, 1000, began_with_it=False)
    assert partials.calls == [("keep", b"/x", 600, 1000), ("drop", b"/x")]


def test_the_head_of_the_whole() -> None:
    """Also with what its rest has and is not stored for others."""
    head = whole_response(rest(b"X: 2", b"Set-Cookie: b", b"Age: 3", b"Connection: Z", b"Z: 1"), STORED)
    assert (head.status, head.length) == (200, 1000)
    assert head.fields == fields(b'ETag: "a"', b"X: 1", b"Set-Cookie: b", b"Age: 3")
