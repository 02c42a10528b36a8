"""QuickHits: whole replies for the plainest and most frequent request: a GET without terms, for a fresh hot object.

Nothing is decided here that caching/decision.py would decide otherwise: a request that sets terms, a stored response
that is stale, marked, partial or varies, and all that needs looking at, is left to the exchange. What is worked out for
an object serves until its metadata change; its head, until its age does.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import NamedTuple

from shmchannel.shelf_files import ShelfFile
from shmchannel.shelf_layout import ShelfEntry
from webproxy.caching.freshness import current_age
from webproxy.caching.stored import StoredResponse
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.replies import Connection, Replies
from webproxy.urls import BadTarget, http_path

KNOWN_MAX = 4096
TERMS = frozenset(
    (
        b"cache-control",
        b"pragma",
        b"range",
        b"if-range",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"expect",
    )
)
"""A request with one of these wants more than the object."""


class _Prepared:
    """An object's stored response, and the head of its reply for one age and one kind of connection."""

    __slots__ = ("metadata", "ready", "stored", "version")

    def __init__(self, metadata: bytes, version: int, stored: StoredResponse) -> None:
        self.metadata = metadata
        self.version = version
        self.stored = stored
        self.ready: tuple[int, Connection | None, bytes] = (-1, None, b"")


class QuickFile(NamedTuple):
    """A reply whose body is a file; whoever has it releases the file."""

    head: bytes
    key: bytes
    file: ShelfFile


class QuickHits:
    """Shared by all workers; for a proxy whose origins are chosen by path alone."""

    def __init__(
        self,
        peek: Callable[[bytes], ShelfEntry | None],
        read: Callable[[bytes, ShelfEntry], StoredResponse | None],
        key_of: Callable[[bytes], bytes],
        hold_file: Callable[[bytes, ShelfEntry], ShelfFile | None],
        replies: Replies,
    ) -> None:
        """`key_of` gives the key of a path in normal form, `read` an entry's stored response, if it can be used."""
        self._peek = peek
        self._read = read
        self._hold_file = hold_file
        self._key_of = key_of
        self._replies = replies
        self._keys: dict[bytes, bytes] = {}
        self._prepared: dict[bytes, _Prepared] = {}

    @staticmethod
    def is_plain(fields: Fields) -> bool:
        """True when a request with these fields sets no terms and has no body."""
        return TERMS.isdisjoint(fields.names())

    def reply(self, request: RequestHead, connection: Connection) -> bytes | QuickFile | None:
        """The whole reply to a plain GET, or None when the exchange must see to it."""
        target = request.target
        key = self._keys.get(target)
        if key is None:
            key = self._learn(target)
            if key is None:
                return None
        entry = self._peek(key)
        if entry is None:
            return None
        prepared = self._prepared.get(key)
        if prepared is None or prepared.version != entry.version or prepared.metadata != entry.metadata:
            prepared = self._prepare(key, entry)
            if prepared is None:
                return None
        stored = prepared.stored
        age_s = current_age(stored, time())
        if age_s >= stored.lifetime_s:
            return None
        ready_age_s, ready_connection, head = prepared.ready
        if age_s != ready_age_s or connection is not ready_connection:
            head = self._replies.hit(stored, age_s, connection)
            prepared.ready = (age_s, connection, head)
        if entry.file is None:
            return head + entry.body
        file = self._hold_file(key, entry)
        return None if file is None else QuickFile(head, key, file)

    def _learn(self, target: bytes) -> bytes | None:
        if not target.startswith(b"/"):
            return None
        try:
            key = self._key_of(http_path(target))
        except BadTarget:
            return None
        if len(self._keys) >= KNOWN_MAX:
            self._keys.clear()
        self._keys[target] = key
        return key

    def _prepare(self, key: bytes, entry: ShelfEntry) -> _Prepared | None:
        stored = self._read(key, entry)
        if stored is None or stored.status == 206 or stored.marked or stored.selecting:
            return None
        if len(self._prepared) >= KNOWN_MAX:
            self._prepared.clear()
        prepared = self._prepared[key] = _Prepared(entry.metadata, entry.version, stored)
        return prepared
