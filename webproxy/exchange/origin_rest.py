"""OriginRest: the rest of a stored body from its origin, when the cache is lost in mid-body.

The client goes on where it is: the origin is asked for the bytes that are missing, and only if its answer has exactly
these, of the same representation by a strong validator, they follow. Otherwise the body ends short, as without an
origin. Nothing of it is stored: the cache that had the object has lost it, or is away.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from time import time

from webproxy.caching.partial import Continuation, continuation, is_rest, rest_request
from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, OriginBadReply, OriginError, Overloaded
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.exchange.relay import Relay, SpoolLimits
from webproxy.exchange.spooled_body import send_spooled
from webproxy.fetch.spool import Forwarded
from webproxy.origin.driver import OriginDriver
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.transport.job import Steps


class OriginRest:
    """Shared by all workers."""

    def __init__(self, origin: OriginDriver, spools: SpoolLimits) -> None:
        self._origin = origin
        self._spools = spools

    def send(
        self, body: BodyTransfer, why: str, stored: StoredResponse, asked: OriginRequest, limits: OriginLimits
    ) -> Steps[None]:
        """Send a body from its position to its end; `asked` is the request for the whole of the stored response.

        `why` the cache does not have it.

        Raises:
            BodyCutShort: there is no strong validator, or the origin does not have exactly the rest.
            ClientGone: the connection is unusable.
        """
        position, missing_bytes = body.position, body.end - body.position
        if not missing_bytes:
            return
        known = None
        if not stored.authoritative:  # nobody but the cache knows its own files
            known = continuation(stored.status, stored.fields, stored.body_bytes, time())
        if known is None:
            raise BodyCutShort(why)

        def check(response: OriginResponse) -> None:
            _check(known, position, body.end, response)

        try:
            request = replace(asked, fields=rest_request(asked.fields, known, position, body.end))
            with closing(Relay(self._origin, request, limits, self._spools, check)) as relay:
                reader = relay.reader
                relay.transfer.begin()
                while not isinstance(news := reader.news(), Forwarded):
                    if news is None:
                        yield reader
                yield from send_spooled(body.stream, reader, missing_bytes)
            body.position = body.end
        except (OriginError, Overloaded) as error:
            raise BodyCutShort(f"{why}; from the origin: {error}") from error


def _check(known: Continuation, position: int, end: int, response: OriginResponse) -> None:
    if not is_rest(known, position, response.status, response.fields, response.length, time(), end):
        raise OriginBadReply(f"status {response.status} is not the rest after {position} bytes", status=response.status)
