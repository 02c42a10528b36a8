"""Are the exit codes what the documents and the shell's conventions say?"""

from __future__ import annotations

import os

import pytest

from shmchannel.daemonkit.exits import ExitCode, exit_codes_table, shown_status


def test_codes_agree_with_sysexits() -> None:
    assert ExitCode.CANNOT_START == os.EX_UNAVAILABLE
    assert ExitCode.SOFTWARE == os.EX_SOFTWARE
    assert ExitCode.LOCK_HELD == os.EX_CANTCREAT
    assert (ExitCode.OK, ExitCode.USAGE) == (0, 2)


def test_codes_fit_an_exit_status_and_have_a_meaning() -> None:
    assert all(0 <= code <= 255 and code.meaning for code in ExitCode)
    assert ExitCode(73) is ExitCode.LOCK_HELD


def test_table_has_a_row_for_each_code() -> None:
    rows = exit_codes_table().splitlines()[2:]
    assert len(rows) == len(ExitCode)
    assert rows[0].startswith("| 0 | OK | success")


@pytest.mark.parametrize(("status", "shown"), [(0, "0"), (69, "69"), (-9, "SIGKILL"), (-12, "SIGUSR2"), (-200, "-200")])
def test_how_a_process_ended_is_told_by_the_name_of_the_signal(status: int, shown: str) -> None:
    assert shown_status(status) == shown
