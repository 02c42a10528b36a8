"""LocalResponses: requests that are answered before it comes to a target, because they end at this proxy."""

from __future__ import annotations

from webproxy.exchange.response_heads import Connection, ResponseHeads
from webproxy.http.errors import HttpError
from webproxy.http.messages import RequestHead
from webproxy.origin.via import Via, ends_here
from webproxy.transport.http1_connection import HttpConnection

_NOT_PASSED = frozenset((b"CONNECT", b"TRACE"))


class LocalResponses:
    """Shared by all workers."""

    def __init__(self, replies: ResponseHeads, via: Via) -> None:
        self._replies = replies
        self._via = via

    def serve(
        self, connection: HttpConnection, request: RequestHead, said: Connection, now: float
    ) -> tuple[str, bool] | None:
        """Answer an OPTIONS that ends here; None for a request that goes its way.

        Raises:
            HttpError: a method that is not served, or a request that was here before.
            ClientGone: the connection is broken.
        """
        if request.method in _NOT_PASSED:
            raise HttpError(501, f"{request.method.decode()} is not supported")
        if self._via.came_round(request.fields):
            raise HttpError(508, "loop detected: this proxy is already in Via")
        if not ends_here(request):
            return None
        connection.stream.send_all(self._replies.options(said, now))
        return "answered", not said.closes
