"""RequestContext: one HTTP request, as passed between the parts that answer it; Timeouts."""

from __future__ import annotations

from dataclasses import dataclass

from webproxy.exchange.response_heads import Connection
from webproxy.http.messages import RequestHead
from webproxy.origin.routing import Target
from webproxy.transport.client_stream import RateLimit
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import KEEP_ALIVE, Done, RequestOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Time limits for the cache, for the client's request, and for the client between two requests."""

    cache_s: float
    """For the cache, if there is no alternative."""
    cache_first_byte_s: float
    """For the cache, before the origin is asked instead."""
    request_s: float
    keepalive_s: float
    client: RateLimit
    """The minimum rate at which a client must read."""


NOWHERE = Target(b"", None, "", b"", b"")
"""The target of a request that has not been routed."""


@dataclass(slots=True)
class RequestContext:
    """The target of a request, its client, its time (seconds since the epoch), and its outcome."""

    connection: HttpConnection
    request: RequestHead
    said: Connection
    now: float
    target: Target = NOWHERE
    lookups: int = 0
    """How often the cache was asked."""
    result: str = ""
    """How it ended, for the counts; none while it has not."""

    @property
    def key_to_tell(self) -> bytes | None:
        """The key for Cache-Status (RFC 9211 section 2.7), if it differs from the request's target."""
        return None if self.target.key == self.request.target else self.target.key

    def ended(self, result: str) -> RequestOutcome:
        """The client has received its response."""
        self.result = result
        return Done(self.connection) if self.said.closes else KEEP_ALIVE
