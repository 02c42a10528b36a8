"""ObjectLookup: what a cache's objects are to an HTTP request, and where they are looked for."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from shmchannel.objects.commands import FACTS_ONLY
from tests.support.http_values import request, stored_response
from tests.support.pairs import Entry, MemoryPair
from tests.support.waiting import WATCHDOG_S
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import encode, encode_index
from webproxy.caching.variants import VariantIndex, new_variant, variant_key
from webproxy.errors import CacheUnavailable
from webproxy.store.cache_client import CacheClient
from webproxy.store.lookup import FOREVER_S, Lookup, ObjectLookup, StoredHit, body_wanted

BODY = b"0123456789"
PLAIN = stored_response(b"ETag: 1", body_bytes=len(BODY))


@pytest.fixture
def lookup(pair: MemoryPair) -> ObjectLookup:
    return ObjectLookup(CacheClient(pair.client, patient=False))


def find(lookup: ObjectLookup, *fields: bytes) -> Lookup:
    found = lookup.find(b"/x", request(*fields), WATCHDOG_S)
    if found.found is not None:
        found.found.cancel_quietly()
    return found


def keep_variant(pair: MemoryPair, name: bytes, value: bytes, *others: bytes) -> None:
    variants = [new_variant(((b"foo", one),), b"") for one in (value, *others)]
    stored = replace(PLAIN, selecting=variants[0].selecting, fields=stored_response(b"X: " + name).fields)
    assert pair.store(variant_key(b"/x", variants[0].id), BODY, encode(stored))
    assert pair.store(b"/x\0", b"", encode_index(VariantIndex(tuple(variants))))


def stored_of(lookup: Lookup) -> StoredResponse:
    assert lookup.found is not None
    return lookup.found.stored


def test_nothing(lookup: ObjectLookup) -> None:
    assert find(lookup) == Lookup(nothing_below=True)


def test_a_plain_response(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.store(b"/x", BODY, encode(PLAIN))
    assert stored_of(find(lookup)) == PLAIN
    assert pair.is_whole()


def test_an_invalidated_one_says_so(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.store(b"/x", BODY, encode(PLAIN))
    pair.cache.entries[b"/x"] = pair.cache.entries[b"/x"]._replace(invalidated=True)
    assert stored_of(find(lookup)).invalidated


@pytest.mark.parametrize("metadata", [b"?", encode(replace(PLAIN, body_bytes=11))], ids=["unknown", "another body's"])
def test_what_cannot_be_used_is_not_there(pair: MemoryPair, lookup: ObjectLookup, metadata: bytes) -> None:
    pair.store(b"/x", BODY, metadata)
    assert find(lookup).found is None
    assert pair.is_whole()


def test_a_file_of_the_caches_own_is_fresh_for_ever(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.store(b"/a.tar.gz", BODY)
    found = lookup.find(b"/a.tar.gz", request(), WATCHDOG_S).found
    assert found is not None
    found.cancel_quietly()
    assert (found.stored.lifetime_s, found.stored.fields.get(b"content-type")) == (FOREVER_S, b"application/gzip")
    assert found.stored.fields.get(b"etag") == b'"1-a"'


def test_the_variant_that_is_selected(pair: MemoryPair, lookup: ObjectLookup) -> None:
    keep_variant(pair, b"one", b"1")
    keep_variant(pair, b"two", b"2", b"1")
    assert stored_of(find(lookup, b"Foo: 1")).fields.get(b"x") == b"one"
    assert stored_of(find(lookup, b"Foo: 2")).fields.get(b"x") == b"two"
    other = find(lookup, b"Foo: 3")
    assert other.found is None
    assert other.index is not None
    assert len(other.index.variants) == 2


def test_an_index_whose_variant_is_gone_or_another_is_a_miss(pair: MemoryPair, lookup: ObjectLookup) -> None:
    keep_variant(pair, b"one", b"1")
    key = variant_key(b"/x", new_variant(((b"foo", b"1"),), b"").id)
    pair.cache.entries[key] = pair.cache.entries[key]._replace(
        metadata=encode(replace(PLAIN, selecting=((b"foo", b"2"),)))
    )
    assert find(lookup, b"Foo: 1").found is None
    del pair.cache.entries[key]
    assert find(lookup, b"Foo: 1").found is None
    assert pair.is_whole()


def test_a_key_known_to_vary_is_looked_up_there_first(pair: MemoryPair, lookup: ObjectLookup) -> None:
    keep_variant(pair, b"one", b"1")
    pair.store(b"/x", BODY, encode(PLAIN))
    assert stored_of(find(lookup, b"Foo: 1")) == PLAIN
    lookup.note_varying(b"/x")
    assert stored_of(find(lookup, b"Foo: 1")).selecting == ((b"foo", b"1"),)
    lookup.forget_varying(b"/x")
    assert stored_of(find(lookup, b"Foo: 1")) == PLAIN


def test_one_that_varies_at_the_key_itself_is_for_its_own_requests(pair: MemoryPair, lookup: ObjectLookup) -> None:
    """Section 4.1, wherever it lies; the others may have variants, and are told that there is one."""
    here = replace(PLAIN, selecting=((b"foo", b"1"),))
    pair.store(b"/x", BODY, encode(here))
    assert stored_of(find(lookup, b"Foo: 1")) == here
    assert find(lookup, b"Foo: 2") == Lookup(index=VariantIndex((new_variant(here.selecting, None),)))
    keep_variant(pair, b"two", b"2")
    assert stored_of(find(lookup, b"Foo: 2")).fields.get(b"x") == b"two"
    assert pair.is_whole()


def test_an_index_that_is_gone_is_forgotten(pair: MemoryPair, lookup: ObjectLookup) -> None:
    lookup.note_varying(b"/x")
    pair.store(b"/x", BODY, encode(PLAIN))
    assert stored_of(find(lookup)) == PLAIN


def test_no_cache(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.kill_cache()
    with pytest.raises(CacheUnavailable):
        lookup.find(b"/x", request(), 0.1)


# -- incomplete responses --------------------------------------------------------------------------------------------
PART = replace(PLAIN, body_bytes=100, incomplete=True)
PART_KEY = b"/x\0partial"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((b"Range: bytes=0-9",), True),
        ((b"Range: bytes=5-6,0-1",), True),
        ((b"Range: bytes=0-10",), False),
        ((b"Range: bytes=-1",), False),
        ((b"Range: bytes=0-1", b'If-Range: "z"'), False),
        ((), False),
    ],
)
def test_a_part_is_found_by_who_wants_no_more(
    pair: MemoryPair, lookup: ObjectLookup, lines: tuple[bytes, ...], found: bool
) -> None:
    pair.store(PART_KEY, BODY, encode(PART))
    seen = find(lookup, *lines).found
    assert (seen is not None) is found
    if seen is not None:
        assert (seen.stored, seen.size_bytes, seen.held_bytes, seen.key) == (PART, 10, 10, PART_KEY)
        assert seen.without_body().size_bytes == 10
    assert pair.is_whole()


def test_the_whole_comes_before_its_part(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.store(PART_KEY, BODY, encode(PART))
    pair.store(b"/x", BODY, encode(PLAIN))
    assert stored_of(find(lookup, b"Range: bytes=0-9")) == PLAIN


def test_a_part_beside_variants_that_the_request_does_not_select(pair: MemoryPair, lookup: ObjectLookup) -> None:
    keep_variant(pair, b"one", b"1")
    pair.store(PART_KEY, BODY, encode(replace(PART, selecting=((b"foo", b"2"),))))
    for known in (False, True):  # the second time it is known that the key varies
        seen = find(lookup, b"Foo: 2", b"Range: bytes=0-9")
        assert (stored_of(seen).incomplete, seen.index is not None) == (True, True), known
    assert find(lookup, b"Foo: 3", b"Range: bytes=0-9").found is None
    assert pair.is_whole()


@pytest.mark.parametrize(
    "metadata",
    [encode(replace(PLAIN, body_bytes=100)), encode(replace(PART, body_bytes=10)), b"?", b""],
    ids=["of a complete one", "of no more than that", "unknown", "none"],
)
def test_what_is_no_part(pair: MemoryPair, lookup: ObjectLookup, metadata: bytes) -> None:
    pair.store(PART_KEY, BODY, metadata)
    assert lookup.find_part(b"/x", request(), WATCHDOG_S) is None
    assert pair.is_whole()


def test_a_part_is_never_the_whole(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.store(b"/x", BODY, encode(replace(PLAIN, incomplete=True)))
    assert find(lookup).found is None


def test_a_variant_is_found_beside_what_lies_at_the_key(pair: MemoryPair, lookup: ObjectLookup) -> None:
    pair.store(b"/x", BODY, encode(PLAIN))
    assert lookup.find_variant(b"/x", request(b"Foo: 1"), WATCHDOG_S) is None
    assert not lookup.is_varying(b"/x")
    keep_variant(pair, b"a", b"1")
    found = lookup.find_variant(b"/x", request(b"Foo: 1"), WATCHDOG_S)
    assert found is not None
    assert found.stored.selecting == ((b"foo", b"1"),)
    found.cancel_quietly()
    assert lookup.is_varying(b"/x")
    assert lookup.find_variant(b"/x", request(b"Foo: 2"), WATCHDOG_S) is None
    del pair.cache.entries[b"/x\0"]
    assert lookup.find_variant(b"/x", request(b"Foo: 1"), WATCHDOG_S) is None
    assert not lookup.is_varying(b"/x")
    assert pair.is_whole()


# -- how much of the body is asked for ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "lines", "part"),
    [
        (b"GET", (), (0, 0)),
        (b"HEAD", (), (FACTS_ONLY, 0)),
        (b"GET", (b"Range: bytes=10-19",), (10, 10)),
        (b"GET", (b"Range: bytes=-5",), (-5, 0)),
        (b"GET", (b"Range: bytes=0-1,3-4",), (FACTS_ONLY, 0)),
        (b"GET", (b"Range: lines=1-2",), (FACTS_ONLY, 0)),
        (b"HEAD", (b"Range: bytes=10-19",), (FACTS_ONLY, 0)),
        (b"GET", (b'If-None-Match: "1"',), (FACTS_ONLY, 0)),
        (b"GET", (b"Range: bytes=10-19", b'If-None-Match: "1"'), (FACTS_ONLY, 0)),
        (b"GET", (b"Range: bytes=10-19", b'If-Range: "1"'), (10, 10)),
        (b"GET", (b'If-Match: "1"',), (0, 0)),
    ],
)
def test_what_the_answer_is_likely_to_take(method: bytes, lines: tuple[bytes, ...], part: tuple[int, int]) -> None:
    assert body_wanted(request(*lines, method=method)) == part


def opened(pair: MemoryPair, lookup: ObjectLookup, body: bytes, *lines: bytes) -> StoredHit:
    pair.store(b"/x", body, encode(replace(PLAIN, body_bytes=len(body))))
    found = lookup.find(b"/x", request(*lines), WATCHDOG_S).found
    assert found is not None
    return found


def test_the_range_that_a_transfer_brings(pair: MemoryPair, lookup: ObjectLookup) -> None:
    found = opened(pair, lookup, bytes(100), b"Range: bytes=10-19")
    assert [found.has(*part) for part in ((10, 20), (0, 100), (10, 30))] == [True, False, False]
    found.cancel_quietly()
    assert not found.has(10, 20)
    assert pair.is_whole()


def test_a_body_of_one_chunk_stays_while_the_origin_is_asked(pair: MemoryPair, lookup: ObjectLookup) -> None:
    """A longer one does not, and neither does a part: no segment is held for them."""
    small, large = bytes(range(100)), bytes(100_000)
    found = opened(pair, lookup, small)
    found.end_transfer()
    assert (found.body, found.has(0, 100)) == (small, True)
    for body, line in ((large, ()), (small, (b"Range: bytes=0-9",))):
        found = opened(pair, lookup, body, *line)
        found.end_transfer()
        assert (found.body, found.transfer) == (None, None)
    assert pair.is_whole()


def test_what_lies_below_is_asked_for_only_where_something_does(pair: MemoryPair, lookup: ObjectLookup) -> None:
    find(lookup, b"Range: bytes=0-9")
    assert [command.key for command in pair.cache.commands] == [b"/x"]
    pair.cache.commands.clear()
    pair.cache.entries[b"/x\0other"] = Entry(b"")
    find(lookup, b"Range: bytes=0-9")
    assert [command.key for command in pair.cache.commands] == [b"/x", b"/x\0", b"/x\0partial"]


def test_a_long_key_that_varies_costs_no_more_than_a_short_one(lookup: ObjectLookup) -> None:
    key = bytes(4000)
    references = sys.getrefcount(key)
    lookup.note_varying(key)
    assert lookup.is_varying(key)
    assert sys.getrefcount(key) == references
