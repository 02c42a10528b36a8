"""OriginRest: the rest of a stored body from its origin, when the cache is lost in mid-body.

The client goes on where it is: the origin is asked for the bytes that are missing, and only if its answer has exactly
these, of the same representation by a strong validator, they follow. If it breaks off, or says that another try may
help, it is asked again from there on, by the rules of a fetch: within its tries, with growing pauses, and never after
silence. Otherwise the body ends short, as without an origin. Nothing of it is stored: the cache that had the object has
lost it, or is away.
"""

from __future__ import annotations

import logging
import random
from contextlib import closing
from dataclasses import replace
from time import time

from webproxy.caching.partial import AGAIN_MAY_HELP, Continuation, continuation, is_rest, rest_request
from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, OriginBadReply, OriginError, OriginNotAsked, Overloaded
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.exchange.relay import Relay, SpoolLimits
from webproxy.exchange.spooled_body import send_spooled
from webproxy.fetch.spool import Forwarded
from webproxy.fetch.state import pause_before_try
from webproxy.origin.driver import OriginDriver
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule
from webproxy.transport.job import Steps

log = logging.getLogger(__name__)


class OriginRest:
    """Shared by all workers."""

    def __init__(self, origin: OriginDriver, spools: SpoolLimits) -> None:
        self._origin = origin
        self._spools = spools

    def send(
        self, body: BodyTransfer, why: str, stored: StoredResponse, asked: OriginRequest, rule: OriginRule
    ) -> Steps[None]:
        """Send a body from its position to its end; `asked` is the request to the rule's origin for the whole of it.

        `why` the cache does not have it.

        Raises:
            BodyCutShort: there is no strong validator, or the origin does not have exactly the rest.
            ClientGone: the connection is unusable.
        """
        if body.position == body.end:
            return
        known = None
        if not stored.authoritative:  # nobody but the cache knows its own files
            known = continuation(stored.status, stored.fields, stored.body_bytes, time())
        if known is None:
            raise BodyCutShort(why)
        log.debug("rest asked of the origin", extra={"url": asked.url, "position": body.position, "reason": why})
        for number in range(rule.tries):
            try:
                yield from self._try(body, known, asked, rule.limits, pause_before_try(number, random.random()))
                return
            except (OriginError, Overloaded) as error:
                if number + 1 == rule.tries or not _may_help(error):
                    raise BodyCutShort(f"{why}; from the origin: {error}") from error
                log.debug("trying again", extra={"url": asked.url, "reason": str(error)})

    def _try(
        self, body: BodyTransfer, known: Continuation, asked: OriginRequest, limits: OriginLimits, pause_s: float
    ) -> Steps[None]:
        """Ask once, after a pause, and send what comes; raises the origin's error if that is not all."""
        position, end = body.position, body.end

        def check(response: OriginResponse) -> None:
            _check(known, position, end, response)

        request = replace(asked, fields=rest_request(asked.fields, known, position, end))
        with closing(Relay(self._origin, request, limits, self._spools, check)) as relay:
            reader = relay.reader
            relay.transfer.begin(pause_s)
            try:
                while not isinstance(news := reader.news(), Forwarded):
                    if news is None:
                        yield reader
                yield from send_spooled(body.stream, reader, end - position)
            except BodyCutShort as cut:
                raise relay.failure or OriginBadReply(str(cut), retryable=True) from cut
            finally:
                body.position = position + reader.position


def _check(known: Continuation, position: int, end: int, response: OriginResponse) -> None:
    if not is_rest(known, position, response.status, response.fields, response.length, time(), end):
        raise OriginBadReply(
            f"status {response.status} is not the rest after {position} bytes",
            status=response.status,
            retryable=response.status in AGAIN_MAY_HELP,
        )


def _may_help(error: OriginError | Overloaded) -> bool:
    """Whether another try may: the client has no other source, so that it does for an origin that was not asked."""
    return isinstance(error, OriginNotAsked) or (isinstance(error, OriginError) and error.retryable)
