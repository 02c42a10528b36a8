"""The report of a benchmark run, as text and as JSON."""

import json
import mmap
import os
import re

import pytest

from scripts.benchmark.load import Figures
from scripts.benchmark.memory import PairMemory, resident_mb
from scripts.benchmark.report import Results, as_json, as_markdown, as_text
from scripts.benchmark.rows import ROWS, PeerFigures, RowResult
from scripts.benchmark.stats import compare
from scripts.benchmark.steps import step_times_in


def results(ours: float, *, c_pair: bool = True) -> Results:
    figures = Figures(requests=10, requests_per_s=22_000, megabytes_per_s=180, p50_ms=1, p99_ms=2)
    return Results(
        load_description="gfblast",
        machine="2 processors",
        rows=[
            RowResult(row=row, floor=compare([ours], [1000]), c_pair=compare([ours], [4 * ours]) if c_pair else None)
            for row in ROWS
        ],
        fairness=compare([60], [10]),
        memory_idle=[PairMemory(cache_mb=20, proxy_mb=21)],
        memory_loaded=[PairMemory(cache_mb=22, proxy_mb=46), PairMemory(cache_mb=23, proxy_mb=40)],
        steps={"steps": step_times_in('{"step_times": {"accept": 1, "send": 3, "requests": 1}}'), "silent": None},
        peers=[PeerFigures(name="nginx", row_title="row", figures=figures)],
        peers_missing=["other"],
    )


def test_json_has_figure_target_and_verdict_of_each_row():
    document = json.loads(as_json(results(1500)))
    small = document["rows"]["small"]
    assert (small["ours"], small["other"], small["ratio"], small["target"]) == (1500, 1000, 1.5, 0.75)
    assert small["verdict"] == "ok"
    assert (small["c_pair"]["other"], small["c_pair"]["ratio"]) == (6000, 0.25)
    assert document["rows"]["large_classic_1"]["verdict"] == "below"
    assert document["small_beside_large"]["verdict"] == "above"
    assert document["memory_mb"]["loaded"] == {"cache_mb": 23, "proxy_mb": 46}
    assert document["memory_mb"]["verdict"] == "above"
    assert document["steps"]["steps"]["shares"] == {"accept": 0.25, "send": 0.75}


def test_text_has_a_line_for_each_row_and_names_what_is_missing():
    text = as_text(results(500))
    for row in ROWS:
        line = next(line for line in text.splitlines() if line.startswith(row.title))
        assert "0.50 x" in line
        assert (row.target.verdict(0.5) if row.target else "0.50-0.50") in line
        goal = r" \(target ≥ 1\.5 x\) below" if row.c_pair_target else ""
        assert re.search(rf"2,000 {row.figure} +0\.25 x{goal}$", line)
    assert "other: not installed" in text
    assert "silent: webproxy did not log them" in text
    assert "RssAnon + RssFile" in text


def test_without_a_compiler_the_c_pair_is_skipped_with_a_reason():
    report = results(500, c_pair=False)
    assert "C pair: not measured: needs a C compiler" in as_text(report)
    assert "needs a C compiler" not in as_text(results(500))
    assert json.loads(as_json(report))["rows"]["small"]["c_pair"] is None
    assert all("| - |" in line for line in as_markdown(report).splitlines()[2 : 2 + len(ROWS)])


def test_markdown_is_the_table_of_the_documents():
    lines = as_markdown(results(1500)).splitlines()
    assert lines[0] == "| load | ratio | range | goal | to the C pair | ours |"
    assert lines[2] == "| 8 KiB objects, 8 clients, default `-z` | 1.50 | 1.50-1.50 | 0.75 | 0.25 | 1,500 requests/s |"
    assert lines[3] == "| the same without the hot table | 1.50 | 1.50-1.50 | | 0.25 | 1,500 requests/s |"
    many = "the same 5,000 without the hot table"
    assert lines[5] == f"| {many} | 1.50 | 1.50-1.50 | | 0.25 (goal 1.5) | 1,500 requests/s |"
    assert lines[7] == "| 10 MB objects, 1 client, `-n 8 -z 8192` | 1.50 | 1.50-1.50 | 2.0 | 0.25 | 1,500 MB/s |"
    assert lines[-2] == "| p99 of 8 KiB beside 12 clients of 10 MB, to that beside 7 | 6.00 | | at most 5 | | 60.0 ms |"
    memory = "resident memory without segments and store, larger daemon"
    assert lines[-1] == f"| {memory} | 46 MB | | at most 45 MB | | |"


def test_resident_memory_of_this_process():
    """The kernel's own count, without a memory file of which every page is in use."""
    shared_bytes = 64 << 20
    fd = os.memfd_create("shared")
    os.ftruncate(fd, shared_bytes)
    with mmap.mmap(fd, shared_bytes) as shared:
        os.close(fd)
        shared.write(b"x" * shared_bytes)
        measured = resident_mb(os.getpid())
        with open("/proc/self/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
    counted = sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024 / 1e6
    assert measured == pytest.approx(counted, abs=shared_bytes / 1e6 / 4)
