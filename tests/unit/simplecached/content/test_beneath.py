"""Both ways to open beneath a root, held to the same corpus; the sources above them are in test_static_directory."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from simplecached.content import beneath
from tests.support.failing import refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opener = Callable[[int, bytes], int]


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("file")
    (root / "sub" / "deep").write_text("deep")
    (root / "link").symlink_to("file")
    (root / "out").symlink_to(tmp_path)
    (root / "back").symlink_to("sub")
    (tmp_path / "secret").write_text("secret")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture(params=["openat2", "walk", "fallback on ENOSYS", "fallback on EPERM"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Opener:
    if request.param == "walk":
        return beneath.walk_beneath
    if request.param.startswith("fallback"):
        code = getattr(errno, request.param.split()[-1])
        monkeypatch.setattr(beneath, "openat2", refusing(code))
    return beneath.open_beneath


@pytest.mark.parametrize("path", [b"file", b"./file", b"sub/deep", b"sub//deep", b"sub/./deep"])
def test_files_below_open(opener: Opener, root_fd: int, path: bytes) -> None:
    fd = opener(root_fd, path)
    try:
        assert os.read(fd, 10) == os.path.basename(path)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b".", b"sub", b"sub/", b"sub/."])
def test_folders_open_as_folders(opener: Opener, root_fd: int, path: bytes) -> None:
    fd = opener(root_fd, path)
    try:
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        (b"", {errno.ENOENT}),
        (b"none", {errno.ENOENT}),
        (b"none/file", {errno.ENOENT}),
        (b"file/", {errno.ENOTDIR}),
        (b"file/.", {errno.ENOTDIR}),
        (b"file/x", {errno.ENOTDIR}),
        (b"..", {errno.EXDEV}),
        (b"../secret", {errno.EXDEV}),
        (b"sub/../../secret", {errno.EXDEV}),
        (b"sub/../file", {errno.EXDEV}),
        (b"/etc/hostname", {errno.EXDEV}),
        (b"/", {errno.EXDEV}),
        (b"link", {errno.ELOOP}),
        (b"out/secret", {errno.ELOOP, errno.ENOTDIR}),
        (b"back/deep", {errno.ELOOP, errno.ENOTDIR}),
        (b"x" * 256, {errno.ENAMETOOLONG}),
    ],
)
def test_everything_else_is_refused(opener: Opener, root_fd: int, path: bytes, codes: set[int]) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"Errno") as caught:
        os.close(opener(root_fd, path))
    assert caught.value.errno in codes
    assert os.listdir("/proc/self/fd") == before


def test_nul_does_not_cut_the_path_short(root_fd: int) -> None:
    with pytest.raises(OSError, match="NUL"):
        beneath.open_beneath(root_fd, b"file\0.html")


def test_a_rename_race_is_tried_again(root_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [errno.EAGAIN, errno.EAGAIN]
    real = beneath.openat2

    def racing(fd: int, path: bytes) -> int:
        if answers:
            raise OSError(answers.pop(), "again")
        return real(fd, path)

    monkeypatch.setattr(beneath, "openat2", racing)
    os.close(beneath.open_beneath(root_fd, b"file"))
    answers.extend([errno.EAGAIN] * 1000)
    with pytest.raises(BlockingIOError):
        beneath.open_beneath(root_fd, b"file")
