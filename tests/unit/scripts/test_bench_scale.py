"""The table of a large store: targets, verdicts, and what the exit status says."""

import json

from scripts.benchmark.scale_rows import (
    COMMANDS,
    FILLS,
    LEFT,
    MEMORY,
    PURGE,
    START,
    ScaleResults,
    scale_as_json,
    scale_as_text,
)

GOOD = {MEMORY: 40.0, START: 0.6, FILLS: 6000.0, COMMANDS: 10.0, PURGE: 0.2, LEFT: 0.0}


def test_all_targets_hold_or_one_does_not() -> None:
    assert ScaleResults(count=1000, figures=GOOD).holds
    for title, value in ((MEMORY, 251.0), (START, 2.1), (FILLS, 4999.0), (PURGE, 1.1), (LEFT, 1.0)):
        assert not ScaleResults(count=1000, figures={**GOOD, title: value}).holds


def test_the_table_has_a_verdict_for_each() -> None:
    text = scale_as_text(ScaleResults(count=1_000_000, figures={**GOOD, PURGE: 3.0}), "a machine")
    assert "1,000,000 objects; machine: a machine" in text
    lines = text.splitlines()[3:]
    assert [line.split()[-1] for line in lines] == ["ok", "ok", "ok", "fills/s", "above", "ok"]


def test_json_has_the_same() -> None:
    document = json.loads(scale_as_json(ScaleResults(count=5000, figures={**GOOD, FILLS: 10.0}), "a machine"))
    assert document["objects"] == 5000
    assert [row["verdict"] for row in document["rows"]] == ["ok", "ok", "below", None, "ok", "ok"]
    assert document["rows"][0] == {
        "title": MEMORY,
        "value": 40.0,
        "unit": "B/object",
        "target": 250,
        "verdict": "ok",
    }
