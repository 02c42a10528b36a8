"""The command line of the proxy: what ends before a daemon starts."""

import re
import sys
from pathlib import Path

import pytest

from webproxy import cli, version


def test_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["webproxy", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert version() in capsys.readouterr().out


def test_an_unknown_flag_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["webproxy", "--no-such-flag"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_no_change_of_a_cache_or_an_origin_is_left_out_of_the_log() -> None:
    """docs/operations.md says so of all events of these names, but for errors of the program."""
    files = Path(cli.__file__).parent.rglob("*.py")
    named = re.compile(r'log\.(?:info|warning|error)\(\s*"((?:cache|origin) [^"]+)"')
    events = {event for file in files for event in named.findall(file.read_text())}
    assert len(events) > 5
    assert events <= cli.DAEMON.changes
