"""StoredAnswers: a stored response → the answer of one request: 304, 416, all of it or parts, from shelf or cache."""

from __future__ import annotations

import os
from collections.abc import Callable

from shmchannel.deadline import Deadline
from shmchannel.shelf_files import ShelfFile
from webproxy.cachelink import CacheLink
from webproxy.caching.partial import RangeKind, answer_range, lies_within
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.errors import CacheUnavailable
from webproxy.exchange import Paused
from webproxy.hit import PIECE_BYTES, FileResponse, HitResponse, Pause
from webproxy.http.ranges import multipart_parts
from webproxy.http_connection import HttpConnection
from webproxy.lookup import Found
from webproxy.quick_reply import QuickReply
from webproxy.replies import Replies
from webproxy.visit import Result, Visit


class ObjectGone(Exception):
    """The object that was found has left the cache, or was replaced, before its body was asked for."""


class StoredAnswers:
    """Shared by all workers."""

    def __init__(
        self, cache: CacheLink | None, replies: Replies, *, cache_wait_s: float, others_wait: Callable[[], bool]
    ) -> None:
        self._cache = cache
        self._replies = replies
        self._cache_wait_s = cache_wait_s
        self._others_wait = others_wait

    def send(self, visit: Visit, found: Found, age_s: int, status: bytes | None, outcome: str) -> Result | None:
        """Answer with a stored response: 304, all of it, or the parts that were asked for.

        None when the request has conditions that only the origin may judge; the client has been told nothing then.

        Raises:
            ObjectGone: its body is not there any more; the client has been told nothing.
            ClientGone, BodyCutShort: the connection is of no more use.
        """
        stored, request = found.stored, visit.request
        condition = evaluate_conditions(request, stored, visit.now)
        if condition is Condition.ASK_ORIGIN and visit.target.rule is not None:
            found.leave()
            return None
        stream, goes_on = visit.connection.stream, not visit.said.closes
        if condition is Condition.NOT_MODIFIED:
            stream.send_all(self._replies.not_modified(stored, age_s, visit.said, status))
            return outcome, goes_on
        answer = answer_range(request, stored, visit.now)
        if stored.incomplete and not lies_within(answer, found.size_bytes):  # its validation has changed what it is
            raise ObjectGone
        if answer.kind is RangeKind.UNSATISFIABLE:
            stream.send_all(self._replies.unsatisfiable(stored, age_s, visit.said, status, visit.now, with_body=True))
            return outcome, goes_on
        if request.method == b"GET":
            self._make_sure(found)
        if answer.kind is RangeKind.WHOLE:
            return self._send_whole(visit, found, self._replies.hit(stored, age_s, visit.said, status), outcome)
        if answer.kind is RangeKind.ONE:
            first, end = answer.ranges[0]
            stream.send_header(self._replies.part(stored, age_s, visit.said, status, first, end))
            paused = self._send_range(visit, found, first, end)
            return paused if paused is not None else (outcome, goes_on)
        boundary = os.urandom(12).hex().encode()
        parts, tail, length = multipart_parts(
            answer.ranges, stored.body_bytes, stored.fields.get(b"content-type"), boundary
        )
        stream.send_header(self._replies.parts(stored, age_s, visit.said, status, boundary, length))
        for head, first, end in parts:
            stream.send_all(head)
            self._send_range_to_the_end(visit, found, first, end)
        stream.send_all(tail)
        return outcome, goes_on

    def _make_sure(self, found: Found) -> None:
        """Open the body again that was left while the origin was asked; once a head was sent it would be too late."""
        if found.body is not None or found.transfer is not None or found.file is not None:
            return
        assert self._cache is not None
        deadline = Deadline.after(self._cache_wait_s)
        try:
            transfer = self._cache.get(found.key, deadline, version=found.version)
        except CacheUnavailable as error:
            raise ObjectGone from error
        if not transfer.found:
            transfer.finish()
            transfer.close()
            raise ObjectGone
        found.transfer = transfer

    def _send_whole(self, visit: Visit, found: Found, head: bytes, outcome: str) -> Result:
        stream, goes_on = visit.connection.stream, not visit.said.closes
        if visit.request.method == b"HEAD":
            stream.send_all(head)
            return outcome, goes_on
        if found.body is not None:
            stream.send_all(head + found.body)
            return outcome, goes_on
        if found.file is not None:
            stream.send_header(head)
            paused = self._send_file(
                visit.connection, found.key, found.file, 0, found.stored.body_bytes, closes=visit.said.closes
            )
            return paused if paused is not None else (outcome, goes_on)
        transfer, found.transfer = found.transfer, None
        response = self._response(visit, found, 0, found.stored.body_bytes)
        if transfer is None:
            stream.send_header(head)
            paused = self.go_on(response, Pause.WIDEN)
        else:
            with transfer:
                sent = stream.send_with_header(head, transfer.address, transfer.length, not transfer.last)
                pause = response.send(transfer, sent)
            paused = self.go_on(response, pause)
        return paused if paused is not None else (outcome, goes_on)

    def _response(self, visit: Visit, found: Found, first: int, end: int) -> HitResponse:
        response = HitResponse(visit.connection.stream, found.key, found.size_bytes, found.version, self._others_wait)
        response.position, response.end = first, end
        response.connection = None if visit.said.closes else visit.connection
        return response

    def send_quick(self, connection: HttpConnection, reply: QuickReply) -> Paused | bool:
        """Send a whole reply from the hot shelf: True at its end, what is left of it, or False: there was no room.

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
        self, connection: HttpConnection, key: bytes, file: ShelfFile, first: int, end: int, *, closes: bool
    ) -> Paused | None:
        response = FileResponse(connection.stream, key, file, self._others_wait, first, end)
        response.connection = None if closes else connection
        pause = response.send_file(file)
        return None if pause is None else Paused(response, pause)

    def _send_range(self, visit: Visit, found: Found, first: int, end: int) -> Paused | None:
        if found.body is not None:
            visit.connection.stream.send_all(found.body[first:end])
            return None
        if found.file is not None:
            return self._send_file(visit.connection, found.key, found.file, first, end, closes=visit.said.closes)
        found.leave()
        return self.go_on(self._response(visit, found, first, end), Pause.WIDEN)

    def _send_range_to_the_end(self, visit: Visit, found: Found, first: int, end: int) -> None:
        """Between two parts nothing pauses: a client that reads slowly keeps this worker, down to the least rate."""
        paused = self._send_range(visit, found, first, end)
        while paused is not None:
            if paused.why is Pause.SLOW:
                visit.connection.stream.wait_writable()
            paused.response.takes_turns = False
            paused = self.go_on(paused.response, Pause.WIDEN)

    def go_on(self, response: HitResponse, pause: Pause | None) -> Paused | None:
        """Resume an answer until its end, or until it pauses for something that takes time."""
        assert self._cache is not None
        while pause is Pause.WIDEN:
            if response.position >= response.end:
                return None
            pause = response.resume(self._cache, self._cache_wait_s)
        return None if pause is None else Paused(response, pause)
