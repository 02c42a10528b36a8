"""Manifest files, and what a comparison says."""

from pathlib import Path

import pytest

from workloads.manifest import ManifestError, compare, describe_folder, main, read_manifest, write_manifest

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "deep/er").mkdir(parents=True)
    (root / "a").write_bytes(b"")
    (root / "deep/er/b c").write_bytes(b"hello")
    return root


def test_a_folder_is_described_in_order(folder: Path) -> None:
    first, second = describe_folder(str(folder))
    assert (first.path, first.size_bytes, first.sha256) == ("/a", 0, EMPTY_SHA256)
    assert (second.path, second.size_bytes) == ("/deep/er/b c", 5)


def test_entries_survive_a_file(folder: Path, tmp_path: Path) -> None:
    (folder / "latin-\udcff").write_bytes(b"x")  # a name that is no UTF-8
    entries = list(describe_folder(str(folder)))
    name = str(tmp_path / "manifest.txt")
    write_manifest(name, entries)
    assert read_manifest(name) == entries


def test_equal_folders_have_no_difference(folder: Path) -> None:
    assert compare(list(describe_folder(str(folder))), str(folder), exact=True) == []


def test_each_difference_is_named(folder: Path) -> None:
    entries = list(describe_folder(str(folder)))
    (folder / "a").unlink()
    (folder / "deep/er/b c").write_bytes(b"hellO")
    (folder / "extra").write_bytes(b"")
    missing = "/a: No such file or directory"
    changed = "/deep/er/b c: the content differs"
    assert compare(entries, str(folder)) == [missing, changed]
    assert compare(entries, str(folder), exact=True) == [
        missing,
        changed,
        "/extra: is not in the manifest",
    ]
    (folder / "deep/er/b c").write_bytes(b"hell")
    assert compare(entries, str(folder))[1] == "/deep/er/b c: 4 bytes instead of 5"


@pytest.mark.parametrize("line", ["abc", f"{EMPTY_SHA256} x /a", f"{EMPTY_SHA256} 0 a", f"{EMPTY_SHA256}  0 /a"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "manifest.txt"
    file.write_text(f"{EMPTY_SHA256} 0 /a\n{line}\n")
    with pytest.raises(ManifestError, match=r"manifest\.txt:2: expected"):
        read_manifest(str(file))


def test_the_command_makes_and_checks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make", str(folder)]) == 0
    manifest = tmp_path / "manifest.txt"
    manifest.write_text(capsys.readouterr().out)
    assert main(["check", str(manifest), str(folder), "--exact"]) == 0
    assert capsys.readouterr().out == "2 files, 5 bytes, all equal\n"
    (folder / "a").write_bytes(b"x")
    assert main(["check", str(manifest), str(folder)]) == 1
    assert "/a: 1 bytes instead of 0" in capsys.readouterr().out


def test_what_cannot_be_read_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "absent"), str(tmp_path)]) == 2
    assert main(["make", str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
