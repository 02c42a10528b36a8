from __future__ import annotations

import errno
import logging
import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simplecached.content.file_map import parse_file_map
from simplecached.content.static import FileMap
from simplecached.errors import ConfigError, StoreUnavailable
from tests.support.descriptors import none_left
from tests.support.failing import refusing
from tests.support.stores import body_of, get, open_fds, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(f"content of {name}")
    (folder / "locals.txt").write_text("/a a\n/b b\n")
    return folder


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def load(folder: Path, clock: HandClock) -> Iterator[Callable[[], FileMap]]:
    before = open_fds()
    maps: list[FileMap] = []

    def load() -> FileMap:
        maps.append(FileMap(str(folder / "locals.txt"), recheck_s=1.0, clock=clock))
        return maps[-1]

    yield load
    for each in maps:
        each.close()
    assert set(open_fds()) == set(before)


def fds_below(folder: Path) -> list[str]:
    return [target for target in open_fds().values() if target.startswith(f"{folder}/")]


class TestParsing:
    @pytest.mark.parametrize(
        ("content", "lines"),
        [
            (b"", []),
            (b"\n \n\t\n", []),
            (b"/a x", [(1, b"/a", b"/m/x")]),
            (b"/a x\n", [(1, b"/a", b"/m/x")]),
            (b"\n/a x\n\n/b /y", [(2, b"/a", b"/m/x"), (4, b"/b", b"/y")]),
            (b"  /a \t  x  \r\n/b y\r\n", [(1, b"/a", b"/m/x"), (2, b"/b", b"/m/y")]),
            (b"/a a file with blanks", [(1, b"/a", b"/m/a file with blanks")]),
            (b"/\xff \xfe", [(1, b"/\xff", b"/m/\xfe")]),
            (b"/ x", [(1, b"/", b"/m/x")]),
        ],
    )
    def test_lines(self, content: bytes, lines: list[tuple[int, bytes, bytes]]) -> None:
        assert list(parse_file_map(content, "/m/locals.txt")) == lines

    @pytest.mark.parametrize(
        ("content", "number", "problem"),
        [
            (b"/a", 1, "malformed"),
            (b"/a x\n/b", 2, "malformed"),
            (b"/a x\0y", 1, "malformed"),
            (b"a x", 1, "does not begin with /"),
            (b"/" + b"k" * 4096 + b" x", 1, "longer"),
            (b"/a x\n\n/a y", 3, "line 1 already"),
        ],
    )
    def test_refusals_name_the_line(self, content: bytes, number: int, problem: str) -> None:
        with pytest.raises(ConfigError, match=rf"^/m/locals.txt, line {number}: .*{problem}"):
            list(parse_file_map(content, "/m/locals.txt"))

    @settings(deadline=None)
    @given(st.binary(max_size=200) | st.text("/ab \n\r\t\0", max_size=60).map(str.encode))
    def test_any_bytes_are_parsed_or_refused(self, content: bytes) -> None:
        try:
            lines = list(parse_file_map(content, "/m/locals.txt"))
        except ConfigError:
            return
        assert all(key.startswith(b"/") and path.startswith(b"/") for _, key, path in lines)
        assert len({key for _, key, _ in lines}) == len(lines)


