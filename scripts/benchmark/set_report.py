"""PURE: the results of the rows with sets of objects, as a table for people, as Markdown and as values for JSON.

Worst first: a table that begins with its best rows flatters.
"""

from collections.abc import Sequence
from dataclasses import asdict

from scripts.benchmark.http_rows import NGINX, OURS, PACKAGES, VARNISH
from scripts.benchmark.report import aligned
from scripts.benchmark.set_results import SetResult, SetResults
from scripts.benchmark.set_rows import P99_TARGET

_HEADINGS = (
    "load",
    "ours",
    NGINX,
    "ratio",
    "range",
    "target",
    "",
    "p99",
    "",
    "CPU µs",
    "{unit}",
    "p50 / longest ms",
    VARNISH,
)
_MARKDOWN_HEADINGS = (
    "load",
    "ratio to nginx",
    "range",
    "goal",
    "p99, to nginx's",
    "CPU time, µs each",
    "{unit} each",
    "p50 / longest",
    "to varnish",
    "ours",
)
_NOTE = (
    "load: httpblast, kept connections, objects drawn at random, every reply checked; hits never ask the origin,\n"
    "misses always. p99 is the ratio of the 99th percentiles (target {p99}). CPU time (all processes of a cache, ours\n"
    "with simplecached) and {unit}, each for one request, and p50 with the longest request: ours / nginx's."
)


def sets_as_text(results: SetResults, machine: str) -> str:
    """The table, worst rows first, then what failed and what was left out."""
    workers = f"{results.workers} worker{'' if results.workers == 1 else 's'} on each side"
    lines = [f"Sets of objects, {workers}; machine: {machine}"]
    lines.append(_NOTE.format(p99=P99_TARGET.text("x"), unit=results.wait_unit))
    if results.workers > 1:
        lines.append(f"nginx's fastest way to share connections here was {results.accepting}.")
    rows = [_cells(result, results.workers) for result in results.worst_first]
    if rows:
        client = [result.typical(OURS, "client_cpu_us") for result in results.results]
        lines.append(f"The load itself takes {min(client):.0f} to {max(client):.0f} µs of CPU time for a request.")
        lines += ["", *aligned([[cell.format(unit=results.wait_unit) for cell in _HEADINGS], *rows])]
    lines += ["", *(f"WRONG: {row.title}: {reason}" for row, reason in results.failed)] if results.failed else []
    lines += ["", *_left_out(results)] if results.left_out else []
    return "\n".join(lines)


def sets_as_markdown(results: SetResults) -> str:
    """The table of README.md and docs/tuning.md, worst rows first, with what was left out below."""
    headings = [cell.format(unit=results.wait_unit) for cell in _MARKDOWN_HEADINGS]
    rows = [_markdown_cells(result, results.workers) for result in results.worst_first]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cells).replace("|  |", "| |") + " |" for cells in rows]
    lines += ["", *(f"Wrong: {row.title}: {reason}." for row, reason in results.failed)] if results.failed else []
    lines += ["", *(f"{line}." for line in _left_out(results))] if results.left_out else []
    return "\n".join(lines)


def sets_as_object(results: SetResults) -> dict[str, object]:
    """Rows by key, worst first, with every figure; what failed and what was left out, with the reasons."""
    return {
        "workers": results.workers,
        "nginx_accepting": results.accepting,
        "waits": results.wait_unit,
        "rows": {result.row.key: _row_object(result, results.workers) for result in results.worst_first},
        "failed": {row.key: reason for row, reason in results.failed},
        "left_out": {row.key: reason for row, reason in results.left_out},
        "not_installed": list(results.missing),
    }


def _cells(result: SetResult, workers: int) -> tuple[str, ...]:
    rate, p99, target = result.of_nginx(), result.of_nginx("p99_us"), result.row.target_for(workers)
    varnish = result.against(VARNISH)
    return (
        result.row.title,
        f"{rate.ours:,.0f}/s",
        f"{rate.other:,.0f}/s",
        f"{rate.ratio:.2f} x",
        f"{rate.ratio_low:.2f}-{rate.ratio_high:.2f}",
        target.text("x") if target else "",
        result.rate_verdict(workers),
        f"{p99.ratio:.2f} x",
        result.p99_verdict,
        _both(result, "cpu_us", 1, 1),
        _waits(result),
        f"{_typical_ms(result, OURS)}; {_typical_ms(result, NGINX)}",
        f"{varnish.ratio:.2f} x" if varnish else "-",
    )


def _markdown_cells(result: SetResult, workers: int) -> tuple[str, ...]:
    rate, p99, target = result.of_nginx(), result.of_nginx("p99_us"), result.row.target_for(workers)
    varnish = result.against(VARNISH)
    return (
        result.row.title,
        f"{rate.ratio:.2f}",
        f"{rate.ratio_low:.2f}-{rate.ratio_high:.2f}",
        f"{target.value:g}" if target else "",
        f"{p99.ratio:.2f}",
        _both(result, "cpu_us", 1, 1),
        _waits(result),
        f"{_typical_ms(result, OURS)} ms",
        f"{varnish.ratio:.2f}" if varnish else "-",
        f"{rate.ours:,.0f}/s",
    )


def _both(result: SetResult, figure: str, divisor: float, digits: int) -> str:
    ours, nginx = (result.typical(name, figure) / divisor for name in (OURS, NGINX))
    return f"{ours:,.{digits}f} / {nginx:,.{digits}f}"


def _waits(result: SetResult) -> str:
    counts = (result.waits.get(name) for name in (OURS, NGINX))
    return " / ".join("-" if count is None else f"{count:.2f}" for count in counts)


def _typical_ms(result: SetResult, name: str) -> str:
    """The median, and the median of the rounds' longest."""
    return f"{result.typical(name, 'p50_us') / 1e3:.2f} / {result.typical(name, 'max_us') / 1e3:,.1f}"


def _left_out(results: SetResults) -> list[str]:
    """A line for each reason, with the rows that it concerns."""
    reasons: dict[str, list[str]] = {}
    for row, reason in results.left_out:
        reasons.setdefault(reason, []).append(row.key)
    lines = [f"left out ({reason}): {', '.join(keys)}" for reason, keys in reasons.items()]
    packages = [PACKAGES[name] for name in results.missing if name in PACKAGES]
    return [*lines, f"apt-get install {' '.join(packages)}"] if packages else lines


def _row_object(result: SetResult, workers: int) -> dict[str, object]:
    target = result.row.target_for(workers)
    peers: Sequence[str] = [name for name in result.rounds if name != OURS]
    return {
        "load": result.row.title,
        "against": {
            name: {
                figure: asdict(found)
                for figure in ("requests_per_s", "p50_us", "p99_us", "max_us", "cpu_us")
                if (found := result.against(name, figure)) is not None
            }
            for name in peers
        },
        "waits": dict(result.waits),
        "client_cpu_us": {name: result.typical(name, "client_cpu_us") for name in result.rounds},
        "target": None if target is None else target.value,
        "verdict": result.rate_verdict(workers) or None,
        "p99_target": P99_TARGET.value,
        "p99_verdict": result.p99_verdict,
    }
