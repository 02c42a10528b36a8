"""PassThrough: forwards one request to the origin and its response to this client alone; nothing is stored.

Theory of operation
===================

Two spools lie between the client and the origin, one for each direction, so that neither waits in a thread for the
other. The client's request is served in steps by workers; the origin's side is a transfer of the driver.

The body of a request is spooled first, so that a slow client takes no connection to the origin: the transfer begins
once the body is complete, or fills the spool's window. A client that waits for 100 (Continue) is asked for its body
when the origin wants it (RFC 9110 section 10.1.1), or has said nothing for a second. An origin may answer before it has
read everything: both directions move on, and the request lasts until the origin has got, or refused, the rest.

The body of the response is spooled as far as there is room, and sent as the client reads. A client that leaves ends
the transfer. What the driver's thread uses is released by that thread, after the last use: a descriptor that another
one closes may be somebody else's file by then.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from time import monotonic, monotonic_ns, time
from typing import Protocol

from webproxy.caching.validators import CACHE_CONDITIONS
from webproxy.errors import (
    TOO_MANY_WAIT,
    BodyCutShort,
    ClientGone,
    OriginBadReply,
    OriginError,
    Overloaded,
    SpoolFailed,
)
from webproxy.exchange.context import RequestContext
from webproxy.exchange.relay import Relay, SpoolLimits
from webproxy.exchange.response_heads import body_framing
from webproxy.exchange.spooled_body import send_body, send_data, send_interim
from webproxy.fetch.spool import Forwarded, Interim, Spool, SpoolReader
from webproxy.http.fields import Fields
from webproxy.http.messages import CONTINUE, Framing, HttpError, ResponseHead
from webproxy.http.urls import split_target
from webproxy.origin.driver import OriginDriver, Transfer
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.via import Via
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.requests import CacheResult
from webproxy.transport.client_rate import TooSlow, UploadLimits, UploadRate
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import AnyOf, RequestOutcome, Steps, either

log = logging.getLogger(__name__)

NO_FIELDS = Fields()


class HeadJudge(Protocol):
    """Sees the head of a response before anything is sent to the client."""

    def judge(self, response: OriginResponse) -> None:
        """Called once; raises OriginError if the client gets another response instead."""


class _Upload:
    """The body of a request: received by the steps, read by the transfer (as origin.request.BodySource)."""

    def __init__(
        self, connection: HttpConnection, length: int | None, spools: SpoolLimits, limits: UploadLimits
    ) -> None:
        self.length = length
        self.transfer: Transfer | None = None
        self._connection = connection
        self._spool = spools.new()
        self._window_bytes = spools.window_bytes
        self._rate = UploadRate(limits, connection.body_received)
        self._reader = self._spool.reader()
        self._reader.is_told = True  # there is no answer here: it waits for bytes
        self.is_received = False
        """All of it is here."""
        self.is_held = connection.continue_due
        """The client sends it only when it is told to."""
        self.response: Spool | None = None

    # -- steps ---------------------------------------------------------------------------------------------------
    def receive(self) -> AnyOf | None:
        """Spool what has arrived; returns what to wait for, or None if the client need not be waited for.

        Raises:
            HttpError: invalid chunks, or it comes too slowly (408).
            OriginError: it cannot be spooled.
            ClientGone: the connection is broken, or the client closed before the end.
        """
        while not self.is_received and not self.is_held:
            if not self.has_room:
                self._rate.pause(monotonic())
                return AnyOf((self,))
            part = self._connection.body_part()
            if part is None:
                left_s = self._rate.wait(monotonic(), self._connection.body_received)
                if isinstance(left_s, TooSlow):
                    raise HttpError(408, left_s.why)
                return AnyOf(is_readable=True, limit_s=left_s)
            if part:
                self._keep(part)
            else:
                self._spool.end()
                self.is_received = True
        return None

    def _keep(self, part: bytes) -> None:
        try:
            self._spool.write(part)
        except OSError as error:
            raise SpoolFailed(f"the body of the request cannot be spooled: {error}") from error
        self._spool.forget_read()

    def finish(self, answer: SpoolReader) -> Steps[None]:
        """The client has its response: an origin that answered early gets the rest, unless it refuses it."""
        # What is wrong with the body by now is seen where the rest of it is skipped.
        with contextlib.suppress(HttpError, OriginError, ClientGone):
            while not self.is_held and answer.available() is None:
                wait = self.receive()
                yield answer if wait is None else either(answer, wait)

    @property
    def has_room(self) -> bool:
        """Whether more of it may be received."""
        return self._spool.has_room(self._window_bytes)

    def subscribe(self, wake: Callable[[], None]) -> bool:
        """As Signal.subscribe(): there is room again."""
        return self._spool.subscribe_room(self._window_bytes, wake)

    @property
    def is_small(self) -> bool:
        """Whether the origin need not know of it yet."""
        return self._spool.written <= self._window_bytes and not self._spool.is_in_memory

    def release(self) -> None:
        """The origin wants it."""
        self.is_held = self._connection.continue_due = False

    # -- in the driver's thread ----------------------------------------------------------------------------------
    def close(self) -> None:
        """It is of no use any longer."""
        self._spool.end()
        self._reader.close()

    def read(self, size: int) -> bytes | None:
        """As BodySource.read()."""
        if self.is_held and self.response is not None:
            self.response.interim(100, NO_FIELDS)  # the origin has said nothing, and waits for it
        reader, transfer = self._reader, self.transfer
        while (available := reader.available()) is None:
            if transfer is None or reader.subscribe(transfer.resume):
                return None
        if not available:
            return b""
        data = reader.read(min(size, available))
        reader.advance(len(data))
        return data


class PassThrough:
    """Shared by all workers."""

    def __init__(
        self,
        origin: OriginDriver,
        via: Via,
        updates: CacheUpdater,
        spools: SpoolLimits,
        uploads: UploadLimits,
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_full` tells whether no more requests may wait."""
        self._is_full = is_full
        self._origin = origin
        self.via = via
        self._updates = updates
        self._spools = spools
        self._uploads = uploads

    def serve(self, context: RequestContext, why: bytes, judge: HeadJudge | None = None) -> Steps[RequestOutcome]:
        """Forward the request to the target's origin, and answer the client.

        Raises:
            Overloaded: too many requests wait.
            OriginError, HttpError: no response, one that the judge keeps from the client, or a request body that is
                invalid or comes too slowly; nothing has been sent to the client.
            BodyCutShort: the response ended in the middle.
            ClientGone: the connection is broken.
        """
        if self._is_full():
            raise Overloaded(TOO_MANY_WAIT)
        request, upload = context.request, None
        if request.framing is not Framing.NONE:
            length = request.content_length if request.framing is Framing.LENGTH else None
            upload = _Upload(context.connection, length, self._spools, self._uploads)
        relay = self._relay(context, upload)
        log.debug("passed through", extra={"key": context.target.key, "reason": why})
        try:
            if upload is not None:
                while (wait := upload.receive()) is not None and upload.is_small:
                    yield wait
            relay.transfer.begin()
            yield from self._answer(context, relay.reader, upload, why, judge)
            if upload is not None:
                yield from upload.finish(relay.reader)
        finally:
            relay.close()
            if upload is not None:
                self._origin.call(upload.close)  # after the transfer has ended
        return context.ended("passed")

    def _relay(self, context: RequestContext, upload: _Upload | None) -> Relay:
        target, request = context.target, context.request
        assert target.rule is not None
        fields = self.via.forwarded(request, target)
        if request.expects_continue and upload is not None:
            fields = fields.with_line(b"Expect", b"100-continue")
        asked = OriginRequest(
            url=target.whole_url,
            method=request.method,
            fields=fields,
            body=upload,
            named_by_operator=target.named_by_operator,
        )
        check = _accept if not CACHE_CONDITIONS.isdisjoint(request.fields.names()) else _check_unconditional
        relay = Relay(self._origin, asked, target.rule.limits, self._spools, check)
        if upload is not None:
            upload.transfer, upload.response = relay.transfer, relay.spool
        return relay

    def _answer(
        self, context: RequestContext, reader: SpoolReader, upload: _Upload | None, why: bytes, judge: HeadJudge | None
    ) -> Steps[None]:
        stream, request, asked_ns = context.connection.stream, context.request, monotonic_ns()
        while not isinstance(news := reader.news(), Forwarded):
            if isinstance(news, Interim):
                if news.status == 100 and upload is not None and upload.is_held:
                    upload.release()
                    yield from send_data(stream, CONTINUE)
                yield from send_interim(stream, request, news)
                continue
            wait = None if upload is None else upload.receive()
            yield reader if wait is None else either(reader, wait)
        context.record.upstream_ns += monotonic_ns() - asked_ns
        context.record.cache = CacheResult.PASS
        response = news.response
        if judge is not None:
            judge.judge(response)
        # Before the client is told: it must not find again what the response invalidates.
        named = split_target(request.target, request.fields.get(b"host")).authority
        head = ResponseHead(response.status, response.fields, response.reason)
        self._updates.invalidate(context.target, request.method, head, named)
        framing, context.said = body_framing(request, response, context.said)
        status = context.heads.status(fwd=why, fwd_status=response.status)
        try:
            head_lines = context.heads.forwarded(response, context.said, status, framing, time())
            yield from send_data(stream, context.begins(head_lines))
            body = send_body(stream, reader, framing, response.length)
            yield from body if upload is None else _beside(upload, body)
        except HttpError as error:
            raise BodyCutShort(str(error)) from error


def _accept(_response: OriginResponse) -> None:
    """The client is told whatever the origin says."""


def _check_unconditional(response: OriginResponse) -> None:
    """An unsolicited 304 is not a valid response."""
    if response.status == 304:
        raise OriginBadReply("a 304 to a request without a condition", status=304)


def _beside(upload: _Upload, steps: Steps[None]) -> Steps[None]:
    """The steps, while the rest of an upload is received beside them; they break off with it."""
    for wait in steps:
        try:
            more = upload.receive()
        except ClientGone as error:  # it may still read, and must not take a part for the whole
            with contextlib.suppress(BodyCutShort):
                steps.throw(BodyCutShort(str(error)))
            raise
        except (HttpError, OriginError) as error:
            steps.throw(BodyCutShort(str(error)))
            raise
        yield wait if more is None else either(wait, more)
