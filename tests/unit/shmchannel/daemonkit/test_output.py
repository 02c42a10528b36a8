"""What a command prints is written, or it is said why not; a reader that has enough is no failure."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit.output import put_out

if TYPE_CHECKING:
    from pathlib import Path

BOTH = pytest.mark.parametrize("text", ["some text\n", b"some text\n"])


@BOTH
def test_it_is_written(text: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "output"
    with path.open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert put_out("command", text)
        assert path.read_bytes() == b"some text\n"


@BOTH
def test_a_full_disk(text: str | bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert not put_out("command", text)
    monkeypatch.undo()
    assert capsys.readouterr().err == "command: cannot write to the standard output: No space left on device\n"


@BOTH
def test_a_reader_that_has_enough(
    text: str | bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(write_fd, "w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert put_out("command", text)
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
