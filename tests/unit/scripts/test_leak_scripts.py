"""The scripts about leaks, for a user who may not see the names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import clean_shm, ipc_leaks
from shmchannel.process import reaper


@pytest.mark.parametrize("main", [clean_shm.main, ipc_leaks.main], ids=["clean-shm", "check-ipc-leaks"])
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
