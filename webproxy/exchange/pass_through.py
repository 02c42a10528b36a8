"""PassThrough: one request to the origin and its answer back, for this client alone; nothing of it is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import time

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.validation import CONDITIONS
from webproxy.errors import BodyCutShort, OriginBadReply, OriginError
from webproxy.exchange.response_heads import CLOSES, Connection, ResponseHeads
from webproxy.http.dates import format_http_date
from webproxy.http.errors import HttpError
from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, RequestHead
from webproxy.http.serialise import CHUNK_END, LAST_CHUNK, chunk_head, response_head
from webproxy.http.syntax import BODILESS_STATUSES
from webproxy.origin.client import Sink
from webproxy.origin.forwarded_request import ForwardedRequest
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import Target
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.http1_connection import HttpConnection, RequestBody

log = logging.getLogger(__name__)

Declines = Callable[[OriginResponse], bool]
"""Whether an answer with this head is not for the client, who gets something else; asked before the client is told."""


def body_framing(request: RequestHead, response: OriginResponse, connection: Connection) -> tuple[bytes, Connection]:
    """The lines that frame a forwarded body, and what becomes of the connection (RFC 9112 section 6.3).

    A body of unknown length goes in chunks, and to a client of HTTP/1.0 until the connection closes.
    """
    if request.method == b"HEAD" or response.status in BODILESS_STATUSES:
        return b"", connection
    if response.length is not None:
        return b"Content-Length: %d\r\n" % response.length, connection
    if request.version == (1, 1):
        return b"Transfer-Encoding: chunked\r\n", connection
    return b"", CLOSES


def send_interim(stream: ClientStream, request: RequestHead, status: int, fields: Fields) -> None:
    """Pass an interim answer on to a client that can know it (RFC 9110 section 15.2); ours is the word on the body."""
    if status != 100 and request.version == (1, 1):
        stream.send_all(response_head(status, b"", end_to_end(fields)))


class _ToClient(Sink):
    """Sends what comes straight on; a slow client slows the origin, down to the least rate."""

    def __init__(
        self,
        stream: ClientStream,
        request: RequestHead,
        connection: Connection,
        replies: ResponseHeads,
        status: bytes,
        declines: Declines,
    ) -> None:
        self._stream = stream
        self._request = request
        self.connection = connection
        self._replies = replies
        self._status = status
        self._declines = declines
        self.begun = False
        self.declined = False
        self.ends_by_close = False
        """Nothing but the end of the connection ends the body."""
        self._chunked = False

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim()."""
        send_interim(self._stream, self._request, status, fields)

    def begin(self, response: OriginResponse) -> bool:
        """Send the head on, unless it is declined; a 304 that nobody asked for is no answer to anything."""
        if response.status == 304 and CONDITIONS.isdisjoint(self._request.fields.names()):
            raise OriginBadReply("a 304 to a request without a condition", status=304)
        if self._declines(response):
            self.declined = True
            return False
        framing, self.connection = body_framing(self._request, response, self.connection)
        self._chunked = framing.startswith(b"Transfer")
        self.ends_by_close = not framing
        status = self._replies.status(fwd=self._status, fwd_status=response.status)
        self.begun = True
        self._stream.send_all(
            self._replies.forwarded(response, self.connection, status, framing, format_http_date(int(time())))
        )
        return True

    def write(self, data: bytes) -> None:
        """Send a part of the body on."""
        self._stream.send_all(chunk_head(len(data)) + data + CHUNK_END if self._chunked else data)

    def end(self) -> None:
        """The body is complete."""
        if self._chunked:
            self._stream.send_all(LAST_CHUNK)

    def idle(self) -> bool:
        """Never by itself: a client that left shows when something is sent to it."""
        return False


class PassThrough:
    """Shared by all workers."""

    def __init__(self, asker: ForwardedRequest, replies: ResponseHeads, *, body_timeout_s: float) -> None:
        self._asker = asker
        self._replies = replies
        self._body_timeout_s = body_timeout_s

    def serve(
        self,
        connection: HttpConnection,
        request: RequestHead,
        target: Target,
        said: Connection,
        why: bytes,
        declines: Declines = lambda _: False,
    ) -> tuple[OriginResponse, bool | None]:
        """Ask, and answer the client; returns the answer's head and whether the connection goes on.

        None for the latter: the answer was declined, and the client has been told nothing.

        Raises:
            OriginError, HttpError: no answer, or no sound body to ask with; the client has been told nothing.
            BodyCutShort: the answer, or the request's body, ended in the middle.
            ClientGone: the connection is broken.
        """
        assert target.rule is not None
        has_body = request.framing is not Framing.NONE
        fields = self._asker.forwarded(request, target)
        if request.expects_continue and has_body:
            fields = fields.with_line(b"Expect", b"100-continue")
        asked = OriginRequest(
            url=target.whole_url,
            method=request.method,
            fields=fields,
            body=RequestBody(connection, request, self._body_timeout_s) if has_body else None,
            named_by_operator=target.named_by_operator,
        )
        sink = _ToClient(connection.stream, request, said, self._replies, why, declines)
        try:
            response = self._asker.origin.fetch(asked, sink, self._asker.limits(target.rule))
            if sink.declined:
                return response, None
            sink.end()
        except (OriginError, HttpError) as error:
            if not sink.begun:
                raise
            if sink.ends_by_close:  # a normal end would make it look whole
                connection.stream.reset()
            raise BodyCutShort(str(error)) from error
        return response, not sink.connection.closes
