"""PURE: what was measured of each row → a verdict, and the table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.benchmark.report import aligned
from scripts.stress.rows import (
    GOODPUT_SHARE_MIN,
    HIT_LATENCY_ALLOWED_MS,
    HIT_LATENCY_FACTOR,
    ORIGIN_CONNECTIONS_MAX,
    PARTIES_TO_JUDGE_MEMORY,
    PARTY_KIB_MAX,
    REFUSAL_MS_MAX,
    STOPPED_CACHE_SHARE_MIN,
)

_HEADINGS = ("row", "idle p50/p99", "beside p50/p99", "failed", "refused (p95)", "KiB each", "besides", "verdict")
_LATENCY_REASON = "p99 above"


@dataclass(frozen=True, slots=True, kw_only=True)
class HitTimes:
    """Hits of one time: how many, how many of them failed, and milliseconds."""

    count: int
    ok: int
    p50_ms: float
    p99_ms: float

    @property
    def failed(self) -> int:
        """How many did not come whole, exact and in time."""
        return self.count - self.ok


@dataclass(slots=True, kw_only=True)
class Result:
    """What was measured of a row; None is not measured there."""

    name: str
    title: str
    idle: HitTimes | None = None
    beside: HitTimes | None = None
    refused: int = 0
    refused_p95_ms: float | None = None
    party_kib: float | None = None
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why it does not hold."""

    @property
    def verdict(self) -> str:
        """`ok` or `below`."""
        return "below" if self.reasons else "ok"


def judge_hits(idle: HitTimes, beside: HitTimes) -> list[str]:
    """Why hits beside something are not as good as idle ones; nothing if they are."""
    limit_ms = max(HIT_LATENCY_FACTOR * idle.p99_ms, HIT_LATENCY_ALLOWED_MS)
    reasons = []
    if beside.p99_ms > limit_ms:
        reasons.append(f"{_LATENCY_REASON} {limit_ms:.0f} ms")
    if beside.failed:
        reasons.append("hits fail")
    return reasons


def only_latency_misses(result: Result) -> bool:
    """Whether nothing but the latency of hits is not as it should be."""
    return bool(result.reasons) and all(reason.startswith(_LATENCY_REASON) for reason in result.reasons)


def judge_memory(kib: float, parties: int) -> list[str]:
    """Whether each party costs too much."""
    return [f"above {PARTY_KIB_MAX:.0f} KiB"] if parties >= PARTIES_TO_JUDGE_MEMORY and kib > PARTY_KIB_MAX else []


def judge_origin(connections_peak: int) -> list[str]:
    """Whether an origin sees too many connections at once."""
    return [f"origin above {ORIGIN_CONNECTIONS_MAX} at once"] if connections_peak > ORIGIN_CONNECTIONS_MAX else []


def judge_overload(goodput: float, capacity: float, refused_p95_ms: float | None) -> list[str]:
    """Whether much is still done under overload, and the rest refused quickly."""
    reasons = []
    if goodput < GOODPUT_SHARE_MIN * capacity:
        reasons.append(f"goodput below {GOODPUT_SHARE_MIN:g} of {capacity:.0f}/s")
    if refused_p95_ms is not None and refused_p95_ms > REFUSAL_MS_MAX:
        reasons.append(f"refusals above {REFUSAL_MS_MAX:g} ms")
    return reasons


def judge_stopped_cache(stopped_per_s: float, dead_per_s: float, failed: int) -> list[str]:
    """Whether a cache that hangs costs more than one that is dead may make up for."""
    reasons = []
    if stopped_per_s < STOPPED_CACHE_SHARE_MIN * dead_per_s:
        reasons.append(f"below {STOPPED_CACHE_SHARE_MIN:g} of a dead cache's")
    if failed:
        reasons.append("requests fail")
    return reasons


def as_text(results: Sequence[Result], heading: str) -> str:
    """The table, and how many rows do not hold."""
    below = sum(bool(result.reasons) for result in results)
    lines = [heading, "times in milliseconds", "", *aligned([_HEADINGS, *map(_cells, results)]), ""]
    return "\n".join([*lines, f"{len(results) - below} of {len(results)} rows hold"])


def _cells(result: Result) -> tuple[str, ...]:
    verdict = ": ".join([result.verdict, *([", ".join(result.reasons)] if result.reasons else [])])
    refused = "" if not result.refused else f"{result.refused} ({_number(result.refused_p95_ms)})"
    failed = "" if result.beside is None else f"{result.beside.failed}/{result.beside.count}"
    kib = "" if result.party_kib is None else f"{result.party_kib:.1f}"
    notes = ", ".join(result.notes)
    return (result.title, _times(result.idle), _times(result.beside), failed, refused, kib, notes, verdict)


def _times(times: HitTimes | None) -> str:
    return "" if times is None else f"{_number(times.p50_ms)}/{_number(times.p99_ms)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def as_json(results: Sequence[Result]) -> str:
    """All figures as one JSON object."""
    rows: list[dict[str, Any]] = [{**asdict(result), "verdict": result.verdict} for result in results]
    return json.dumps({"rows": rows, "holds": not any(result.reasons for result in results)}, indent=2)
