"""GetfileVariants: what getfile's own request selects of an object's variants, and where its answers are stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.http_values import stored_response
from tests.support.pairs import MemoryPair
from tests.support.waiting import WATCHDOG_S
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import encode
from webproxy.caching.variants import new_variant, selecting_fields, variant_key
from webproxy.errors import CacheUnavailable
from webproxy.store.cache_client import CacheClient
from webproxy.store.getfile_objects import PLAIN_GET, GetfileVariants
from webproxy.store.lookup import KEY_BYTES_MAX, ObjectLookup
from webproxy.store.updates import CacheUpdater

BODY = b"0123456789"
PLAIN = stored_response(b"ETag: 1", body_bytes=len(BODY))
OWN = replace(PLAIN, selecting=selecting_fields(stored_response(b"Vary: Accept-Encoding").fields, PLAIN_GET) or ())
OTHERS = replace(PLAIN, selecting=((b"accept-encoding", b"gzip"),))


def variants_of(pair: MemoryPair) -> GetfileVariants:
    """As a proxy has them that has asked for nothing yet."""
    store = CacheClient(pair.client, patient=False)
    lookup = ObjectLookup(store)
    return GetfileVariants(lookup, CacheUpdater(store, lookup))


@pytest.fixture
def variants(pair: MemoryPair) -> GetfileVariants:
    return variants_of(pair)


def store(pair: MemoryPair, variants: GetfileVariants, stored: StoredResponse) -> bytes:
    """As a fetch does: the body at its place, then what leads there; returns the place."""
    place = variants.place(b"/x", stored)
    assert place is not None
    assert pair.store(place, BODY, encode(stored))
    variants.enter(b"/x", place, stored)
    return place


def selected(variants: GetfileVariants) -> StoredResponse | None:
    found = variants.find(b"/x", WATCHDOG_S)
    if found is None:
        return None
    found.cancel_quietly()
    return found.stored


def test_what_does_not_vary_lies_at_the_key(pair: MemoryPair, variants: GetfileVariants) -> None:
    assert store(pair, variants, PLAIN) == b"/x"
    assert list(pair.cache.entries) == [b"/x"]
    assert selected(variants) is None
    assert not variants.expects(b"/x")


def test_what_varies_is_found_again_by_every_proxy(pair: MemoryPair, variants: GetfileVariants) -> None:
    pair.store(b"/x", BODY, encode(PLAIN))
    assert store(pair, variants, OWN) == variant_key(b"/x", new_variant(OWN.selecting, None).id)
    assert b"/x" not in pair.cache.entries
    assert variants.expects(b"/x")
    for each in (variants, variants_of(pair)):
        assert selected(each) == OWN
    assert pair.is_whole()


def test_what_others_ask_for_is_not_selected(pair: MemoryPair, variants: GetfileVariants) -> None:
    store(pair, variants, OTHERS)
    assert selected(variants) is None
    store(pair, variants, OWN)
    assert selected(variants) == OWN


def test_an_answer_without_vary_hides_no_variants(pair: MemoryPair, variants: GetfileVariants) -> None:
    store(pair, variants, OTHERS)
    assert store(pair, variants, PLAIN) == variant_key(b"/x", new_variant((), None).id)
    assert selected(variants) == PLAIN


def test_an_answer_without_vary_takes_the_place_of_getfiles_own_variant(
    pair: MemoryPair, variants: GetfileVariants
) -> None:
    store(pair, variants, OWN)
    assert store(pair, variants, PLAIN) == b"/x"
    assert list(pair.cache.entries) == [b"/x"]
    assert not variants.expects(b"/x")


def test_an_answer_takes_the_place_of_an_error(pair: MemoryPair, variants: GetfileVariants) -> None:
    gone = replace(PLAIN, status=410)
    pair.store(variant_key(b"/x", new_variant((), None).id), BODY, encode(gone))
    variants.enter(b"/x", b"elsewhere", gone)
    assert selected(variants) is None
    assert variants.expects(b"/x")
    assert store(pair, variants, PLAIN) == b"/x"
    assert list(pair.cache.entries) == [b"/x"]
    assert not variants.expects(b"/x")


def test_an_index_that_left_the_cache_is_expected_no_more(pair: MemoryPair, variants: GetfileVariants) -> None:
    store(pair, variants, OWN)
    pair.cache.entries.clear()
    assert selected(variants) is None
    assert not variants.expects(b"/x")


def test_a_key_too_long_for_variants(variants: GetfileVariants) -> None:
    key = b"/" * (KEY_BYTES_MAX + 1)
    assert variants.place(key, PLAIN) == key
    assert variants.place(key, OWN) is None


def test_without_a_cache(pair: MemoryPair, variants: GetfileVariants) -> None:
    store(pair, variants, OTHERS)
    pair.kill_cache()
    with pytest.raises(CacheUnavailable):
        variants.find(b"/x", WATCHDOG_S)
    assert variants.place(b"/x", PLAIN) == b"/x"
