"""Lookup: finds the stored responses for an HTTP request.

The object at a URL's key is a 200 without Vary, shared with getfile, which can ask for no other. Everything else
(variants, and other statuses) is at `key NUL id`, and `key NUL` has the index of these. A key that was seen to have an
index is looked up there first. An incomplete response is at `key NUL partial`, and is looked up only by requests that
can use one.
"""

from __future__ import annotations

import mimetypes
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from time import time
from urllib.parse import unquote_to_bytes

from shmchannel.deadline import Deadline
from shmchannel.objects.commands import FACTS_ONLY, FetchLease
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.transfers import IncomingTransfer
from webproxy.caching.partial import answer_range, lies_within
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import MetadataError, decode, decode_index, is_index
from webproxy.caching.validators import CACHE_CONDITIONS
from webproxy.caching.variants import VariantIndex, choose, matches, new_variant, variant_key
from webproxy.http.dates import format_http_date
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.http.ranges import single_range
from webproxy.store.store import Missing, Store

INDEX_SUFFIX = b"\0"
PART_SUFFIX = b"\0partial"
"""Suffix of the key of an incomplete response."""
VARYING_KEYS_MAX = 4096
KEPT_BYTES_MAX = 262_144
"""A body up to this size is kept in memory while its origin validates it."""
_UNUSABLE = Missing()
_WHOLE, _FACTS = (0, 0), (FACTS_ONLY, 0)
_NARROWING = CACHE_CONDITIONS | {b"range"}
FOREVER_S = 1 << 31
HOT_TABLE, HOT_TABLE_FILE = "hot table", "file by the hot table"
"""Places of bodies, for logs."""
"""The lifetime of a file that the cache serves itself: it notices every change."""
KEY_BYTES_MAX = 4096 - 1 - 16
"""Maximum length of a key, so that its variants' keys still fit a command."""


@dataclass(slots=True)
class StoredHit:
    """A stored response and its body: complete in `body`, in a `file`, or to be read from `transfer`."""

    key: bytes
    stored: StoredResponse
    version: int
    body: bytes | None = None
    transfer: IncomingTransfer | None = None
    file: HotTableFile | None = None
    held_bytes: int | None = None
    """Of an incomplete response: the number of bytes available."""
    is_part: bool = False
    """The transfer was requested for a part of the body."""

    @property
    def place(self) -> str:
        """Where its body comes from, for logs."""
        if self.body is not None:
            return HOT_TABLE
        return "cache" if self.file is None else HOT_TABLE_FILE

    @property
    def size_bytes(self) -> int:
        """The size of the object in the cache."""
        return self.stored.body_bytes if self.held_bytes is None else self.held_bytes

    def has(self, first: int, end: int) -> bool:
        """Whether the bytes [first, end) of the body are at hand, or are what the transfer brings."""
        transfer = self.transfer
        if transfer is None:
            return self.body is not None or self.file is not None
        if not self.is_part:
            return first == 0 and end == self.size_bytes
        return (transfer.position - transfer.length, transfer.end) == (first, end)

    def end_transfer(self) -> None:
        """The body is not needed now; a small one that arrived whole with its first chunk is kept."""
        transfer = self.transfer
        if transfer is None:
            return
        if transfer.last and transfer.length <= KEPT_BYTES_MAX and self.has(0, self.size_bytes):
            self.body = bytes(transfer.chunk)
        self._cancel(transfer)

    def without_body(self) -> StoredHit:
        """Its facts, for callers that do not keep the body open."""
        return StoredHit(self.key, self.stored, self.version, held_bytes=self.held_bytes)

    def cancel_quietly(self) -> None:
        """The body is not needed, or not in this order."""
        self.file = None
        if self.transfer is not None:
            self._cancel(self.transfer)

    def _cancel(self, transfer: IncomingTransfer) -> None:
        self.transfer = None
        with transfer:
            transfer.cancel_quietly()


@dataclass(slots=True)
class Lookup:
    """The result: the response that the request selects, if any, and the index of the others."""

    found: StoredHit | None = None
    index: VariantIndex | None = None
    nothing_below: bool = False
    """There is neither an index nor an incomplete response: nothing below the key need be looked up."""
    lease: FetchLease | None = None
    """Who fetches what is missing, if that was asked for and the cache has said so."""


