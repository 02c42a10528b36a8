"""The rows with several workers as text and as JSON, their targets, and the CPU time of a process tree."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from scripts.benchmark.__main__ import main
from scripts.benchmark.http_rows import NGINX, VARNISH
from scripts.benchmark.process_trees import cpu_time_s, pss_mb
from scripts.benchmark.stats import compare
from scripts.benchmark.worker_measure import missing_programs
from scripts.benchmark.worker_report import workers_as_markdown, workers_as_object, workers_as_text
from scripts.benchmark.worker_rows import (
    ONE_WORKER,
    WORKER_ROWS,
    Line,
    WorkerResults,
    cpu_target_of,
    target_of,
)

BY_KEY = {row.key: row for row in WORKER_ROWS}


def results(ratio: float, *, missing: list[str] | None = None) -> WorkerResults:
    lines = [
        Line(
            key=row.key,
            load=row.title,
            against=against,
            unit=row.figure,
            comparison=compare([2000 * ratio], [2000]),
            target=target_of(row, against),
        )
        for row in WORKER_ROWS
        for against in (NGINX, VARNISH, ONE_WORKER)
    ]
    return WorkerResults(
        workers=2, accepting="reuseport", lines=lines, start_s=1.25, memory_mb=31.0, missing=missing or []
    )


def test_the_targets_are_those_of_the_table() -> None:
    to_nginx = [target_of(row, NGINX) for row in WORKER_ROWS]
    assert [target.value for target in to_nginx if target is not None] == [1.0] * 5
    to_varnish = {row.key: target_of(row, VARNISH) for row in WORKER_ROWS}
    assert {key: target.value for key, target in to_varnish.items() if target is not None} == {"http_10m": 0.95}
    cpu = cpu_target_of(BY_KEY["http_8k_8"])
    assert cpu is not None
    assert (cpu.value, cpu.is_maximum) == (1.1, True)
    assert cpu_target_of(BY_KEY["http_1m"]) is None


def test_text_has_a_line_for_each_comparison() -> None:
    text = workers_as_text(results(0.97), "2 processors")
    assert text.startswith("HTTP, 2 workers on each side; machine: 2 processors\n")
    assert "its fastest way to share connections here was reuseport" in text
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith(BY_KEY["http_10m"].title))
    nginx, varnish, one = (" ".join(line.split()) for line in lines[first : first + 3])
    assert nginx.endswith("nginx 1,940 2,000 MB/s 0.97 x 0.97-0.97 ≥ 1 x below")
    assert varnish == "varnish 1,940 2,000 MB/s 0.97 x 0.97-0.97 ≥ 0.95 x ok"
    assert one.startswith("1 worker ")
    assert lines[-2].endswith("1.25 s (target ≤ 1.5 s) ok")
    assert lines[-1].endswith("31.00 MB (target ≤ 30 MB) above")


def test_text_names_what_is_missing() -> None:
    text = workers_as_text(results(1, missing=["varnish"]), "machine")
    assert text.endswith("not installed: varnish (apt-get install varnish)")


def test_json_has_every_figure() -> None:
    document = json.loads(json.dumps(workers_as_object(results(0.5), "machine")))
    assert (document["workers"], document["nginx_accepting"]) == (2, "reuseport")
    line = document["lines"][0]
    assert (line["against"], line["comparison"]["ratio"], line["target"], line["verdict"]) == (
        NGINX,
        0.5,
        1.0,
        "below",
    )
    assert [single["verdict"] for single in document["single"].values()] == ["ok", "above"]


def test_markdown_has_the_worst_comparison_first() -> None:
    lines = [
        Line(key="a", load="a", against=NGINX, unit="MB/s", comparison=compare([15], [10]), target=None),
        Line(key="b", load="b", against=NGINX, unit="µs/request", comparison=compare([20], [10]), target=None),
        Line(
            key="c",
            load="c",
            against=NGINX,
            unit="MB/s",
            comparison=compare([9], [10]),
            target=BY_KEY["http_1m"].target,
        ),
    ]
    text = workers_as_markdown(replace(results(1), lines=lines)).splitlines()
    assert text[2:5] == [
        "| b | nginx | 2.00 | 2.00-2.00 | | 20.0 µs/request |",
        "| c | nginx | 0.90 | 0.90-0.90 | 1 | 9 MB/s |",
        "| a | nginx | 1.50 | 1.50-1.50 | | 15 MB/s |",
    ]
    assert text[-1].endswith("31.00 MB (goal: at most 30 MB).")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rows", "hits"], "--rows chooses rows of --http"),
        (["--http", "--rows", "hits,hitz"], "no row begins with hitz"),
        (["--workers", "2"], "--workers measures HTTP hits: add --http"),
        (["--http", "--workers", "0"], "--workers 0 is not from 1 to 64"),
        (["--http", "--workers", "65"], "--workers 65 is not from 1 to 64"),
    ],
)
def test_rows_and_workers_that_cannot_be_measured_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert complaint in capsys.readouterr().err


def test_without_nginx_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.benchmark.worker_measure.find_server", lambda name: None)
    monkeypatch.setattr("scripts.benchmark.worker_measure.shutil.which", lambda name: "/usr/bin/wrk")
    monkeypatch.setattr("scripts.benchmark.__main__.interrupt_on_ending_signals", lambda: None)
    assert missing_programs() == ["nginx", "varnish"]
    assert main(["--http", "--workers", "2"]) == 1
    assert "not installed: nginx, varnish (apt-get install nginx-light varnish)" in capsys.readouterr().err


def test_children_count_in_time_and_memory() -> None:
    """A shell that waits for its child, which has computed: the time is the child's."""
    computes = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\nsys.stdin.read()"
    command = ["sh", "-c", f'"{sys.executable}" -c "$0"; exit', computes]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "done\n"
        assert cpu_time_s([shell.pid]) > 0.3
        assert pss_mb([shell.pid]) > 1
        shell.communicate("")
    assert cpu_time_s([]) == 0
    assert cpu_time_s([os.getpid()]) > 0
