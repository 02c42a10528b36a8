"""The layout of the clone, and what starts from it."""

import os
import tomllib

from tests.architecture.tree import PACKAGES, ROOT, files, is_program, modules, read

_TOP = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", *PACKAGES, "tests", "scripts", "docs"}


def test_top_level_is_fixed() -> None:
    """Nothing else but dot files lies at the top."""
    top = {path.split("/", 1)[0] for path in files()}
    assert {name for name in top if not name.startswith(".")} == _TOP


def test_every_test_folder_is_a_package() -> None:
    """Two test files of one name in two folders would hide each other otherwise."""
    folders = {os.path.dirname(path) for path in files() if path.startswith("tests/") and path.endswith(".py")}
    assert {folder for folder in folders if f"{folder}/__init__.py" not in files()} == set()


def test_continuous_integration_runs_the_readme_command() -> None:
    """CI runs the command that users are told to run."""
    assert "exec ./scripts/test\n" in read(".ci/run")
    assert "./scripts/test" in read("README.md")


def test_commands_can_be_executed() -> None:
    """Scripts without an extension, and .ci/run, are programs."""
    programs = [path for path in files() if path.startswith("scripts/") and "." not in os.path.basename(path)]
    assert len(programs) >= 5
    assert [path for path in [*programs, ".ci/run"] if not is_program(ROOT / path)] == []


def test_packages_are_typed() -> None:
    """Each package says so to type checkers, and ships the file that does."""
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(files())
    project = tomllib.loads(read("pyproject.toml"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["*"]


def test_console_commands_exist() -> None:
    """Each command of pyproject.toml names a function that is there."""
    defined = {module.name: module for module in modules()}
    for target in tomllib.loads(read("pyproject.toml"))["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert any(getattr(node, "name", None) == function for node in defined[module].tree.body), target


def test_console_commands_declare_their_command_lines() -> None:
    """Otherwise `webproxy install-units` would have neither page nor completion for one."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert set(project["entry-points"]["gfcache.command_lines"]) == set(project["scripts"])
    defined = {module.name: module for module in modules()}
    for target in project["entry-points"]["gfcache.command_lines"].values():
        module, _, function = target.partition(":")
        assert any(getattr(node, "name", None) == function for node in defined[module].tree.body), target
