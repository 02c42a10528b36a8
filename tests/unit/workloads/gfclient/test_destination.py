"""Request paths to files: what is refused, and that nothing unfinished is ever left."""

import os
from pathlib import Path

import pytest

from tests.support.failing import failing
from workloads.gfclient.destination import Destination, relative_name
from workloads.gfclient.outcome import Failure, RequestError


def everything_below(folder: Path) -> list[str]:
    return sorted(str(found.relative_to(folder)) for found in folder.rglob("*") if not found.is_dir())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/a", b"a"),
        (b"/a/b.bin", b"a/b.bin"),
        (b"/a%2e%2e/b", b"a%2e%2e/b"),
        (b"/...", b"..."),
        (b"/.hidden", b".hidden"),
        (b"/a?x=1", b"a?x=1"),
        (b"/\xff", b"\xff"),
        (b"/" + b"n" * 255, b"n" * 255),
    ],
)
def test_paths_become_names(path: bytes, name: bytes) -> None:
    assert relative_name(path) == name


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/a/",
        b"//a",
        b"//etc/passwd",
        b"/a//b",
        b"/.",
        b"/..",
        b"/../a",
        b"/a/../../b",
        b"/a/./b",
        b"/a/..",
        b"/" + b"n" * 256,
    ],
)
def test_paths_that_cannot_be_files_are_refused(path: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        relative_name(path)
    assert refused.value.kind is Failure.UNUSABLE_NAME


def test_a_committed_file_has_its_name_and_content(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path / "new" / "out"))
    with destination.file_for(b"/a/b") as file:
        file.begin(5)
        file.write(memoryview(b"he"))
        assert len(everything_below(tmp_path)) == 1
        assert not (tmp_path / "new/out/a/b").exists()
        file.write(memoryview(b"llo"))
        file.commit()
    assert everything_below(tmp_path) == ["new/out/a/b"]
    assert (tmp_path / "new/out/a/b").read_bytes() == b"hello"


def test_a_file_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def begin_and_break() -> None:
        with Destination(str(tmp_path)).file_for(b"/a") as file:
            file.begin(5)
            file.write(memoryview(b"he"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin_and_break()
    assert everything_below(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_commit_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with Destination(str(tmp_path)).file_for(b"/a") as file:
        file.begin(0)
        file.commit()
    assert (tmp_path / "a").read_bytes() == b""


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with Destination(str(tmp_path)).file_for(b"/a") as file:
        file.begin(0)
        with pytest.raises(RequestError) as refused:
            file.commit()
    assert refused.value.kind is Failure.UNWRITABLE
    assert everything_below(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with Destination(str(tmp_path)).file_for(b"/a/b") as file, pytest.raises(RequestError) as refused:
        file.begin(0)
    assert refused.value.kind is Failure.UNWRITABLE


@pytest.mark.parametrize("path", [b"/door/a", b"/door/folder/a"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, path: bytes) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "door").symlink_to(outside)
    with Destination(str(out)).file_for(path) as file, pytest.raises(RequestError) as refused:
        file.begin(0)
    assert refused.value.kind is Failure.UNUSABLE_NAME
    assert everything_below(outside) == []


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Destination(str(tmp_path)).file_for(b"/a") as file:
        file.begin(1)
        monkeypatch.setattr(os, "write", failing(OSError(28, "No space left on device")))
        with pytest.raises(RequestError, match="No space left"):
            file.write(memoryview(b"x"))
        monkeypatch.undo()
    assert everything_below(tmp_path) == []
