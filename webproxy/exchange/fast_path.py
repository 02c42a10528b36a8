"""FastPath: complete replies to the simplest and most frequent request: an unconditional GET for a fresh hot object.

Nothing is decided here differently from caching/decision.py: requests with directives, responses that are stale,
invalidated, partial or vary, and everything else that needs a decision are left to the handler. A reply is reused while
it is valid, at most for the second of its age; a request byte-identical to an earlier one is not even parsed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import time
from typing import NamedTuple, Protocol

from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_reader import EntryVersion
from webproxy.caching.freshness import current_age
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validators import CONDITIONS
from webproxy.exchange.body_transfer import PIECE_BYTES, BodySource, BodyTransfer, FileResponse
from webproxy.exchange.context import PausedHit
from webproxy.exchange.response_heads import Connection, ResponseHeads
from webproxy.http.messages import Framing, RequestHead
from webproxy.http.urls import BadTarget, http_path
from webproxy.origin.routing import OriginTable
from webproxy.store.lookup import stored_of_entry
from webproxy.telemetry.log_line import FixedParts
from webproxy.telemetry.request_counts import NoteHot, status_class
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import KEEP_ALIVE, Done, Event, RequestOutcome, WaitsFor

KNOWN_MAX = 4096
KNOWN_TARGET_BYTES_MAX = 512
"""The key of a longer target is found anew each time: the memory of those kept is not for clients to choose."""
REPLY_BYTES_MAX = 8 << 20
"""The maximum memory of all replies kept; beyond it all are dropped, and those in use are built again."""
TERMS = CONDITIONS | {b"cache-control", b"pragma", b"range", b"if-range", b"expect"}
"""A request with one of these needs more than the plain object."""


@dataclass(slots=True, eq=False)
class CachedReply:
    """Never modified, and shared by all identical requests; built from `stored` at `age_s`."""

    key: bytes
    data: bytes
    """Head and body, or with a `file` the head alone."""
    file: HotTableFile | None
    closes: bool
    stored: StoredResponse
    age_s: int
    watch: EntryVersion
    """Reports on the object in the hot table."""
    line: bytes = b""
    """What the head says about the connection."""
    origin: str = ""
    """The one that has the object; empty if there is none."""
    note_hot: NoteHot | None = None
    """Counts that it was sent, once somebody has asked for that."""
    sent_bytes: int = field(init=False)
    """Head and body, wherever it is."""
    status_class: int = field(init=False)
    """As it is counted."""

    def __post_init__(self) -> None:
        self.status_class = status_class(self.stored.status)
        self.sent_bytes = len(self.data) + (self.file.size_bytes if self.file is not None else 0)

    def saying(self, line: bytes) -> CachedReply:
        """The reply to one request, with a line for it in the head."""
        end = self.data.index(b"\r\n\r\n") + 2
        return replace(self, data=self.data[:end] + line + self.data[end:])

    def holds(self) -> bool:
        """Whether it would be built the same way again: the object is there, and the age in the head is its age."""
        return current_age(self.stored, time()) == self.age_s and self.watch.holds()


class MemoizedRequest(NamedTuple):
    """A request that was answered before in exactly these bytes, with a valid reply."""

    request: RequestHead
    reply: CachedReply
    log_part: bytes = b""
    """As AccessLog.hit_parts(), joined, if there is one."""

    @property
    def target(self) -> bytes:
        """As in RequestHead."""
        return self.request.target


class Unsent(NamedTuple):
    """What is left of a reply that somebody else has sent in part."""

    data: bytes
    """The request's bytes."""
    reply: bytes
    """Head and body, or the head alone."""
    sent: int
    """How much of both was sent, or a negative error number."""
    file_fd: int
    """Has the body, and is the user's; negative if the reply has it."""
    version: int
    """Of the object."""


class Learner(Protocol):
    """Somebody who answers requests like those that were answered here."""

    def learn(self, data: bytes, request: RequestHead, reply: CachedReply, log_parts: FixedParts | None) -> None:
        """A plain request that arrived alone in these bytes has this reply."""

    def forget(self) -> None:
        """Recognise nothing from now on."""


