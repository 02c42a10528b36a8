"""RequestContext: one HTTP request on its way, as the parts that answer it hand it to each other; Timeouts."""

from __future__ import annotations

from dataclasses import dataclass

from webproxy.exchange.response_heads import Connection
from webproxy.http.messages import RequestHead
from webproxy.origin.routing import Target
from webproxy.transport.client_stream import RateLimit
from webproxy.transport.http1_connection import HttpConnection, PausedBody
from webproxy.transport.job import KEEP_ALIVE, Done, Event, RequestOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long others may take: the cache, the client with its request, and between two of them."""

    cache_s: float
    """The cache, where nobody else could answer."""
    cache_first_byte_s: float
    """The cache, before the origin is asked instead; no more than `cache_s`."""
    request_s: float
    keepalive_s: float
    client: RateLimit
    """The least that a client must take of its answer."""


NOWHERE = Target(b"", None, "", b"", b"")
"""Where a request leads that has not been routed."""


@dataclass(slots=True)
class RequestContext:
    """What a request is for, who asked, since when (seconds since the epoch), and how it ended."""

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
        """The key for Cache-Status (RFC 9211 section 2.7), where it is not just what the client asked for."""
        return None if self.target.key == self.request.target else self.target.key

    def ended(self, result: str) -> RequestOutcome:
        """The client has got its answer."""
        self.result = result
        return Done(self.connection) if self.said.closes else KEEP_ALIVE

    def ended_or_waits(self, body: PausedBody, event: Event | None, result: str) -> RequestOutcome:
        """The client has got its answer, or the rest of its body follows when the event has happened."""
        if event is None:
            return self.ended(result)
        return self.connection.pause(body, event, is_last=self.said.closes)
