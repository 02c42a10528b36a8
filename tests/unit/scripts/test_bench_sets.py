"""The rows with sets of objects: their goals, which are measured, in which batches, and what the load's output says."""

import json
from dataclasses import replace
from typing import Any

import pytest

from scripts.benchmark import set_measure
from scripts.benchmark.__main__ import main
from scripts.benchmark.http_load import Draws, HttpFigures, http_figures_in
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.nginx_cache import open_files_of
from scripts.benchmark.set_contest import complaints_in
from scripts.benchmark.set_results import SetResults
from scripts.benchmark.set_rows import (
    BATCH_BYTES_MAX,
    SET_ROWS,
    SIZES_KIB,
    Room,
    batches,
    is_chosen,
    stored_bytes_of,
    unknown_prefixes,
    why_left_out,
)
from scripts.benchmark.wait_counts import WaitCounter, count_in, switches_in

BY_KEY = {row.key: row for row in SET_ROWS}
PLENTY = Room(disk_bytes=10**12, memory_bytes=10**12)


def goals(key: str) -> tuple[float | None, ...]:
    found = (BY_KEY[key].target_for(workers) for workers in (1, 2, 8))
    return tuple(None if target is None else target.value for target in found)


def test_the_targets_are_those_of_the_table() -> None:
    half = [key for key in BY_KEY if key.startswith("hits_") and not key.endswith("_1")]
    assert {f"hits_{objects}_{connections}" for objects in (10, 300, 5000) for connections in (8, 64)} <= set(half)
    assert {goals(key) for key in half} == {(0.5, 0.9, 0.9)}
    assert {goals(key) for key in ("zipf_8", "zipf_64")} == {(0.4, 0.8, 0.8)}
    assert goals("hits_5000_1") == (0.7, 0.7, 0.7)
    assert {goals(f"sizes_{objects}_{size}k") for objects in (64, 2000) for size in SIZES_KIB} == {(0.75, 1.0, 1.0)}
    assert {goals(key) for key in ("misses_8", "misses_64")} == {(0.35, 0.6, 0.6)}
    assert goals("misses_1") == (None, None, None)


def test_each_row_has_a_name_and_a_title_of_its_own() -> None:
    assert len(BY_KEY) == len({row.title for row in SET_ROWS}) == len(SET_ROWS)


def test_rows_are_chosen_by_prefix() -> None:
    assert {key for key in BY_KEY if is_chosen(key, ["misses", "hits_10_8"])} == {
        "misses_1",
        "misses_8",
        "misses_64",
        "hits_10_8",
    }
    assert all(is_chosen(key, []) for key in BY_KEY)
    assert unknown_prefixes(["zipf", "zipp", ""], BY_KEY) == ["zipp"]