def body_wanted(request: RequestHead) -> tuple[int, int]:
    """The part of a stored body that the response will probably need: offset and length, as in Store.get().

    None of it (FACTS_ONLY) for a HEAD, for several ranges, which are read one by one, and if a condition makes it
    likely that the client's copy is still valid.
    """
    names = request.fields.names()
    if request.method == b"GET" and _NARROWING.isdisjoint(names):  # one comparison for nearly every request
        return _WHOLE
    value = request.fields.get(b"range")
    if request.method != b"GET" or value is None or not CACHE_CONDITIONS.isdisjoint(names):
        return _FACTS
    return single_range(value) or _FACTS


class ObjectLookup:
    """Shared by all workers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._peek = store.peek
        self._varying: OrderedDict[int, None] = OrderedDict()
        """The hashes of keys, which may be long; one that is taken for another costs a command."""

    def find(
        self,
        key: bytes,
        request: RequestHead,
        wait_s: float,
        *,
        names_files: bool = False,
        void_lease: int | None = None,
    ) -> Lookup:
        """Look up a key for a request; `void_lease` as in Store.get(): if nothing is found, ask who fetches it.

        `names_files`: no origin is responsible for the key, so it is one of the cache's own files, which is named by
        plain bytes and has no query.

        Raises:
            CacheUnavailable: no cache, or none that answers in time.
        """
        if hash(key) in self._varying:
            lookup = self._find_varying(key, request, wait_s)
            if lookup is not None:
                return self._or_part(lookup, key, request, wait_s)
            self._varying.pop(hash(key), None)
        found = self._open(key, request, wait_s, void_lease)
        if not isinstance(found, Missing):
            if matches(found.stored.selecting, request):
                return Lookup(found)
            # It varies although it is here, and was not stored for such a request (section 4.1).
            found.cancel_quietly()
            own = VariantIndex((new_variant(found.stored.selecting, None),))
            return self._find_varying(key, request, wait_s) or Lookup(index=own)
        nothing_below = Lookup(nothing_below=True, lease=found.lease) if found.nothing_below else None
        lookup = nothing_below or self._find_varying(key, request, wait_s) or Lookup()
        if names_files and lookup.found is None:
            name = unquote_to_bytes(key.partition(b"?")[0])
            if name != key and INDEX_SUFFIX not in name:
                return Lookup(_unless_missing(self._open(name, request, wait_s)))
        return self._or_part(lookup, key, request, wait_s)

    def find_part(self, key: bytes, request: RequestHead, wait_s: float) -> StoredHit | None:
        """The incomplete response of a key, if the request selects it; its body is not kept open.

        Errors as find().
        """
        if len(key) > KEY_BYTES_MAX:
            return None
        key += PART_SUFFIX
        facts = self._store.facts(key, Deadline.after(wait_s))
        if isinstance(facts, Missing):
            return None
        size_bytes = facts.size_bytes
        stored = _decoded(facts.metadata, invalidated=facts.invalidated)
        if stored is None or not stored.incomplete or not matches(stored.selecting, request):
            return None
        return StoredHit(key, stored, facts.version, held_bytes=size_bytes) if size_bytes < stored.body_bytes else None

    def _or_part(self, lookup: Lookup, key: bytes, request: RequestHead, wait_s: float) -> Lookup:
        """With the incomplete response if there is no complete one and the request needs no more than it has."""
        if lookup.found is not None or lookup.nothing_below or b"range" not in request.fields:
            return lookup
        part = self.find_part(key, request, wait_s)
        if part is not None and not lies_within(answer_range(request, part.stored, time()), part.size_bytes):
            part = None
        return Lookup(part, lookup.index)

    def find_variant(self, key: bytes, request: RequestHead, wait_s: float) -> StoredHit | None:
        """The response that the request selects among those not stored at the key itself. Errors as find()."""
        lookup = self._find_varying(key, request, wait_s)
        if lookup is None:
            self.forget_varying(key)
            return None
        return lookup.found

    def is_varying(self, key: bytes) -> bool:
        """Whether the key is known to have an index."""
        return hash(key) in self._varying

    def note_varying(self, key: bytes) -> None:
        """The key has an index now."""
        self._varying[hash(key)] = None
        if len(self._varying) > VARYING_KEYS_MAX:
            self._varying.popitem(last=False)

    def forget_varying(self, key: bytes) -> None:
        """The key has no index left."""
        self._varying.pop(hash(key), None)

    def index_of(self, key: bytes, wait_s: float) -> VariantIndex | None:
        """The index of a key, if it has one. Errors as find()."""
        key += INDEX_SUFFIX
        found = self._peek(key) or self._store.facts(key, Deadline.after(wait_s))
        if isinstance(found, Missing) or not is_index(found.metadata):
            return None
        try:
            return decode_index(found.metadata)
        except MetadataError:
            return None

    def _find_varying(self, key: bytes, request: RequestHead, wait_s: float) -> Lookup | None:
        index = self.index_of(key, wait_s)
        if index is None:
            return None
        if hash(key) not in self._varying:
            self.note_varying(key)
        variant = choose(index, request)
        if variant is None:
            return Lookup(index=index)
        found = _unless_missing(self._open(variant_key(key, variant.id), request, wait_s))
        if found is not None and not matches(found.stored.selecting, request):
            found.cancel_quietly()
            found = None
        return Lookup(found, index)

    def _open(
        self, key: bytes, request: RequestHead, wait_s: float, void_lease: int | None = None
    ) -> StoredHit | Missing:
        entry = self._peek(key)
        if entry is not None:
            file = self._store.hold_file(key, entry) if entry.file is not None else None
            if entry.file is None or file is not None:
                stored = stored_of_entry(key, entry)
                if stored is None:
                    return _UNUSABLE
                return StoredHit(key, stored, entry.version, None if file is not None else entry.body, file=file)
        offset, length = body_wanted(request)
        transfer = self._store.get(
            key, Deadline.after(wait_s), offset=offset, length=length, metadata_wanted=True, void_lease=void_lease
        )
        if isinstance(transfer, Missing):
            return transfer
        try:
            version = transfer.facts.version
            stored = stored_of_transfer(key, transfer)
            if offset == FACTS_ONLY:
                transfer.finish()
            elif stored is not None:
                return StoredHit(key, stored, version, transfer=transfer, is_part=offset != 0 or length != 0)
            else:
                transfer.cancel_quietly()
        except BaseException:
            transfer.close()
            raise
        transfer.close()
        return _UNUSABLE if stored is None else StoredHit(key, stored, version)


def _unless_missing(found: StoredHit | Missing) -> StoredHit | None:
    return None if isinstance(found, Missing) else found


def stored_of_entry(key: bytes, entry: HotTableEntry) -> StoredResponse | None:
    """An object from the hot table as a stored response; None if it cannot be used."""
    return _stored(key, entry.metadata, entry.version, entry.size_bytes, invalidated=False)


def stored_of_transfer(key: bytes, transfer: IncomingTransfer) -> StoredResponse | None:
    """An object that comes with its metadata as a stored response; None if it cannot be used."""
    size_bytes, version, _ = transfer.facts
    return _stored(key, transfer.metadata, version, size_bytes, invalidated=transfer.invalidated)


def _stored(key: bytes, metadata: bytes, version: int, size_bytes: int, *, invalidated: bool) -> StoredResponse | None:
    """None if it cannot be used: metadata of another version, or a body other than the one it was stored with."""
    if not metadata:
        return _file_response(key, version, size_bytes)
    stored = _decoded(metadata, invalidated=invalidated)
    return stored if stored is not None and stored.body_bytes == size_bytes and not stored.incomplete else None


def _decoded(metadata: bytes, *, invalidated: bool) -> StoredResponse | None:
    try:
        return decode(metadata, invalidated=invalidated)
    except MetadataError:
        return None


@lru_cache(maxsize=1024)
def _file_response(key: bytes, version: int, size_bytes: int) -> StoredResponse:
    """The stored response for one of the cache's own files: always fresh, because the cache notices changes."""
    name = key.partition(b"?")[0].decode("latin-1")
    kind, encoding = mimetypes.guess_type(name, strict=False)
    lines = [(b"Content-Type", (kind or "application/octet-stream").encode())]
    if encoding is not None:
        lines = [(b"Content-Type", b"application/" + encoding.encode())]
    now = time()  # when this version was first seen: its age counts from here
    lines += [
        (b"Date", format_http_date(int(now))),
        (b"ETag", b'"%x-%x"' % (version, size_bytes)),
        (b"Accept-Ranges", b"bytes"),
    ]
    return StoredResponse(
        status=200,
        fields=Fields(lines),
        request_time=now,
        response_time=now,
        initial_age_s=0,
        lifetime_s=FOREVER_S,
        authoritative=True,
        body_bytes=size_bytes,
    )
