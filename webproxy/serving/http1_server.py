"""Http1Server: runs HTTP connections, from the next request until the connection waits, idles or ends.

**States** of a connection as a job (parking.py has the others): bytes *received* and not yet parsed, a *paused*
response, or none of these, when the next request is read from the socket.

**Events.** run() first finishes a paused body, then answers requests as long as they follow each other. After each
response it checks whether another idle connection has become readable, and if so switches to that one: with more busy
connections than workers, each gets one request at a time. Otherwise it waits briefly for the next request of the same
connection, provided enough workers are left for the others. expire() ends a connection that was idle for too long.

**Invariants.** The outcome is that of the connection the worker ended with; the ones it left on the way are idle or
settled. After an HttpError nothing more is read: the response that reports it is the last. At most REQUESTS_IN_A_ROW
requests are answered before the worker looks at the queue and the listener again. A process that stops lets no
connection idle.

**Why not otherwise.** Returning the worker after each response would put a wake-up of 15 to 30 microseconds between two
requests. Leaving the switch to the acceptor would cost a pass through queue and listener for each request.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING

from shmchannel.daemonkit.logs import about
from webproxy.errors import ClientGone
from webproxy.exchange.fast_path import MemoizedRequest, Unsent
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.exchange.response_heads import CLOSES, ResponseHeads
from webproxy.http.messages import HttpError, RequestHead
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream, Shutdown
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import KEEP_ALIVE, Done, Event, Idles, Outcome, WaitsFor

if TYPE_CHECKING:
    from webproxy.serving.native_hits import HitLoop, Told

log = logging.getLogger(__name__)

_UNFINISHED = "incomplete request"
REQUESTS_IN_A_ROW = 64
"""Maximum number of requests answered in a row before others get their turn."""
STAYING_MAX = 3
"""So many workers may wait a moment for the next request of a connection of their own.

Of eight busy connections the others are served without a wait by whoever has just answered: with seven that wait, the
GIL changes hands for nearly each request.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The bounds of all connections together, of each one's heads, and of waits for its client."""

    head_bytes: int
    request_s: float
    """From the first byte of a head to its last."""
    keepalive_s: float
    """Before a request begins."""
    client: RateLimit
    """The minimum rate at which a client must read."""
    connections: int
    staying: int
    """How many workers may wait a moment for a connection's next request: fewer than there are."""


