"""LocalResponses: answers of the proxy's own: what ends here, and what it says for want of anybody else's answer."""

from __future__ import annotations

from webproxy.exchange.context import RequestContext
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.http.errors import HttpError
from webproxy.http.messages import RequestHead
from webproxy.origin.via import Via
from webproxy.transport.job import RequestOutcome

_NOT_PASSED = frozenset((b"CONNECT", b"TRACE"))


class LocalResponses:
    """Shared by all workers. What sends raises ClientGone when the connection is broken."""

    def __init__(self, heads: ResponseHeads, via: Via) -> None:
        self._heads = heads
        self._via = via

    def check(self, request: RequestHead) -> None:
        """See whether a request may go its way.

        Raises:
            HttpError: a method that is not served, or a request that was here before.
        """
        if request.method in _NOT_PASSED:
            raise HttpError(501, f"{request.method.decode()} is not supported")
        if self._via.came_round(request.fields):
            raise HttpError(508, "loop detected: this proxy is already in Via")

    def options(self, context: RequestContext) -> RequestOutcome:
        """Answer an OPTIONS that ends here."""
        context.connection.stream.send_all(self._heads.options(context.said, context.now))
        return context.ended("answered")

    def refuse(self, context: RequestContext, status: int, text: str) -> RequestOutcome:
        """Answer with an error."""
        with_body = context.request.method != b"HEAD"
        context.connection.stream.send_all(
            self._heads.error(status, context.said, context.now, text, with_body=with_body)
        )
        return context.ended("refused" if status < 500 else "error")

    def not_stored(self, context: RequestContext, status: int, text: str, lacking: bytes) -> RequestOutcome:
        """Answer for want of a stored response, where nobody else is asked; `lacking` as `fwd` would say it."""
        with_body = context.request.method != b"HEAD"
        data = self._heads.not_stored(status, context.said, context.now, text, lacking, with_body=with_body)
        context.connection.stream.send_all(data)
        return context.ended("not found" if status == 404 else lacking.decode())
