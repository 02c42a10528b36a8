"""PURE: traffic: the requests and bytes of a proxy in the few kinds that operators compare, and the hit ratio of these.

What is a hit, what an error, and what was saved is said here for the page, `/stats` and the monitor. Counts only rise:
those of a time between two readings are their differences, and have ratios of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from webproxy.telemetry.metrics import FROM_CACHE, FROM_ORIGIN, OUTCOMES, WITHOUT_ORIGIN

CACHE, ORIGIN, OWN, CLIENT, SERVER = KINDS = ("cache", "origin", "own", "client", "server")
"""Who answered a request without an error, the proxy itself among them; or whose error it was."""
_SERVER_ERRORS: Final = frozenset(("error", "cut_short"))
_CLIENT_ERRORS: Final = frozenset(("client_gone", "given_up"))
Numbers = Mapping[tuple[str, ...], float]
"""By the label values of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What has been counted so far, or in a time."""

    requests: Mapping[str, float]
    """By kind."""
    sent_bytes: Mapping[str, float]
    """By where the bodies came from: cache, origin, proxy."""
    saved_requests: float
    """For which no origin was asked: hits, and those collapsed into another's fetch."""

    @property
    def requests_total(self) -> float:
        """All requests."""
        return sum(self.requests.values())

    @property
    def errors(self) -> float:
        """Status 4xx and 5xx, clients that left, and bodies that were cut short."""
        return self.requests[CLIENT] + self.requests[SERVER]

    @property
    def sent_total(self) -> float:
        """All bytes."""
        return sum(self.sent_bytes.values())

    @property
    def hit_ratio(self) -> float | None:
        """Of requests that cache or origin answered without an error: the cache's share; None of nothing."""
        return ratio(self.requests[CACHE], self.requests[CACHE] + self.requests[ORIGIN])

    @property
    def byte_hit_ratio(self) -> float | None:
        """Of the bytes sent of responses of cache and origin: the cache's share; None of nothing."""
        cache, origin = self.sent_bytes.get("cache", 0.0), self.sent_bytes.get("origin", 0.0)
        return ratio(cache, cache + origin)


def traffic_of(requests: Numbers, sent_bytes: Numbers) -> Traffic:
    """From the rows of the metrics REQUESTS and SENT_BYTES."""
    kinds, saved = dict.fromkeys(KINDS, 0.0), 0.0
    for (_protocol, outcome, status), number in requests.items():
        kinds[kind_of(outcome, status)] += number
        saved += number if outcome in WITHOUT_ORIGIN else 0.0
    sources = {source: number for (source,), number in sent_bytes.items()}
    return Traffic(requests=kinds, sent_bytes=sources, saved_requests=saved)


def kind_of(outcome: str, status: str) -> str:
    """The kind of a request by what became of it and by the class of its status."""
    if status == "5xx" or outcome in _SERVER_ERRORS:
        return SERVER
    if status in ("4xx", "none") or outcome in _CLIENT_ERRORS:
        return CLIENT
    return CACHE if outcome in FROM_CACHE else ORIGIN if outcome in FROM_ORIGIN else OWN


def ratio(part: float, whole: float) -> float | None:
    """A share from 0 to 1; None of nothing."""
    return part / whole if whole > 0 else None


def traffic_as_json(traffic: Traffic) -> dict[str, Any]:
    """In plain types; `kinds` says whose each outcome is, unless it is an error by its status."""
    return {
        "requests": dict(traffic.requests),
        "sent_bytes": dict(traffic.sent_bytes),
        "saved_requests": traffic.saved_requests,
        "hit_ratio": traffic.hit_ratio,
        "byte_hit_ratio": traffic.byte_hit_ratio,
        "kinds": {outcome: kind_of(outcome, "2xx") for outcome in OUTCOMES},
    }
