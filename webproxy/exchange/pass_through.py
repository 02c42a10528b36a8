"""PassThrough: forwards one request to the origin and its response to this client alone; nothing is stored."""

from __future__ import annotations

import logging
from time import time
from typing import NamedTuple

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.validators import CACHE_CONDITIONS
from webproxy.errors import BodyCutShort, OriginBadReply, OriginError
from webproxy.exchange.context import RequestContext
from webproxy.exchange.purge import Purges
from webproxy.exchange.response_heads import CLOSES, Connection, ResponseHeads
from webproxy.http.dates import format_http_date
from webproxy.http.errors import HttpError
from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, RequestHead
from webproxy.http.serialise import CHUNK_END, LAST_CHUNK, chunk_head, response_head
from webproxy.http.syntax import BODILESS_STATUSES
from webproxy.origin.client import OriginClient, Sink
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.via import Via
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.http1_connection import RequestBody
from webproxy.transport.job import RequestOutcome

log = logging.getLogger(__name__)


class HeadJudge:
    """Decides whether a response is passed to the client, who otherwise gets another one; by itself passes all."""

    def declines(self, response: OriginResponse) -> bool:  # noqa: ARG002
        """Called once, with the head of the response, before anything is sent to the client."""
        return False


class Declined(NamedTuple):
    """The response with this status was declined: nothing has been sent to the client."""

    status: int


def body_framing(request: RequestHead, response: OriginResponse, connection: Connection) -> tuple[bytes, Connection]:
    """The lines that frame a forwarded body, and whether the connection persists (RFC 9112 section 6.3).

    A body of unknown length is chunked, or for an HTTP/1.0 client delimited by the end of the connection.
    """
    if request.method == b"HEAD" or response.status in BODILESS_STATUSES:
        return b"", connection
    if response.length is not None:
        return b"Content-Length: %d\r\n" % response.length, connection
    if request.version == (1, 1):
        return b"Transfer-Encoding: chunked\r\n", connection
    return b"", CLOSES


def send_interim(stream: ClientStream, request: RequestHead, status: int, fields: Fields) -> None:
    """Pass an interim response to a client that understands it (RFC 9110 section 15.2); 100 is the proxy's own."""
    if status != 100 and request.version == (1, 1):
        stream.send_all(response_head(status, b"", end_to_end(fields)))


class _ToClient(Sink):
    """Forwards data as it arrives; a slow client slows the origin, down to the minimum rate."""

    def __init__(
        self, context: RequestContext, purges: Purges, heads: ResponseHeads, why: bytes, judge: HeadJudge
    ) -> None:
        self._context = context
        self._stream = context.connection.stream
        self._request = context.request
        self._purges = purges
        self._heads = heads
        self._why = why
        self._judge = judge
        self.begun = False
        self.declined: Declined | None = None
        self.ends_by_close = False
        """Only the end of the connection ends the body."""
        self._chunked = False

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim()."""
        send_interim(self._stream, self._request, status, fields)

    def begin(self, response: OriginResponse) -> bool:
        """Forward the head, unless it is declined; an unsolicited 304 is not a valid response."""
        if response.status == 304 and CACHE_CONDITIONS.isdisjoint(self._request.fields.names()):
            raise OriginBadReply("a 304 to a request without a condition", status=304)
        if self._judge.declines(response):
            self.declined = Declined(response.status)
            return False
        context = self._context
        self._purges.invalidate(context, response)
        framing, context.said = body_framing(self._request, response, context.said)
        self._chunked = framing.startswith(b"Transfer")
        self.ends_by_close = not framing
        status = self._heads.status(fwd=self._why, fwd_status=response.status)
        self.begun = True
        date = format_http_date(int(time()))
        self._stream.send_all(self._heads.forwarded(response, context.said, status, framing, date))
        return True

    def write(self, data: bytes) -> None:
        """Forward a part of the body."""
        self._stream.send_all(chunk_head(len(data)) + data + CHUNK_END if self._chunked else data)

    def end(self) -> None:
        """The body is complete."""
        if self._chunked:
            self._stream.send_all(LAST_CHUNK)

    def idle(self) -> bool:
        """Never ends the fetch: a client that left is noticed when something is sent to it."""
        return False


class PassThrough:
    """Shared by all workers."""

    def __init__(
        self, origin: OriginClient, via: Via, purges: Purges, heads: ResponseHeads, *, body_timeout_s: float
    ) -> None:
        self._origin = origin
        self._via = via
        self._purges = purges
        self._heads = heads
        self._body_timeout_s = body_timeout_s

    def serve(self, context: RequestContext, why: bytes) -> RequestOutcome:
        """Forward the request to the target's origin, and answer the client.

        Raises:
            OriginError, HttpError: no response, or an invalid request body; nothing has been sent to the client.
            BodyCutShort: the response, or the request's body, ended in the middle.
            ClientGone: the connection is broken.
        """
        self._forward(context, _ToClient(context, self._purges, self._heads, why, HeadJudge()))
        return context.ended("passed")

    def serve_unless(self, context: RequestContext, why: bytes, judge: HeadJudge) -> RequestOutcome | Declined:
        """As serve(), unless the judge declines the answer."""
        sink = _ToClient(context, self._purges, self._heads, why, judge)
        self._forward(context, sink)
        return sink.declined or context.ended("passed")

    def _forward(self, context: RequestContext, sink: _ToClient) -> None:
        target, request = context.target, context.request
        assert target.rule is not None
        has_body = request.framing is not Framing.NONE
        fields = self._via.forwarded(request, target)
        if request.expects_continue and has_body:
            fields = fields.with_line(b"Expect", b"100-continue")
        asked = OriginRequest(
            url=target.whole_url,
            method=request.method,
            fields=fields,
            body=RequestBody(context.connection, request, self._body_timeout_s) if has_body else None,
            named_by_operator=target.named_by_operator,
        )
        try:
            self._origin.fetch(asked, sink, target.rule.limits)
            if sink.declined is None:
                sink.end()
        except (OriginError, HttpError) as error:
            if not sink.begun:
                raise
            if sink.ends_by_close:  # a normal end would make it look complete
                context.connection.stream.reset()
            raise BodyCutShort(str(error)) from error
