"""PassThrough: forwards one request to the origin and its response to this client alone; nothing is stored."""

from __future__ import annotations

from time import time
from typing import Protocol

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.validators import CACHE_CONDITIONS
from webproxy.errors import BodyCutShort, OriginBadReply, OriginError
from webproxy.exchange.context import RequestContext
from webproxy.exchange.response_heads import body_framing
from webproxy.http.chunked import CHUNK_END, LAST_CHUNK, chunk_head
from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, HttpError, RequestHead, ResponseHead, response_head
from webproxy.http.urls import split_target
from webproxy.origin.client import OriginClient, Sink
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.via import Via
from webproxy.store.updates import CacheUpdater
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.http1_connection import RequestBody
from webproxy.transport.job import RequestOutcome


class HeadJudge(Protocol):
    """Sees the head of a response before anything is sent to the client."""

    def judge(self, response: OriginResponse) -> None:
        """Called once; raises OriginError if the client gets another response instead."""
        ...


def send_interim(stream: ClientStream, request: RequestHead, status: int, fields: Fields) -> None:
    """Pass an interim response to a client that understands it (RFC 9110 section 15.2); 100 is the proxy's own."""
    if status != 100 and request.version == (1, 1):
        stream.send_all(response_head(status, end_to_end(fields)))


class _ToClient(Sink):
    """Forwards data as it arrives; a slow client slows the origin, down to the minimum rate."""

    def __init__(self, context: RequestContext, updates: CacheUpdater, why: bytes, judge: HeadJudge | None) -> None:
        self._context = context
        self._stream = context.connection.stream
        self._updates = updates
        self._why = why
        self._judge = judge
        self.begun = False
        self.ends_by_close = False
        """Only the end of the connection ends the body."""
        self._chunked = False

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim()."""
        send_interim(self._stream, self._context.request, status, fields)

    def begin(self, response: OriginResponse) -> bool:
        """Forward the head, unless the judge raises; an unsolicited 304 is not a valid response."""
        context = self._context
        request = context.request
        if response.status == 304 and CACHE_CONDITIONS.isdisjoint(request.fields.names()):
            raise OriginBadReply("a 304 to a request without a condition", status=304)
        if self._judge is not None:
            self._judge.judge(response)
        # Before the client is told: it must not find again what the response invalidates.
        named = split_target(request.target, request.fields.get(b"host")).authority
        head = ResponseHead(response.status, response.fields, response.reason)
        self._updates.invalidate(context.target, request.method, head, named)
        framing, context.said = body_framing(request, response, context.said)
        self._chunked = framing.startswith(b"Transfer")
        self.ends_by_close = not framing
        status = context.heads.status(fwd=self._why, fwd_status=response.status)
        self.begun = True
        self._stream.send_all(context.heads.forwarded(response, context.said, status, framing, time()))
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

    def __init__(self, origin: OriginClient, via: Via, updates: CacheUpdater, *, body_timeout_s: float) -> None:
        self._origin = origin
        self.via = via
        self._updates = updates
        self._body_timeout_s = body_timeout_s

    def serve(self, context: RequestContext, why: bytes, judge: HeadJudge | None = None) -> RequestOutcome:
        """Forward the request to the target's origin, and answer the client.

        Raises:
            OriginError, HttpError: no response, one that the judge keeps from the client, or an invalid request body;
                nothing has been sent to the client.
            BodyCutShort: the response, or the request's body, ended in the middle.
            ClientGone: the connection is broken.
        """
        target, request = context.target, context.request
        assert target.rule is not None
        has_body = request.framing is not Framing.NONE
        fields = self.via.forwarded(request, target)
        if request.expects_continue and has_body:
            fields = fields.with_line(b"Expect", b"100-continue")
        asked = OriginRequest(
            url=target.whole_url,
            method=request.method,
            fields=fields,
            body=RequestBody(context.connection, request, self._body_timeout_s) if has_body else None,
            named_by_operator=target.named_by_operator,
        )
        sink = _ToClient(context, self._updates, why, judge)
        try:
            self._origin.fetch(asked, sink, target.rule.limits)
            sink.end()
        except (OriginError, HttpError) as error:
            if not sink.begun:
                raise
            if sink.ends_by_close:  # a normal end would make it look complete
                context.connection.stream.reset()
            raise BodyCutShort(str(error)) from error
        return context.ended("passed")
