"""Http1Server: an HTTP connection in a worker's hands, from its next request to the moment when it idles or ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from time import time

from webproxy.errors import ClientGone
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.exchange.getfile_request import Paused
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.exchange.response_heads import CLOSES, ResponseHeads
from webproxy.http.errors import HttpError
from webproxy.http.messages import RequestHead
from webproxy.serving.parking import ParkingLot
from webproxy.transport import sockets
from webproxy.transport.cached_reply import MemoizedRequest
from webproxy.transport.client_stream import ClientStream, RateLimit
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.keepalive import IdleConnections

log = logging.getLogger(__name__)

_UNFINISHED = "the request did not come to its end"
REQUESTS_IN_A_ROW = 64
"""So many pipelined or quickly following requests are answered before others get their turn."""


class Http1Server:
    """Shared by all workers.

    A worker keeps a connection while its requests follow each other and no other one has something to read; otherwise
    the connection idles, and the worker goes on with the other one.
    """

    def __init__(
        self,
        exchange: HttpRequestHandler,
        idle: IdleConnections,
        parking: ParkingLot,
        replies: ResponseHeads,
        *,
        head_bytes_max: int,
        request_timeout_s: float,
        keepalive_s: float,
        connections_max: int,
        client_limit: RateLimit,
        worker_count: int,
        stopping: Callable[[], bool],
        draining: Callable[[], bool],
    ) -> None:
        """`stopping`: nothing is waited for any more; `draining`: what runs ends, and no connection stays."""
        self._exchange = exchange
        self._recognise = exchange.recognise
        self._idle = idle
        self._parking = parking
        self._replies = replies
        self._head_bytes_max = head_bytes_max
        self._request_timeout_s = request_timeout_s
        self._keepalive_s = keepalive_s
        self._connections_max = connections_max
        self._client_limit = client_limit
        self._worker_count = worker_count
        self._stopping = stopping
        self._draining = draining
        self._staying = 0

    def begin(self, fd: int, data: bytes, refused: int = 0) -> Paused | None:
        """Take over a new connection whose first bytes speak HTTP, and serve it, or tell it that it is `refused`."""
        connection = HttpConnection(
            ClientStream(fd, self._client_limit, self._stopping),
            head_bytes_max=self._head_bytes_max,
            recognise=self._recognise,
        )
        if refused:
            self._refuse(connection, refused, _UNFINISHED)
            return None
        if self._idle.count + self._parking.unfinished + self._parking.parked >= self._connections_max:
            self._refuse(connection, 503, "too many connections")
            return None
        try:
            request = connection.feed(data)
        except HttpError as error:
            self._refuse(connection, error.status, error.text)
            return None
        return self._serve(connection, request)

    def go_on(self, connection: HttpConnection) -> Paused | None:
        """Something has come on a connection that idled, or one has room again for the answer that it waits for."""
        request, connection.held = connection.held, None
        return self._serve(connection, request)

    def resume(self, response: BodyTransfer) -> Paused | None:
        """Go on with a paused answer, and then with what its connection brings."""
        connection = response.connection
        result = self._exchange.resume(response)
        if isinstance(result, Paused):
            return result
        if not result or connection is None:
            self._parking.linger(response.stream.fd)
            return None
        return self._serve(connection, None)

    def expire(self) -> None:
        """End the connections whose time is over; the boss calls it now and then."""
        for connection in self._idle.expire(quiet_too=self._draining()):
            if connection.in_head:
                self._refuse(connection, 408, _UNFINISHED)
            else:
                self._parking.linger(connection.fd)

    def _serve(self, connection: HttpConnection, request: RequestHead | MemoizedRequest | None) -> Paused | None:
        """Answer requests as long as they follow each other, on this connection and others; a pause is the caller's."""
        serve, is_large = self._exchange.serve, False
        try:
            for _ in range(REQUESTS_IN_A_ROW):
                if request is None and not is_large:
                    request = connection.next_request()
                if request is None:  # who was sent a large body reads it first
                    request = self._stay(connection)
                if request is None:
                    break
                is_large = isinstance(request, MemoizedRequest) and request.reply.file is not None
                result = serve(connection, request) if connection.stream.begin_answer(looks=not is_large) else None
                if result is not True:
                    return self._leave(connection, request, result)
                request = None
                # Others go first, without a way through the intake: one that is as busy is looked at soon enough.
                other = None if connection.in_head else self._idle.take()
                if other is not None:
                    self._keep(connection)
                    connection, request, is_large, other.held = other, other.held, False, None
            else:
                if connection.in_head:  # nothing may ever come that would wake it: it takes its turn by itself
                    self._parking.park(connection)
                    return None
        except HttpError as error:
            self._refuse(connection, error.status, error.text)
            return None
        except ClientGone:
            sockets.close(connection.fd)
            return None
        except Exception:  # here it is known whose connection it is: maybe another one than the worker began with
            log.exception("job failed")
            self._parking.linger(connection.fd)
            return None
        self._keep(connection)
        return None

    def _leave(
        self, connection: HttpConnection, request: RequestHead | MemoizedRequest, result: Paused | bool | None
    ) -> Paused | None:
        """The answer, or the connection, goes on later or ends; as HttpRequestHandler.serve() has told."""
        if isinstance(result, Paused):
            return result
        if result is None:
            connection.held = request.request if isinstance(request, MemoizedRequest) else request
            self._parking.park(connection)
        else:
            self._parking.linger(connection.fd)
        return None

    def _keep(self, connection: HttpConnection) -> None:
        """No request is there: the connection idles, or ends."""
        if connection.ended and connection.in_head:
            self._refuse(connection, 400, _UNFINISHED)
        elif connection.in_head:
            self._idle.put(connection, connection.head_time_left(self._request_timeout_s))
        elif connection.ended or self._draining():
            self._parking.linger(connection.fd)
        else:
            self._idle.put(connection, self._keepalive_s)

    def _stay(self, connection: HttpConnection) -> RequestHead | MemoizedRequest | None:
        """Wait a moment for the next request, if a worker is left for everybody else."""
        if connection.ended or not connection.served or self._staying >= self._worker_count - 1:
            return None
        self._staying += 1  # a lost update costs no more than one worker too many that waits for 20 ms
        try:
            return connection.wait_request()
        finally:
            self._staying = max(0, self._staying - 1)

    def _refuse(self, connection: HttpConnection, status: int, text: str) -> None:
        with contextlib.suppress(ClientGone):
            sockets.send(connection.fd, self._replies.error(status, CLOSES, time(), text))
        self._parking.linger(connection.fd)
