"""PURE: the results as a table for people and as one JSON object for programs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from scripts.benchmark.memory import NOTE, PairMemory
from scripts.benchmark.rows import FAIRNESS_ROW, MEMORY_TARGET, PeerFigures, Row, RowResult
from scripts.benchmark.stats import Comparison
from scripts.benchmark.steps import StepTimes

_HEADINGS = ("load", "ours", "floor", "ratio", "range", "target", "", "C pair", "to the C pair")
_MARKDOWN_HEADINGS = ("load", "ratio", "range", "goal", "to the C pair", "ours")
_NO_C_PAIR = "C pair: not measured: needs a C compiler"
_NOT_MEASURED = "-"
_OPTION = re.compile(r"-[nz][-\w ]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of one run of the benchmark."""

    load_description: str
    machine: str
    rows: Sequence[RowResult]
    fairness: Comparison | None  # None: the load generator cannot mix
    memory_idle: Sequence[PairMemory]
    memory_loaded: Sequence[PairMemory]
    steps: Mapping[str, StepTimes | None]
    peers: Sequence[PeerFigures]
    peers_missing: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPeaks:
    """The largest figure of each daemon over all runs, in megabytes."""

    idle: PairMemory
    loaded: PairMemory

    @property
    def worst_mb(self) -> float:
        """The figure that the target applies to."""
        return max(self.idle.cache_mb, self.idle.proxy_mb, self.loaded.cache_mb, self.loaded.proxy_mb)


def memory_peaks(results: Results) -> MemoryPeaks:
    """The peaks of both daemons, new and after the load."""
    return MemoryPeaks(idle=_peak(results.memory_idle), loaded=_peak(results.memory_loaded))


def _peak(samples: Sequence[PairMemory]) -> PairMemory:
    return PairMemory(
        cache_mb=max(sample.cache_mb for sample in samples), proxy_mb=max(sample.proxy_mb for sample in samples)
    )


def as_json(results: Results) -> str:
    """One JSON object: rows by key with figures, target and verdict, memory, steps, peers."""
    rows = {result.row.key: _row_object(result) for result in results.rows}
    peaks = memory_peaks(results)
    document = {
        "load": results.load_description,
        "machine": results.machine,
        "rows": rows,
        FAIRNESS_ROW.key: _fairness_object(results.fairness),
        "memory_mb": {
            "idle": asdict(peaks.idle),
            "loaded": asdict(peaks.loaded),
            "counted": NOTE,
            "target": MEMORY_TARGET.value,
            "verdict": MEMORY_TARGET.verdict(peaks.worst_mb),
        },
        "steps": {title: asdict(times) if times else None for title, times in results.steps.items()},
        "peers": [asdict(peer) for peer in results.peers],
        "peers_not_installed": list(results.peers_missing),
    }
    return json.dumps(document, indent=2)


def _row_object(result: RowResult) -> dict[str, object]:
    row = result.row
    return {
        "load": row.title,
        "unit": row.figure,
        **asdict(result.floor),
        "target": row.target.value if row.target else None,
        "verdict": row.target.verdict(result.floor.ratio) if row.target else None,
        "c_pair": asdict(result.c_pair) if result.c_pair else None,
        "c_pair_target": row.c_pair_target.value if row.c_pair_target else None,
    }


def _fairness_object(comparison: Comparison | None) -> dict[str, object] | None:
    if comparison is None:
        return None
    return {
        "load": FAIRNESS_ROW.title,
        "p99_ms_beside_crowd": comparison.ours,
        "p99_ms_beside_few": comparison.other,
        "ratio": comparison.ratio,
        "target": FAIRNESS_ROW.target.value,
        "verdict": FAIRNESS_ROW.target.verdict(comparison.ratio),
    }


def as_text(results: Results) -> str:
    """The table, then memory, steps and peers."""
    lines = [f"load: {results.load_description}; machine: {results.machine}", ""]
    lines += aligned([_HEADINGS, *(_cells(result) for result in results.rows)])
    if any(result.c_pair is None for result in results.rows):
        lines += ["", _NO_C_PAIR]
    lines += ["", *_fairness_lines(results.fairness), "", *_memory_lines(memory_peaks(results))]
    for title, times in results.steps.items():
        lines += ["", *_step_lines(title, times)]
    lines += ["", *_peer_lines(results)]
    return "\n".join(lines)