class FastPath:
    """Shared by all workers. It knows nothing where origins depend on more than the path: every request is parsed."""

    def __init__(self, source: BodySource, origins: OriginTable, heads: ResponseHeads, shutdown: Shutdown) -> None:
        """When a drain begins, forget() is called after `shutdown` says so."""
        self.learner: Learner | None = None
        self._source = source
        self._store = source.store
        self._origins = origins
        self._heads = heads
        self._shutdown = shutdown
        self._known_key_of = lru_cache(maxsize=KNOWN_MAX)(self._key_of)
        self._known: dict[bytes, MemoizedRequest] = {}
        self._replies: dict[tuple[bytes, bytes], CachedReply] = {}
        self._reply_bytes = 0

    def recognise(self, data: bytes) -> MemoizedRequest | None:
        """The request of these bytes, if it was answered before and its reply is still valid."""
        known = self._known.get(data)
        return known if known is not None and known.reply.holds() else None

    def reply(self, request: RequestHead, connection: Connection) -> CachedReply | None:
        """The complete reply to a plain GET, or None if the handler must answer."""
        if request.method != b"GET" or request.framing is not Framing.NONE:
            return None
        target = request.target
        key = self._known_key_of(target) if len(target) <= KNOWN_TARGET_BYTES_MAX else self._key_of(target)
        if key is None or not TERMS.isdisjoint(request.fields.names()):
            return None
        asked = key, connection.line
        reply = self._replies.get(asked)
        if reply is None or not reply.holds():
            reply = self._make(key, connection)
            if reply is not None:
                self._keep(asked, reply)
        return reply

    def memoize(
        self, data: bytes, request: RequestHead, reply: CachedReply, log_parts: FixedParts | None = None
    ) -> None:
        """Let recognise() know a request by its bytes; without them it did not arrive alone, or identifies a person."""
        if not data or self._shutdown.draining:
            return
        if self.learner is not None:
            self.learner.learn(data, request, reply, log_parts)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[data] = MemoizedRequest(request, reply, b"".join(log_parts or ()))

    def send(self, connection: HttpConnection, request: RequestHead, reply: CachedReply) -> RequestOutcome:
        """Send a reply, or begin to: what the client does not accept now is paused.

        Raises:
            ClientGone, BodyCutShort: the connection is unusable.
        """
        stream, data, file = connection.stream, reply.data, reply.file
        sent = stream.send_some(data, more=file is not None)
        if file is None:
            if sent != len(data):
                rest = BodyTransfer(stream, reply.key, 0, 0, self._source, head=data[sent:])
                paused = PausedHit(rest, request, reply.stored)
                return connection.pause(paused, Event.WRITABLE, is_last=reply.closes)
        else:
            body_sent = stream.send_file(file.fd, 0, min(file.size_bytes, PIECE_BYTES)) if sent == len(data) else 0
            if body_sent != file.size_bytes:  # hardly ever up to a piece: no body that can pause need be created
                body = FileResponse(stream, reply.key, file, self._source, body_sent, file.size_bytes, head=data[sent:])
                event = body.begin(file)
                if event is not None:
                    return connection.pause(PausedHit(body, request, reply.stored), event, is_last=reply.closes)
        return Done(connection, lingers=request.keep_alive or connection.in_head) if reply.closes else KEEP_ALIVE

    def pause_rest(self, connection: HttpConnection, request: RequestHead, unsent: Unsent) -> WaitsFor:
        """The rest of a reply follows when the client takes it."""
        stream, rest, store = connection.stream, unsent.reply[unsent.sent :], self._store
        key = self._key_of(request.target) or request.target
        if unsent.file_fd < 0:
            paused = PausedHit(BodyTransfer(stream, key, 0, 0, self._source, head=rest), request, None)
        else:
            file = store.adopt_file(unsent.file_fd, unsent.version)
            sent = max(0, unsent.sent - len(unsent.reply))
            body = FileResponse(stream, key, file, self._source, sent, file.size_bytes, head=rest)
            entry = store.peek(key)
            is_same = entry is not None and entry.version == unsent.version
            paused = PausedHit(body, request, stored_of_entry(key, entry) if entry is not None and is_same else None)
        return connection.pause(paused, Event.WRITABLE, is_last=not request.keep_alive)

    def origin_of(self, target: bytes) -> str:
        """The base of the origin that has what was replied to a target; empty if there is none."""
        key = self._key_of(target)
        return "" if key is None else self._origins.choose(None, key).base

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
        if self.learner is not None:
            self.learner.forget()

    def _key_of(self, target: bytes) -> bytes | None:
        if not target.startswith(b"/") or not self._origins.by_path_only:
            return None
        try:
            return self._origins.choose(None, http_path(target)).key
        except BadTarget:
            return None

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
        return CachedReply(
            key=key,
            data=data,
            file=file,
            closes=connection.closes,
            stored=stored,
            age_s=age_s,
            watch=watch,
            line=connection.line,
            origin=self._origins.choose(None, key).base,
        )

    def _keep(self, asked: tuple[bytes, bytes], reply: CachedReply) -> None:
        if self._reply_bytes > REPLY_BYTES_MAX or len(self._replies) >= KNOWN_MAX:
            self._known.clear()
            self._replies.clear()
            self._reply_bytes = 0
        self._reply_bytes += len(reply.data)
        self._replies[asked] = reply
