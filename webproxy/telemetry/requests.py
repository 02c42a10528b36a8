"""RequestRecord: what is known of one request, from its head to its end; observers of ends get it then.

Each protocol ends its requests in one place, which completes the record, counts its outcome and tells the observers:
the access log, the statistics. A hit on a complete reply of the hot table has no record, because making one costs as
much as answering: who observes these is told by arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic_ns
from typing import Final, Protocol

from webproxy.http.fields import Fields

GETFILE: Final = b"GETFILE"
"""The protocol of a getfile request, as logs call it."""


class CacheResult(StrEnum):
    """What the cache had to do with the answer, in the terms of Cache-Status."""

    HIT = "hit"
    MISS = "miss"
    COLLAPSED = "collapsed"
    REVALIDATED = "revalidated"
    STALE = "stale"
    PASS = "pass"  # noqa: S105 - no password
    NONE = "none"
    """A refusal or another answer of the proxy's own, or there was no answer."""


CACHED: Final = (CacheResult.HIT, CacheResult.REVALIDATED, CacheResult.STALE)
_SAVED: Final = (CacheResult.HIT, CacheResult.COLLAPSED, CacheResult.STALE)


@dataclass(slots=True, eq=False)
class RequestRecord:
    """Belongs to whoever answers the request. Times are of CLOCK_MONOTONIC in nanoseconds; 0: it did not happen."""

    method: bytes = b""
    """None if no request could be read: the head was invalid or incomplete, or is not looked at under overload."""
    target: bytes = b""
    """As received; of getfile, the path."""
    protocol: bytes = b""
    """`HTTP/1.1`, `HTTP/1.0`, or GETFILE."""
    fields: Fields | None = None
    """Of its head; for observers to look at a few, never at credentials."""
    client: bytes = b""
    """Its address; empty if the connection was broken already, or there are no observers."""
    request_id: bytes = b""
    began_ns: int = 0
    """The head was there, and a worker took it."""
    first_byte_ns: int = 0
    """The head of the answer was handed to the kernel."""
    upstream_ns: int = 0
    """How long the head of an origin's answer was waited for, time in lines included; not a time but a duration."""
    ended_ns: int = 0
    status: int = 0
    """Of the answer; 0 if there was none. Those of getfile have the numbers of HTTP."""
    head_bytes: int = 0
    sent_bytes: int = 0
    """Handed to the kernel for the client, the head included; until the end, what the connection had sent before."""
    cache: CacheResult = CacheResult.NONE
    origin: str = ""
    """The origin that answers such requests, also if it was not asked; empty if there is none."""
    outcome: str = ""
    """How it ended, as `stopped` counts it: hit, fetched, refused, client gone, ..."""

    def answered(self, head: bytes) -> None:
        """The head of an HTTP answer, with or without the body behind it, is about to be sent."""
        self.status = int(head[9:12])
        self.head_bytes = head.index(b"\r\n\r\n") + 4
        self.first_byte_ns = monotonic_ns()

    @property
    def is_saved(self) -> bool:
        """No request was sent to an origin for it."""
        return self.cache in _SAVED

    @property
    def is_from_cache(self) -> bool:
        """Its bytes were sent from the cache."""
        return self.cache in CACHED

    @property
    def body_bytes(self) -> int:
        """What was sent after the head."""
        return max(0, self.sent_bytes - self.head_bytes)

    @property
    def total_ns(self) -> int:
        """From the head of the request to the last byte that was handed to the kernel, or to the end without it."""
        return self.ended_ns - self.began_ns

    @property
    def until_first_byte_ns(self) -> int:
        """From the head of the request to that of the answer; 0 if there was none."""
        return self.first_byte_ns - self.began_ns if self.first_byte_ns else 0


class RequestObserver(Protocol):
    """Is told of each request that has ended; called by workers, and must not block."""

    def ended(self, record: RequestRecord) -> None:
        """The record is complete and changes no more."""


def end_request(record: RequestRecord, outcome: str, sent_bytes: int, observers: Sequence[RequestObserver]) -> None:
    """Complete a record, and tell its observers; `sent_bytes` is what its connection has sent since its beginning."""
    record.outcome = outcome
    record.sent_bytes = sent_bytes - record.sent_bytes
    record.ended_ns = monotonic_ns()
    for observer in observers:
        observer.ended(record)
