"""What can go wrong in the proxy; one table in exchange.py turns it into a client's status."""

from __future__ import annotations


class WebProxyError(Exception):
    """Base of all."""


class StartupError(WebProxyError):
    """Something needed at the start is not to be had; exit code 69."""


class CacheUnavailable(WebProxyError):
    """The cache is absent, full or too slow: go to the origin, and count it."""


class ClientGone(WebProxyError):
    """The client closed or reset its connection."""


class ClientTooSlow(ClientGone):
    """The client took less than the minimum rate for longer than the limit."""


class BodyCutShort(WebProxyError):
    """The source ended in mid-body; nothing but a short close can tell the client."""


class Overloaded(WebProxyError):
    """A bound was reached: shed load."""


class OriginError(WebProxyError):
    """The origin did not give the object; `status` is its HTTP status (0: none), `retryable` whether again may help."""

    def __init__(self, text: str, *, status: int = 0, retryable: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.retryable = retryable


class OriginUnreachable(OriginError):
    """No connection, or it broke."""


class OriginTimeout(OriginError):
    """No connection or no bytes within the limit."""


class OriginBadReply(OriginError):
    """A status or a framing that is no answer to a GET; a body shorter than it said."""


class OriginTooLarge(OriginError):
    """More bytes than an object may have."""


class OriginRefused(OriginError):
    """We do not go there: the address, the scheme or the number of redirects is not allowed."""


class FetchAborted(OriginError):
    """Nobody wants the object any more, or the daemon stops."""
