"""The response of an origin → the response to each request that shares it, streamed as it arrives."""

from __future__ import annotations

from dataclasses import replace

from webproxy.caching.decision import Decision
from webproxy.caching.partial import WHOLE, RangeKind, answer_range
from webproxy.caching.validators import Condition
from webproxy.errors import BodyCutShort
from webproxy.exchange.context import RequestContext
from webproxy.exchange.response_heads import body_framing
from webproxy.fetch.spool import Head, SpoolReader
from webproxy.http.chunked import CHUNK_END, LAST_CHUNK, chunk_head
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


def send_fetched(
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
    response, request, stream = answer.response, context.request, context.connection.stream
    status = context.heads.status(
        fwd=b"partial" if answer.completes else decision.reason,
        fwd_status=206 if answer.completes else response.status,
        stored=answer.is_stored,
        collapsed=collapsed,
        key=context.key_to_tell,
        detail=answer.detail or None,
    )
    if response.status == 200 and _send_part(
        context, reader, answer, status, is_known=condition is Condition.NOT_MODIFIED
    ):
        return context.ended("fetched")
    if collapsed:  # fields for the first client alone, withheld from the stored response, are withheld here too
        fields = answer.stored.fields.with_line(b"Age", b"%d" % answer.stored.initial_age_s)
        response = replace(response, fields=fields)
    framing, context.said = body_framing(request, response, context.said)
    stream.send_header(context.heads.forwarded(response, context.said, status, framing, context.now))
    if framing.startswith(b"Transfer"):
        while (available := reader.wait_available()) > 0:
            end = reader.position + available
            stream.send_header(chunk_head(available))
            send_spooled(stream, reader, end)
            stream.send_all(CHUNK_END)
        stream.send_all(LAST_CHUNK)
        return context.ended("fetched")
    try:
        send_spooled(stream, reader, response.length)
    except BodyCutShort:
        if response.length is None:  # only the end of the connection ends the body: it must not look complete
            stream.reset()
        raise
    return context.ended("fetched")


def _send_part(context: RequestContext, reader: SpoolReader, answer: Head, status: bytes, *, is_known: bool) -> bool:
    """Apply the request's conditions and range to a 200; False if all of it must be sent.

    The origin was asked without them, so it sends the whole. `is_known`: the client has it already.
    """
    stored, stream, heads, said = answer.stored, context.connection.stream, context.heads, context.said
    age_s = stored.initial_age_s
    ranges = WHOLE if answer.response.length is None else answer_range(context.request, stored, context.now)
    if is_known:
        stream.send_all(heads.not_modified(stored, age_s, said, status))
    elif ranges.kind is RangeKind.UNSATISFIABLE:
        stream.send_all(heads.unsatisfiable(stored, age_s, said, status, context.now))
    elif ranges.kind is RangeKind.ONE:
        first, end = ranges.ranges[0]
        stream.send_header(heads.part(stored, age_s, said, status, first, end))
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
