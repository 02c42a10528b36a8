"""StoredDelivery: answers one request from a stored response: 304, 416, the whole body or parts of it."""

from __future__ import annotations

import os

from shmchannel.deadline import Deadline
from webproxy.caching.partial import RangeKind, answer_range, lies_within
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import conditional_request
from webproxy.caching.validators import Condition
from webproxy.errors import BodyCutShort, CacheUnavailable
from webproxy.exchange.body_transfer import BodySource, BodyTransfer, FileResponse, Part, SourceLost, begin_body
from webproxy.exchange.context import Answering, PausedHit, RequestContext
from webproxy.exchange.origin_rest import OriginRest
from webproxy.http.ranges import multipart_parts
from webproxy.origin.request import OriginRequest
from webproxy.origin.via import Via
from webproxy.store.lookup import StoredHit
from webproxy.store.store import Missing
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event, RequestOutcome, Steps


class ObjectGone(Exception):
    """The object found was evicted or replaced before its body was requested."""


class StoredDelivery:
    """Shared by all workers."""

    def __init__(self, source: BodySource, origin_rest: OriginRest, via: Via) -> None:
        self._source = source
        self._origin_rest = origin_rest
        self._via = via

    def send(
        self,
        context: RequestContext,
        found: StoredHit,
        age_s: int,
        status: bytes | None,
        condition: Condition,
        result: str,
    ) -> Answering:
        """Answer with a stored response: 304, all of it, or the requested parts.

        Raises:
            ObjectGone: its body is gone; nothing has been sent to the client.
            ClientGone, BodyCutShort: the connection is unusable.
        """
        stored, request, heads, said = found.stored, context.request, context.heads, context.said
        if condition is Condition.NOT_MODIFIED:
            return context.send(heads.not_modified(stored, age_s, said, status), result)
        answer = answer_range(request, stored, context.now)
        if stored.incomplete and not lies_within(answer, found.size_bytes):  # its validation has changed it
            raise ObjectGone
        if answer.kind is RangeKind.UNSATISFIABLE:
            return context.send(heads.unsatisfiable(stored, age_s, said, status, context.now), result)
        if request.method == b"HEAD":
            return context.send(heads.hit(stored, age_s, said, status), result)
        first, end = answer.ranges[0] if answer.ranges else (0, found.size_bytes)
        further: list[Part] = []
        if not found.has(first, end):
            self._request_body(found, first, end)
        if answer.kind is RangeKind.SEVERAL:
            boundary = os.urandom(12).hex().encode()
            content_type = stored.fields.get(b"content-type")
            parts, tail, length = multipart_parts(answer.ranges, stored.body_bytes, content_type, boundary)
            head = heads.parts(stored, age_s, said, status, boundary, length) + parts[0][0]
            further = [*(Part(*part) for part in parts[1:]), Part(tail, 0, 0)]
        elif answer.kind is RangeKind.ONE:
            head = heads.part(stored, age_s, said, status, first, end)
        else:
            head = heads.hit(stored, age_s, said, status)
        body = found.body
        if body is not None:
            first_part = Part(head, first, end)
            return context.send(
                b"".join(part.head + body[part.first : part.end] for part in (first_part, *further)), result
            )
        try:
            rest = self._begin(context.connection.stream, found, context.begins(head), first, end, further)
        except SourceLost as lost:
            return self.go_on(context, stored, lost.body, str(lost), result)
        if rest is None:
            return context.ended(result)
        return context.connection.pause(PausedHit(rest[0], request, stored), rest[1], is_last=said.closes)

    def go_on(
        self, context: RequestContext, stored: StoredResponse, body: BodyTransfer, why: str, result: str
    ) -> Steps[RequestOutcome]:
        """Send the rest of a body that the cache has lost, from the origin; `why` it was lost.

        Raises:
            BodyCutShort, ClientGone: as OriginRest.send().
        """
        target = context.target
        if target.rule is None:
            raise BodyCutShort(why)
        fields = conditional_request(self._via.forwarded(context.request, target), None)
        asked = OriginRequest(url=target.url, fields=fields, named_by_operator=target.named_by_operator)
        while True:
            yield from self._origin_rest.send(body, why, stored, asked, target.rule)
            try:  # further ranges: the cache is asked for each
                while (event := body.resume(context.connection.take_ticket())) is not None:
                    yield event
            except SourceLost as lost:
                why = str(lost)
            else:
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
        self, stream: ClientStream, found: StoredHit, head: bytes, first: int, end: int, further: list[Part]
    ) -> tuple[BodyTransfer, Event] | None:
        """Send a head, these bytes of the body and further parts; returns the rest and what that waits for, if any."""
        source, (transfer, found.transfer) = self._source, (found.transfer, None)
        if transfer is not None:
            return begin_body(stream, head, transfer, found.key, source, first, end, further)
        assert found.file is not None
        sent = stream.send_some(head, more=True)
        response = FileResponse(stream, found.key, found.file, source, first, end, head=head[sent:], parts=further)
        event = response.begin(found.file)
        return None if event is None else (response, event)
