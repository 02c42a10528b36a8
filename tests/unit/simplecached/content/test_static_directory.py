from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from simplecached.content import beneath, static
from simplecached.content.static import StaticDirectory, open_static
from simplecached.descriptors import Descriptors
from simplecached.errors import ConfigError, StoreUnavailable
from simplecached.stores.memory_store import MemoryStore
from tests.support.descriptors import none_left
from tests.support.failing import refusing
from tests.support.stores import body_of, get, open_fds, opened, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "sub" / "deep").write_bytes(b"deep content")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def fds_below(root: Path) -> list[str]:
    """The open files of the directory, without itself."""
    return [target for target in open_fds().values() if target.startswith(f"{root}/")]


@pytest.fixture
def source(root: Path) -> Iterator[StaticDirectory]:
    before = open_fds()
    source = StaticDirectory(str(root))
    yield source
    source.close()
    source.close()
    assert set(open_fds()) == set(before)


def test_a_file_is_served_again_and_again(source: StaticDirectory, root: Path) -> None:
    with opened(source, b"/sub/deep") as first, opened(source, b"/sub/deep") as second:
        assert body_of(first) == body_of(second) == b"deep content"
        assert (first.fd, first.version) == (second.fd, second.version)
        assert (first.size_bytes, first.metadata) == (12, b"")
        assert 1 <= first.version < 2**64
    assert len(fds_below(root)) == 1


def test_an_empty_file_is_an_object(source: StaticDirectory, root: Path) -> None:
    (root / "empty").touch()
    assert get(source, b"/empty") == b""


def test_bytes_are_taken_as_they_are(source: StaticDirectory, root: Path) -> None:
    for name in (b"%2e%2e", b"a b", b"\xff\xfe", b"...", b"..a", b"-", b"q?x=1#y"):
        (root / os.fsdecode(name)).write_bytes(name)
        assert get(source, b"/" + name) == name


@pytest.mark.parametrize("key", [b"/./file", b"/sub//deep", b"/sub/./deep"])
def test_empty_and_dot_components_stay_beneath(source: StaticDirectory, key: bytes) -> None:
    assert get(source, key) is not None


ESCAPES = [
    b"",
    b"/",
    b"//",
    b"file",
    b"secret",
    b"/..",
    b"/../secret",
    b"../secret",
    b"/sub/../../secret",
    b"/sub/../file",
    b"/%2e%2e/secret",
    b"/..%2fsecret",
    b"//etc/hostname",
    b"/etc/hostname",
    b"/file/",
    b"/file/.",
    b"/file/..",
    b"/.",
    b"/sub",
    b"/sub/",
    b"/file\0",
    b"/\0",
    b"/file\0/../../secret",
    b"/" + b"x" * 256,
    b"/" + b"x/" * 4000,
    b"/" + b"x" * 70_000,
    b"/link-in",
    b"/link-out",
    b"/link-absolute",
    b"/link-loop",
    b"/folder-in/deep",
    b"/folder-out/secret",
    b"/fifo",
    b"/socket",
    b"/device",
]


