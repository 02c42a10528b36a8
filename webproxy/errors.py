"""Exceptions of the proxy; exchange/ maps them to a client's status."""

from __future__ import annotations

TOO_MANY_WAIT = "too many requests wait"
"""Why one more is refused."""


class WebProxyError(Exception):
    """Base of all errors of the proxy."""


class StartupError(WebProxyError):
    """Something required at startup is not available; exit code 69."""


class CacheUnavailable(WebProxyError):
    """The cache is absent, full or too slow: go to the origin, and count it."""


class ClientGone(WebProxyError):
    """The client closed or reset its connection."""


class ClientTooSlow(ClientGone):
    """The client was below the minimum rate for longer than the limit."""


class BodyCutShort(WebProxyError):
    """The source ended in mid-body; only a short close can tell the client."""


class Overloaded(WebProxyError):
    """A limit was reached: shed load."""


class OriginError(WebProxyError):
    """The origin did not deliver the object; `status` is its HTTP status (0: none), `retryable` if a retry may help."""

    def __init__(self, text: str, *, status: int = 0, retryable: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.retryable = retryable


class OriginUnreachable(OriginError):
    """No connection, or it broke."""


class ProxyStops(OriginUnreachable):
    """This process ends, and waits for no origin."""

    def __init__(self) -> None:
        super().__init__("the daemon stops")


class FetchBroken(OriginError):
    """A bug of ours ended the fetch."""


class HolderLost(OriginUnreachable):
    """Another process, whose fetch was followed, has ended or is silent within the body; the origin was not asked."""


class OriginNotAsked(OriginError):
    """The request was not sent, for the sake of the origin or of others; worth a try after `retry_after_s`.

    `status` is what the origin would probably have said.
    """

    def __init__(self, text: str, *, status: int = 0, retry_after_s: float = 1.0) -> None:
        super().__init__(text, status=status)
        self.retry_after_s = retry_after_s


class OriginFailing(OriginNotAsked):
    """The origin is known as failing, for this `cause`."""

    def __init__(self, text: str, *, cause: str, status: int = 0, retry_after_s: float = 1.0) -> None:
        super().__init__(text, status=status, retry_after_s=retry_after_s)
        self.cause = cause


class OriginSilent(OriginFailing):
    """It is known for not answering in time."""


class OriginBusy(OriginNotAsked):
    """All connections to the origin are in use, and too many requests wait for one, or this one did for too long."""

    def __init__(self, text: str) -> None:
        super().__init__(text, status=503)


class SpoolFailed(OriginError):
    """A body cannot be kept on its way: neither in a file nor in memory. No fault of the origin."""


class OriginTimeout(OriginError):
    """No connection or no bytes within the limit; only the former is worth another try."""


class OriginBadReply(OriginError):
    """A status or framing that is not a valid response to a GET; a body shorter than announced."""


class OriginTooLarge(OriginError):
    """The object exceeds the maximum size."""


class OriginRefused(OriginError):
    """The request is not allowed: its address, its scheme or the number of redirects."""


class NotFollowed(OriginError):
    """Another process does not give what it fetches; nothing is known of the origin."""


class LeaseVoid(NotFollowed):
    """It does not fetch it, or not any longer: the cache is to be asked again."""


class NotShared(NotFollowed):
    """Its response is for its own client alone: everybody else asks the origin."""


class FetchAborted(OriginError):
    """No reader is left, or the daemon stops."""
