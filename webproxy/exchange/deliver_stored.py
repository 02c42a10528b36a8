"""StoredDelivery: answers one request from a stored response: 304, 416, the whole body or parts of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

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
from webproxy.store.cache_client import Missing
from webproxy.store.lookup import StoredHit
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import KEEP_ALIVE, Done, Event, RequestOutcome


class ObjectGone(Exception):
    """The object found was evicted or replaced before its body was requested."""


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
        """Answer with a stored response: 304, all of it, or the requested parts.

        Raises:
            ObjectGone: its body is gone; nothing has been sent to the client.
            ClientGone, BodyCutShort: the connection is unusable.
        """
        stored, request, stream, said = found.stored, context.request, context.connection.stream, context.said
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(self._heads.not_modified(stored, age_s, said, status))
            return context.ended(result)
        answer = answer_range(request, stored, context.now)
        if stored.incomplete and not lies_within(answer, found.size_bytes):  # its validation has changed it
            raise ObjectGone
        if answer.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(self._heads.unsatisfiable(stored, age_s, said, status, context.now))
            return context.ended(result)
        if request.method == b"HEAD":
            stream.send_all(self._heads.hit(stored, age_s, said, status))
            return context.ended(result)
        ranges = answer.ranges or ((0, found.size_bytes),)
        first, end = ranges[0]
        if not found.has(first, end):
            self._request_body(found, first, end)
        if answer.kind is RangeKind.SEVERAL:
            self._send_parts(context, found, ranges, age_s, status)
            return context.ended(result)
        if answer.kind is RangeKind.ONE:
            head = self._heads.part(stored, age_s, said, status, first, end)
        else:
            head = self._heads.hit(stored, age_s, said, status)
        if found.body is not None:
            stream.send_all(head + found.body[first:end])
            return context.ended(result)
        body, event = self._begin(context, found, head, first, end)
        if event is not None:
            return context.connection.pause(body, event, is_last=said.closes)
        return context.ended(result)

    def _request_body(self, found: StoredHit, first: int, end: int) -> None:
        """Request these bytes of the body; once a head was sent it would be too late."""
        found.cancel_quietly()
        deadline = Deadline.after(self._source.wait_s)
        length = end - first if end < found.size_bytes else 0
        try:
            transfer = self._source.store.get(found.key, deadline, offset=first, length=length, version=found.version)
        except CacheUnavailable as error:
            raise ObjectGone from error
        if isinstance(transfer, Missing):
            raise ObjectGone
        found.transfer = transfer

    def _begin(
        self, context: RequestContext, found: StoredHit, head: bytes, first: int, end: int, *, takes_turns: bool = True
    ) -> tuple[BodyTransfer, Event | None]:
        """Send a head and these bytes of the body; returns what is left of them, and what it waits for."""
        stream, source = context.connection.stream, self._source
        if found.file is not None:
            stream.send_header(head)
            file_body = FileResponse(stream, found.key, found.file, source, first, end)
            return file_body, file_body.send_file(found.file)
        body = BodyTransfer(
            stream, found.key, found.size_bytes, found.version, source, first, end, takes_turns=takes_turns
        )
        transfer, found.transfer = found.transfer, None
        if transfer is None:
            stream.send_all(head)
            return body, body.go_on()
        with transfer:
            sent = stream.send_with_header(head, transfer.address, transfer.length, not transfer.last)
            event = body.send(transfer, sent)
        return body, body.go_on() if event is Event.WIDTH else event

    def _send_parts(
        self,
        context: RequestContext,
        found: StoredHit,
        ranges: Sequence[tuple[int, int]],
        age_s: int,
        status: bytes | None,
    ) -> None:
        """Between two parts nothing pauses: a client that reads slowly keeps this worker, down to the least rate."""
        stored, stream = found.stored, context.connection.stream
        boundary = os.urandom(12).hex().encode()
        parts, tail, length = multipart_parts(ranges, stored.body_bytes, stored.fields.get(b"content-type"), boundary)
        stream.send_header(self._heads.parts(stored, age_s, context.said, status, boundary, length))
        for head, first, end in parts:
            if found.body is not None:
                stream.send_all(head + found.body[first:end])
                continue
            body, event = self._begin(context, found, head, first, end, takes_turns=False)
            while event is not None:
                if event is Event.WRITABLE:
                    stream.wait_writable()
                event = body.go_on()
        stream.send_all(tail)

    def send_cached(self, connection: HttpConnection, request: RequestHead, reply: CachedReply) -> RequestOutcome:
        """Send a complete reply from the hot table; the request is held if the client accepts nothing of it now.

        Raises:
            ClientGone, BodyCutShort: the connection is unusable.
        """
        stream, file = connection.stream, reply.file
        if file is None:
            stream.send_all(reply.data)
        elif not stream.begin_header(reply.data):
            return connection.hold(request)
        else:
            sent = stream.send_file(file.fd, 0, min(file.size_bytes, PIECE_BYTES))
            if sent != file.size_bytes:  # hardly ever up to a piece: no body that can pause need be created
                body = FileResponse(stream, reply.key, file, self._source, sent, file.size_bytes)
                event = body.send_file(file)
                if event is not None:
                    return connection.pause(body, event, is_last=reply.closes)
        return Done(connection) if reply.closes else KEEP_ALIVE
