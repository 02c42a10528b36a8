"""Installed by plain pip into a virtual environment of its own, not from the clone: every command is there and runs."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest

from tests.architecture.tree import ROOT, files
from tests.support.programs import skip_for_want_of

INSTALL_WATCHDOG_S = 100
_NO_INDEX = ("from versions: none", "onnection", "name resolution")
"""pip's messages, in one version or another, when it cannot reach the index."""


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command far from the clone, which must not lend its modules."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd="/", env=env, capture_output=True, text=True, timeout=INSTALL_WATCHDOG_S, check=False
    )


@pytest.mark.slow
def test_plain_pip_installs_commands_that_run(tmp_path):
    source, environment = tmp_path / "source", tmp_path / "environment"
    for path in files():  # a copy: the build leaves folders behind
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    made = run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    assert made.returncode == 0, made.stderr
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "0")
    installed = run(*pip, "--python", str(environment), "install", "--quiet", "--no-compile", str(source))
    if installed.returncode != 0 and any(said in installed.stderr for said in _NO_INDEX):
        skip_for_want_of(f"pip cannot reach the package index: {installed.stderr.strip().splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(declared) == {"simplecached", "webproxy", "gfclient", "gfmon", "gfcache-leaks", "gfcache-clean"}
    for command in declared:
        shown = run(str(environment / "bin" / command), "--version")
        assert (shown.returncode, shown.stdout) == (0, f"{command} {version('gfcache')}\n"), shown.stderr
    listed = "import importlib.resources as r; print(*sorted(f.name for f in r.files('workloads.manifests').iterdir()))"
    names = run(str(environment / "bin" / "python"), "-c", listed).stdout.split()
    assert {name for name in names if not name.startswith("__")} == {
        os.path.basename(path) for path in files() if path.startswith("workloads/manifests/") and "__" not in path
    }
