"""StoredDelivery: answers one request from a stored response: 304, 416, the whole body or parts of it."""

from __future__ import annotations

import os

from shmchannel.deadline import Deadline
from webproxy.caching.partial import RangeKind, answer_range, lies_within
from webproxy.caching.validators import Condition
from webproxy.errors import CacheUnavailable
from webproxy.exchange.body_transfer import PIECE_BYTES, BodySource, BodyTransfer, FileResponse
from webproxy.exchange.context import RequestContext
from webproxy.exchange.fast_path import CachedReply
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.http.messages import RequestHead
from webproxy.http.ranges import multipart_parts
from webproxy.store.lookup import StoredHit
from webproxy.store.store import Missing
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import KEEP_ALIVE, Done, Event, RequestOutcome


class ObjectGone(Exception):
    """The object that was found has left the cache, or was replaced, before its body was asked for."""


class StoredDelivery:
    """Shared by all workers."""

    def __init__(self, source: BodySource, heads: ResponseHeads) -> None:
        self._source = source
        self._heads = heads

    def send(
        self,
        context: RequestContext,
        found: StoredHit,
        age_s: int,
        status: bytes | None,
        condition: Condition,
        result: str,
    ) -> RequestOutcome:
        """Answer with a stored response: 304, all of it, or the parts that were asked for.

        Raises:
            ObjectGone: its body is not there any more; the client has been told nothing.
            ClientGone, BodyCutShort: the connection is of no more use.
        """
        stored, request, stream, said = found.stored, context.request, context.stream, context.said
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(self._heads.not_modified(stored, age_s, said, status))
            return context.ended(result)
        answer = answer_range(request, stored, context.now)
        if stored.incomplete and not lies_within(answer, found.size_bytes):  # its validation has changed what it is
            raise ObjectGone
        if answer.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(self._heads.unsatisfiable(stored, age_s, said, status, context.now, with_body=True))
            return context.ended(result)
        if request.method == b"GET":
            self._make_sure(found)
        if answer.kind is RangeKind.WHOLE:
            return self._send_whole(context, found, self._heads.hit(stored, age_s, said, status), result)
        if answer.kind is RangeKind.ONE:
            first, end = answer.ranges[0]
            stream.send_header(self._heads.part(stored, age_s, said, status, first, end))
            return self._send_range(context, found, first, end, result)
        boundary = os.urandom(12).hex().encode()
        parts, tail, length = multipart_parts(
            answer.ranges, stored.body_bytes, stored.fields.get(b"content-type"), boundary
        )
        stream.send_header(self._heads.parts(stored, age_s, said, status, boundary, length))
        for head, first, end in parts:
            stream.send_all(head)
            self._send_range_to_the_end(context, found, first, end)
        stream.send_all(tail)
        return context.ended(result)

    def _make_sure(self, found: StoredHit) -> None:
        """Open the body again that was left while the origin was asked; once a head was sent it would be too late."""
        if found.body is not None or found.transfer is not None or found.file is not None:
            return
        deadline = Deadline.after(self._source.wait_s)
        try:
            transfer = self._source.store.get(found.key, deadline, version=found.version)
        except CacheUnavailable as error:
            raise ObjectGone from error
        if isinstance(transfer, Missing):
            raise ObjectGone
        found.transfer = transfer

    def _send_whole(self, context: RequestContext, found: StoredHit, head: bytes, result: str) -> RequestOutcome:
        stream = context.stream
        if context.request.method == b"HEAD":
            stream.send_all(head)
            return context.ended(result)
        if found.body is not None:
            stream.send_all(head + found.body)
            return context.ended(result)
        transfer, found.transfer = found.transfer, None
        if transfer is None:
            stream.send_header(head)
            return self._send_range(context, found, 0, found.stored.body_bytes, result)
        body = self._body(context, found, 0, found.stored.body_bytes)
        with transfer:
            sent = stream.send_with_header(head, transfer.address, transfer.length, not transfer.last)
            event = body.send(transfer, sent)
        return context.ended_or_waits(body, body.go_on(event), result)

    def _send_range(
        self, context: RequestContext, found: StoredHit, first: int, end: int, result: str
    ) -> RequestOutcome:
        if found.body is not None:
            context.stream.send_all(found.body[first:end])
            return context.ended(result)
        body, event = self._begin_range(context, found, first, end)
        return context.ended_or_waits(body, event, result)

    def _begin_range(
        self, context: RequestContext, found: StoredHit, first: int, end: int
    ) -> tuple[BodyTransfer, Event | None]:
        if found.file is not None:
            file_body = FileResponse(context.stream, found.key, found.file, self._source, first, end)
            return file_body, file_body.send_file(found.file)
        found.cancel_quietly()
        body = self._body(context, found, first, end)
        return body, body.go_on()

    def _body(self, context: RequestContext, found: StoredHit, first: int, end: int) -> BodyTransfer:
        body = BodyTransfer(context.stream, found.key, found.size_bytes, found.version, self._source)
        body.position, body.end = first, end
        return body

    def _send_range_to_the_end(self, context: RequestContext, found: StoredHit, first: int, end: int) -> None:
        """Between two parts nothing pauses: a client that reads slowly keeps this worker, down to the least rate."""
        if found.body is not None:
            context.stream.send_all(found.body[first:end])
            return
        body, event = self._begin_range(context, found, first, end)
        body.takes_turns = False
        while event is not None:
            if event is Event.WRITABLE:
                context.stream.wait_writable()
            event = body.go_on()

    def send_cached(self, connection: HttpConnection, request: RequestHead, reply: CachedReply) -> RequestOutcome:
        """Send a whole reply from the hot table; the request is held when the client takes nothing of it now.

        Raises:
            ClientGone, BodyCutShort: the connection is of no more use.
        """
        stream, file = connection.stream, reply.file
        if file is None:
            stream.send_all(reply.data)
        elif not stream.begin_header(reply.data):
            return connection.hold(request)
        else:
            sent = stream.send_file(file.fd, 0, min(file.size_bytes, PIECE_BYTES))
            if sent != file.size_bytes:  # up to a piece hardly ever: no body that can pause need be made
                body = FileResponse(stream, reply.key, file, self._source, sent, file.size_bytes)
                event = body.send_file(file)
                if event is not None:
                    return connection.pause(body, event, is_last=reply.closes)
        return Done(connection) if reply.closes else KEEP_ALIVE
