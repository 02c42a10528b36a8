"""A sink that remembers what an origin client gives it, and limits for tests."""

from __future__ import annotations

import threading

from webproxy.http.fields import Fields
from webproxy.origin.client import OriginClient, Sink
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse


class CollectingSink(Sink):
    """Takes every body unless `wanted` says no; `leave` set means that nobody is waiting."""

    def __init__(self, *, wanted: bool = True, break_with: Exception | None = None) -> None:
        self.interims: list[tuple[int, Fields]] = []
        self.responses: list[OriginResponse] = []
        self.body = b""
        self.leave = threading.Event()
        self._wanted = wanted
        self.break_with = break_with

    def interim(self, status: int, fields: Fields) -> None:
        """Note the early answer."""
        self.interims.append((status, fields))

    def begin(self, response: OriginResponse) -> bool:
        """Note the header."""
        self.responses.append(response)
        return self._wanted

    def write(self, data: bytes) -> None:
        """Note the bytes, or break."""
        if self.break_with is not None:
            raise self.break_with
        self.body += data

    def idle(self) -> bool:
        """True once `leave` is set."""
        return self.leave.is_set()


class LimitedClient(OriginClient):
    """With limits for requests that bring none."""

    def __init__(self, limits: OriginLimits) -> None:
        super().__init__()
        self._own_limits = limits

    def fetch(self, request: OriginRequest, sink: Sink, limits: OriginLimits | None = None) -> OriginResponse:
        """As OriginClient.fetch()."""
        return super().fetch(request, sink, limits or self._own_limits)


def origin_client(
    *,
    connect_s: float = 5.0,
    between_bytes_timeout_s: float = 20.0,
    redirects: int = 5,
    object_bytes_max: int = 1 << 30,
) -> LimitedClient:
    """A client with limits that no honest answer of a test reaches."""
    return LimitedClient(
        OriginLimits(
            connect_s=connect_s,
            between_bytes_timeout_s=between_bytes_timeout_s,
            redirects=redirects,
            object_bytes_max=object_bytes_max,
        )
    )
