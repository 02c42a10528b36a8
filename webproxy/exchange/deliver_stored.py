"""StoredDelivery: answers one request from a stored response: 304, 416, the whole body or parts of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from shmchannel.deadline import Deadline
from webproxy.caching.partial import RangeKind, answer_range, lies_within
from webproxy.caching.validators import Condition
from webproxy.errors import CacheUnavailable
from webproxy.exchange.body_transfer import BodySource, BodyTransfer, FileResponse, begin_body
from webproxy.exchange.context import RequestContext
from webproxy.http.ranges import multipart_parts
from webproxy.store.cache_client import Missing
from webproxy.store.lookup import StoredHit
from webproxy.transport.job import Event, RequestOutcome


class ObjectGone(Exception):
    """The object found was evicted or replaced before its body was requested."""


class StoredDelivery:
    """Shared by all workers."""

    def __init__(self, source: BodySource) -> None:
        self._source = source

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
        heads = context.heads
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(heads.not_modified(stored, age_s, said, status))
            return context.ended(result)
        answer = answer_range(request, stored, context.now)
        if stored.incomplete and not lies_within(answer, found.size_bytes):  # its validation has changed it
            raise ObjectGone
        if answer.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(heads.unsatisfiable(stored, age_s, said, status, context.now))
            return context.ended(result)
        if request.method == b"HEAD":
            stream.send_all(heads.hit(stored, age_s, said, status))
            return context.ended(result)
        ranges = answer.ranges or ((0, found.size_bytes),)
        first, end = ranges[0]
        if not found.has(first, end):
            self._request_body(found, first, end)
        if answer.kind is RangeKind.SEVERAL:
            self._send_parts(context, found, ranges, age_s, status)
            return context.ended(result)
        if answer.kind is RangeKind.ONE:
            head = heads.part(stored, age_s, said, status, first, end)
        else:
            head = heads.hit(stored, age_s, said, status)
        rest = self._begin(context, found, head, first, end)
        return context.ended(result) if rest is None else context.connection.pause(*rest, is_last=said.closes)

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
    ) -> tuple[BodyTransfer, Event] | None:
        """Send a head and these bytes of the body; returns the rest of them and what that waits for, if any."""
        stream, source, body = context.connection.stream, self._source, found.body
        if body is not None:
            stream.send_all(head + body[first:end])
            return None
        transfer, found.transfer = found.transfer, None
        if transfer is not None:
            return begin_body(stream, head, transfer, found.key, source, first, end, takes_turns=takes_turns)
        stream.send_header(head)
        if found.file is not None:
            response = FileResponse(stream, found.key, found.file, source, first, end)
            event = response.send_file(found.file)
            return None if event is None else (response, event)
        rest = BodyTransfer(  # another of several ranges
            stream, found.key, found.size_bytes, found.version, source, first, end, takes_turns=takes_turns
        )
        event = rest.resume()
        return None if event is None else (rest, event)

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
        stream.send_header(context.heads.parts(stored, age_s, context.said, status, boundary, length))
        for head, first, end in parts:
            rest = self._begin(context, found, head, first, end, takes_turns=False)
            event = None if rest is None else rest[1]
            while rest is not None and event is not None:
                if event is Event.WRITABLE:
                    stream.wait_writable()
                event = rest[0].resume()
        stream.send_all(tail)
