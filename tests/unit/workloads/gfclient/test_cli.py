"""gfclient as its users run it: exit codes, files, output; servers that misbehave."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Event

import pytest

from tests.support.rawserver import RESET, RawServer, Step, byte_by_byte
from workloads.gfclient.cli import main

HELLO = b"GETFILE OK 5\r\n\r\nhello"


def address(server: RawServer) -> list[str]:
    return ["-s", server.host, "-p", str(server.port)]


def files_below(folder: Path) -> list[str]:
    return sorted(str(found.relative_to(folder)) for found in folder.rglob("*") if not found.is_dir())


def test_download_writes_every_path_of_the_workload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload = tmp_path / "w.txt"
    workload.write_text("/a\n/folder/b\n")
    out = tmp_path / "out"
    with RawServer([HELLO]) as server:
        code = main(["download", *address(server), "-w", str(workload), "-t", "2", "-o", str(out), "/c"])
    assert code == 0
    assert files_below(out) == ["a", "c", "folder/b"]
    assert (out / "folder/b").read_bytes() == b"hello"
    shown = capsys.readouterr()
    assert shown.out.startswith("downloaded 3 of 3, 15 bytes in ")
    assert shown.err == ""


def test_download_asks_round_robin_for_as_many_requests_as_told(tmp_path: Path) -> None:
    with RawServer([HELLO]) as server:
        assert main(["download", *address(server), "-r", "5", "-t", "1", "-o", str(tmp_path), "/a", "/b"]) == 0
        asked = [request.split()[2] for request in server.requests]
    assert asked == [b"/a", b"/b", b"/a", b"/b", b"/a"]
    assert files_below(tmp_path) == ["a", "b"]


BAD_SCRIPTS: dict[str, list[Step]] = {
    "empty-reply": [],
    "incomplete-header": byte_by_byte(b"GETFILE OK 5\r"),
    "bad-scheme": [b"GETLIFE OK 5\r\n\r\nhello"],
    "unknown-status": [b"GETFILE YES 5\r\n\r\nhello"],
    "missing-length": [b"GETFILE OK\r\n\r\nhello"],
    "negative-length": [b"GETFILE OK -5\r\n\r\nhello"],
    "alphabetic-length": [b"GETFILE OK 5x\r\n\r\nhello"],
    "length-too-large": [b"GETFILE OK 99999999999999999999\r\n\r\nhello"],
    "header-too-long": [b"GETFILE OK 000000000000000000005\r\n\r\nhello"],
    "unexpected-length": [b"GETFILE FILE_NOT_FOUND 0\r\n\r\n"],
    "bad-terminator": [b"GETFILE OK 5\n\nhello"],
    "short-body": [b"GETFILE OK 4294967297\r\n\r\nhello"],
    "excess-bytes": [b"GETFILE OK 4\r\n\r\nhello"],
    "file-not-found": [b"GETFILE FILE_NOT_FOUND\r\n\r\n"],
    "server-error": [b"GETFILE ERROR\r\n\r\n"],
    "refused-as-invalid": [b"GETFILE INVALID 0\n"],
    "timeout": [b"GETFILE OK 5\r\n\r\nhel", Event()],
    "connection-lost": [RESET],
}


@pytest.mark.parametrize("kind", BAD_SCRIPTS)
def test_a_failed_download_exits_1_names_the_kind_and_leaves_no_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timeout = "0.05" if kind == "timeout" else "60"
    with RawServer(BAD_SCRIPTS[kind]) as server:
        assert main(["download", *address(server), "--timeout", timeout, "-o", str(tmp_path), "/a"]) == 1
    assert files_below(tmp_path) == []
    shown = capsys.readouterr()
    assert shown.err.startswith(f"/a: {kind}: ")
    assert f"failed: 1 {kind}" in shown.out


@pytest.mark.parametrize("kind", BAD_SCRIPTS)
def test_measure_counts_the_same_failures(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    timeout = "0.05" if kind == "timeout" else "60"
    with RawServer(BAD_SCRIPTS[kind]) as server:
        assert main(["measure", *address(server), "--timeout", timeout, "--json", "-r", "2", "-t", "1", "/a"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failures"] == {kind: 2}
    assert (report["requests"], report["served"], report["failed"]) == (2, 0, 2)


def test_one_failure_among_many_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawServer([HELLO], [b"GETFILE ERROR\r\n\r\n"], [HELLO]) as server:
        assert main(["download", *address(server), "-t", "1", "-o", str(tmp_path), "/a", "/b", "/c", "/.."]) == 1
    assert files_below(tmp_path) == ["a", "c"]
    shown = capsys.readouterr()
    assert "downloaded 2 of 4" in shown.out
    assert "/..: unusable-name: " in shown.err


def test_a_flood_of_failures_is_counted_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawServer([b"GETFILE ERROR\r\n\r\n"]) as server:
        assert main(["download", *address(server), "-r", "50", "-o", str(tmp_path), "/a"]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("/a: server-error: ") == 20
    assert "further failures are only counted" in shown.err
    assert "50 server-error" in shown.out


def test_measure_shows_a_table_and_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file = tmp_path / "rows.csv"
    with RawServer([HELLO], [b"GETFILE OK 5\r\n\r\nhel"], [HELLO]) as server:
        code = main(["measure", *address(server), "-t", "1", "-m", str(rows_file), "/a", "/b,x", "/c"])
    assert code == 1
    shown = capsys.readouterr().out
    for expected in ("3 (2 served, 1 failed)", "short-body", "p99.99", "requests/s"):
        assert expected in shown
    with open(rows_file, newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["elapsed_s", "bytes_received", "served", "failed", "path"]
    assert [row[1:] for row in rows] == [["5", "1", "0", "/a"], ["3", "0", "1", "/b,x"], ["5", "1", "0", "/c"]]
    elapsed = [float(row[0]) for row in rows]
    assert elapsed == sorted(elapsed)


def test_measure_at_a_rate_counts_latency_from_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """One thread cannot send its second request before the first, which is never answered, has timed out."""
    with RawServer([Event()], [HELLO]) as server:
        arguments = ["--rate", "20", "-t", "1", "-r", "2", "--timeout", "1", "--json", "/a"]
        assert main(["measure", *address(server), *arguments]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failures"] == {"timeout": 1}
    # the second was due at 0.05 s and could only be sent at 1 s: both latencies show the stall
    assert report["latency_ms"]["p50"] >= 900


def test_several_threads_measure_together(capsys: pytest.CaptureFixture[str]) -> None:
    with RawServer([HELLO]) as server:
        assert main(["measure", *address(server), "-t", "4", "-r", "100", "--json", "/a", "/b"]) == 0
        assert len(server.requests) == 100
    report = json.loads(capsys.readouterr().out)
    assert (report["served"], report["received_bytes"], report["statuses"]) == (100, 500, {"OK": 100})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["download"], "nothing to ask for"),
        (["download", "no-slash"], "write /no-slash"),
        (["download", "-w", "absent.txt"], "absent.txt"),
        (["measure", "-m", "absent/rows.csv", "/a"], "absent/rows.csv"),
    ],
)
def test_a_command_that_cannot_run_exits_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["upload"],
        ["download", "-p", "0", "/a"],
        ["download", "-p", "65536", "/a"],
        ["download", "-t", "0", "/a"],
        ["download", "-r", "x", "/a"],
        ["download", "--timeout", "0", "/a"],
        ["measure", "--rate", "0", "/a"],
        ["measure", "--rate", "inf", "/a"],
        ["measure", "--rate", "nan", "/a"],
    ],
)
def test_bad_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_host_without_address_exits_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["download", "-s", "256.256.256.256", "-o", str(tmp_path), "/a"]) == 1
    assert "connect" in capsys.readouterr().err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_download_and_leaves_no_file(signum: int, code: int, tmp_path: Path) -> None:
    with RawServer([b"GETFILE OK 5\r\n\r\nhe", Event()]) as server:
        command = [sys.executable, "-m", "workloads.gfclient", "download", *address(server), "-o", str(tmp_path), "/a"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                assert server.reached.wait(60)
                os.kill(process.pid, signum)
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == code
    assert b"ended by a signal" in said
    assert files_below(tmp_path) == []


def test_a_terminal_gets_a_progress_bar_and_the_failures(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    shown = b""
    with RawServer([HELLO], [b"GETFILE ERROR\r\n\r\n"]) as server:
        command = [sys.executable, "-m", "workloads.gfclient", "download", *address(server), "-t", "1"]
        command += ["-o", str(tmp_path), "/a", "/b"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=environment) as process:
            os.close(follower)
            with suppress(OSError):  # a terminal whose other end is gone answers EIO, not an end of file
                while data := os.read(leader, 4096):
                    shown += data
            said, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 1
    assert b"2/2" in shown
    assert b"/b: server-error: " in shown
    assert said.startswith(b"downloaded 1 of 2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("measure", "-m", "{}/none/rows.csv", "/a"),
            "-m {}/none/rows.csv is not a writable file: No such file",
        ),
        (("download", "-o", "{}/taken", "/a"), "-o {}/taken is not a directory for the files: File exists"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "taken").touch()
    assert main([word.format(tmp_path) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gfclient: {said.format(tmp_path)}")
    assert "Errno" not in error


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"gfclient {version('gfcache')}\n"
