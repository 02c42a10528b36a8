"""PURE: the results of the rows with several workers: a table for people, Markdown, an object for programs."""

from dataclasses import asdict

from scripts.benchmark.http_report import LOAD
from scripts.benchmark.http_rows import PACKAGES
from scripts.benchmark.report import aligned
from scripts.benchmark.worker_rows import CPU_UNIT, Line, WorkerResults

_HEADINGS = ("load", "compared with", "ours", "other", "unit", "ratio", "range", "target", "")
_MARKDOWN_HEADINGS = ("load", "compared with", "ratio", "range", "goal", "ours")


def workers_as_text(results: WorkerResults, machine: str) -> str:
    """The table, then what is compared with nothing."""
    cells, last = [], ""
    for line in results.lines:
        cells.append(_cells(line, "" if line.load == last else line.load))
        last = line.load
    singles = [
        f"{title}: {value:.2f} {unit} (target {target.text(unit)}) {target.verdict(value)}"
        for title, (value, unit, target) in results.singles.items()
    ]
    lines = [
        f"HTTP, {results.workers} workers on each side; machine: {machine}",
        LOAD,
        f"nginx at its best: open_file_cache; its fastest way to share connections here was {results.accepting}.",
        "CPU time is that of all processes of a cache, ours with simplecached.",
        "",
        *aligned([_HEADINGS, *cells]),
        "",
        *singles,
    ]
    if results.missing:
        packages = " ".join(PACKAGES[name] for name in results.missing)
        lines += ["", f"not installed: {', '.join(results.missing)} (apt-get install {packages})"]
    return "\n".join(lines)


def workers_as_markdown(results: WorkerResults) -> str:
    """A table of all comparisons, those with the lowest ratio first (of CPU times the highest), and single figures."""
    lines = [f"| {' | '.join(_MARKDOWN_HEADINGS)} |", "|" + "---|" * len(_MARKDOWN_HEADINGS)]
    for line in sorted(results.lines, key=_goodness):
        load, against, ours, _, unit, ratio, spread, _, _ = _cells(line, line.load)
        goal = "" if line.target is None else f" {line.target.value:g}"
        lines.append(f"| {load} | {against} | {ratio.removesuffix(' x')} | {spread} |{goal} | {ours} {unit} |")
    singles = [
        f"{title}: {value:.2f} {unit} (goal: at most {target.value:g} {unit})."
        for title, (value, unit, target) in results.singles.items()
    ]
    return "\n".join([*lines, "", *singles])


def _goodness(line: Line) -> float:
    return 1 / line.comparison.ratio if line.unit == CPU_UNIT else line.comparison.ratio


def workers_as_object(results: WorkerResults, machine: str) -> dict[str, object]:
    """For JSON: each line with its comparison, target and verdict; the single figures; what is missing."""
    return {
        "machine": machine,
        "workers": results.workers,
        "nginx_accepting": results.accepting,
        "lines": [_line_object(line) for line in results.lines],
        "single": {
            title: {"value": value, "unit": unit, "target": target.value, "verdict": target.verdict(value)}
            for title, (value, unit, target) in results.singles.items()
        },
        "not_installed": list(results.missing),
    }


def _cells(line: Line, load: str) -> tuple[str, ...]:
    found, target = line.comparison, line.target
    digits = 1 if line.unit == CPU_UNIT else 0
    return (
        load,
        line.against,
        f"{found.ours:,.{digits}f}",
        f"{found.other:,.{digits}f}",
        line.unit,
        f"{found.ratio:.2f} x",
        f"{found.ratio_low:.2f}-{found.ratio_high:.2f}",
        "" if target is None else target.text("x"),
        "" if target is None else target.verdict(found.ratio),
    )


def _line_object(line: Line) -> dict[str, object]:
    target = line.target
    return {
        "key": line.key,
        "load": line.load,
        "against": line.against,
        "unit": line.unit,
        "comparison": asdict(line.comparison),
        "target": None if target is None else target.value,
        "verdict": None if target is None else target.verdict(line.comparison.ratio),
    }
