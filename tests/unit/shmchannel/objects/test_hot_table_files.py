"""HotTableFiles: opens exactly the file that a reference means, keeps it while it is in use, and closes what is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmchannel.objects import hot_table_files
from shmchannel.objects.hot_table_files import KEEP_SECONDS, PAUSED_SECONDS, FileName, HotTableFile, HotTableFiles
from shmchannel.objects.hot_table_layout import FileRef
from tests.support.descriptors import none_left
from tests.support.failing import refusing

BODY = b"the bytes of an object" * 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(hot_table_files, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def memory_files() -> Iterator[list[int]]:
    """Descriptors of three files in memory: this process stands for the cache."""
    fds = []
    for number in range(3):
        fd = os.memfd_create("object")
        os.write(fd, BODY + bytes([number]))
        fds.append(fd)
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def files(clock: list[float]) -> Iterator[HotTableFiles]:
    made = HotTableFiles(files_max=2)
    before = open_count()
    yield made
    made.forget()
    assert open_count() == before


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def reference_to(fd: int, **other: int) -> FileRef:
    status = os.fstat(fd)
    fields = {"number": fd, "device": status.st_dev, "inode": status.st_ino, "size_bytes": status.st_size} | other
    return FileRef(**fields)


def hold(files: HotTableFiles, fd: int, version: int = 1) -> HotTableFile | None:
    return files.hold(os.getpid(), reference_to(fd), version, lambda: True)


def test_the_very_file(files: HotTableFiles, memory_files: list[int]) -> None:
    file = hold(files, memory_files[1])
    assert file is not None
    assert file.fd != memory_files[1]
    assert os.pread(file.fd, 1 << 20, 0) == BODY + b"\x01"
    assert file.size_bytes == len(BODY) + 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(file.fd, b"no")


def test_opened_once_while_it_is_kept(files: HotTableFiles, memory_files: list[int], clock: list[float]) -> None:
    name, before = name_of(memory_files[0]), open_count()
    first = hold(files, memory_files[0])
    assert first is not None
    assert hold(files, memory_files[0]) is first
    del first
    for _ in range(2):  # asking keeps it for longer
        clock[0] += KEEP_SECONDS - 0.1
        files.expire()
        assert files.again(name) is not None
        assert open_count() == before + 1
    clock[0] += KEEP_SECONDS
    files.expire()
    assert files.again(name) is None
    assert open_count() == before


def test_a_pause_keeps_it_longer(files: HotTableFiles, memory_files: list[int], clock: list[float]) -> None:
    file = hold(files, memory_files[0])
    assert file is not None
    file.keep_paused()
    assert hold(files, memory_files[0]) is file  # a shorter keeping does not end a longer one
    clock[0] += PAUSED_SECONDS - 0.1
    files.expire()
    assert files.again(file.name) is file


def test_a_pause_after_a_long_use(files: HotTableFiles, memory_files: list[int], clock: list[float]) -> None:
    """It is no longer kept when its user pauses, and its name may belong to another cache by then."""
    file = hold(files, memory_files[0])
    assert file is not None
    clock[0] += 1e6
    files.expire()
    assert files.again(file.name) is None
    file.keep_paused()
    assert files.again(file.name) is file
    files.forget()
    file.keep_paused()
    assert files.again(file.name) is None


def test_what_is_in_use_stays_open(files: HotTableFiles, memory_files: list[int], clock: list[float]) -> None:
    file = hold(files, memory_files[0])
    assert file is not None
    clock[0] += 1e6
    files.expire()
    files.forget()
    assert os.pread(file.fd, 3, 0) == BODY[:3]
    assert files.again(file.name) is None  # another cache's object could have the same name
    fd = file.fd
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_versions_of_one_inode_are_not_mixed_up(files: HotTableFiles, memory_files: list[int]) -> None:
    one, two = hold(files, memory_files[0], 1), hold(files, memory_files[0], 2)
    assert one is not None
    assert two is not None
    assert one is not two


def test_more_than_there_is_room_for(files: HotTableFiles, memory_files: list[int]) -> None:
    """The one that was asked for least recently gives way, and closes when nobody uses it."""
    before = open_count()
    first = hold(files, memory_files[0])
    hold(files, memory_files[1])
    assert first is not None
    assert hold(files, memory_files[0]) is first
    hold(files, memory_files[2])
    assert open_count() == before + 2
    assert [files.again(name_of(fd)) is not None for fd in memory_files] == [True, False, True]
    hold(files, memory_files[1])
    assert [files.again(name_of(fd)) is not None for fd in memory_files] == [False, True, True]
    assert open_count() == before + 3
    assert os.pread(first.fd, 3, 0) == BODY[:3]
    del first
    assert open_count() == before + 2


def test_no_more_than_so_many_are_open(memory_files: list[int]) -> None:
    """Kept or in use: the next is not opened before one is closed."""
    files = HotTableFiles(files_max=1, open_max=2)
    one, two = hold(files, memory_files[0]), hold(files, memory_files[1])
    assert one is not None
    assert two is not None
    assert hold(files, memory_files[2]) is None
    assert hold(files, memory_files[1]) is two
    del one
    assert hold(files, memory_files[2]) is not None
    files.forget()


def test_file_by_its_name(files: HotTableFiles, tmp_path: Path) -> None:
    """Below a directory that the cache has open; not what a link at its place leads to."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "name").write_bytes(BODY)
    (tmp_path / "ab" / "link").symlink_to("name")
    status = os.stat(tmp_path / "ab" / "name")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reference = FileRef(directory, status.st_dev, status.st_ino, len(BODY), b"ab/name")
        file = files.hold(os.getpid(), reference, 1, lambda: True)
        assert file is not None
        assert os.pread(file.fd, 1 << 20, 0) == BODY
        files.forget()
        assert files.read(os.getpid(), reference, lambda: True) == BODY
        assert files.read(os.getpid(), reference, lambda: False) is None
        assert files.read(os.getpid(), reference._replace(inode=1), lambda: True) is None
        gone = reference._replace(name=b"ab/gone")
        assert files.read(os.getpid(), gone, lambda: True) is None, "deleted by somebody: says nothing of the others"
        assert files.read(os.getpid(), reference, lambda: True) == BODY
        assert files.hold(os.getpid(), reference._replace(name=b"ab/link"), 1, lambda: True) is None
        del file
    finally:
        os.close(directory)


