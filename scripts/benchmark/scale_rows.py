"""PURE: the rows of the table of a large store, their targets, and the table. The only place with these numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.benchmark.report import aligned
from scripts.benchmark.stats import Target

COUNT = 1_000_000
COUNT_MIN, COUNT_MAX = 1000, 10_000_000
MEMORY = "resident memory, beyond that of an empty cache"
START = "start to first answer"
FILLS = "fills of the store itself, 2,000 bytes, 4 threads"
COMMANDS = "fills by commands of one client, 4 at once"
PURGE = "a purge of all made objects, until it is acknowledged"
LEFT = "purged objects that were served afterwards, or after a kill"
UNITS = {MEMORY: "B/object", START: "s", FILLS: "fills/s", COMMANDS: "fills/s", PURGE: "s", LEFT: "objects"}
TARGETS: Mapping[str, Target | None] = {
    MEMORY: Target(value=250, is_maximum=True),
    START: Target(value=2, is_maximum=True),
    FILLS: Target(value=5000),
    COMMANDS: None,
    PURGE: Target(value=1, is_maximum=True),
    LEFT: Target(value=0, is_maximum=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleResults:
    """The figures of one run by title, in the units of UNITS, over a store of `count` objects."""

    count: int
    figures: Mapping[str, float]

    @property
    def holds(self) -> bool:
        """Whether every target is met."""
        return all(target is None or target.met_by(self.figures[title]) for title, target in TARGETS.items())


def scale_as_text(results: ScaleResults, machine: str) -> str:
    """The table: value, target and verdict of each row."""
    cells = [
        (title, f"{results.figures[title]:,.2f}", UNITS[title], *_judged(target, results.figures[title]))
        for title, target in TARGETS.items()
    ]
    lines = [
        f"a store directory of {results.count:,} objects; machine: {machine}",
        "",
        *aligned([("", "value", "unit", "target", ""), *cells]),
    ]
    return "\n".join(lines)


def scale_as_json(results: ScaleResults, machine: str) -> str:
    """One JSON object: each row with value, unit, target and verdict."""
    rows = [
        {
            "title": title,
            "value": results.figures[title],
            "unit": UNITS[title],
            "target": None if target is None else target.value,
            "verdict": None if target is None else target.verdict(results.figures[title]),
        }
        for title, target in TARGETS.items()
    ]
    return json.dumps({"machine": machine, "objects": results.count, "rows": rows}, indent=2)


def _judged(target: Target | None, value: float) -> tuple[str, str]:
    return ("", "") if target is None else (target.text(""), target.verdict(value))
