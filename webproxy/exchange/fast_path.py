"""FastPath: complete replies to the simplest and most frequent request: an unconditional GET for a fresh hot object.

Nothing is decided here differently from caching/decision.py: requests with directives, responses that are stale,
invalidated, partial or vary, and everything else that needs a decision are left to the handler. A reply is reused while
it is valid, at most for the second of its age; a request byte-identical to an earlier one is not even parsed.
"""

from __future__ import annotations

from time import time
from typing import NamedTuple

from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_reader import EntryVersion
from webproxy.caching.freshness import current_age
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validators import CONDITIONS
from webproxy.exchange.response_heads import Connection, ResponseHeads
from webproxy.http.messages import Framing, RequestHead
from webproxy.http.urls import BadTarget, http_path
from webproxy.origin.routing import OriginTable
from webproxy.store.cache_client import Store
from webproxy.store.lookup import stored_of_entry
from webproxy.transport.client_stream import Shutdown

KNOWN_MAX = 4096
REPLY_BYTES_MAX = 8 << 20
"""The maximum memory of all replies kept; beyond it all are dropped, and those in use are built again."""
TERMS = CONDITIONS | {b"cache-control", b"pragma", b"range", b"if-range", b"expect"}
"""A request with one of these needs more than the plain object."""


class CachedReply:
    """Immutable, and shared by all identical requests. `data` is head and body, or with a `file` the head alone."""

    __slots__ = ("_age_s", "_stored", "_watch", "closes", "data", "file", "key")

    def __init__(
        self,
        key: bytes,
        data: bytes,
        file: HotTableFile | None,
        *,
        closes: bool,
        stored: StoredResponse,
        age_s: int,
        watch: EntryVersion,
    ) -> None:
        """It was built from `stored` at `age_s`; `watch` reports on the object in the hot table."""
        self.key = key
        self.data = data
        self.file = file
        self.closes = closes
        self._stored = stored
        self._age_s = age_s
        self._watch = watch

    def holds(self) -> bool:
        """Whether it would be built the same way again: the object is there, and the age in the head is its age."""
        return current_age(self._stored, time()) == self._age_s and self._watch.holds()


class MemoizedRequest(NamedTuple):
    """A request that was answered before in exactly these bytes, with a valid reply."""

    request: RequestHead
    reply: CachedReply

    @property
    def target(self) -> bytes:
        """As in RequestHead."""
        return self.request.target


class FastPathStats(NamedTuple):
    """The amount kept."""

    targets: int
    requests: int
    replies: int
    reply_bytes: int


class FastPath:
    """Shared by all workers; for a proxy whose origins are selected by path alone."""

    def __init__(self, store: Store, origins: OriginTable, heads: ResponseHeads, shutdown: Shutdown) -> None:
        """When a drain begins, forget() is called after `shutdown` says so."""
        self._store = store
        self._origins = origins
        self._heads = heads
        self._shutdown = shutdown
        self._keys: dict[bytes, bytes] = {}
        self._known: dict[bytes, MemoizedRequest] = {}
        self._replies: dict[tuple[bytes, bool, bool], CachedReply] = {}
        self._reply_bytes = 0

    def recognise(self, data: bytes) -> MemoizedRequest | None:
        """The request of these bytes, if it was answered before and its reply is still valid."""
        known = self._known.get(data)
        return known if known is not None and known.reply.holds() else None

    def reply(self, request: RequestHead, connection: Connection, data: bytes = b"") -> CachedReply | None:
        """The complete reply to a plain GET, or None if the handler must answer.

        `data`: the bytes of the request if they arrived alone and identify no person; recognise() then knows them.
        """
        if request.method != b"GET" or request.framing is not Framing.NONE:
            return None
        key = self._keys.get(request.target) or self._learn(request.target)
        if key is None or not TERMS.isdisjoint(request.fields.names()):
            return None
        asked = key, connection.closes, connection.says_keep_alive
        reply = self._replies.get(asked)
        if reply is None or not reply.holds():
            reply = self._make(key, connection)
            if reply is not None:
                self._keep(asked, reply)
        if reply is not None and data and not self._shutdown.draining:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[data] = MemoizedRequest(request, reply)
        return reply

    def expire(self) -> None:
        """Drop invalid replies with their memory and files; to be called about every second."""
        for data, known in self._known.copy().items():  # one step, even if others add entries
            if not known.reply.holds():
                self._known.pop(data, None)
        for asked, reply in self._replies.copy().items():
            if not reply.holds():
                self._replies.pop(asked, None)
        self._reply_bytes = sum(len(reply.data) for reply in self._replies.copy().values())

    def forget(self) -> None:
        """Stop recognising: earlier replies say that the connection stays open, and it does not."""
        self._known.clear()

    def stats(self) -> FastPathStats:
        """The amount kept now."""
        return FastPathStats(len(self._keys), len(self._known), len(self._replies), self._reply_bytes)

    def _learn(self, target: bytes) -> bytes | None:
        if not target.startswith(b"/"):
            return None
        try:
            key = self._origins.choose(None, http_path(target)).key
        except BadTarget:
            return None
        if len(self._keys) >= KNOWN_MAX:
            self._keys.clear()
        self._keys[target] = key
        return key

    def _make(self, key: bytes, connection: Connection) -> CachedReply | None:
        entry = self._store.peek(key)
        stored = stored_of_entry(key, entry) if entry is not None else None
        if entry is None or stored is None or stored.status == 206 or stored.invalidated or stored.selecting:
            return None
        age_s = current_age(stored, time())
        if age_s >= stored.lifetime_s:
            return None
        watch = self._store.watch(key, entry)
        file = self._store.hold_file(key, entry)
        if watch is None or (file is None and entry.file is not None):
            return None
        data = self._heads.hit(stored, age_s, connection) + entry.body
        return CachedReply(key, data, file, closes=connection.closes, stored=stored, age_s=age_s, watch=watch)

    def _keep(self, asked: tuple[bytes, bool, bool], reply: CachedReply) -> None:
        if self._reply_bytes > REPLY_BYTES_MAX or len(self._replies) >= KNOWN_MAX:
            self._known.clear()
            self._replies.clear()
            self._reply_bytes = 0
        self._reply_bytes += len(reply.data)
        self._replies[asked] = reply


class NoFastPath:
    """Without a cache, or with origins that depend on more than the path: every request is parsed."""

    def recognise(self, data: bytes) -> MemoizedRequest | None:
        """Nothing is known."""

    def reply(self, request: RequestHead, connection: Connection, data: bytes = b"") -> CachedReply | None:
        """The handler must see to it."""

    def expire(self) -> None:
        """Nothing is kept."""

    def forget(self) -> None:
        """Nothing is known."""