@pytest.fixture
def traps(root: Path) -> Iterator[None]:
    (root / "link-in").symlink_to("file")
    (root / "link-out").symlink_to("../secret")
    (root / "link-absolute").symlink_to(root.parent / "secret")
    (root / "link-loop").symlink_to("link-loop")
    (root / "folder-in").symlink_to("sub")
    (root / "folder-out").symlink_to("..")
    os.mkfifo(root / "fifo")
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o20666, os.makedev(1, 5))  # the zero device
    else:
        (root / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        os.chdir(root)  # the whole path is too long for a socket name
        try:
            listener.bind("socket")
        finally:
            os.fchdir(here)
            os.close(here)
        yield


@pytest.mark.usefixtures("traps")
@pytest.mark.parametrize("key", ESCAPES, ids=lambda key: repr(key[:24]))
def test_nothing_but_regular_files_beneath(source: StaticDirectory, root: Path, key: bytes) -> None:
    assert source.open(key) is None
    assert source.open(key) is None
    assert fds_below(root) == []


class TestRefresh:
    def test_replaced_by_rename(self, source: StaticDirectory, root: Path) -> None:
        with opened(source, b"/file") as old:
            (root / "new").write_bytes(b"other..")  # the same length
            (root / "new").rename(root / "file")
            with opened(source, b"/file") as new:
                assert body_of(old) == b"content"
                assert body_of(new) == b"other.."
                assert old.version != new.version

    def test_grown_in_place(self, source: StaticDirectory, root: Path) -> None:
        with opened(source, b"/file") as old:
            with (root / "file").open("ab") as file:
                file.write(b" and more")
            with opened(source, b"/file") as new:
                assert body_of(new) == b"content and more"
                assert (old.size_bytes, new.size_bytes) == (7, 16)
                assert old.version != new.version

    def test_rewritten_in_place_with_the_same_length(self, source: StaticDirectory, root: Path) -> None:
        os.utime(root / "file", ns=(1, 1))
        with opened(source, b"/file") as old:
            (root / "file").write_bytes(b"CONTENT")
            with opened(source, b"/file") as new:
                assert old.version != new.version

    def test_deleted_and_made_again(self, source: StaticDirectory, root: Path) -> None:
        with opened(source, b"/file") as old:
            (root / "file").unlink()
            assert source.open(b"/file") is None
            assert body_of(old) == b"content"
        assert fds_below(root) == []
        (root / "file").write_bytes(b"again")
        assert get(source, b"/file") == b"again"

    def test_turned_into_something_else(self, source: StaticDirectory, root: Path) -> None:
        for turn in ("folder", "link"):
            assert get(source, b"/file") == b"content"
            (root / "file").rename(root / "kept")
            (root / "file").mkdir() if turn == "folder" else (root / "file").symlink_to("kept")
            assert source.open(b"/file") is None
            (root / "file").rmdir() if turn == "folder" else (root / "file").unlink()
            (root / "kept").rename(root / "file")

    def test_a_folder_swapped_for_a_link_leads_nowhere(self, source: StaticDirectory, root: Path) -> None:
        outside = root.parent / "outside"
        outside.mkdir()
        (outside / "deep").write_bytes(b"outside")
        assert get(source, b"/sub/deep") == b"deep content"
        (root / "sub").rename(root / "kept")
        (root / "sub").symlink_to(outside)
        assert source.open(b"/sub/deep") is None
        assert source.open(b"/sub/deep") is None

    def test_an_unchanged_inode_is_served_as_what_it_is(self, source: StaticDirectory, root: Path) -> None:
        # The link leads outside, but to the very inode that was opened beneath the root: not a byte of anything else.
        outside = root.parent / "outside"
        outside.mkdir()
        assert get(source, b"/sub/deep") == b"deep content"
        os.link(root / "sub" / "deep", outside / "deep")
        (root / "sub").rename(root / "kept")
        (root / "sub").symlink_to(outside)
        assert get(source, b"/sub/deep") == b"deep content"
        (outside / "deep").write_bytes(b"changed")
        assert source.open(b"/sub/deep") is None


class TestDescriptors:
    def test_few_stay_open_and_none_that_is_read_closes(self, root: Path) -> None:
        before = len(open_fds())
        source = StaticDirectory(str(root), files_max=3)
        for number in range(10):
            (root / str(number)).write_bytes(b"%d" % number)
        held = opened(source, b"/0")
        for number in range(10):
            assert get(source, b"/%d" % number) == b"%d" % number
        assert body_of(held) == b"0"
        assert len(open_fds()) == before + 1 + 3
        source.close()
        assert body_of(held) == b"0"
        held.release()
        assert len(open_fds()) == before

    def test_idle_files_make_way_when_descriptors_run_out(
        self, source: StaticDirectory, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert get(source, b"/file") == b"content"
        real, calls = beneath.open_beneath, []

        def short_of_descriptors(root_fd: int, path: bytes) -> int:
            calls.append(path)
            if len(calls) == 1:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(root_fd, path)

        monkeypatch.setattr(static, "open_beneath", short_of_descriptors)
        assert get(source, b"/sub/deep") == b"deep content"
        assert len(fds_below(root)) == 1

    def test_another_source_makes_way_when_no_file_is_idle(self, root: Path) -> None:
        descriptors = Descriptors()
        source, store = StaticDirectory(str(root), descriptors=descriptors), MemoryStore(100, descriptors=descriptors)
        put(store, b"stored", b"body")
        with opened(source, b"/file"):
            with none_left():
                assert get(source, b"/sub/deep") == b"deep content"
                put(store, b"stored", b"body")
            assert len(fds_below(root)) == 1, "and the other way round"
        store.close()
        source.close()

    @pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
    def test_an_unreadable_file_is_not_a_miss(
        self, source: StaticDirectory, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        monkeypatch.setattr(static, "open_beneath", refusing(code))
        with pytest.raises(StoreUnavailable) as caught:
            source.open(b"/file")
        assert (caught.value.errno, caught.value.path) == (code, "/file")


def test_open_static_chooses(root: Path) -> None:
    source = open_static(str(root))
    source.close()
    assert isinstance(source, StaticDirectory)
    (root / "locals.txt").write_text("/a file")
    file_map = open_static(str(root / "locals.txt"))
    file_map.close()
    assert isinstance(file_map, static.FileMap)


@pytest.mark.parametrize(("path", "text"), [("none", "No such file"), ("fifo", "neither a directory nor a file map")])
def test_open_static_refuses_the_rest(root: Path, path: str, text: str) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(ConfigError, match=text) as caught:
        open_static(str(root / path))
    assert str(root / path) in str(caught.value)


def test_a_directory_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="Not a directory"):
        StaticDirectory(str(root / "file"))
