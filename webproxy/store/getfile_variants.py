"""GetfileVariants: finds and stores the variants that getfile's own request selects, where HTTP does.

A response that varies must not be stored at its key, which every request selects. getfile sends the same fields with
every request, so it has one variant of each object, shared with HTTP clients that send these fields too.
"""

from __future__ import annotations

from webproxy.caching.stored import StoredResponse
from webproxy.caching.variants import has_others, new_variant, variant_key
from webproxy.errors import CacheUnavailable
from webproxy.store.getfile_objects import PLAIN_GET
from webproxy.store.lookup import KEY_BYTES_MAX, ObjectLookup, StoredHit
from webproxy.store.updates import WRITE_SECONDS, CacheUpdater


class GetfileVariants:
    """Shared by all threads."""

    def __init__(self, lookup: ObjectLookup, writer: CacheUpdater) -> None:
        self._lookup = lookup
        self._writer = writer

    def expects(self, key: bytes) -> bool:
        """Whether the key was seen to have variants: these are then looked up before the key itself."""
        return self._lookup.is_varying(key)

    def find(self, key: bytes, wait_s: float) -> StoredHit | None:
        """The variant of the key that getfile's request selects, if getfile can represent it.

        Raises:
            CacheUnavailable: no cache, or none that answers in time.
        """
        found = self._lookup.find_variant(key, PLAIN_GET, wait_s)
        if found is not None and found.stored.status != 200:
            found.cancel_quietly()
            return None
        return found

    def place(self, key: bytes, stored: StoredResponse) -> bytes | None:
        """The key for a response: the object's key, unless it varies or would hide others that do.

        None for one that varies if the key is too long to be extended.
        """
        if not stored.selecting and not self._hides_others(key):
            return key
        return variant_key(key, new_variant(stored.selecting, None).id) if len(key) <= KEY_BYTES_MAX else None

    def _hides_others(self, key: bytes) -> bool:
        if not self._lookup.is_varying(key):
            return False
        try:
            return has_others(self._lookup.index_of(key, WRITE_SECONDS), PLAIN_GET)
        except CacheUnavailable:
            return False

    def enter(self, key: bytes, place: bytes, stored: StoredResponse) -> None:
        """The response is stored under its key: update the index of the object's key."""
        if place != key:
            self._writer.add_variant(key, new_variant(stored.selecting, stored.fields.get(b"etag")), PLAIN_GET)
        elif self._lookup.is_varying(key):  # only what this response replaces
            self._writer.remove_index(key)
