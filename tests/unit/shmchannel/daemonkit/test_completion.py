"""Completions, asked as the shells ask: what is offered at which place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from shmchannel.daemonkit import completion
from shmchannel.daemonkit.command_line import CommandLine, Option
from tests.support.installed import optional_program
from tests.support.programs import require_program
from tests.support.waiting import WATCHDOG_S

HELP = Option(flags=("-h", "--help"), meaning='show help: it\'s "all" [of] it, $HOME `too` (default: none)')
COMMAND = CommandLine(
    name="some-command",
    description="Does something. Or not.",
    options=(
        HELP,
        Option(flags=("-c", "--colour"), placeholder="red|blue", words=("red", "blue")),
        Option(flags=("--kinds",), placeholder="a,b", words=("one", "two"), is_list=True),
        Option(flags=("--config",), placeholder="FILE", places=frozenset({"files"})),
        Option(flags=("--place",), placeholder="memory|DIR", words=("memory",), places=frozenset({"directories"})),
        Option(flags=("--number",), placeholder="N"),
        Option(flags=("--print",), placeholder="all", words=("all",), is_optional=True),
    ),
    commands=(
        CommandLine(
            name="some-command fetch",
            description="It's for fetching.",
            options=(HELP, Option(flags=("--fast",), meaning="do it fast")),
            arguments=(Option(placeholder="DIR", places=frozenset({"directories"})),),
        ),
        CommandLine(name="some-command forget", description="Forget it."),
    ),
)

ALL_FLAGS = {flag for option in COMMAND.options for flag in option.flags}
OFFERED = [
    pytest.param(["fet"], {"fetch"}, id="a command"),
    pytest.param(["f"], {"fetch", "forget"}, id="two commands"),
    pytest.param(["--c"], {"--colour", "--config"}, id="flags"),
    pytest.param(["-"], ALL_FLAGS, id="all flags"),
    pytest.param(["--colour", ""], {"red", "blue"}, id="words"),
    pytest.param(["-c", "b"], {"blue"}, id="words of the short flag"),
    pytest.param(["--colour", "=", "r"], {"red"}, id="attached"),
    pytest.param(["--colour", "="], {"red", "blue"}, id="attached, nothing yet"),
    pytest.param(["--kinds", "one,t"], {"one,two"}, id="the next of a list"),
    pytest.param(["--config", ""], {"file", "folder"}, id="files"),
    pytest.param(["--place", ""], {"memory", "folder"}, id="a word or a directory"),
    pytest.param(["--number", ""], set(), id="what cannot be listed"),
    pytest.param(["--print", "="], {"all"}, id="an optional value, attached"),
    pytest.param(["--print", "--num"], {"--number"}, id="an optional value, left out"),
    pytest.param(["--number", "1", "--f"], set(), id="a command's flag without the command"),
    pytest.param(["fetch", "--f"], {"--fast"}, id="a command's flag"),
    pytest.param(["fetch", "--colour", ""], {"folder"}, id="another's flag is none here"),
    pytest.param(["fetch", ""], {"folder"}, id="a command's argument"),
    pytest.param(["forget", "f"], set(), id="no command after a command"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with one file and one folder."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def run(words: list[str], text: str, cwd: Path) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, cwd=cwd, timeout=WATCHDOG_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("typed", "expected"), OFFERED)
def test_bash_offers(place: Path, typed: list[str], expected: set[str]) -> None:
    words = " ".join(f"'{word}'" for word in ["some-command", *typed])
    script = (
        f"{completion.bash(COMMAND)}\nCOMP_WORDS=({words}) COMP_CWORD={len(typed)}\n"
        "[[ $(complete -p some-command) == 'complete -F _some_command some-command' ]] && _some_command\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    assert set(run([require_program("bash")], script, place).split()) == expected


_FISH_KNOWS_MORE = {"attached, nothing yet", "another's flag is none here", "a command's flag without the command"}


@pytest.mark.parametrize(("typed", "expected"), [one for one in OFFERED if one.id not in _FISH_KNOWS_MORE])
def test_fish_offers(place: Path, typed: list[str], expected: set[str]) -> None:
    fish = optional_program("fish")
    line = " ".join(["some-command", *typed]).replace(" = ", "=").replace(" =", "=")
    (place / "some-command.fish").write_text(completion.fish(COMMAND))
    offered = run([fish, "--no-config", "-c", f"source some-command.fish; complete -C '{line}'"], "", place)
    (place / "some-command.fish").unlink()
    found = {one.partition("\t")[0].rstrip("/=").rpartition("=")[2] for one in offered.splitlines()}
    assert found - {"some-command.fish"} == expected


@pytest.mark.parametrize(
    ("shell", "render"), [("bash", completion.bash), ("zsh", completion.zsh), ("fish", completion.fish)]
)
def test_shells_find_no_mistake(tmp_path: Path, shell: str, render: object) -> None:
    assert callable(render)
    (tmp_path / "file").write_text(render(COMMAND))
    run([optional_program(shell), "-n", "file"], "", tmp_path)


def test_a_mistake_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(completion.bash(COMMAND) + "'")
    with pytest.raises(AssertionError):
        run([require_program("bash"), "-n", "file"], "", tmp_path)
