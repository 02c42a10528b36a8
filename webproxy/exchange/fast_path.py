"""FastPath: whole replies for the plainest and most frequent request: a GET without terms, for a fresh hot object.

Nothing is decided here that caching/decision.py would decide otherwise: a request that sets terms, a stored response
that is stale, marked, partial or varies, and all that needs looking at, is left to the exchange. A reply that was made
serves again while it holds (quick_reply.py), at most for the second of its age; a request whose bytes are those of one
before is not even parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time

from shmchannel.objects.hot_table_layout import HotTableEntry
from webproxy.caching.freshness import current_age
from webproxy.caching.stored import StoredResponse
from webproxy.exchange.response_heads import Connection, ResponseHeads
from webproxy.http.messages import Framing, RequestHead
from webproxy.http.urls import BadTarget, http_path
from webproxy.store.store import Store
from webproxy.transport.cached_reply import CachedReply, MemoizedRequest

KNOWN_MAX = 4096
REPLY_BYTES_MAX = 8 << 20
"""So much memory the replies that are kept may take; beyond it all go, and those in use are made again."""
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


class FastPath:
    """Shared by all workers; for a proxy whose origins are chosen by path alone."""

    def __init__(
        self,
        store: Store,
        read: Callable[[bytes, HotTableEntry], StoredResponse | None],
        key_of: Callable[[bytes], bytes],
        replies: ResponseHeads,
        stopping: Callable[[], bool],
    ) -> None:
        """`key_of` gives the key of a path in normal form, `read` an entry's stored response, if it can be used.

        `stopping`: no connection stays any more; forget() is called when that begins.
        """
        self._store = store
        self._read = read
        self._key_of = key_of
        self._heads = replies
        self._stopping = stopping
        self._keys: dict[bytes, bytes] = {}
        self._known: dict[bytes, MemoizedRequest] = {}
        self._replies: dict[tuple[bytes, bool, bool], CachedReply] = {}
        self._reply_bytes = 0

    def recognise(self, data: bytes) -> MemoizedRequest | None:
        """The request that these bytes are, if it came before and was answered, and its reply holds."""
        known = self._known.get(data)
        return known if known is not None and known.reply.holds() else None

    def reply(self, request: RequestHead, connection: Connection, data: bytes = b"") -> CachedReply | None:
        """The whole reply to a plain GET, or None when the exchange must see to it.

        `data`: the bytes of the request when they came alone and say nothing of a person; recognise() has them then.
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
        if reply is not None and data and not self._stopping():
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[data] = MemoizedRequest(request, reply)
        return reply

    def expire(self) -> None:
        """Let go of what does not hold any more, with its memory and files; to be called every second or so."""
        for data, known in self._known.copy().items():  # one step, whoever adds to it meanwhile
            if not known.reply.holds():
                self._known.pop(data, None)
        for asked, reply in self._replies.copy().items():
            if not reply.holds():
                self._replies.pop(asked, None)
        self._reply_bytes = sum(len(reply.data) for reply in self._replies.copy().values())

    def forget(self) -> None:
        """Recognise nothing any more: what was answered says that the connection stays, and it does not."""
        self._known.clear()

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

    def _make(self, key: bytes, connection: Connection) -> CachedReply | None:
        entry = self._store.peek(key)
        stored = self._read(key, entry) if entry is not None else None
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
