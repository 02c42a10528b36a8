"""Visit: one HTTP request on its way, as the parts that answer it hand it to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from webproxy.exchange.getfile_request import Paused
from webproxy.exchange.response_heads import Connection
from webproxy.http.messages import RequestHead
from webproxy.origin.routing import Target
from webproxy.transport.http1_connection import HttpConnection

Result: TypeAlias = Paused | tuple[str, bool]
"""What is left of the answer, or how the request ended and whether the connection goes on."""


@dataclass(slots=True)
class RequestContext:
    """What a request is for, who asked, and since when (seconds since the epoch)."""

    connection: HttpConnection
    request: RequestHead
    target: Target
    said: Connection
    now: float
    lookups: int = 0
    """How often the cache was asked."""

    @property
    def key_to_tell(self) -> bytes | None:
        """The key for Cache-Status (RFC 9211 section 2.7), where it is not just what the client asked for."""
        return None if self.target.key == self.request.target else self.target.key
