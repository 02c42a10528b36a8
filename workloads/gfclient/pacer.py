"""PURE: when each request is due.

Seconds since the start of the run go in and come out.
"""

from dataclasses import dataclass
from typing import Protocol


class Pacer(Protocol):
    """Says when request `number` (from 0) is due, in seconds since the start."""

    def due_at(self, number: int, elapsed_s: float) -> float:
        """Return the planned send time of request `number`, asked at `elapsed_s`."""
        ...


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """An open loop: requests are due at a fixed rate, however slow the answers are."""

    per_second: float

    def __post_init__(self) -> None:
        if not self.per_second > 0:
            raise ValueError(f"a rate must be positive, not {self.per_second}")

    def due_at(self, number: int, elapsed_s: float) -> float:  # noqa: ARG002 - the plan does not depend on now
        """Return the time planned for `number`; it may be past, and then the delay counts as latency."""
        return number / self.per_second


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Each thread sends its next request when its last one is answered."""

    def due_at(self, number: int, elapsed_s: float) -> float:  # noqa: ARG002 - every request is due when asked for
        """Return `elapsed_s`: due at once."""
        return elapsed_s
