"""The programs that the library's documents show: complete, typed to the letter, and they print what they say."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import shmchannel
from tests.architecture.tree import ROOT, generated_part

_TIMEOUT_S = 100


def _of_the_package() -> str:
    assert shmchannel.__doc__ is not None
    match = re.search(r"(?m)^    import os\n(?:(?:    .*)?\n)+", shmchannel.__doc__)
    assert match is not None
    return textwrap.dedent(match[0])


def _of_the_guide(part: str) -> str:
    return generated_part("docs/library.md", part).removeprefix("```python\n").removesuffix("```\n")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("examples")
    found = {"shout": _of_the_package(), "poem": _of_the_guide("example"), "store": _of_the_guide("example: store")}
    found["registry"] = _of_the_guide("example: registry")
    found["counting"] = _of_the_guide("example: counting")
    for name, text in found.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.py" for name in found}


def _run(*command: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_examples_pass_the_strictest_type_check(programs: dict[str, Path]) -> None:
    _run("-m", "mypy", "--strict", "--config-file=pyproject.toml", *map(str, programs.values()))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("shout", ["HELLO"]),
        ("registry", ["JOINED basho", "JOINED issa", "{'basho': 0.5, 'issa': 0.0}", "[True, True]", "True"]),
        ("store", ["stored: True", "are red", "updated: False", "removed: 1"]),
        ("counting", ["100 poems, half of them within 48 ms"]),
        ("poem", ["equal: True", "the other side is gone", "segments back in the pool: True"]),
    ],
)
def test_example_does_what_it_says(programs: dict[str, Path], name: str, lines: list[str]) -> None:
    """It survives the kill in it, warns of nothing, and leaves nothing (the fixture of all tests looks)."""
    assert _run("-W", "error", str(programs[name])).splitlines() == lines
