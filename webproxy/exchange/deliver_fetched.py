"""FetchedDelivery: the response of an origin → the response to each request that shares it, streamed as it arrives."""

from __future__ import annotations

from dataclasses import replace

from webproxy.caching.decision import Decision
from webproxy.caching.partial import WHOLE, RangeKind, answer_range
from webproxy.caching.validators import Condition
from webproxy.errors import BodyCutShort
from webproxy.exchange.context import RequestContext
from webproxy.exchange.pass_through import body_framing
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.fetch.spool import Head, SpoolReader
from webproxy.http.dates import format_http_date
from webproxy.http.serialise import CHUNK_END, LAST_CHUNK, chunk_head
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import RequestOutcome


def send_spooled(stream: ClientStream, reader: SpoolReader, end: int | None) -> None:
    """Send a body as it arrives, up to `end` or, if its length is unknown, to its end.

    Raises:
        ClientGone, BodyCutShort: the connection is unusable, or the body ended early.
    """
    while end is None or reader.position < end:
        available = reader.wait_available()
        if available <= 0:
            if end is None:
                return
            raise BodyCutShort("the origin's body ended before its length")
        wanted = available if end is None else min(available, end - reader.position)
        sent = stream.send_file(reader.fd, reader.position, wanted)
        if sent:
            reader.advance(sent)
        else:
            stream.wait_writable()


class FetchedDelivery:
    """Shared by all workers."""

    def __init__(self, heads: ResponseHeads) -> None:
        self._heads = heads

    def send(
        self,
        context: RequestContext,
        reader: SpoolReader,
        answer: Head,
        decision: Decision,
        condition: Condition,
        *,
        collapsed: bool,
    ) -> RequestOutcome:
        """Stream a response of the origin as it arrives; the origin was asked without the request's conditions.

        Raises:
            ClientGone, BodyCutShort: the connection is unusable.
        """
        response, request = answer.response, context.request
        status = self._heads.status(
            fwd=b"partial" if answer.completes else decision.reason,
            fwd_status=206 if answer.completes else response.status,
            stored=answer.is_stored,
            collapsed=collapsed,
            key=context.key_to_tell,
            detail=answer.detail or None,
        )
        if response.status == 200 and self._send_part(
            context, reader, answer, status, is_known=condition is Condition.NOT_MODIFIED
        ):
            return context.ended("fetched")
        if collapsed:  # fields for the first client alone, withheld from the stored response, are withheld here too
            fields = answer.stored.fields.with_line(b"Age", b"%d" % answer.stored.initial_age_s)
            response = replace(response, fields=fields)
        framing, context.said = body_framing(request, response, context.said)
        date = format_http_date(int(context.now))
        context.connection.stream.send_header(self._heads.forwarded(response, context.said, status, framing, date))
        if framing.startswith(b"Transfer"):
            self._stream_chunked(context, reader)
        elif response.length is not None:
            send_spooled(context.connection.stream, reader, response.length)
        else:
            self._stream_to_the_close(context, reader)
        return context.ended("fetched")

    def _send_part(
        self, context: RequestContext, reader: SpoolReader, answer: Head, status: bytes, *, is_known: bool
    ) -> bool:
        """Apply the request's conditions and range to a 200; False if all of it must be sent.

        The origin was asked without them, so it sends the whole. `is_known`: the client has it already.
        """
        stored, stream = answer.stored, context.connection.stream
        ranges = WHOLE if answer.response.length is None else answer_range(context.request, stored, context.now)
        if is_known:
            stream.send_all(self._heads.not_modified(stored, stored.initial_age_s, context.said, status))
        elif ranges.kind is RangeKind.UNSATISFIABLE:
            said, age_s = context.said, stored.initial_age_s
            stream.send_all(self._heads.unsatisfiable(stored, age_s, said, status, context.now))
        elif ranges.kind is RangeKind.ONE:
            first, end = ranges.ranges[0]
            stream.send_header(self._heads.part(stored, stored.initial_age_s, context.said, status, first, end))
            while reader.position < first:  # the fetch need not wait for a reader that skips
                available = reader.wait_available()
                if available <= 0:
                    raise BodyCutShort("the origin's body ended before its length")
                reader.advance(min(available, first - reader.position))
            send_spooled(stream, reader, end)
        else:
            return False
        if answer.is_stored:  # the client has what it wanted; the rest is fetched for the cache
            reader.detach()
        return True

    def _stream_to_the_close(self, context: RequestContext, reader: SpoolReader) -> None:
        """A body delimited only by the end of the connection: one that breaks off must not look complete."""
        try:
            send_spooled(context.connection.stream, reader, None)
        except BodyCutShort:
            context.connection.stream.reset()
            raise

    def _stream_chunked(self, context: RequestContext, reader: SpoolReader) -> None:
        stream = context.connection.stream
        while (available := reader.wait_available()) > 0:
            end = reader.position + available
            stream.send_header(chunk_head(available))
            send_spooled(stream, reader, end)
            stream.send_all(CHUNK_END)
        stream.send_all(LAST_CHUNK)
