"""SpoolRoom: what is free decides, also at run time, and is told once each time that it becomes little."""

from __future__ import annotations

import errno

import pytest

from webproxy.daemon.spool_room import SpoolRoom
from webproxy.fetch.spool_budget import GRANT_BYTES

MAX = 8 * GRANT_BYTES


def test_the_room_follows_the_file_system(caplog: pytest.LogCaptureFixture) -> None:
    free = 2 * MAX
    room = SpoolRoom("/tmp", MAX, 10, lambda _directory: free)
    assert room.budget.bytes_max == MAX
    assert room.budget.take(1, 3 * GRANT_BYTES) == []
    free -= 3 * GRANT_BYTES
    room.look()
    assert room.budget.bytes_max == MAX, "what spools have taken is theirs"
    assert not caplog.records
    free = 2 * GRANT_BYTES
    room.look()
    free = GRANT_BYTES
    room.look()
    assert room.budget.bytes_max == 3 * GRANT_BYTES + GRANT_BYTES // 2
    woken: list[int] = []
    room.budget.wait(2, 4 * GRANT_BYTES, lambda: woken.append(2))
    free = 2 * MAX
    room.look()
    assert room.budget.bytes_max == MAX
    free = 0
    room.look()
    told = [record.message for record in caplog.records if record.message != "spools full"]
    assert told == ["little room for spools"] * 2


def test_who_waits_for_room_is_woken_when_there_is_some() -> None:
    free = 4 * GRANT_BYTES
    room = SpoolRoom(None, MAX, 10, lambda _directory: free)
    assert room.budget.take(1, 2 * GRANT_BYTES) == []
    woken: list[int] = []
    assert room.budget.wait(2, 2 * GRANT_BYTES, lambda: woken.append(2)) == []
    free = 2 * MAX
    room.look()
    assert woken == [2]


def test_a_directory_that_is_gone_changes_nothing() -> None:
    def free_bytes(_directory: str) -> int:
        if is_gone:
            raise OSError(errno.ENOENT, "gone")
        return 2 * MAX

    is_gone = False
    room = SpoolRoom(None, MAX, 10, free_bytes)
    is_gone = True
    room.look()
    assert room.budget.bytes_max == MAX