def _cells(result: RowResult) -> tuple[str, ...]:
    row, floor, c_pair = result.row, result.floor, result.c_pair
    return (
        row.title,
        f"{floor.ours:,.0f} {row.figure}",
        f"{floor.other:,.0f} {row.figure}",
        f"{floor.ratio:.2f} x",
        f"{floor.ratio_low:.2f}-{floor.ratio_high:.2f}",
        row.target.text("x") if row.target else "",
        row.target.verdict(floor.ratio) if row.target else "",
        f"{c_pair.other:,.0f} {row.figure}" if c_pair else _NOT_MEASURED,
        _to_c_pair(row, c_pair),
    )


def _to_c_pair(row: Row, c_pair: Comparison | None) -> str:
    if c_pair is None:
        return _NOT_MEASURED
    target = row.c_pair_target
    return f"{c_pair.ratio:.2f} x" + (f" (target {target.text('x')}) {target.verdict(c_pair.ratio)}" if target else "")


def as_markdown(results: Results) -> str:
    """The table of README.md and docs/tuning.md, to be pasted in place of theirs."""
    rows: list[tuple[str, ...]] = [_MARKDOWN_HEADINGS, ("---",) * len(_MARKDOWN_HEADINGS)]
    rows += [_markdown_cells(result) for result in results.rows]
    fairness, row = results.fairness, FAIRNESS_ROW
    ratio, p99 = (f"{fairness.ratio:.2f}", f"{fairness.ours:.1f} ms") if fairness else (_NOT_MEASURED, "")
    title = f"p99 of 8 KiB beside {row.crowd} clients of 10 MB, to that beside {row.few}"
    rows.append((title, ratio, "", f"at most {row.target.value:g}", "", p99))
    memory, limit = f"{memory_peaks(results).worst_mb:.0f} MB", f"at most {MEMORY_TARGET.value:g} MB"
    rows.append(("resident memory without segments and store, larger daemon", memory, "", limit, "", ""))
    lines = (re.sub(" {2,}", " ", f"| {' | '.join(cells)} |") for cells in rows)
    return "\n".join(lines).replace("| --- | --- | --- | --- | --- | --- |", "|---|---|---|---|---|---|")


def _markdown_cells(result: RowResult) -> tuple[str, ...]:
    row, floor = result.row, result.floor
    return (
        _OPTION.sub(r"`\g<0>`", row.title),
        f"{floor.ratio:.2f}",
        f"{floor.ratio_low:.2f}-{floor.ratio_high:.2f}",
        str(row.target.value) if row.target else "",
        _markdown_to_c_pair(row, result.c_pair),
        f"{floor.ours:,.0f} {row.figure}",
    )


def _markdown_to_c_pair(row: Row, c_pair: Comparison | None) -> str:
    goal = f" (goal {row.c_pair_target.value})" if row.c_pair_target else ""
    return f"{c_pair.ratio:.2f}{goal}" if c_pair else _NOT_MEASURED


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The cells as lines, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _fairness_lines(comparison: Comparison | None) -> list[str]:
    row = FAIRNESS_ROW
    if comparison is None:
        return [row.title, "  not measured: needs gfblast, and so a C compiler"]
    p99 = f"p99 of the small ones {comparison.ours:.1f} ms, beside {row.few} large clients {comparison.other:.1f} ms"
    verdict = row.target.verdict(comparison.ratio)
    return [row.title, f"  {p99}: {comparison.ratio:.2f} x (target {row.target.text('x')}) {verdict}"]


def _memory_lines(peaks: MemoryPeaks) -> list[str]:
    return [
        f"resident memory, {NOTE}",
        f"  simplecached {peaks.idle.cache_mb:.1f} MB idle, {peaks.loaded.cache_mb:.1f} MB after the load",
        f"  webproxy     {peaks.idle.proxy_mb:.1f} MB idle, {peaks.loaded.proxy_mb:.1f} MB after the load",
        f"  the largest of them: target {MEMORY_TARGET.text('MB')}, {MEMORY_TARGET.verdict(peaks.worst_mb)}",
    ]


def _step_lines(title: str, times: StepTimes | None) -> list[str]:
    if times is None:
        return [f"steps of one request, {title}: webproxy did not log them"]
    total = sum(times.microseconds.values())
    return [
        f"steps of one request, {title} ({times.requests:,} requests, {total:,.0f} µs each)",
        *(f"  {name:<6} {times.shares[name]:6.1%}  {value:>10,.1f} µs" for name, value in times.microseconds.items()),
    ]


def _peer_lines(results: Results) -> list[str]:
    lines = ["peers (HTTP/1.1, a new connection for each request)"]
    lines += [f"  {name}: not installed" for name in results.peers_missing]
    for peer in results.peers:
        rates = f"{peer.figures.requests_per_s:,.0f} requests/s, {peer.figures.megabytes_per_s:,.0f} MB/s"
        lines.append(f"  {peer.name}: {peer.row_title}: {rates}")
    return lines
