"""PartialStore: the beginning of a body in the cache: kept, read again piece by piece, and noticed when it goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.http_values import request, stored_response
from tests.support.pairs import MemoryPair
from webproxy.caching.partial import as_incomplete
from webproxy.caching.stored_codec import decode
from webproxy.errors import CacheUnavailable
from webproxy.fetch import partial_response
from webproxy.fetch.partial_response import PartialStore
from webproxy.fetch.spool import Spool, SpooledPrefix
from webproxy.store.cache_client import CacheClient
from webproxy.store.fill import Fills
from webproxy.store.lookup import ObjectLookup, StoredHit
from webproxy.store.updates import CacheUpdater

BODY = os.urandom(3000)
SIZE = 10_000
STORED = stored_response(b'ETag: "a"', body_bytes=0)
KEY = b"/x\0partial"


@pytest.fixture
def store(pair: MemoryPair) -> Iterator[PartialStore]:
    cache = CacheClient(pair.client, patient=False)
    lookup = ObjectLookup(cache)
    yield PartialStore(cache, lookup, CacheUpdater(cache, lookup), Fills(cache))
    cache.close()


@contextmanager
def spooled(body: bytes) -> Iterator[SpooledPrefix]:
    spool = Spool(None)
    spool.write(body)
    prefix = spool.prefix()
    assert prefix is not None
    spool.end()
    with closing(prefix):
        yield prefix


def kept(store: PartialStore) -> StoredHit:
    with spooled(BODY) as prefix:
        assert store.keep(b"/x", prefix, STORED, SIZE)
    part = store.find(b"/x", request())
    assert part is not None
    return part


def test_what_is_kept_is_found(pair: MemoryPair, store: PartialStore) -> None:
    assert store.find(b"/x", request()) is None
    part = kept(store)
    assert (part.stored, part.size_bytes, part.transfer) == (as_incomplete(STORED, SIZE), len(BODY), None)
    assert decode(pair.cache.entries[KEY].metadata) == as_incomplete(STORED, SIZE)
    assert pair.cache.entries[KEY].body == BODY
    store.drop(b"/x")
    assert pair.cache.entries == {}
    assert pair.is_whole()


def test_it_is_read_piece_by_piece(pair: MemoryPair, store: PartialStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_response, "PIECE_BYTES", 1001)
    part, read = kept(store), bytearray()
    sizes = []
    while len(read) < part.size_bytes:
        sizes.append(store.copy(part, len(read), read.extend))
        assert pair.is_whole(), "between two pieces nothing is held"
    assert (bytes(read), sizes) == (BODY, [1001, 1001, 998])


def test_one_that_is_gone_cannot_be_read(pair: MemoryPair, store: PartialStore) -> None:
    part = kept(store)
    pair.cache.entries[KEY] = pair.cache.entries[KEY]._replace(version=part.version + 1)
    with pytest.raises(CacheUnavailable):
        store.copy(part, 0, lambda _view: None)
    store.drop(b"/x")
    with pytest.raises(CacheUnavailable):
        store.copy(part, 0, lambda _view: None)
    assert pair.is_whole()


def test_it_is_as_it_was_found_until_something_comes_of_it(pair: MemoryPair, store: PartialStore) -> None:
    part = kept(store)
    entry = pair.cache.entries[KEY]
    assert store.is_as_found(part)
    pair.cache.entries[KEY] = entry._replace(invalidated=True)
    assert not store.is_as_found(part)
    invalidated = store.find(b"/x", request())
    assert invalidated is not None
    assert store.is_as_found(invalidated), "it was invalidated already"
    pair.cache.entries[KEY] = entry._replace(version=part.version + 1)
    assert not store.is_as_found(part)
    store.drop(b"/x")
    assert not store.is_as_found(part)
    assert pair.is_whole()


def test_a_cache_that_is_gone(pair: MemoryPair, store: PartialStore) -> None:
    part = kept(store)
    pair.kill_cache()
    assert store.find(b"/x", request()) is None
    assert not store.is_as_found(part)
    with pytest.raises(CacheUnavailable):
        store.copy(part, 0, lambda _view: None)
    with spooled(BODY) as prefix:
        assert not store.keep(b"/x", prefix, STORED, SIZE)
    store.drop(b"/x")