class TestLoading:
    @pytest.mark.parametrize(
        ("line", "problem"), [("/x none", "missing file"), ("/x a/b", "missing file"), ("/x .", "not a regular file")]
    )
    def test_every_file_is_looked_at(self, folder: Path, line: str, problem: str) -> None:
        (folder / "locals.txt").write_text(f"/a a\n{line}\n")
        refusal = f"{folder}/locals.txt, line 2: {problem}: {os.path.join(folder, line.split()[1])}"
        with pytest.raises(ConfigError, match=re.escape(refusal)):
            FileMap(str(folder / "locals.txt"))

    def test_a_pipe_is_refused_without_waiting_for_it(self, folder: Path) -> None:
        os.mkfifo(folder / "fifo")
        (folder / "locals.txt").write_text("/x fifo")
        with pytest.raises(ConfigError, match="not a regular file"):
            FileMap(str(folder / "locals.txt"))

    def test_a_file_that_may_not_be_read_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ConfigError, match="no permission"):
            FileMap(str(folder / "locals.txt"))

    def test_a_missing_map_is_refused(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            FileMap(str(folder / "none"))

    def test_the_folder_of_the_map_counts_and_not_the_current_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        source = FileMap("locals.txt")
        monkeypatch.chdir("/")
        assert get(source, b"/a") == b"content of a"
        source.close()


class TestServing:
    def test_hits_and_misses(self, load: Callable[[], FileMap], folder: Path) -> None:
        source = load()
        with opened(source, b"/a") as first, opened(source, b"/a") as second:
            assert (first.fd, first.version, first.metadata) == (second.fd, second.version, b"")
            assert body_of(first) == b"content of a"
        assert source.open(b"/c") is None
        assert source.open(b"a") is None
        assert source.open(b"/a\0") is None
        assert fds_below(folder) == [str(folder / "a")]

    def test_links_are_the_operators_choice(self, load: Callable[[], FileMap], folder: Path) -> None:
        (folder / "b").unlink()
        (folder / "b").symlink_to("a")
        assert get(load(), b"/b") == b"content of a"

    def test_a_changed_file_is_opened_anew(self, load: Callable[[], FileMap], folder: Path) -> None:
        source = load()
        with opened(source, b"/a") as old:
            (folder / "new").write_text("other")
            (folder / "new").rename(folder / "a")
            with opened(source, b"/a") as new:
                assert (body_of(old), body_of(new)) == (b"content of a", b"other")
                assert old.version != new.version

    def test_a_file_may_vanish_and_come_back(self, load: Callable[[], FileMap], folder: Path) -> None:
        source = load()
        assert get(source, b"/a") is not None
        (folder / "a").unlink()
        assert source.open(b"/a") is None
        (folder / "a").mkdir()
        assert source.open(b"/a") is None
        (folder / "a").rmdir()
        (folder / "a").write_text("back")
        assert get(source, b"/a") == b"back"

    def test_an_unreadable_file_is_not_a_miss(
        self, load: Callable[[], FileMap], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = load()
        real = os.open
        monkeypatch.setattr(os, "open", refusing(errno.EIO))
        with pytest.raises(StoreUnavailable):
            source.open(b"/a")
        monkeypatch.setattr(os, "open", real)


class TestReloading:
    def test_a_changed_map_is_read_when_descriptors_run_out(self, load: Callable[[], FileMap], folder: Path) -> None:
        source = load()
        assert get(source, b"/a") is not None
        (folder / "locals.txt").write_text("/a a\n/b b\n/c b\n")
        with none_left():
            assert get(source, b"/c") == b"content of b"

    def test_a_new_key_is_found_at_once(self, load: Callable[[], FileMap], folder: Path) -> None:
        source = load()
        assert source.open(b"/c") is None
        (folder / "locals.txt").write_text("/a a\n/c b\n")
        assert get(source, b"/c") == b"content of b"
        assert source.open(b"/b") is None

    def test_a_removed_or_moved_key_changes_at_the_next_look(
        self, load: Callable[[], FileMap], folder: Path, clock: HandClock
    ) -> None:
        source = load()
        assert get(source, b"/a") == b"content of a"
        assert get(source, b"/b") == b"content of b"
        (folder / "locals.txt").write_text("/a b")
        clock.now_s = 0.5
        assert get(source, b"/b") == b"content of b"
        clock.now_s = 1.0
        assert source.open(b"/b") is None
        assert get(source, b"/a") == b"content of b"
        assert fds_below(folder) == [str(folder / "b")]

    def test_a_broken_map_keeps_the_one_before_and_is_logged_once(
        self, load: Callable[[], FileMap], folder: Path, clock: HandClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = load()
        for change in ("/a a\n/x none\n", "nonsense", None):
            caplog.clear()
            if change is None:
                (folder / "locals.txt").unlink()
            else:
                (folder / "locals.txt").write_text(change)
            for _ in range(3):
                clock.now_s += 1.0
                assert get(source, b"/a") == b"content of a"
                assert source.open(b"/x") is None
            assert [record.levelno for record in caplog.records] == [logging.ERROR]
            assert str(folder / "locals.txt") in vars(caplog.records[0])["reason"]
        (folder / "locals.txt").write_text("/x b")
        assert get(source, b"/x") == b"content of b"
