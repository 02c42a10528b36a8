"""PURE: what was measured of the rows with sets of objects, as values: rounds, comparisons, verdicts, order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from scripts.benchmark.http_rows import NGINX, OURS
from scripts.benchmark.set_rows import P99_TARGET, SetRow
from scripts.benchmark.stats import Comparison, compare


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRound:
    """What one cache did in one round."""

    requests_per_s: float
    p50_us: float
    p99_us: float
    max_us: float
    cpu_us: float
    """CPU time of all its processes, for each request."""
    client_cpu_us: float
    """That of the load, for each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResult:
    """One measured row: the rounds of each cache by its name, and how often it waited for each request."""

    row: SetRow
    rounds: Mapping[str, Sequence[SetRound]]
    waits: Mapping[str, float | None]
    """None: could not be counted."""

    def against(self, name: str, figure: str = "requests_per_s") -> Comparison | None:
        """A figure of ours beside that of another cache, round by round; None if that was not measured."""
        if name not in self.rounds:
            return None
        ours, other = ([getattr(one, figure) for one in self.rounds[who]] for who in (OURS, name))
        return compare(ours, other)

    def of_nginx(self, figure: str = "requests_per_s") -> Comparison:
        """As against(), of nginx, which is always measured."""
        found = self.against(NGINX, figure)
        assert found is not None, "nginx is measured in each row"
        return found

    def typical(self, name: str, figure: str) -> float:
        """The median of a cache's rounds."""
        return float(median(getattr(one, figure) for one in self.rounds[name]))

    def rate_verdict(self, workers: int) -> str:
        """Whether the ratio to nginx's rate is what it should be; empty without a goal."""
        target = self.row.target_for(workers)
        return "" if target is None else target.verdict(self.of_nginx().ratio)

    @property
    def p99_verdict(self) -> str:
        """Whether the ratio of the 99th percentiles is."""
        return P99_TARGET.verdict(self.of_nginx("p99_us").ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResults:
    """The results of one run."""

    workers: int
    accepting: str
    """How nginx shares connections among its workers."""
    results: Sequence[SetResult]
    left_out: Sequence[tuple[SetRow, str]]
    """The rows that were not measured, each with its reason."""
    failed: Sequence[tuple[SetRow, str]]
    """The rows in which a reply was wrong, or a hit was none."""
    wait_unit: str
    missing: Sequence[str]
    """Programs that are not installed."""

    @property
    def worst_first(self) -> list[SetResult]:
        """The measured rows, the lowest ratio to nginx first."""
        return sorted(self.results, key=lambda result: result.of_nginx().ratio)
