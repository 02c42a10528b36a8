from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from simplecached.stores.open_files import OpenFile, OpenFiles

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def files() -> Iterator[OpenFiles[str]]:
    files: OpenFiles[str] = OpenFiles(2)
    yield files
    files.close()


def opened(key: str, number: int = 0) -> OpenFile[str]:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return OpenFile(key, fd, identity=(0, number, 0, 0), size_bytes=10, version=1)


def is_open(file: OpenFile[str]) -> bool:
    try:
        os.fstat(file.fd)
    except OSError:
        return False
    return True


def keep_idle(files: OpenFiles[str], key: str, number: int = 0) -> OpenFile[str]:
    file = files.keep(opened(key, number))
    files.release(file)
    return file


def test_a_file_stays_open_for_the_next(files: OpenFiles[str]) -> None:
    file = keep_idle(files, "a")
    assert files.peek("a") is file
    assert files.pin(file)
    files.release(file)
    assert is_open(file)


def test_the_longest_unused_closes_first(files: OpenFiles[str]) -> None:
    a, b = keep_idle(files, "a"), keep_idle(files, "b")
    assert files.pin(a)
    files.release(a)
    c = keep_idle(files, "c")
    assert [is_open(file) for file in (a, b, c)] == [True, False, True]
    assert not files.pin(b)


def test_what_is_read_is_never_closed_and_the_surplus_ends_with_it(files: OpenFiles[str]) -> None:
    pinned = [files.keep(opened(key)) for key in "abcd"]
    assert all(is_open(file) for file in pinned)
    for file in pinned:
        files.release(file)
    assert [is_open(file) for file in pinned] == [False, False, True, True]


def test_a_dropped_file_closes_with_its_last_reader(files: OpenFiles[str]) -> None:
    file = files.keep(opened("a"))
    assert files.pin(file)
    files.drop("a")
    files.drop("a")
    assert files.peek("a") is None
    files.release(file)
    assert is_open(file)
    files.release(file)
    assert not is_open(file)


def test_the_second_of_two_equal_files_is_closed(files: OpenFiles[str]) -> None:
    first, second = opened("a"), opened("a")
    assert files.keep(first) is first
    assert files.keep(second) is first
    assert not is_open(second)
    files.release(first)
    files.release(first)


def test_a_changed_file_takes_the_place_of_the_older(files: OpenFiles[str]) -> None:
    old = files.keep(opened("a", 1))
    new = keep_idle(files, "a", 2)
    assert files.peek("a") is new
    assert is_open(old)
    files.release(old)
    assert not is_open(old)


def test_idle_files_can_be_given_up(files: OpenFiles[str]) -> None:
    idle, pinned = keep_idle(files, "a"), files.keep(opened("b"))
    assert files.drop_idle() == 1
    assert (is_open(idle), is_open(pinned)) == (False, True)
    assert files.kept_keys() == ["b"]
    files.release(pinned)


def test_after_close_a_file_lives_for_its_reader_only(files: OpenFiles[str]) -> None:
    pinned = files.keep(opened("a"))
    files.close()
    late = files.keep(opened("b"))
    assert is_open(pinned)
    assert is_open(late)
    files.release(pinned)
    files.release(late)
    assert not is_open(pinned)
    assert not is_open(late)


def test_releasing_too_often_is_a_bug(files: OpenFiles[str]) -> None:
    file = keep_idle(files, "a")
    with pytest.raises(AssertionError):
        files.release(file)
