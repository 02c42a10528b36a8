"""RequestContext: one HTTP request, as passed between the parts that answer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from webproxy.caching.stored import StoredResponse
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.exchange.response_heads import Connection, ResponseHeads
from webproxy.exchange.spooled_body import send_data
from webproxy.fetch.strand import Errand
from webproxy.http.messages import RequestHead
from webproxy.origin.routing import Target
from webproxy.telemetry.requests import RequestRecord
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import KEEP_ALIVE, Done, Event, RequestOutcome, Steps

Answering: TypeAlias = RequestOutcome | Steps[RequestOutcome]
"""An answer that is complete or can be resumed, or one that has to wait."""

NOWHERE = Target(b"", None, "", b"", b"")
"""The target of a request that has not been routed."""


@dataclass(slots=True)
class RequestContext:
    """The target of a request, its client, its time (seconds since the epoch), and its outcome."""

    connection: HttpConnection
    request: RequestHead
    said: Connection
    now: float
    heads: ResponseHeads
    target: Target = NOWHERE
    lookups: int = 0
    """How often the cache was asked."""
    void_lease: int | None = 0
    """The number of a lease whose holder does not fetch; None if the cache is not to be asked who does any longer."""
    errand: Errand | None = None
    """What its fetch has left to be run, once the client has its answer."""
    result: str = ""
    """How it ended, for the counts; none while it has not."""
    record: RequestRecord = field(default_factory=RequestRecord)
    """What observers are told of it at its end."""

    @property
    def key_to_tell(self) -> bytes | None:
        """The key for Cache-Status (RFC 9211 section 2.7), if it differs from the request's target."""
        return None if self.target.key == self.request.target else self.target.key

    def begins(self, head: bytes) -> bytes:
        """The head of the answer, maybe with all of the body, which is about to be sent."""
        self.record.answered(head)
        return head

    def answer(self, status: int, text: str, result: str, fields: bytes = b"") -> Answering:
        """Send a complete response of the proxy's own; `fields` are further lines of its head.

        Raises:
            ClientGone: the connection is unusable.
        """
        with_body = self.request.method != b"HEAD"
        return self.send(self.heads.local(status, self.said, self.now, text, fields, with_body=with_body), result)

    def send(self, data: bytes, result: str) -> Answering:
        """Send a complete response, nearly always at once: it fits a socket's buffer. Errors as answer()."""
        sent = self.connection.stream.send_some(self.begins(data))
        return self.ended(result) if sent == len(data) else self._send_rest(data[sent:], result)

    def _send_rest(self, data: bytes, result: str) -> Steps[RequestOutcome]:
        yield Event.WRITABLE
        yield from send_data(self.connection.stream, data)
        return self.ended(result)

    def ended(self, result: str) -> RequestOutcome:
        """The client has received its response."""
        self.result = result
        return Done(self.connection) if self.said.closes else KEEP_ALIVE


class PausedHit(NamedTuple):
    """The rest of a stored response's body, while it waits, and what the origin can be asked for it by."""

    body: BodyTransfer
    request: RequestHead
    stored: StoredResponse | None
    """None if nothing of the body is missing here, or the object was replaced before this was asked."""

    @property
    def key(self) -> bytes:
        """Its name in log lines."""
        return self.body.key

    def close(self) -> None:
        """It is given up."""
        self.body.close()
