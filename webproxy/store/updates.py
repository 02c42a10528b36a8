"""CacheUpdater: changes that requests and fetches make in the cache: bodies, metadata, indexes of variants, purges.

Nothing here fails a request: if something cannot be written, it is not stored, and this is logged.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Protocol

from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from webproxy.caching.invalidation import invalidated_paths, invalidated_targets
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import MetadataError, encode, encode_index
from webproxy.caching.validation import varies_otherwise
from webproxy.caching.variants import (
    Variant,
    VariantIndex,
    has_others,
    new_variant,
    replaced_by,
    variant_key,
    with_variant,
)
from webproxy.errors import CacheUnavailable
from webproxy.http.messages import RequestHead, ResponseHead
from webproxy.origin.routing import Target
from webproxy.store.lookup import INDEX_SUFFIX, KEY_BYTES_MAX, ObjectLookup
from webproxy.store.pending_purges import Purge
from webproxy.store.siblings import Missed
from webproxy.store.store import Missing, Store

log = logging.getLogger(__name__)

WRITE_SECONDS = 2.0


class Revocable(Protocol):
    """The running fetches, as a purge sees them."""

    def revoke(self, object_key: bytes, deadline: Deadline) -> bool:
        """Ensure that nothing being fetched for a key is stored; False if that is not certain."""


class CacheUpdater:
    """Thread-safe; an index is read and written under a lock, so that no variant of this process is lost."""

    def __init__(self, store: Store, lookup: ObjectLookup, fetches: Revocable | None = None) -> None:
        self._store = store
        self._lookup = lookup
        self._fetches = fetches
        self._lock = threading.Lock()

    @property
    def keeps(self) -> bool:
        """Whether anything can be stored at all."""
        return self._store.keeps

    def update(self, key: bytes, version: int, stored: StoredResponse) -> bool:
        """Replace the metadata of an object and keep its body; False if that version is gone."""
        try:
            return self._store.update(key, version, encode(stored), Deadline.after(WRITE_SECONDS))
        except (CacheUnavailable, MetadataError) as error:
            log.info("metadata not updated", extra={"key": key, "reason": str(error)})
            return False

    def update_own(self, key: bytes, before: StoredResponse, stored: StoredResponse) -> None:
        """As update(), for the object just stored with the metadata of `before`, unless it has changed since."""
        try:
            facts = self._store.facts(key, Deadline.after(WRITE_SECONDS))
            is_own = not isinstance(facts, Missing) and facts.metadata == encode(before) and not facts.invalidated
        except (CacheUnavailable, MetadataError) as error:
            log.info("metadata not updated", extra={"key": key, "reason": str(error)})
            return
        if is_own and not isinstance(facts, Missing):
            self.update(key, facts.version, stored)

    def enter(self, key: bytes, place: bytes, stored: StoredResponse, request: RequestHead, *, had_index: bool) -> None:
        """The response to this request is stored at `place` (place_of()): update the index of the object's key."""
        if place != key:
            self.add_variant(key, new_variant(stored.selecting, stored.fields.get(b"etag")), request)
        elif had_index:  # it must not hide the object at the key itself
            with self._lock:
                self.remove(key + INDEX_SUFFIX, prefix=True)
                self._lookup.forget_varying(key)

    def add_variant(self, key: bytes, variant: Variant, request: RequestHead) -> None:
        """Add it to the index, and remove what would hide it: the object at the key, and the variants it replaces."""
        with self._lock:
            try:
                index = self._lookup.index_of(key, WRITE_SECONDS) or VariantIndex()
                replaced = replaced_by(index, variant.selecting, request)
                self._put_empty(key + INDEX_SUFFIX, encode_index(with_variant(index, variant, replaced)))
                for gone in (key, *(variant_key(key, one.id) for one in replaced)):
                    self._store.purge(gone, Deadline.after(WRITE_SECONDS))
            except (ShmChannelError, CacheUnavailable, MetadataError) as error:
                log.info("variant index not updated", extra={"key": key, "reason": str(error)})
                return
        self._lookup.note_varying(key)

    def follow_head(self, key: bytes, version: int, stored: StoredResponse, updated: StoredResponse | None) -> None:
        """Update a stored object as a HEAD demands (head_update())."""
        if updated is None:
            self.remove(key, invalidate=True)
        elif varies_otherwise(stored, updated):
            self.remove(key)
        else:
            self.update(key, version, updated)

    def remove(self, key: bytes, *, prefix: bool = False, invalidate: bool = False) -> None:
        """Remove one object, or with `prefix` all whose keys begin with `key`.

        With `invalidate` (a soft purge) they stay, and are validated before each use from now on.
        """
        with contextlib.suppress(CacheUnavailable):  # it is told later
            self._store.purge(key, Deadline.after(WRITE_SECONDS), prefix=prefix, invalidate=invalidate)

    def purge(self, key: bytes, *, soft: bool = False) -> int:
        """Remove, or invalidate, everything stored for a key, including its variants; returns the number of objects.

        Responses being fetched were requested before this, and are not stored.

        Raises:
            CacheUnavailable: the cache cannot be told now. It will be, and what it has is not used before.
        """
        is_certain = self._revoke(key, WRITE_SECONDS)
        if not is_certain:
            self._store.purge_later(Purge(key, below=True, invalidate=soft), lambda: self._revoke(key, 0.0))
        count = self._store.purge(key, Deadline.after(WRITE_SECONDS), below=True, invalidate=soft)
        if not is_certain:
            raise CacheUnavailable("the cache is still storing an object to be purged")
        return count

    def withhold(self, missed: Missed) -> bool:
        """Another process has purged something, of which the cache does not know yet; False if nothing here uses it.

        Never waits.
        """
        if not self._store.uses(missed.queue_name):
            return False
        key = missed.purge.object_key
        is_certain = missed.purge.reaches_others or self._revoke(key, 0.0)
        self._store.withhold(missed, None if is_certain else lambda: self._revoke(key, 0.0))
        return True

    def _revoke(self, key: bytes, limit_s: float) -> bool:
        return self._fetches is None or self._fetches.revoke(key, Deadline.after(limit_s))

    def invalidate(self, target: Target, method: bytes, response: ResponseHead, authority: bytes | None = None) -> None:
        """Remove what a response to an unsafe method invalidates; `authority` is the host named by the client.

        What the cache cannot be told now is not used before it was told.
        """
        own = target.url.encode()
        urls = invalidated_targets(method, own, response)
        keys = [target.key if url == own else key_of(target, url) for url in urls]
        if authority is not None:
            family = target.key[: len(target.key) - len(target.path)]
            keys += [family + path for path in invalidated_paths(method, authority, target.path, response)]
        for key in dict.fromkeys(keys):
            if key is not None and len(key) <= KEY_BYTES_MAX:
                with contextlib.suppress(CacheUnavailable):
                    self.purge(key)

    def _put_empty(self, key: bytes, metadata: bytes) -> None:
        transfer = self._store.put(key, 0, metadata, Deadline.after(WRITE_SECONDS), wait=True)
        if transfer is None:
            return
        with transfer:
            transfer.pump(lambda _views, _offset: 0, 0, wait=True)
            transfer.commit()


def place_of(key: bytes, stored: StoredResponse, request: RequestHead, index: VariantIndex | None) -> bytes | None:
    """The key to store a response at: the object's own for a 200 that does not vary and hides no variant.

    None for any other if the key is too long to be extended.
    """
    if not stored.selecting and stored.status == 200 and not has_others(index, request):
        return key
    return variant_key(key, new_variant(stored.selecting, None).id) if len(key) <= KEY_BYTES_MAX else None


def key_of(target: Target, url: bytes) -> bytes | None:
    """The key of another URL of the same origin; None if it is not served here."""
    base = target.base.rstrip("/").encode()
    if not url.startswith(base + b"/"):
        return None
    path, rule = url[len(base) :], target.rule
    if rule is not None and rule.strip_prefix:
        path = rule.path[:-1] + path
    return target.key[: len(target.key) - len(target.path)] + path
