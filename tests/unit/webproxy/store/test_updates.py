"""CacheUpdater: metadata, indexes and purges in a cache, and what an answer makes invalid."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.commands import BELOW
from tests.support.http_values import request, response, stored_response
from tests.support.pairs import MemoryPair
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import decode, encode
from webproxy.caching.variants import Variant, new_variant, variant_key
from webproxy.errors import CacheUnavailable
from webproxy.origin.routing import OriginRule, Target
from webproxy.store.cache_client import CacheClient
from webproxy.store.lookup import ObjectLookup
from webproxy.store.updates import CacheUpdater, key_of

STORED = stored_response(b"ETag: 1", body_bytes=3)
RULE = OriginRule(url="http://o/base")


@pytest.fixture
def store(pair: MemoryPair) -> Iterator[CacheClient]:
    made = CacheClient(pair.client, patient=False)
    yield made
    made.close()


@pytest.fixture
def lookup(store: CacheClient) -> ObjectLookup:
    return ObjectLookup(store)


@pytest.fixture
def writer(store: CacheClient, lookup: ObjectLookup) -> CacheUpdater:
    return CacheUpdater(store, lookup)


def variant(value: bytes) -> Variant:
    return new_variant(((b"foo", value),), b"")


def test_metadata_are_replaced_for_their_version_only(pair: MemoryPair, writer: CacheUpdater) -> None:
    pair.store(b"/x", b"abc", encode(STORED))
    newer = stored_response(b"ETag: 2", body_bytes=3)
    assert not writer.update(b"/x", 99, newer)
    assert writer.update(b"/x", 1, newer)
    assert decode(pair.cache.entries[b"/x"].metadata) == newer


def test_metadata_are_replaced_where_they_are_our_own(pair: MemoryPair, writer: CacheUpdater) -> None:
    pair.store(b"/x", b"abc", encode(STORED))
    newer = stored_response(b"ETag: 2", body_bytes=3)
    writer.update_own(b"/none", STORED, newer)
    writer.update_own(b"/x", newer, STORED)
    assert decode(pair.cache.entries[b"/x"].metadata) == STORED
    pair.cache.entries[b"/x"] = pair.cache.entries[b"/x"]._replace(invalidated=True)
    writer.update_own(b"/x", STORED, newer)
    assert decode(pair.cache.entries[b"/x"].metadata) == STORED, "a purge came since"
    pair.cache.entries[b"/x"] = pair.cache.entries[b"/x"]._replace(invalidated=False)
    writer.update_own(b"/x", STORED, newer)
    assert decode(pair.cache.entries[b"/x"].metadata) == newer
    assert pair.is_whole()


def test_metadata_that_are_too_long_are_not_written(pair: MemoryPair, writer: CacheUpdater) -> None:
    pair.store(b"/x", b"abc", encode(STORED))
    assert not writer.update(b"/x", 1, stored_response(b"X: " + b"y" * 100_000, body_bytes=3))
    assert decode(pair.cache.entries[b"/x"].metadata) == STORED


def test_variants_gather_in_the_index_and_the_plain_object_goes(
    pair: MemoryPair, lookup: ObjectLookup, writer: CacheUpdater
) -> None:
    pair.store(b"/x", b"abc", encode(STORED))
    for value in (b"1", b"2"):
        writer.add_variant(b"/x", variant(value), request(b"Foo: " + value))
    index = lookup.index_of(b"/x", WATCHDOG_S)
    assert index is not None
    assert index.variants == (variant(b"2"), variant(b"1"))
    assert b"/x" not in pair.cache.entries
    writer.enter(b"/x", b"/x", STORED, request(), had_index=True)
    assert pair.cache.entries == {}


def test_one_without_vary_takes_the_place_of_those_that_its_request_selects(
    pair: MemoryPair, lookup: ObjectLookup, writer: CacheUpdater
) -> None:
    for value in (b"1", b"2"):
        pair.store(variant_key(b"/x", variant(value).id), b"abc", encode(STORED))
        writer.add_variant(b"/x", variant(value), request(b"Foo: " + value))
    writer.add_variant(b"/x", new_variant((), b""), request(b"Foo: 1"))
    index = lookup.index_of(b"/x", WATCHDOG_S)
    assert index is not None
    assert index.variants == (new_variant((), b""), variant(b"2"))
    assert set(pair.cache.entries) == {b"/x\0", variant_key(b"/x", variant(b"2").id)}


@pytest.mark.parametrize(
    ("updated", "left"),
    [
        pytest.param(None, {b"/x": True}, id="disagrees"),
        pytest.param(stored_response(b"ETag: 1", body_bytes=3, lifetime_s=9), {b"/x": False}, id="agrees"),
        pytest.param(stored_response(body_bytes=3, selecting=((b"foo", None),)), {}, id="varies"),
    ],
)
def test_what_a_head_makes_of_an_object(
    pair: MemoryPair, writer: CacheUpdater, updated: StoredResponse | None, left: dict[bytes, bool]
) -> None:
    pair.store(b"/x", b"abc", encode(STORED))
    writer.follow_head(b"/x", 1, STORED, updated)
    assert {key: entry.invalidated for key, entry in pair.cache.entries.items()} == left
    if updated is not None and left:
        assert decode(pair.cache.entries[b"/x"].metadata) == updated


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_takes_the_variants_too(pair: MemoryPair, writer: CacheUpdater, soft: bool) -> None:
    for key in (b"/x", b"/x\0", b"/x\0id", b"/xy"):
        pair.store(key, b"abc", encode(STORED))
    assert writer.purge(b"/x", soft=soft) == 3
    left = {key: entry.invalidated for key, entry in pair.cache.entries.items()}
    assert left == ({b"/x": True, b"/x\0": True, b"/x\0id": True, b"/xy": False} if soft else {b"/xy": False})


def test_a_purge_is_one_command(pair: MemoryPair, writer: CacheUpdater) -> None:
    assert writer.purge(b"/x") == 0
    assert [(command.key, command.flags) for command in pair.cache.commands] == [(b"/x", BELOW)]


def test_a_purge_waits_for_what_is_being_stored_and_is_repeated_if_that_did_not_end(
    pair: MemoryPair, store: CacheClient, lookup: ObjectLookup
) -> None:
    revoked, is_over = [], threading.Event()
    is_over.set()

    class Fetches:
        def revoke(self, object_key: bytes, deadline: Deadline) -> bool:
            revoked.append(object_key)
            return is_over.is_set()

    writer = CacheUpdater(store, lookup, Fetches())
    assert writer.purge(b"/x") == 0
    assert revoked == [b"/x"]
    is_over.clear()
    pair.store(b"/x", b"abc", encode(STORED))
    with pytest.raises(CacheUnavailable):
        writer.purge(b"/x")
    assert pair.cache.entries == {}  # it is done all the same
    pair.store(b"/x", b"abc", encode(STORED))
    with pytest.raises(CacheUnavailable):
        lookup.find(b"/x", request(), WATCHDOG_S)
    asked = len(revoked)
    wait_until(lambda: len(revoked) > asked + 1, what="it has looked again whether that is over")
    assert b"/x" in pair.cache.entries, "what is still being stored would come after the purge"
    is_over.set()
    wait_until(lambda: b"/x" not in pair.cache.entries, what="the purge is repeated")


def test_one_object_is_invalidated(pair: MemoryPair, writer: CacheUpdater) -> None:
    for key in (b"/x", b"/x\0"):
        pair.store(key, b"abc", encode(STORED))
    writer.remove(b"/x", invalidate=True)
    assert {key: entry.invalidated for key, entry in pair.cache.entries.items()} == {b"/x": True, b"/x\0": False}


def test_a_cache_that_is_gone(pair: MemoryPair, writer: CacheUpdater) -> None:
    """Only the failure of a purge is reported: its client relies on it."""
    pair.kill_cache()
    writer.remove(b"/x", invalidate=True)
    writer.add_variant(b"/x", variant(b"1"), request(b"Foo: 1"))
    assert not writer.update(b"/x", 1, STORED)
    writer.update_own(b"/x", STORED, STORED)
    with pytest.raises(CacheUnavailable):
        writer.purge(b"/x")


@pytest.mark.parametrize(
    ("target", "url", "key"),
    [
        pytest.param(Target(b"/a", RULE, "http://o/base", b"/a", b"/a"), b"http://o/base/b", b"/b", id="path"),
        pytest.param(Target(b"/a", RULE, "http://o/base", b"/a", b"/a"), b"http://o/b", None, id="outside"),
        pytest.param(Target(b"/a", RULE, "http://o/base", b"/a", b"/a"), b"http://o/baseball", None, id="look-alike"),
        pytest.param(
            Target(b"http://h/a", RULE, "http://o/base", b"/a", b"/a"), b"http://o/base/b", b"http://h/b", id="host"
        ),
        pytest.param(
            Target(b"/p/a", OriginRule(url="http://o", path=b"/p/", strip_prefix=True), "http://o", b"/p/a", b"/p/a"),
            b"http://o/b",
            b"/p/b",
            id="stripped",
        ),
    ],
)
def test_the_key_of_another_url_of_an_origin(target: Target, url: bytes, key: bytes | None) -> None:
    assert key_of(target, url) == key


@pytest.mark.parametrize(
    ("target", "stored"),
    [
        pytest.param(Target(b"/a", RULE, "http://o/base", b"/a", b"/a"), b"/b", id="by-path"),
        pytest.param(Target(b"http://h/a", RULE, "http://o", b"/a", b"/a"), b"http://h/b", id="by-host"),
        pytest.param(
            Target(b"/p/a", OriginRule(url="http://o", path=b"/p/", strip_prefix=True), "http://o", b"/p/a", b"/p/a"),
            b"/p/b",
            id="stripped",
        ),
    ],
)
def test_a_location_in_the_clients_words(pair: MemoryPair, writer: CacheUpdater, target: Target, stored: bytes) -> None:
    path = stored.removeprefix(b"http://h")
    for key in (stored, b"/z"):
        pair.store(key, b"abc", encode(STORED))
    writer.invalidate(target, b"POST", response(b"Location: http://elsewhere" + path, status=201), b"h:8000")
    assert len(pair.cache.entries) == 2
    writer.invalidate(target, b"POST", response(b"Location: http://h:8000" + path, status=201), b"h:8000")
    assert set(pair.cache.entries) == {b"/z"}


def test_an_unsafe_method_removes_target_and_location(pair: MemoryPair, writer: CacheUpdater) -> None:
    target = Target(b"/a", RULE, "http://o/base", b"/a", b"/a")
    for key in (b"/a", b"/b", b"/c"):
        pair.store(key, b"abc", encode(STORED))
    writer.invalidate(target, request().method, response())
    assert len(pair.cache.entries) == 3
    writer.invalidate(target, b"POST", response(b"Location: http://o/base/b", status=201))
    assert set(pair.cache.entries) == {b"/c"}
