"""The command line: what it refuses, what it needs, and what it prints."""

from __future__ import annotations

import io
import json
import sys

import pytest

from tests.support.overviews import page, process, reading
from webproxy.admin.overview import Overview
from webproxy.monitor.cli import main
from webproxy.telemetry.metrics import REQUESTS

NOBODY = ("--owner", "1", "--interval", "0.1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json",), "--json prints one reading: give --once with it"),
        (("--interval", "0"), "'0': give seconds from 0.1 to 3600"),
        (("--interval", "nan"), "'nan': give seconds"),
        (("--interval", "x"), "'x': give seconds"),
        (("--owner", "http"), "'http': give the pid of a proxy, or the port that it listens on"),
        (("--owner", "0"), "'0': give the pid"),
        (("--owner", "4294967296"), "give the pid"),
        (("--onc",), "unrecognized arguments"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_without_textual_the_screen_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and `--once` works all the same."""
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "textual" or name.endswith("monitor.screen")
    ]:
        monkeypatch.delitem(sys.modules, name)

    class NoTextual:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == "textual":
                raise ModuleNotFoundError(f"No module named {name!r}", name="textual")

    monkeypatch.setattr(sys, "meta_path", [NoTextual(), *sys.meta_path])
    assert main([*NOBODY]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ("gfmon: the screen needs the package textual: pip install 'gfcache[monitor]', or use --once\n")
    assert main(["--once", "--json", *NOBODY]) == 1
    assert json.loads(capsys.readouterr().out)["derived"]["requests_total"] == 0


def test_shared_memory_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def take() -> Overview:
        raise FileNotFoundError(2, "No such file or directory", "/dev/shm")

    monkeypatch.setattr("webproxy.monitor.cli.take", take)
    assert main(["--once"]) == 69
    assert capsys.readouterr().err == (
        "gfmon: cannot read shared memory: [Errno 2] No such file or directory: '/dev/shm'; is /dev/shm mounted?\n"
    )


def test_what_an_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars, for example: the text of a C locale is complete otherwise."""
    hits = iter((1, 5))

    def take() -> Overview:
        counts = {(REQUESTS, "http", "hit", "2xx"): next(hits)}
        return reading(0, page(counts), processes=(process(100),)).overview

    printed = io.BytesIO()
    monkeypatch.setattr("webproxy.monitor.cli.take", take)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["--once", "--interval", "0.1"]) == 0
    text = printed.getvalue().decode("ascii")
    assert "hits, requests  100.0 %" in text
    assert "?" * 30 in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("gfmon ")
