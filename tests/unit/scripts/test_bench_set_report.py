"""The report on sets of objects: comparisons round by round, verdicts, and the worst row first in every form."""

import json

from scripts.benchmark.http_rows import NGINX, OURS, VARNISH
from scripts.benchmark.set_report import sets_as_markdown, sets_as_object, sets_as_text
from scripts.benchmark.set_results import SetResult, SetResults, SetRound
from scripts.benchmark.set_rows import SET_ROWS

BY_KEY = {row.key: row for row in SET_ROWS}


def round_of(rate: float, p99_us: float = 500.0, cpu_us: float = 20.0, max_us: float = 9000.0) -> SetRound:
    return SetRound(requests_per_s=rate, p50_us=250.0, p99_us=p99_us, max_us=max_us, cpu_us=cpu_us, client_cpu_us=7.0)


def result(key: str, ratio: float, *, varnish: bool = False, p99_us: float = 500.0) -> SetResult:
    ours = [round_of(1000 * ratio * drift, p99_us * drift, 40.0) for drift in (1, 2, 3)]
    nginx = [round_of(1000 * drift, 100.0 * drift) for drift in (1, 2, 3)]
    others = {VARNISH: [round_of(500 * drift) for drift in (1, 2, 3)]} if varnish else {}
    return SetResult(row=BY_KEY[key], rounds={OURS: ours, NGINX: nginx, **others}, waits={OURS: 1.234, NGINX: None})


def results(*measured: SetResult, workers: int = 1) -> SetResults:
    large = BY_KEY["sizes_2000_2048k"]
    return SetResults(
        workers=workers,
        accepting="reuseport",
        results=measured,
        left_out=[(large, "too large"), (BY_KEY["zipf_8"], "too large")],
        failed=[(BY_KEY["zipf_64"], "the origin was asked 3 times")],
        wait_unit="futex calls",
        missing=["varnish"],
    )


BOTH = (result("hits_5000_8", 0.95, varnish=True, p99_us=300.0), result("misses_8", 0.25))


def test_ratios_are_of_rounds_and_not_of_medians() -> None:
    assert BOTH[0].of_nginx().ratio == 0.95
    assert BOTH[0].of_nginx("p99_us").ratio == 3.0
    assert BOTH[0].against(VARNISH) is not None
    assert BOTH[1].against(VARNISH) is None


def test_goals_are_those_of_the_workers() -> None:
    met = result("hits_5000_8", 0.6)
    assert [met.rate_verdict(workers) for workers in (1, 2)] == ["ok", "below"]
    assert result("misses_1", 0.01).rate_verdict(1) == ""
    assert [one.p99_verdict for one in BOTH] == ["ok", "above"]


def test_text_has_the_worst_row_first() -> None:
    lines = sets_as_text(results(*BOTH), "2 processors").splitlines()
    assert lines[0] == "Sets of objects, 1 worker on each side; machine: 2 processors"
    rows = [" ".join(line.split()) for line in lines if line.startswith((BOTH[0].row.title, BOTH[1].row.title))]
    misses, hits = rows
    assert misses == (
        "misses, objects of 100 B, 8 connections 500/s 2,000/s 0.25 x 0.25-0.25 ≥ 0.35 x below "
        "5.00 x above 40.0 / 20.0 1.23 / - 0.25 / 9.0; 0.25 / 9.0 -"
    )
    assert hits == (
        "hits, 5,000 objects of 100 B, 8 connections 1,900/s 2,000/s 0.95 x 0.95-0.95 ≥ 0.5 x ok "
        "3.00 x ok 40.0 / 20.0 1.23 / - 0.25 / 9.0; 0.25 / 9.0 1.90 x"
    )
    assert "The load itself takes 7 to 7 µs of CPU time for a request." in lines
    assert f"WRONG: {BY_KEY['zipf_64'].title}: the origin was asked 3 times" in lines
    assert lines[-2:] == ["left out (too large): sizes_2000_2048k, zipf_8", "apt-get install varnish"]


def test_with_workers_it_says_how_nginx_accepts() -> None:
    text = sets_as_text(results(*BOTH, workers=2), "machine")
    assert "2 workers on each side" in text
    assert "nginx's fastest way to share connections here was reuseport." in text


def test_markdown_is_a_table_with_the_worst_row_first() -> None:
    lines = sets_as_markdown(results(*BOTH)).splitlines()
    assert len({line.replace(" | | ", " | - | ").count("|") for line in lines[:4]}) == 1
    assert lines[2].startswith("| misses, objects of 100 B, 8 connections | 0.25 | 0.25-0.25 | 0.35 | 5.00 |")
    assert lines[3].endswith("| 40.0 / 20.0 | 1.23 / - | 0.25 / 9.0 ms | 1.90 | 1,900/s |")
    assert "left out (too large): sizes_2000_2048k, zipf_8." in lines
    without_goal = sets_as_markdown(results(result("misses_1", 0.5))).splitlines()[2]
    assert "| 0.50-0.50 | | 5.00 |" in without_goal


def test_without_any_row_there_is_no_table() -> None:
    assert "ratio " not in sets_as_text(results(), "machine").splitlines()[-1]


def test_json_has_every_figure() -> None:
    document = json.loads(json.dumps(sets_as_object(results(*BOTH))))
    assert list(document["rows"]) == ["misses_8", "hits_5000_8"]
    row = document["rows"]["misses_8"]
    assert (row["target"], row["verdict"], row["p99_target"], row["p99_verdict"]) == (0.35, "below", 4, "above")
    assert row["against"]["nginx"]["cpu_us"]["ratio"] == 2.0
    assert row["against"]["nginx"]["max_us"]["ours"] == 9000
    assert row["waits"] == {"ours": 1.234, "nginx": None}
    assert document["left_out"] == {"sizes_2000_2048k": "too large", "zipf_8": "too large"}
    assert document["failed"] == {"zipf_64": "the origin was asked 3 times"}
