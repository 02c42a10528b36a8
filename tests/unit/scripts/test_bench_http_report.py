"""The HTTP rows as text and as JSON, with every program there and with some missing."""

import json

import pytest

from scripts.benchmark import http_measure
from scripts.benchmark.http_measure import HttpResults, measure_http
from scripts.benchmark.http_report import http_as_markdown, http_as_object, http_as_text
from scripts.benchmark.http_rows import HTTP_ROWS, POLICY_TITLE
from scripts.benchmark.measure import QUICK
from scripts.benchmark.policy import decision_us
from scripts.benchmark.stats import compare


def results(ours: float, *, varnish: bool = True, decision: float = 3.0) -> HttpResults:
    others = {"nginx": 1000.0} | ({"varnish": 500.0} if varnish else {})
    comparisons = {name: compare([ours], [figure]) for name, figure in others.items()}
    return HttpResults(
        rows=[(row, comparisons) for row in HTTP_ROWS],
        decision_us=decision,
        missing=[] if varnish else ["varnish"],
    )


def line_of(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(title))


def test_the_targets_are_those_of_the_table() -> None:
    assert {row.key: row.target.value for row in HTTP_ROWS} == {
        "http_1m": 1.0,
        "http_10m": 1.0,
        "http_8k_new": 0.5,
        "http_8k_8": 0.35,
        "http_8k_64": 0.35,
    }


def test_text_has_ratio_target_and_verdict_of_each_row() -> None:
    text = http_as_text(results(400), "2 processors")
    assert text.startswith("HTTP; machine: 2 processors\n")
    for row in HTTP_ROWS:
        line = line_of(text, row.title)
        for part in (f"400 {row.figure}", "1,000", "0.40 x", row.target.text("x"), row.target.verdict(0.4), "0.80 x"):
            assert part in line
    assert line_of(text, POLICY_TITLE).endswith("3.0 µs (target ≤ 15 µs) ok")
    assert "not installed" not in text


def test_without_varnish_its_column_says_so() -> None:
    text = http_as_text(results(400, varnish=False, decision=16), "machine")
    for row in HTTP_ROWS:
        assert line_of(text, row.title).endswith("not installed")
    assert line_of(text, POLICY_TITLE).endswith("above")
    assert text.endswith("not installed: varnish (apt-get install varnish)")


def test_without_nginx_or_wrk_the_rows_say_what_they_need(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the pure decision is measured then; nothing is started."""
    monkeypatch.setattr(http_measure, "find_server", lambda name: None)
    monkeypatch.setattr(http_measure.shutil, "which", lambda name: None)
    found = measure_http(str(tmp_path), QUICK)
    assert list(tmp_path.iterdir()) == []
    assert (found.rows, found.missing) == ([], ["nginx", "varnish", "wrk"])
    text = http_as_text(found, "machine")
    for row in HTTP_ROWS:
        assert "not measured: needs nginx and wrk" in line_of(text, row.title)
    assert text.endswith("(apt-get install nginx-light varnish wrk)")
    assert http_as_object(found, "machine")["rows"] == {}


def test_json_has_every_figure() -> None:
    document = json.loads(json.dumps(http_as_object(results(1000), "machine")))
    row = document["rows"]["http_8k_new"]
    assert (row["unit"], row["target"], row["verdict"]) == ("requests/s", 0.5, "ok")
    assert {name: (pair["ours"], pair["other"], pair["ratio"]) for name, pair in row["against"].items()} == {
        "nginx": (1000, 1000, 1.0),
        "varnish": (1000, 500, 2.0),
    }
    assert document["policy_decision"] == {"microseconds": 3.0, "target": 15, "verdict": "ok"}
    assert document["not_installed"] == []


def test_markdown_has_the_worst_row_first() -> None:
    ratios = [1.5, 0.5, 2.0, 1.0, 0.25]
    measured = [(row, {"nginx": compare([1000 * ratio], [1000])}) for row, ratio in zip(HTTP_ROWS, ratios, strict=True)]
    text = http_as_markdown(HttpResults(rows=measured, decision_us=2.0, missing=["varnish"]))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[1:]] == ["0.25", "0.50", "1.00", "1.50", "2.00"]
    assert rows[1] == [HTTP_ROWS[4].title, "0.25", "0.25-0.25", "0.35", "-", "250 requests/s"]
    assert text.endswith("A caching decision for a fresh hit took 2.0 µs (goal: at most 15).")


def test_the_decision_is_timed_as_a_hit() -> None:
    assert decision_us() > 0
