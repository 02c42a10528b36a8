"""HttpConnection: one HTTP client's connection; between requests it is a descriptor and a parser.

It is also a job: its server runs it, with the response it is in the middle of.
"""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from shmchannel.daemonkit.logs import about
from shmchannel.streams.admission import Ticket
from webproxy.errors import ClientGone
from webproxy.http.messages import RequestHead
from webproxy.http.parser import RequestParser
from webproxy.telemetry.requests import RequestRecord
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import AnyOf, Outcome, Steps, Wait, WaitsFor

UNREAD_SECONDS = 0.5
UNREAD_BYTES_MAX = 1 << 20
"""How much of an unwanted body is read and discarded; beyond that closing is cheaper."""


class PausedAnswer(Protocol):
    """The rest of an answer; whoever began it continues it."""

    @property
    def key(self) -> bytes:
        """Its name in log lines."""

    def close(self) -> None:
        """It is given up."""


class ConnectionServer(Protocol):
    """Answers the requests on connections."""

    def run(self, connection: HttpConnection) -> Outcome:
        """As Job.run()."""

    def expire(self, connection: HttpConnection) -> Outcome:
        """As IdleJob.expire()."""

    def given_up(self, connection: HttpConnection) -> None:
        """The request that it has a record of is not answered any further."""


class HttpConnection:
    """Used by one thread at a time: a worker, or the keeper of waiting jobs."""

    __slots__ = (
        "_head_since",
        "_parsed",
        "_server",
        "body_received",
        "client",
        "continue_due",
        "ended",
        "expires",
        "fd",
        "has_left",
        "is_last",
        "is_watched",
        "parser",
        "paused",
        "received",
        "record",
        "served",
        "stream",
        "ticket",
        "unsaved",
        "unsaved_bytes",
    )

    def __init__(
        self,
        stream: ClientStream,
        server: ConnectionServer,
        *,
        head_bytes_max: int,
        received: bytes = b"",
        head_since: float = 0.0,
    ) -> None:
        """`received` has the bytes that have already arrived, from `head_since` on if they took several parts."""
        self.stream = stream
        self._server = server
        self.received = received
        """Bytes that have arrived and are not parsed yet."""
        self.fd = stream.fd
        self.parser = RequestParser(head_bytes_max=head_bytes_max)
        self._parsed: RequestHead | None = None
        self.client = b""
        """The address of the client, once somebody has asked for it."""
        self.body_received = 0
        """Bytes received for bodies, framing included."""
        self.continue_due = False
        """The client waits for 100 (Continue) before it sends the body."""
        self.ended = False
        """The client has closed its side."""
        self.expires = 0.0
        self.is_watched = False
        """The epoll of idle connections knows the descriptor already."""
        self.served = 0
        self.unsaved = 0
        """Of these, how many needed an origin, or were not answered by the cache."""
        self.unsaved_bytes = 0
        """Sent, and not from the cache."""
        self.paused: PausedAnswer | None = None
        """The rest of the current response while it waits; with `is_last` the connection ends after it."""
        self.is_last = False
        self.record: RequestRecord | None = None
        """Of the current request, unless that is answered at once."""
        self.ticket: Ticket | None = None
        self.has_left = False
        self._head_since = head_since

    @property
    def path(self) -> bytes:
        """Its name in log lines."""
        return b"" if self.paused is None else self.paused.key

    @property
    def request_id(self) -> bytes:
        """As Job.request_id."""
        return b"" if self.record is None else self.record.request_id

    def is_of(self, server: ConnectionServer) -> bool:
        """Whether this server answers it."""
        return self._server is server

    def has_arrived(self) -> bool:
        """Return whether more than the current request has arrived, or the client's end."""
        return bool(self.parser.buffered) or sockets.has_arrived(self.fd)

    # -- as a job ------------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Answer the requests that have arrived, or continue a response."""
        return self._server.run(self)

    def expire(self) -> Outcome:
        """Nothing has arrived in time."""
        return self._server.expire(self)

    def close(self) -> None:
        """Give it up, with the response that it is in the middle of."""
        paused, self.paused = self.paused, None
        if paused is not None:
            with about(self.request_id):
                paused.close()
        if self.record is not None:
            self._server.given_up(self)
        sockets.close(self.fd)

    def pause(self, answer: PausedAnswer, wait: Wait, *, is_last: bool) -> WaitsFor:
        """The rest of an answer follows after the event or signal; with `is_last` the connection ends after it."""
        self.paused, self.is_last = answer, is_last
        return WaitsFor(self, wait)

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
        if waits and self.stream.never_waits and not sockets.has_arrived(self.fd, sockets.STAY_MS):
            return b""
        data = sockets.receive(self.fd, waits=waits)
        if not data:
            self.ended = data is not None
            return b""
        return data

    def _begun(self, request: RequestHead | None) -> RequestHead | None:
        if request is not None:
            self.served += 1
            self._head_since = 0.0
            self.continue_due = request.expects_continue
            self._parsed = request
        return request

    # -- the body of the current request -------------------------------------------------------------------------
    def body_part(self) -> bytes | None:
        """The next bytes of the body that have arrived; none at its end, None if there are none now. Never waits.

        Raises:
            HttpError: invalid chunks.
            ClientGone: the connection is broken, or the client closed before the end.
        """
        parser = self.parser
        data = parser.body()
        while not data and not parser.body_complete:
            received = sockets.receive(self.fd)
            if received is None:
                return None
            if not received:
                raise ClientGone("the client ended in the middle of its request's body")
            self.body_received += len(received)
            data = parser.body(received)
        return data

    def skip_body(self) -> Steps[bool]:
        """Discard an unwanted body as it arrives; True once the next request can begin.

        A client that got an early response usually sends the rest at once, so this waits for a short while.
        """
        if self.continue_due:  # it was never asked for: the client may send it or not
            return self.parser.body_complete
        left_bytes, expires = UNREAD_BYTES_MAX, monotonic() + UNREAD_SECONDS
        while left_bytes > 0:
            try:
                data = self.body_part()
            except ClientGone:
                return False
            if data is None:
                if monotonic() >= expires:
                    return False
                yield AnyOf(is_readable=True, limit_s=UNREAD_SECONDS)
            elif data:
                left_bytes -= len(data)
            else:
                return True
        return False
