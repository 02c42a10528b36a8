"""webproxy install-units: where commands are found, what is written, and what is left alone."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from shmchannel.daemonkit.command_line import CommandLine
from webproxy import cli
from webproxy.daemon import install_command
from webproxy.daemon.install_command import (
    CannotInstall,
    command_directory,
    files_for,
    install,
    installed_commands,
    main,
    place_for,
)

FILES = {"lib/one": "1\n", "share/deep/two": "2\n"}


def tree(directory: Path) -> dict[str, str]:
    """The text of each file below a directory."""
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def states(directory: Path, *, force: bool = False) -> dict[str, str]:
    return {os.path.relpath(path, directory): state for path, state in install(FILES, str(directory), force=force)}


def test_files_are_written_and_said(tmp_path: Path) -> None:
    assert states(tmp_path) == dict.fromkeys(FILES, "wrote")
    assert tree(tmp_path) == FILES
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()} == {0o644}


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    states(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert states(tmp_path) == dict.fromkeys(FILES, "unchanged")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_file_that_differs_is_left_and_so_are_all(tmp_path: Path) -> None:
    (tmp_path / "share/deep").mkdir(parents=True)
    (tmp_path / "share/deep/two").write_text("mine\n")
    with pytest.raises(CannotInstall, match=r"--force.*\n  .*share/deep/two$"):
        states(tmp_path)
    assert tree(tmp_path) == {"share/deep/two": "mine\n"}
    assert states(tmp_path, force=True) == dict.fromkeys(FILES, "wrote")
    assert tree(tmp_path) == FILES


def test_an_unfinished_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("webproxy.daemon.install_command.os.replace", refuse)
    with pytest.raises(OSError, match="No space"):
        states(tmp_path)
    assert tree(tmp_path) == {}


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_the_way = tmp_path / "lib/systemd/system/webproxy.socket"
    in_the_way.mkdir(parents=True)
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"webproxy install-units: {in_the_way}: Is a directory\n"


def test_each_command_has_its_page_and_its_completions() -> None:
    place = place_for("/opt/bin", "gfcache")
    commands = [CommandLine(name="some-command", description="X."), CommandLine(name="other", description="Y.")]
    files = files_for(place, commands)
    assert set(files) == {
        "lib/systemd/system/simplecached.service",
        "lib/systemd/system/webproxy.service",
        "lib/systemd/system/webproxy.socket",
        *(f"share/man/man1/{name}.1" for name in ("some-command", "other")),
        *(f"share/bash-completion/completions/{name}" for name in ("some-command", "other")),
        *(f"share/zsh/site-functions/_{name}" for name in ("some-command", "other")),
        *(f"share/fish/vendor_completions.d/{name}.fish" for name in ("some-command", "other")),
    }
    assert r"\fBother\fR(1)" in files["share/man/man1/some-command.1"]


def test_every_installed_command_declares_itself() -> None:
    found = {command.name: command for command in installed_commands()}
    assert {"simplecached", "webproxy", "gfclient", "gfmon", "gfcache-leaks", "gfcache-clean"} <= set(found)
    assert {one.word for one in found["webproxy"].commands} == {"purge", "reload", "upgrade", "install-units"}
    assert {one.word for one in found["gfclient"].commands} == {"download", "measure", "warm"}
    everything = [*found.values(), *(one for command in found.values() for one in command.commands)]
    assert all(command.description.endswith(".") for command in everything)


def test_without_an_installation_there_is_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install_command.importlib.metadata, "entry_points", lambda **_: ())
    assert main(["--bin-dir", "/opt/bin", str(tmp_path)]) == 1
    assert "pip install" in capsys.readouterr().err
    assert tree(tmp_path) == {}


def test_commands_are_beside_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("simplecached", "webproxy"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "webproxy"), "install-units"])
    assert command_directory() == str(tmp_path)


def test_commands_that_are_nowhere_have_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "webproxy")])
    monkeypatch.setattr(install_command.sysconfig, "get_path", lambda _: str(tmp_path / "scripts"))
    with pytest.raises(CannotInstall, match="--bin-dir"):
        command_directory()


@pytest.mark.parametrize(
    ("directory", "user"), [("bin", "x"), ("/a\nb", "x"), ("/bin", ""), ("/bin", "x y"), ("/bin", "x\nExecStart=/y")]
)
def test_what_no_unit_can_name_is_refused(directory: str, user: str) -> None:
    with pytest.raises(CannotInstall):
        place_for(directory, user)


def test_the_command_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["webproxy", "install-units", "--bin-dir", "/opt/bin", "--user", "me", str(tmp_path)]
    )
    assert cli.main() == 0
    said = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    assert {path for _, path in said} == {str(tmp_path / path) for path in tree(tmp_path)}
    assert {state for state, _ in said} == {"wrote"}
    service = (tmp_path / "lib/systemd/system/simplecached.service").read_text()
    assert "\nUser=me\nExecStart=/opt/bin/simplecached --config" in service
