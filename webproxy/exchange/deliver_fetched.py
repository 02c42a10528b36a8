"""The response of an origin → the response to each request that shares it, streamed as it arrives."""

from __future__ import annotations

from dataclasses import replace

from webproxy.caching.decision import Decision
from webproxy.caching.partial import WHOLE, RangeKind, answer_range
from webproxy.caching.validators import Condition
from webproxy.errors import BodyCutShort
from webproxy.exchange.context import RequestContext
from webproxy.exchange.response_heads import body_framing
from webproxy.exchange.spooled_body import send_body, send_data, send_spooled
from webproxy.fetch.spool import Head, SpoolReader
from webproxy.telemetry.requests import CacheResult
from webproxy.transport.job import RequestOutcome, Steps


def send_fetched(
    context: RequestContext,
    reader: SpoolReader,
    answer: Head,
    decision: Decision,
    condition: Condition,
    *,
    collapsed: bool,
) -> Steps[RequestOutcome]:
    """Stream a response of the origin as it arrives; the origin was asked without the request's conditions.

    Raises:
        ClientGone, BodyCutShort: the connection is unusable.
    """
    response, request, stream = answer.response, context.request, context.connection.stream
    context.record.cache = CacheResult.COLLAPSED if collapsed else CacheResult.MISS
    status = context.heads.status(
        fwd=b"partial" if answer.completes else decision.reason,
        fwd_status=206 if answer.completes else response.status,
        stored=answer.is_stored,
        collapsed=collapsed,
        key=context.key_to_tell,
        detail=answer.detail or None,
    )
    if response.status == 200:
        is_known = condition is Condition.NOT_MODIFIED
        if (yield from _send_part(context, reader, answer, status, is_known=is_known)):
            return context.ended("fetched")
    if collapsed:  # fields for the first client alone, withheld from the stored response, are withheld here too
        fields = answer.stored.fields.with_line(b"Age", b"%d" % answer.stored.initial_age_s)
        response = replace(response, fields=fields)
    framing, context.said = body_framing(request, response, context.said)
    head = context.begins(context.heads.forwarded(response, context.said, status, framing, context.now))
    body = None if response.length is None else reader.take_whole(response.length)
    if body is not None:
        yield from send_data(stream, head + body)
        return context.ended("fetched")
    yield from send_data(stream, head, more=response.length != 0)
    yield from send_body(stream, reader, framing, response.length)
    return context.ended("fetched")


def _send_part(
    context: RequestContext, reader: SpoolReader, answer: Head, status: bytes, *, is_known: bool
) -> Steps[bool]:
    """Apply the request's conditions and range to a 200; False if all of it must be sent.

    The origin was asked without them, so it sends the whole. `is_known`: the client has it already.
    """
    stored, stream, heads, said = answer.stored, context.connection.stream, context.heads, context.said
    age_s = stored.initial_age_s
    ranges = WHOLE if answer.response.length is None else answer_range(context.request, stored, context.now)
    if is_known:
        yield from send_data(stream, context.begins(heads.not_modified(stored, age_s, said, status)))
    elif ranges.kind is RangeKind.UNSATISFIABLE:
        yield from send_data(stream, context.begins(heads.unsatisfiable(stored, age_s, said, status, context.now)))
    elif ranges.kind is RangeKind.ONE:
        first, end = ranges.ranges[0]
        head = context.begins(heads.part(stored, age_s, said, status, first, end))
        yield from send_data(stream, head, more=True)
        while reader.position < first:  # the fetch need not wait for a reader that skips
            available = reader.available()
            if available is None:
                yield reader
            elif available > 0:
                reader.advance(min(available, first - reader.position))
            else:
                raise BodyCutShort("the origin's body ended before its length")
        yield from send_spooled(stream, reader, end)
    else:
        return False
    if answer.is_stored:  # the client has what it wanted; the rest is fetched for the cache
        reader.detach()
    return True