@pytest.mark.parametrize(("failed", "status"), [(False, 0), (True, 1)])
def test_a_row_that_is_wrong_shows_in_the_exit_status(
    failed: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are left out without nginx, in every form; few objects are not measured if no row of theirs is chosen."""
    measured = set_measure.measure_sets

    def measure(*arguments: Any, quick: bool) -> SetResults:
        found = measured(*arguments, quick=quick)
        return replace(found, failed=[(BY_KEY["zipf_8"], "wrong")]) if failed else found

    monkeypatch.setattr("scripts.benchmark.http_tables.measure_sets", measure)
    monkeypatch.setattr(set_measure, "find_server", lambda name: None)
    monkeypatch.setattr("scripts.benchmark.__main__.interrupt_on_ending_signals", lambda: None)
    for form in ([], ["--markdown"], ["--json"]):
        assert main(["--http", "--rows", "misses_8,zipf", *form]) == status
        output = capsys.readouterr().out
        assert "misses_8" in output
        assert "needs nginx" in output
        assert "policy" not in output


def test_what_does_not_fit_is_left_out_with_its_reason() -> None:
    large = BY_KEY["sizes_2000_2048k"]
    needed = 2 * large.stored_bytes + (512 << 20)
    assert why_left_out(large, Room(disk_bytes=needed, memory_bytes=needed), quick=False) is None
    small_disk = Room(disk_bytes=needed - 1, memory_bytes=needed)
    assert why_left_out(large, small_disk, quick=False) == "needs 8.9 GB of disk space, 8.9 GB are free"
    small_memory = Room(disk_bytes=needed, memory_bytes=2 * 10**9)
    reason = "needs 8.9 GB of memory for the page cache, 2.0 GB are free"
    assert why_left_out(large, small_memory, quick=False) == reason
    assert why_left_out(BY_KEY["zipf_8"], PLENTY, quick=True) == "not with --quick"
    assert why_left_out(BY_KEY["misses_8"], PLENTY, quick=True) is None


def test_batches_keep_order_sets_and_limit() -> None:
    found = batches(SET_ROWS)
    assert [row for batch in found for row in batch] == list(SET_ROWS)
    for batch in found:
        sets = {(row.set_name, row.object_bytes) for row in batch}
        assert stored_bytes_of(batch) <= BATCH_BYTES_MAX or len(sets) == 1
    together = next(batch for batch in found if BY_KEY["zipf_8"] in batch)
    assert BY_KEY["zipf_64"] in together
    assert batches([]) == []


def test_the_load_is_told_what_to_ask_for() -> None:
    assert Draws(set_name="a", object_bytes=100, objects=5).arguments() == ["-s", "a", "-b", "100", "-k", "5"]
    zipf = Draws(set_name="a", object_bytes=1, objects=2, alpha=1.0, compares_all=True)
    assert zipf.arguments()[-3:] == ["-z", "1", "-C"]
    assert Draws(set_name="a", object_bytes=1, objects=2, first=0).arguments()[-2:] == ["-e", "0"]


REPORT = {
    "requests": 50,
    "answered": 60,
    "bytes": 5000,
    "seconds": 0.5,
    "p50_us": 10.0,
    "p99_us": 20.0,
    "max_us": 30.0,
    "client_cpu_s": 0.0006,
    "reconnects": 0,
    "failures": {},
    "first_failure": "",
}


def test_figures_are_per_second_and_per_request() -> None:
    assert http_figures_in(json.dumps(REPORT)) == HttpFigures(
        requests=50,
        answered=60,
        requests_per_s=100.0,
        p50_us=10.0,
        p99_us=20.0,
        max_us=30.0,
        client_cpu_us=pytest.approx(10.0),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failures": {"content": 1}, "first_failure": "/a/1/2: content"}, r"wrong replies.*content.*/a/1/2"),
        ({"requests": 0}, "no reply within the time"),
    ],
)
def test_one_wrong_reply_is_too_many(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        http_figures_in(json.dumps({**REPORT, **changes}))


def test_perf_and_the_kernel_are_understood() -> None:
    assert count_in("# started on Sun\n\n4057,,syscalls:sys_enter_futex,99,100.00,,\n") == 4057
    assert count_in("12,,syscalls:sys_enter_futex:u,99,100.00,,\n") == 12
    assert count_in("<not counted>,,syscalls:sys_enter_futex,0,100.00,,\n") is None
    assert count_in("") is None
    assert switches_in("Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n") == 12
    assert WaitCounter("perf", "").unit == "futex calls"
    assert WaitCounter(None, "").unit == "context switches"


@pytest.mark.parametrize(("limit", "expected"), [(20_000, 17_952), (1_000, 1), (10**9, 200_000), (-1, 200_000)])
def test_nginx_keeps_as_many_files_open_as_it_may(limit: int, expected: int) -> None:
    assert open_files_of(limit) == expected


def test_complaints_are_warnings_and_worse() -> None:
    log = "2026 info     x: error counted\n2026 warning  x: slow\nTraceback\n2026 error    x: gone\n"
    assert complaints_in(log) == ["2026 warning  x: slow", "2026 error    x: gone"]
