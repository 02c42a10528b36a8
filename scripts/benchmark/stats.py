"""PURE: figures of several rounds → one ratio and a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two contestants measured in turn. `ratio` is the median of the rounds' own ratios, so that drift cancels out."""

    ours: float
    other: float
    ratio: float
    ratio_low: float
    ratio_high: float
    round_count: int


def compare(ours: Sequence[float], other: Sequence[float]) -> Comparison:
    """Compare round by round; element n of both was measured one after the other.

    Raises:
        ValueError: no round, unequal counts, or a figure that is not above zero.
    """
    if not ours or len(ours) != len(other):
        raise ValueError(f"rounds must come in pairs: {len(ours)} of ours, {len(other)} of the other")
    if min(*ours, *other) <= 0:
        raise ValueError("a figure is not above zero: nothing was measured")
    ratios = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
    return Comparison(
        ours=median(ours),
        other=median(other),
        ratio=median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        round_count=len(ratios),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound for a value: `at_least`, or a maximum if `is_maximum`."""

    value: float
    is_maximum: bool = False

    def met_by(self, value: float) -> bool:
        """Whether the value is good enough."""
        return value <= self.value if self.is_maximum else value >= self.value

    def verdict(self, value: float) -> str:
        """`ok`, or on which side the value misses."""
        if self.met_by(value):
            return "ok"
        return "above" if self.is_maximum else "below"

    def text(self, unit: str) -> str:
        """The target as the table shows it, such as `≥ 0.75 x`."""
        return f"{'≤' if self.is_maximum else '≥'} {self.value:g} {unit}"


def rotations(names: Sequence[str], rounds: int) -> list[tuple[str, ...]]:
    """Who goes first in each round: each begins with the next, so that nobody always has the warmer machine."""
    starts = [number % len(names) for number in range(rounds)]
    return [(*names[start:], *names[:start]) for start in starts]
