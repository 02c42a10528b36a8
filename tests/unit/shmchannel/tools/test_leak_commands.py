"""The commands about leaks, for a user who may not see the names."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from shmchannel.process import reaper
from shmchannel.tools import clean, leaks


@pytest.mark.parametrize("main", [clean.main, leaks.main], ids=["gfcache-clean", "gfcache-leaks"])
def test_without_rights_there_is_a_line_that_says_so(
    main: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listdir = os.listdir

    def refuse(path: str) -> list[str]:
        if path == reaper.SHM_DIRECTORY:
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr("shmchannel.process.reaper.os.listdir", refuse)
    assert main([]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{reaper.SHM_DIRECTORY}: Permission denied" in told


@pytest.mark.parametrize(("main", "prog"), [(clean.main, "gfcache-clean"), (leaks.main, "gfcache-leaks")])
def test_version_is_that_of_the_distribution(
    main: Callable[[list[str]], int], prog: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{prog} {version('gfcache')}\n"