def name_of(fd: int, version: int = 1) -> FileName:
    status = os.fstat(fd)
    return FileName(status.st_dev, status.st_ino, version)


@pytest.mark.parametrize("field", ["device", "inode", "size_bytes"])
def test_another_file_under_the_number(files: HotTableFiles, memory_files: list[int], field: str) -> None:
    """The cache has closed it, and opened something else: that is nobody's object."""
    reference = reference_to(memory_files[0])
    wrong = reference._replace(**{field: getattr(reference, field) + 1})
    assert files.hold(os.getpid(), wrong, 1, lambda: True) is None


def test_taken_off_while_it_was_opened(files: HotTableFiles, memory_files: list[int]) -> None:
    assert files.hold(os.getpid(), reference_to(memory_files[0]), 1, lambda: False) is None
    assert hold(files, memory_files[0]) is not None


def test_nothing_but_regular_files(files: HotTableFiles) -> None:
    reading, writing = os.pipe()
    try:
        assert files.hold(os.getpid(), reference_to(reading), 1, lambda: True) is None
    finally:
        os.close(reading)
        os.close(writing)


def test_a_cache_whose_files_cannot_be_opened_is_not_tried_again(files: HotTableFiles, memory_files: list[int]) -> None:
    """Another PID namespace, or a hardened host: found out once."""
    closed = reference_to(memory_files[0], number=1 << 20)
    assert files.hold(os.getpid(), closed, 1, lambda: False) is None  # it was taken off: says nothing of the others
    assert hold(files, memory_files[0]) is not None
    files.forget()
    assert files.hold(os.getpid(), closed, 1, lambda: True) is None
    assert hold(files, memory_files[0]) is None


def test_another_cache_of_the_same_pid_is_tried(files: HotTableFiles, memory_files: list[int]) -> None:
    """In a container each cache may be process 1."""
    closed = reference_to(memory_files[0], number=1 << 20)
    assert files.hold(os.getpid(), closed, 1, lambda: True) is None
    files.forget()
    assert hold(files, memory_files[0]) is not None


def test_without_a_descriptor_it_is_tried_again(files: HotTableFiles, memory_files: list[int]) -> None:
    """That says nothing of the cache."""
    reference = reference_to(memory_files[0])
    with none_left() as taken:
        assert files.hold(os.getpid(), reference, 1, lambda: True) is None
        os.close(taken.pop())
        assert files.hold(os.getpid(), reference, 1, lambda: True) is not None


@pytest.mark.parametrize("code", [errno.ENFILE, errno.ENOMEM])
def test_what_passes_is_tried_again(
    files: HotTableFiles, memory_files: list[int], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing(code))
        assert hold(files, memory_files[0]) is None
    assert hold(files, memory_files[0]) is not None
