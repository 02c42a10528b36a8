"""StoredDelivery: answers one request from a stored response: 304, 416, the whole body or parts of it."""

from __future__ import annotations

import os
from collections.abc import Callable

from shmchannel.deadline import Deadline
from shmchannel.objects.hot_table_files import HotTableFile
from webproxy.caching.partial import RangeKind, answer_range, lies_within
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.errors import CacheUnavailable
from webproxy.exchange.body_transfer import PIECE_BYTES, BodyTransfer, FileResponse, Pause
from webproxy.exchange.context import RequestContext, Result
from webproxy.exchange.getfile_request import Paused
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.http.ranges import multipart_parts
from webproxy.store.lookup import StoredHit
from webproxy.store.store import Missing, Store
from webproxy.transport.cached_reply import CachedReply
from webproxy.transport.http1_connection import HttpConnection


class ObjectGone(Exception):
    """The object that was found has left the cache, or was replaced, before its body was asked for."""


class StoredDelivery:
    """Shared by all workers."""

    def __init__(
        self, store: Store, replies: ResponseHeads, *, cache_wait_s: float, others_wait: Callable[[], bool]
    ) -> None:
        self._store = store
        self._replies = replies
        self._cache_wait_s = cache_wait_s
        self._others_wait = others_wait

    def send(
        self, context: RequestContext, found: StoredHit, age_s: int, status: bytes | None, outcome: str
    ) -> Result | None:
        """Answer with a stored response: 304, all of it, or the parts that were asked for.

        None when the request has conditions that only the origin may judge; the client has been told nothing then.

        Raises:
            ObjectGone: its body is not there any more; the client has been told nothing.
            ClientGone, BodyCutShort: the connection is of no more use.
        """
        stored, request = found.stored, context.request
        condition = evaluate_conditions(request, stored, context.now)
        if condition is Condition.ASK_ORIGIN and context.target.rule is not None:
            found.cancel_quietly()
            return None
        stream, goes_on = context.connection.stream, not context.said.closes
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(self._replies.not_modified(stored, age_s, context.said, status))
            return outcome, goes_on
        answer = answer_range(request, stored, context.now)
        if stored.incomplete and not lies_within(answer, found.size_bytes):  # its validation has changed what it is
            raise ObjectGone
        if answer.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(
                self._replies.unsatisfiable(stored, age_s, context.said, status, context.now, with_body=True)
            )
            return outcome, goes_on
        if request.method == b"GET":
            self._make_sure(found)
        if answer.kind is RangeKind.WHOLE:
            return self._send_whole(context, found, self._replies.hit(stored, age_s, context.said, status), outcome)
        if answer.kind is RangeKind.ONE:
            first, end = answer.ranges[0]
            stream.send_header(self._replies.part(stored, age_s, context.said, status, first, end))
            paused = self._send_range(context, found, first, end)
            return paused if paused is not None else (outcome, goes_on)
        boundary = os.urandom(12).hex().encode()
        parts, tail, length = multipart_parts(
            answer.ranges, stored.body_bytes, stored.fields.get(b"content-type"), boundary
        )
        stream.send_header(self._replies.parts(stored, age_s, context.said, status, boundary, length))
        for head, first, end in parts:
            stream.send_all(head)
            self._send_range_to_the_end(context, found, first, end)
        stream.send_all(tail)
        return outcome, goes_on

    def _make_sure(self, found: StoredHit) -> None:
        """Open the body again that was left while the origin was asked; once a head was sent it would be too late."""
        if found.body is not None or found.transfer is not None or found.file is not None:
            return
        deadline = Deadline.after(self._cache_wait_s)
        try:
            transfer = self._store.get(found.key, deadline, version=found.version)
        except CacheUnavailable as error:
            raise ObjectGone from error
        if isinstance(transfer, Missing):
            raise ObjectGone
        found.transfer = transfer

    def _send_whole(self, context: RequestContext, found: StoredHit, head: bytes, outcome: str) -> Result:
        stream, goes_on = context.connection.stream, not context.said.closes
        if context.request.method == b"HEAD":
            stream.send_all(head)
            return outcome, goes_on
        if found.body is not None:
            stream.send_all(head + found.body)
            return outcome, goes_on
        if found.file is not None:
            stream.send_header(head)
            paused = self._send_file(
                context.connection, found.key, found.file, 0, found.stored.body_bytes, closes=context.said.closes
            )
            return paused if paused is not None else (outcome, goes_on)
        transfer, found.transfer = found.transfer, None
        response = self._response(context, found, 0, found.stored.body_bytes)
        if transfer is None:
            stream.send_header(head)
            paused = self.go_on(response, Pause.WIDEN)
        else:
            with transfer:
                sent = stream.send_with_header(head, transfer.address, transfer.length, not transfer.last)
                pause = response.send(transfer, sent)
            paused = self.go_on(response, pause)
        return paused if paused is not None else (outcome, goes_on)

    def _response(self, context: RequestContext, found: StoredHit, first: int, end: int) -> BodyTransfer:
        response = BodyTransfer(
            context.connection.stream, found.key, found.size_bytes, found.version, self._others_wait
        )
        response.position, response.end = first, end
        response.connection = None if context.said.closes else context.connection
        return response

    def send_quick(self, connection: HttpConnection, reply: CachedReply) -> Paused | bool:
        """Send a whole reply from the hot table: True at its end, what is left of it, or False: there was no room.

        Raises:
            ClientGone, BodyCutShort: the connection is of no more use.
        """
        stream, file = connection.stream, reply.file
        if file is None:
            stream.send_all(reply.data)
            return True
        if not stream.begin_header(reply.data):
            return False
        sent = stream.send_file(file.fd, 0, min(file.size_bytes, PIECE_BYTES))
        if sent == file.size_bytes:  # nearly always, up to a piece: no response that can pause need be made
            return True
        return self._send_file(connection, reply.key, file, sent, file.size_bytes, closes=reply.closes) or True

    def _send_file(
        self, connection: HttpConnection, key: bytes, file: HotTableFile, first: int, end: int, *, closes: bool
    ) -> Paused | None:
        response = FileResponse(connection.stream, key, file, self._others_wait, first, end)
        response.connection = None if closes else connection
        pause = response.send_file(file)
        return None if pause is None else Paused(response, pause)

    def _send_range(self, context: RequestContext, found: StoredHit, first: int, end: int) -> Paused | None:
        if found.body is not None:
            context.connection.stream.send_all(found.body[first:end])
            return None
        if found.file is not None:
            return self._send_file(context.connection, found.key, found.file, first, end, closes=context.said.closes)
        found.cancel_quietly()
        return self.go_on(self._response(context, found, first, end), Pause.WIDEN)

    def _send_range_to_the_end(self, context: RequestContext, found: StoredHit, first: int, end: int) -> None:
        """Between two parts nothing pauses: a client that reads slowly keeps this worker, down to the least rate."""
        paused = self._send_range(context, found, first, end)
        while paused is not None:
            if paused.why is Pause.SLOW:
                context.connection.stream.wait_writable()
            paused.response.takes_turns = False
            paused = self.go_on(paused.response, Pause.WIDEN)

    def go_on(self, response: BodyTransfer, pause: Pause | None) -> Paused | None:
        """Resume an answer until its end, or until it pauses for something that takes time."""
        while pause is Pause.WIDEN:
            if response.position >= response.end:
                return None
            pause = response.resume(self._store, self._cache_wait_s)
        return None if pause is None else Paused(response, pause)
