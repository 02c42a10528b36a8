"""PURE: RateLimit, the minimum rate of clients; UploadRate, whether one sends the body of its request fast enough.

ClientStream sees to those that read.

**States.** *Waiting* for the client, while time counts; *paused*, while there is no room for more: what the client
could send then is not its fault. It begins paused.

**Rules.** Within `silence_s` of waiting something has to come, and within each window of waiting the minimum rate. What
counts is bytes of the connection: the framing of chunks too, however small they are, and nothing that is not sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The minimum rate of a client: `bytes_per_s` over `window_s` seconds; 0 disables it."""

    bytes_per_s: int
    window_s: float


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The longest silence within a body, and the minimum rate."""

    silence_s: float
    rate: RateLimit


class TooSlow(NamedTuple):
    """The client is to be given up."""

    why: str


class UploadRate:
    """Of one body. Times are those of one clock, and `received` counts the bytes of the connection."""

    def __init__(self, limits: UploadLimits, received: int) -> None:
        self._limits = limits
        self._waiting_since: float | None = None
        self._waited_s = 0.0
        """In this window, until the last pause."""
        self._heard_at = 0.0
        self._received = self._received_before = received
        """By now, and before this window."""

    def wait(self, now: float, received: int) -> float | TooSlow:
        """All that has come is received, and more is waited for: for at most so long, before this is asked again."""
        if self._waiting_since is None:
            self._waiting_since = self._heard_at = now
        if received != self._received:
            self._received, self._heard_at = received, now
        silence_s, rate = self._limits.silence_s, self._limits.rate
        silence_left_s = self._heard_at + silence_s - now
        if silence_left_s <= 0:
            return TooSlow(f"nothing of the request's body for {silence_s:.0f} s")
        if not rate.bytes_per_s:
            return silence_left_s
        window_left_s = rate.window_s - self._waited_s - (now - self._waiting_since)
        if window_left_s <= 0:
            came = received - self._received_before
            if came < rate.bytes_per_s * rate.window_s:
                return TooSlow(f"{came} bytes of the request's body in {rate.window_s:.0f} s")
            self._waiting_since, self._waited_s, self._received_before = now, 0.0, received
            window_left_s = rate.window_s
        return min(silence_left_s, window_left_s)

    def pause(self, now: float) -> None:
        """There is no room for more: the client is not waited for."""
        if self._waiting_since is not None:
            self._waited_s += now - self._waiting_since
            self._waiting_since = None
