"""Deadline: one point in monotonic time, created at the edge and passed down; it is never recomputed."""

from __future__ import annotations

from time import monotonic_ns
from typing import Self

PEER_CHECK_SECONDS = 0.25
"""Every wait is cut into slices of at most this length, to check the peer's guard in between."""


class Deadline:
    """A point on CLOCK_MONOTONIC, in nanoseconds; the same clock in every process of the machine."""

    __slots__ = ("expires_ns",)

    def __init__(self, expires_ns: int) -> None:
        self.expires_ns = expires_ns

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The deadline `seconds` from now."""
        return cls(monotonic_ns() + int(seconds * 1_000_000_000))

    @property
    def expired(self) -> bool:
        """Whether the point has passed."""
        return monotonic_ns() >= self.expires_ns

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, (self.expires_ns - monotonic_ns()) / 1e9)

    def slice(self, seconds: float = PEER_CHECK_SECONDS) -> float:
        """The length of the next slice of waiting in seconds: `seconds`, or what is left."""
        return min(seconds, self.remaining())

    def sooner(self, seconds: float) -> Deadline:
        """This deadline or `seconds` from now, whichever comes first."""
        other = monotonic_ns() + int(seconds * 1_000_000_000)
        return self if self.expires_ns <= other else Deadline(other)

    def __repr__(self) -> str:
        return f"Deadline({self.remaining():.3f} s left)"
