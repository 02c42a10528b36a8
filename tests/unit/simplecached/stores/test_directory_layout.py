from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

from simplecached.errors import StartupError
from simplecached.stores.directory_layout import DirectoryLayout
from tests.support.stores import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> DirectoryLayout:
    return DirectoryLayout(str(tmp_path / "store"))


@pytest.fixture
def lock_fd(layout: DirectoryLayout) -> Iterator[int]:
    fd = layout.acquire()
    yield fd
    os.close(fd)


def modes_below(path: str) -> set[int]:
    return {stat.S_IMODE(os.stat(folder).st_mode) for folder, _, _ in os.walk(path)}


@pytest.mark.usefixtures("lock_fd")
def test_everything_is_for_this_user_alone(layout: DirectoryLayout) -> None:
    assert modes_below(layout.directory) == {0o700}
    assert stat.S_IMODE(os.stat(os.path.join(layout.directory, "simplecached.lock")).st_mode) == 0o600


def test_an_existing_empty_directory_is_taken_and_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "store" / "lost+found").mkdir(parents=True)
    (tmp_path / "store").chmod(0o755)
    os.close(DirectoryLayout(str(tmp_path / "store")).acquire())
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(StartupError, match="not empty and contains no store"):
        DirectoryLayout(str(tmp_path)).acquire()
    assert os.listdir(tmp_path) == ["letters.txt"]


def test_a_parent_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file or directory"):
        DirectoryLayout(str(tmp_path / "mistyped" / "store")).acquire()
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StartupError, match="store"):
        DirectoryLayout(str(tmp_path / "store")).acquire()


def test_a_second_holder_is_told_who_has_it(layout: DirectoryLayout, lock_fd: int) -> None:
    refusal = f"store directory {layout.directory} is in use by process {os.getpid()}; stop that process"
    with pytest.raises(
        StartupError, match=re.escape(refusal)
    ):  # the lock belongs to the open file: one process is enough
        layout.acquire()


def test_another_process_is_told_too_and_the_lock_ends_with_its_holder(layout: DirectoryLayout) -> None:
    script = """
        import sys
        from simplecached.stores.directory_layout import DirectoryLayout
        from simplecached.errors import StartupError
        try:
            DirectoryLayout(sys.argv[1]).acquire()
        except StartupError as error:
            sys.exit(str(error))
        print("taken")
    """
    fd = layout.acquire()
    try:
        assert f"in use by process {os.getpid()}" in run_script(script, layout.directory).stderr
    finally:
        os.close(fd)
    assert run_script(script, layout.directory).stdout == "taken\n"
    os.close(layout.acquire())


def test_a_lock_file_without_a_pid_still_locks(layout: DirectoryLayout, lock_fd: int) -> None:
    os.ftruncate(lock_fd, 0)
    with pytest.raises(StartupError, match="in use by another process"):
        layout.acquire()


@pytest.mark.usefixtures("lock_fd")
class TestNames:
    def test_a_name_says_nothing_of_the_key(self, layout: DirectoryLayout) -> None:
        name = layout.object_name(b"/../../etc/passwd", 2**64 - 1)
        assert len(name) == 49
        assert set(name) <= set("0123456789abcdef-")
        assert os.path.dirname(layout.object_path(name)) == os.path.join(layout.directory, "objects", name[:2])
        assert name != layout.object_name(b"/../../etc/passwd", 1)

    def test_bodies_are_listed_and_removed_and_strangers_left(self, layout: DirectoryLayout) -> None:
        names = [layout.object_name(b"%d" % number, number) for number in range(5)]
        for name in names:
            with open(layout.object_path(name), "wb") as file:
                file.write(b"body")
        stranger = os.path.join(os.path.dirname(layout.object_path(names[0])), "README")
        open(stranger, "wb").close()
        found = [item for shard in layout.shards() for item in layout.names_in(shard)]
        assert sorted(found) == sorted((name, number) for number, name in enumerate(names))
        assert layout.remove_objects([*names, names[0]]) == 5
        assert [item for shard in layout.shards() for item in layout.names_in(shard)] == []
        assert os.path.exists(stranger)

    def test_unfinished_bodies_are_removed(self, layout: DirectoryLayout) -> None:
        for number in range(3):
            open(layout.temporary_path(number), "wb").close()
        assert layout.empty_temporary() == 3
        assert layout.empty_temporary() == 0
