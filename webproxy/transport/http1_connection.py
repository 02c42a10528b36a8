"""HttpConnection: one HTTP client's connection; between requests it is a descriptor and a parser.

It is also a job: its server runs it, with the response it is in the middle of.
"""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from shmchannel.streams.admission import Ticket
from webproxy.errors import BodyCutShort
from webproxy.http.messages import CONTINUE, RequestHead
from webproxy.http.parser import RequestParser
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event, Outcome, WaitsFor

UNREAD_SECONDS = 0.5
UNREAD_BYTES_MAX = 1 << 20
"""How much of an unwanted body is read and discarded; beyond that closing is cheaper."""


class PausedBody(Protocol):
    """The rest of a response's body."""

    @property
    def key(self) -> bytes:
        """Its name in log lines."""

    def resume(self, ticket: Ticket | None = None) -> Event | None:
        """Continue sending; returns what it must wait for, or None at the end. The ticket is used and left."""


class ConnectionServer(Protocol):
    """Answers the requests on connections."""

    def run(self, connection: HttpConnection) -> Outcome:
        """As Job.run()."""

    def expire(self, connection: HttpConnection) -> Outcome:
        """As IdleJob.expire()."""


class HttpConnection:
    """Used by one thread at a time: a worker, or the keeper of waiting jobs."""

    __slots__ = (
        "_continue_due",
        "_head_since",
        "_parsed",
        "_server",
        "ended",
        "expires",
        "fd",
        "held",
        "is_last",
        "is_watched",
        "parser",
        "paused",
        "received",
        "served",
        "stream",
        "ticket",
    )

    def __init__(
        self, stream: ClientStream, server: ConnectionServer, *, head_bytes_max: int, received: bytes = b""
    ) -> None:
        """`received` has the bytes that have already arrived."""
        self.stream = stream
        self._server = server
        self.received = received
        """Bytes that have arrived and are not parsed yet."""
        self.fd = stream.fd
        self.parser = RequestParser(head_bytes_max=head_bytes_max)
        self._parsed: RequestHead | None = None
        self._continue_due = False
        self.ended = False
        """The client has closed its side."""
        self.expires = 0.0
        self.is_watched = False
        """The epoll of idle connections knows the descriptor already."""
        self.served = 0
        self.held: RequestHead | None = None
        """The next request, while the client has not read the responses before it."""
        self.paused: PausedBody | None = None
        """The rest of the current response while it waits; with `is_last` the connection ends after it."""
        self.is_last = False
        self.ticket: Ticket | None = None
        self._head_since = 0.0

    @property
    def path(self) -> bytes:
        """Its name in log lines."""
        if self.paused is not None:
            return self.paused.key
        return b"" if self.held is None else self.held.target

    # -- as a job ------------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Answer the requests that have arrived, or continue a response."""
        return self._server.run(self)

    def expire(self) -> Outcome:
        """Nothing has arrived in time."""
        return self._server.expire(self)

    def close(self) -> None:
        """The process ends."""
        sockets.close(self.fd)

    def hold(self, request: RequestHead) -> WaitsFor:
        """The client accepts nothing now: the request is answered once it does."""
        self.held = request
        return WaitsFor(self, Event.WRITABLE)

    def pause(self, body: PausedBody, event: Event, *, is_last: bool) -> WaitsFor:
        """The rest of a response's body is sent after the event."""
        self.paused, self.is_last = body, is_last
        return WaitsFor(self, event)

    def take_ticket(self) -> Ticket | None:
        """The ticket it has waited for, to be used by the caller."""
        ticket, self.ticket = self.ticket, None
        return ticket

    # -- requests ------------------------------------------------------------------------------------------------

    def head_time_left(self, limit_s: float) -> float:
        """The remaining time for a head; it starts with the first call for that head."""
        now = monotonic()
        self._head_since = self._head_since or now
        return self._head_since + limit_s - now

    @property
    def in_head(self) -> bool:
        """A request has begun whose head is incomplete."""
        return self.parser.buffered

    def bytes_of(self, request: RequestHead) -> bytes:
        """The bytes of a request if they arrived alone and anybody may send the same; otherwise empty.

        Also empty after a recognised request: the parser has not seen it, and still has the bytes of another.
        """
        return self.parser.whole_request if request is self._parsed else b""

    def feed(self, data: bytes) -> RequestHead | None:
        """Feed received bytes; returns the next request once its head is complete.

        Raises:
            HttpError: invalid request; the connection must be closed after the response.
        """
        return self._begun(self.parser.feed(data))

    def pipelined(self) -> RequestHead | None:
        """The next request, if its head arrived with the one before. Errors as feed()."""
        return self._begun(self.parser.next_head())

    def receive(self, *, waits: bool = False) -> bytes:
        """Bytes that have arrived; none if there are none, or at the client's end of stream, which is noted.

        With `waits` for a few milliseconds (the socket's receive timeout).

        Raises:
            ClientGone: the connection is broken.
        """
        data = sockets.receive(self.fd, waits=waits)
        if not data:
            self.ended = data is not None
            return b""
        return data

    def _begun(self, request: RequestHead | None) -> RequestHead | None:
        if request is not None:
            self.served += 1
            self._head_since = 0.0
            self._continue_due = request.expects_continue
            self._parsed = request
        return request

    # -- the body of the current request -------------------------------------------------------------------------
    def read_body(self, timeout_s: float) -> bytes:
        """The next bytes of the body; none at its end. Sends 100 Continue if the client waits for it.

        Raises:
            HttpError: invalid chunks.
            BodyCutShort: the client closed before the end, or sent nothing for too long.
            ClientGone: the connection is broken.
        """
        parser = self.parser
        if self._continue_due:
            self._continue_due = False
            if not parser.body_complete:
                self.stream.send_all(CONTINUE)
        data = parser.body()
        expires = monotonic() + timeout_s
        while not data and not parser.body_complete:
            received = sockets.receive(self.fd, waits=True)
            if received:
                data = parser.body(received)
            elif received is not None:
                raise BodyCutShort("the client ended in the middle of its request's body")
            elif monotonic() > expires:
                raise BodyCutShort(f"the client sent nothing of its request's body for {timeout_s:.0f} s")
        return data

    def skip_body(self) -> bool:
        """Discard an unwanted body as it arrives; True once the next request can begin.

        A client that got an early response usually sends the rest at once, so this waits for a short while.
        """
        parser = self.parser
        if parser.body_complete:
            return True
        if self._continue_due:  # it was never asked for: the client may send it or not
            return False
        left_bytes, expires = UNREAD_BYTES_MAX, monotonic() + UNREAD_SECONDS
        try:
            while not parser.body_complete and left_bytes > 0:
                left_bytes -= len(self.read_body(max(0.0, expires - monotonic())))
        except BodyCutShort:
            pass
        return parser.body_complete


class RequestBody:
    """The body of a request being sent to an origin; a fetch reads from it."""

    def __init__(self, connection: HttpConnection, request: RequestHead, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._rest = b""
        self.length: int | None = request.content_length if request.framing.value == "content-length" else None

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end. Errors as HttpConnection.read_body()."""
        data = self._rest or self._connection.read_body(self._timeout_s)
        self._rest = data[size:]
        return data[:size]
