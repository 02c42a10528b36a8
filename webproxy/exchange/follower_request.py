"""FollowerRequestHandler: other processes read what this one fetches, while it comes (docs/protocol.md 11).

They also tell it of purges that a cache has missed (siblings.py).

It answers on the private socket only, so that whatever a request says there comes from a process of the same user. It
looks at fetches that run here and starts none: a request cannot go in circles. Its readers count like those of clients:
a fetch goes on for them, and waits for nobody who is slow.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

from webproxy.caching.stored_codec import MetadataError
from webproxy.errors import OriginError
from webproxy.exchange.context import RequestContext
from webproxy.exchange.http_request import HttpRequestHandler, UnfinishedAnswer
from webproxy.exchange.response_heads import CLOSES
from webproxy.exchange.spooled_body import send_body, send_data
from webproxy.fetch.follow_messages import (
    GONE,
    NO_SUCH_OBJECT,
    NOT_SHARED,
    Asked,
    Followed,
    asked_by,
    response_lines,
    status_of_failure,
)
from webproxy.fetch.lease_book import Standing
from webproxy.fetch.spool import Answer, BodyFound, BodyMissing, Head, Interim, SpoolReader
from webproxy.http.fields import Fields
from webproxy.http.messages import HttpError, RequestHead, response_head
from webproxy.store.siblings import NO_SUCH_CACHE, WITHHELD, missed_in
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import AnyOf, RequestOutcome, Steps

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 1.0
"""A follower hears so often that its holder lives, while the head of the response is awaited."""
AWAITED_SECONDS: Final = 10.0
"""Longest wait for a request of this process that may open the fetch."""
_HEARTBEAT: Final = response_head(102, Fields())
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


class FollowerRequestHandler(HttpRequestHandler):
    """As HttpRequestHandler, whose steps it uses, on the private socket; counts and observers of its own."""

    def serve(self, connection: HttpConnection, request: RequestHead | object) -> RequestOutcome:
        """As HttpRequestHandler.serve()."""
        assert isinstance(request, RequestHead)  # there is no fast path here
        context = self._context(connection, request, CLOSES)
        asked = asked_by(request)
        if asked is None:
            missed = missed_in(request)
            if missed is None:
                raise HttpError(400, "this socket is for processes that follow a fetch")
            status = WITHHELD if self._updates.withhold(missed) else NO_SUCH_CACHE
            return self._take_step(UnfinishedAnswer(context, self._guarded(context, self._confirm(context, status))))
        return self._take_step(UnfinishedAnswer(context, self._guarded(context, self._follow(context, asked))))

    def recognise(self, _data: bytes) -> None:
        """Nothing is answered from the hot table."""

    def _follow(self, context: RequestContext, asked: Asked) -> Steps[RequestOutcome]:
        log.debug("follower asks", extra={"lease": asked.number, "key": asked.key})
        stream, waits_until = context.connection.stream, monotonic() + AWAITED_SECONDS
        yield from send_data(stream, _HEARTBEAT)
        while (found := self._fetches.follow(*asked)) is Standing.AWAITED and monotonic() < waits_until:
            yield AnyOf((self._fetches.leases.ends(asked.key),), limit_s=HEARTBEAT_SECONDS)
            yield from send_data(stream, _HEARTBEAT)
        if not isinstance(found, SpoolReader):
            return (yield from self._refuse_follower(context, NOT_SHARED if found is Standing.UNSHARED else GONE))
        try:
            return (yield from self._send(context, found))
        finally:
            found.close()

    def _send(self, context: RequestContext, reader: SpoolReader) -> Steps[RequestOutcome]:
        stream = context.connection.stream
        try:
            while (answer := reader.news()) is None or isinstance(answer, Interim):
                if answer is None:
                    yield AnyOf((reader,), limit_s=HEARTBEAT_SECONDS)
                    yield from send_data(stream, _HEARTBEAT)
        except OriginError as error:
            return (yield from self._refuse_follower(context, status_of_failure(error)))
        told = _told(answer)
        if isinstance(told, int):
            return (yield from self._refuse_follower(context, told))
        lines, length = told
        framing = _CHUNKED if length is None else b"Content-Length: %d\r\n" % length
        head = b"HTTP/1.1 200 OK\r\n" + lines + framing + b"Connection: close\r\n\r\n"
        yield from send_data(stream, context.begins(head), more=True)
        yield from send_body(stream, reader, framing, length)
        return context.ended("followed")

    def _confirm(self, context: RequestContext, status: int) -> Steps[RequestOutcome]:
        head = b"HTTP/1.1 %d \r\nConnection: close\r\n\r\n" % status
        yield from send_data(context.connection.stream, context.begins(head))
        return context.ended("withheld" if status == WITHHELD else "not withheld")

    def _refuse_follower(self, context: RequestContext, status: int) -> Steps[RequestOutcome]:
        head = b"HTTP/1.1 %d \r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
        yield from send_data(context.connection.stream, context.begins(head))
        return context.ended("not followed")


def _told(answer: Answer) -> tuple[bytes, int | None] | int:
    """The lines that tell of a response, and the length of its body if that is known; or the status of a refusal."""
    if isinstance(answer, BodyMissing):
        return NO_SUCH_OBJECT
    length: int | None
    if isinstance(answer, BodyFound) and answer.stored is not None:  # getfile has no users: it serves them all
        followed, length = Followed(answer.stored, is_shareable=True, is_common=True), answer.length
    elif isinstance(answer, Head):
        followed = Followed(answer.stored, answer.is_shareable, answer.is_common)
        length = answer.response.length
    else:
        return GONE
    if not (followed.is_shareable or followed.is_common):
        return NOT_SHARED
    try:
        return response_lines(followed), length
    except MetadataError:
        return NOT_SHARED
