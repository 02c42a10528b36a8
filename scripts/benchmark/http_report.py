"""PURE: the results of the HTTP rows as a table for people, as Markdown, and as an object for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from scripts.benchmark.http_measure import HttpResults
from scripts.benchmark.http_rows import NGINX, PACKAGES, POLICY_TARGET, POLICY_TITLE, VARNISH, HttpRow
from scripts.benchmark.report import aligned
from scripts.benchmark.stats import Comparison

LOAD = (
    "load: wrk, 2 threads, several objects of each size in turn; every request a hit. New connections are wrk's too\n"
    "(`Connection: close`): ab has one thread, speaks HTTP/1.0, and would be the bottleneck."
)
_HEADINGS = ("load", "ours", NGINX, "ratio", "range", "target", "", VARNISH, "ratio")
_MARKDOWN_HEADINGS = ("load", "ratio to nginx", "range", "goal", "to varnish", "ours")


def http_as_text(results: HttpResults, machine: str) -> str:
    """The table, then the policy decision, and what to install for rows that are not measured."""
    measured = {row.key: comparisons for row, comparisons in results.rows}
    cells = [_cells(row, measured.get(row.key), results.missing) for row in results.asked]
    decision, target = results.decision_us, POLICY_TARGET
    policy = f"{POLICY_TITLE}: {decision:.1f} µs (target {target.text('µs')}) {target.verdict(decision)}"
    lines = [f"HTTP; machine: {machine}", LOAD, "", *aligned([_HEADINGS, *cells]), "", policy]
    if results.missing:
        packages = " ".join(PACKAGES[name] for name in results.missing)
        lines += ["", f"not installed: {', '.join(results.missing)} (apt-get install {packages})"]
    return "\n".join(lines)


def http_as_markdown(results: HttpResults) -> str:
    """The table of README.md and docs/tuning.md, worst rows first, and the policy decision."""
    lines = [f"| {' | '.join(_MARKDOWN_HEADINGS)} |", "|" + "---|" * len(_MARKDOWN_HEADINGS)]
    for row, comparisons in sorted(results.rows, key=lambda measured: measured[1][NGINX].ratio):
        nginx, varnish = comparisons[NGINX], comparisons.get(VARNISH)
        spread = f"{nginx.ratio:.2f} | {nginx.ratio_low:.2f}-{nginx.ratio_high:.2f}"
        to_varnish = f"{varnish.ratio:.2f}" if varnish else "-"
        lines.append(f"| {row.title} | {spread} | {row.target.value} | {to_varnish} | {nginx.ours:,.0f} {row.figure} |")
    decision = f"A caching decision for a fresh hit took {results.decision_us:.1f} µs"
    return "\n".join([*lines, "", f"{decision} (goal: at most {POLICY_TARGET.value:g})."])


def http_as_object(results: HttpResults, machine: str) -> dict[str, object]:
    """For JSON: rows by key with figures against each peer, target, verdict; the decision; what is missing."""
    return {
        "machine": machine,
        "rows": {row.key: _row_object(row, comparisons) for row, comparisons in results.rows},
        "policy_decision": {
            "microseconds": results.decision_us,
            "target": POLICY_TARGET.value,
            "verdict": POLICY_TARGET.verdict(results.decision_us),
        },
        "not_installed": list(results.missing),
    }


def _cells(row: HttpRow, comparisons: Mapping[str, Comparison] | None, missing: Sequence[str]) -> tuple[str, ...]:
    if comparisons is None:
        needed = " and ".join(name for name in missing if name != VARNISH)
        return (row.title, f"not measured: needs {needed}", "", "", "", row.target.text("x"), "", "", "")
    nginx, varnish = comparisons[NGINX], comparisons.get(VARNISH)
    return (
        row.title,
        f"{nginx.ours:,.0f} {row.figure}",
        f"{nginx.other:,.0f}",
        f"{nginx.ratio:.2f} x",
        f"{nginx.ratio_low:.2f}-{nginx.ratio_high:.2f}",
        row.target.text("x"),
        row.target.verdict(nginx.ratio),
        "not installed" if varnish is None else f"{varnish.other:,.0f}",
        "" if varnish is None else f"{varnish.ratio:.2f} x",
    )


def _row_object(row: HttpRow, comparisons: Mapping[str, Comparison]) -> dict[str, object]:
    return {
        "load": row.title,
        "unit": row.figure,
        "against": {name: asdict(comparison) for name, comparison in comparisons.items()},
        "target": row.target.value,
        "verdict": row.target.verdict(comparisons[NGINX].ratio),
    }
