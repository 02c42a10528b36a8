"""LineFile: lines are whole, whoever else writes; who adds one never waits; what cannot be written is counted."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from webproxy.errors import StartupError
from webproxy.telemetry import line_file
from webproxy.telemetry.line_file import STANDARD_OUTPUT, LineFile


@pytest.fixture
def standard_output() -> Iterator[list[int]]:
    """Put a descriptor into the list and call dup2; the real one comes back."""
    kept = os.dup(1)
    yield []
    os.dup2(kept, 1)
    os.close(kept)


def written(path: Path, count: int) -> list[bytes]:
    return (
        wait_until(
            lambda: lines if len(lines := path.read_bytes().splitlines()) >= count else None, what=f"{count} lines"
        )
        or []
    )


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    file = LineFile(str(path))
    file.add(b"one\n")
    assert written(path, 2) == [b"before", b"one"]
    file.add(b"two\n")
    file.close()
    assert path.read_bytes() == b"before\none\ntwo\n"
    assert file.dropped_total == 0


def test_several_files_of_one_path_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "log"
    files = [LineFile(str(path)) for _ in range(3)]

    def add(number: int) -> None:
        for _ in range(500):
            files[number % 3].add(b"%d" % number * 300 + b"\n")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%d" % number * 300 for number in range(6) for _ in range(500))


def test_reopened(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    file = LineFile(str(path))
    file.add(b"one\n")
    assert written(path, 1) == [b"one"]
    path.rename(moved)
    file.add(b"two\n")
    assert written(moved, 2) == [b"one", b"two"]
    file.reopen()
    file.add(b"three\n")
    file.close()
    assert (moved.read_bytes(), path.read_bytes()) == (b"one\ntwo\n", b"three\n")


def test_what_cannot_be_reopened_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    file = LineFile(str(directory / "log"))
    directory.rename(tmp_path / "elsewhere")
    file.reopen()
    file.add(b"one\n")
    file.close()
    assert (tmp_path / "elsewhere" / "log").read_bytes() == b"one\n"
    assert [record.message for record in caplog.records] == ["access log not reopened"]


@pytest.mark.parametrize("path", ["", "nowhere/log"])
def test_what_cannot_be_opened(tmp_path: Path, path: str) -> None:
    with pytest.raises(StartupError, match=r"access_log .* cannot be opened: .*give a file"):
        LineFile(str(tmp_path / path))


def test_a_pipe_without_a_reader_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StartupError, match="nobody reads this pipe"):
        LineFile(str(tmp_path / "pipe"))


def test_a_pipe_that_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Who adds lines does not wait; beyond the bound they are dropped, with one warning. Then somebody reads."""
    monkeypatch.setattr(line_file, "LINES_MAX", 50)
    caplog.set_level(logging.WARNING)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    file = LineFile(str(path))
    line = b"x" * 1000 + b"\n"
    for _ in range(200):
        file.add(line)
    assert file.dropped_total >= 140
    assert [record.message for record in caplog.records] == ["access log lines dropped"]
    received = b""

    def all_read() -> bool:
        nonlocal received
        received += os.read(reader, 65_536)
        return len(received) == len(line) * (200 - file.dropped_total)

    os.set_blocking(reader, True)
    while not all_read():
        pass
    assert received == line * (200 - file.dropped_total)
    file.close()
    os.close(reader)


def test_the_end_does_not_wait_for_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "CLOSE_SECONDS", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = LineFile(str(path))
    for _ in range(1000):
        file.add(b"x" * 1000 + b"\n")
    file.close()
    assert file.dropped_total > 900
    os.close(reader)


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The limit of a file's size stands in for it: a line is cut, others are dropped; there is room again later."""
    path = tmp_path / "log"
    file = LineFile(str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
    try:
        for number in range(5):
            file.add(b"line %d...\n" % number)
        wait_until(lambda: file.dropped_total == 3, what="the lines that are dropped")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.add(b"later\n")
    file.close()
    assert path.read_bytes().splitlines() == [b"line 0...", b"line 1...", b"line ", b"later"]
    assert [record.message for record in caplog.records] == ["access log lines dropped"]


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_the_standard_output(tmp_path: Path, standard_output: list[int], kind: str) -> None:
    """Whatever it is, its flags stay as they are: other processes have it too."""
    if kind == "file":
        ours = reader = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    elif kind == "pipe":
        reader, ours = os.pipe()
    else:
        one, other = socket.socketpair()
        reader, ours = one.detach(), other.detach()
    os.dup2(ours, 1)
    flags = fcntl.fcntl(1, fcntl.F_GETFL)
    file = LineFile(STANDARD_OUTPUT)
    file.add(b"one\n")
    file.reopen()
    file.add(b"two\n")
    file.close()
    assert fcntl.fcntl(1, fcntl.F_GETFL) == flags
    assert os.read(reader, 100) == b"one\ntwo\n"
    for fd in {reader, ours}:
        os.close(fd)


def test_a_slow_file_system_is_written_to_without_the_gil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "SLOW_BATCH_SECONDS", 0.0)
    monkeypatch.setattr(line_file, "SLOW_LINE_SECONDS", 0.0)
    path = tmp_path / "log"
    file = LineFile(str(path))
    for number in range(3):
        file.add(b"%d\n" % number)
        assert len(written(path, number + 1)) == number + 1
    file.close()
    assert path.read_bytes() == b"0\n1\n2\n"