class Http1Server:
    """Shared by all workers."""

    def __init__(
        self,
        handler: HttpRequestHandler,
        parking: ParkingLot,
        idle: IdleConnections,
        heads: ResponseHeads,
        limits: ConnectionLimits,
        shutdown: Shutdown,
        hit_loop: HitLoop | None = None,
    ) -> None:
        """The `hit_loop` answers what it knows of the connections of this server."""
        self._hit_loop = hit_loop
        if hit_loop is not None:
            hit_loop.attach(self)
        self._handler = handler
        self._recognise = handler.recognise
        self._parking = parking
        self._idle = idle
        self._heads = heads
        self._shutdown = shutdown
        self._limits = limits
        self._staying = 0

    def connect(self, fd: int, data: bytes, head_since: float = 0.0) -> HttpConnection:
        """Take over a new connection whose first bytes speak HTTP, and began to arrive then; it is to be run."""
        stream = ClientStream(fd, self._limits.client)
        head_bytes = self._limits.head_bytes
        return HttpConnection(stream, self, head_bytes_max=head_bytes, received=data, head_since=head_since)

    def refuse(self, fd: int, status: int, text: str = _UNFINISHED, fields: bytes = b"") -> None:
        """Tell a client why its request is not answered. Never blocks."""
        answer, sent_bytes = self._heads.local(status, CLOSES, time(), text, fields), 0
        with contextlib.suppress(ClientGone):
            sent_bytes = sockets.send(fd, answer)
        self._handler.note_refused(fd, answer, sent_bytes)

    def run(self, connection: HttpConnection) -> Outcome:
        """Continue a paused response, and then serve the connection's next requests."""
        outcome = self._continue(connection)
        if isinstance(outcome, Done) and isinstance(outcome.job, HttpConnection):  # maybe another one by now
            self._handler.ended(outcome.job)
        return outcome

    def _continue(self, connection: HttpConnection) -> Outcome:
        if connection.paused is not None:
            try:
                outcome = self._handler.resume(connection, connection.paused)
            except Exception as error:  # noqa: BLE001 - told, or logged, there
                return self._failed(connection, error)
            if outcome is not KEEP_ALIVE:
                return outcome
        return self._serve(connection)

    def expire(self, connection: HttpConnection) -> Outcome:
        """It has been idle too long."""
        self._handler.ended(connection)
        return self._refuse(connection, 408, _UNFINISHED) if connection.in_head else Done(connection)

    def given_up(self, connection: HttpConnection) -> None:
        """As ConnectionServer.given_up()."""
        self._handler.give_up(connection)

    def _serve(self, connection: HttpConnection) -> Outcome:
        """Answer requests as long as they follow each other, on this connection and others."""
        serve, is_large, hit_loop = self._handler.serve, False, self._hit_loop
        data, connection.received = connection.received, b""  # what came with the connection
        try:
            for _ in range(REQUESTS_IN_A_ROW):
                if hit_loop is not None and not is_large and not connection.parser.buffered:
                    connection, told = hit_loop.serve(connection, data)
                    if not told or not isinstance(told, bytes):
                        return self._after_hits(connection, told)
                    data = told
                request = self._next_request(connection, data, is_reading=is_large)
                data = b""
                if request is None:
                    return self._without_request(connection)
                is_large = isinstance(request, MemoizedRequest) and request.reply.file is not None
                connection.stream.measure_anew()
                outcome = serve(connection, request)
                if outcome is not KEEP_ALIVE:
                    return outcome
                # Others go first, without a way through the acceptor: one that is as busy is looked at soon enough.
                other = None if connection.parser.buffered else self._idle.take()
                if isinstance(other, HttpConnection) and other.is_of(self):
                    if connection.ended or self._shutdown.closes_idle:
                        self._handler.ended(connection)
                        self._parking.settle(Done(connection))
                    else:  # straight there: under load this is done for each request
                        self._idle.put(connection, self._limits.keepalive_s)
                    connection, is_large = other, False
                elif other is not None:
                    self._parking.settle(WaitsFor(other, Event.TURN))
        except Exception as error:  # noqa: BLE001 - told, or logged, there
            return self._failed(connection, error)
        if connection.in_head:  # nothing may ever come that would wake it: it takes its turn by itself
            return WaitsFor(connection, Event.TURN)
        return self._without_request(connection)

    def _failed(self, connection: HttpConnection, error: Exception) -> Outcome:
        """Here it is known whose connection it is: maybe another one than the worker began with."""
        if isinstance(error, HttpError):
            return self._refuse(connection, error.status, error.text)
        if not isinstance(error, ClientGone):
            with about(connection.request_id):
                log.error("job failed", exc_info=error)
        return Done(connection)

    def _after_hits(self, connection: HttpConnection, told: bytes | int | Told | None) -> Outcome:
        """What the hit loop says of the connection that it ended with, but for bytes that it does not know."""
        if told is None:  # nothing has come
            return self._without_request(connection)
        if told == b"":
            connection.ended = True
            return self._without_request(connection)
        if told is False:  # another one that was taken in the meantime, and is not for the loop
            return WaitsFor(connection, Event.TURN)
        if told is True:
            return Done(connection, lingers=False)
        if isinstance(told, tuple):
            return self.go_on_with(connection, Unsent(*told))
        return Done(connection)  # broken

    def go_on_with(self, connection: HttpConnection, unsent: Unsent) -> Outcome:
        """The hit loop has sent only a part of the reply to a request; as HttpRequestHandler.go_on_with()."""
        request = connection.feed(unsent.data)
        assert request is not None
        return self._handler.go_on_with(connection, request, unsent)

    def _next_request(
        self, connection: HttpConnection, data: bytes, *, is_reading: bool
    ) -> RequestHead | MemoizedRequest | None:
        """The next request, if its head is there: in `data`, pipelined, or arrived by now.

        A client that is reading a large body has sent none yet: for that one it only waits a moment.
        """
        if data:
            request = self._parse(connection, data)
            if request is not None:
                return request
        if not is_reading and (request := self._arrived_request(connection)) is not None:
            return request
        return self._stay(connection)

    def _arrived_request(self, connection: HttpConnection) -> RequestHead | MemoizedRequest | None:
        """Pipelined, or arrived by now. Never waits."""
        request: RequestHead | MemoizedRequest | None = connection.pipelined() if connection.parser.buffered else None
        while request is None and (data := connection.receive()):
            request = self._parse(connection, data)
        return request

    def _parse(self, connection: HttpConnection, data: bytes) -> RequestHead | MemoizedRequest | None:
        """The request that these bytes are or complete, if any; one that is known by its bytes is not even parsed."""
        if not connection.parser.buffered:
            known = self._recognise(data)
            if known is not None:
                connection.served += 1
                return known
        return connection.feed(data)

    def _stay(self, connection: HttpConnection) -> RequestHead | MemoizedRequest | None:
        """Wait a moment for the next request, if a worker is left for everybody else."""
        if connection.ended or not connection.served or self._staying >= self._limits.staying:
            return None
        self._staying += 1  # a lost update costs no more than one worker too many that waits for 20 ms
        try:
            data = connection.receive(waits=True)
        finally:
            self._staying = max(0, self._staying - 1)
        return (self._parse(connection, data) or self._arrived_request(connection)) if data else None

    def _without_request(self, connection: HttpConnection) -> Outcome:
        """Nothing is there to be answered: the connection idles, or ends."""
        if connection.in_head:
            if connection.ended:
                return self._refuse(connection, 400, _UNFINISHED)
            return Idles(connection, connection.head_time_left(self._limits.request_s))
        if connection.ended or self._shutdown.closes_idle:
            return Done(connection)
        return Idles(connection, self._limits.keepalive_s)

    def _refuse(self, connection: HttpConnection, status: int, text: str) -> Outcome:
        self.refuse(connection.fd, status, text)
        return Done(connection)
