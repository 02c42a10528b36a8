"""The project's own files, as the architecture tests look at them."""

import ast
import functools
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shmchannel", "simplecached", "webproxy", "workloads")
_NOT_OURS = re.compile(r"(^|/)(__pycache__|build|dist|[^/]+\.egg-info|\.(?!ci(/|$)|gitignore$)[^/]*)(/|$)")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: its path below the root, its dotted name, its text and its syntax tree."""

    path: str
    name: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def docstring(self) -> str:
        """The module's docstring, or nothing."""
        return ast.get_docstring(self.tree) or ""

    @property
    def stem(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@functools.cache
def files() -> tuple[str, ...]:
    """Paths below the root of every file that belongs to the project, committed or about to be."""
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
        found = [path for path in listed if path and (ROOT / path).is_file()]
    else:
        found = [
            os.path.relpath(os.path.join(folder, name), ROOT) for folder, _, names in os.walk(ROOT) for name in names
        ]
        found = [path for path in found if not _NOT_OURS.search(path)]
    return tuple(sorted(found))


@functools.cache
def _module(path: str) -> Module:
    text = read(path)
    name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return Module(path, name, text, ast.parse(text))


@functools.cache
def modules(*tops: str) -> tuple[Module, ...]:
    """Every Python module below these top-level folders; without any, of the four packages."""
    wanted = tops or PACKAGES
    return tuple(_module(path) for path in files() if path.endswith(".py") and path.split("/", 1)[0] in wanted)


@functools.cache
def documents() -> tuple[str, ...]:
    """Paths of the documents that people read."""
    return tuple(path for path in files() if path.endswith(".md"))


@functools.cache
def read(path: str) -> str:
    """The text of one file of the project."""
    return (ROOT / path).read_text(encoding="utf-8")


def is_program(path: Path) -> bool:
    """By its mode: access(2) would say whether this user may run it, and another one may have made the clone."""
    return path.is_file() and bool(path.stat().st_mode & stat.S_IXUSR)


@functools.cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """A node and every one below it; walked once, however many tests look."""
    return tuple(ast.walk(tree))


def forget() -> None:
    """Free the syntax trees, so that later tests do not carry them along."""
    for cached in (_module, modules, read, nodes, references):
        cached.cache_clear()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function below a node, nested ones and methods included."""
    for node in nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@functools.cache
def references(module: Module) -> tuple[tuple[str, int], ...]:
    """Full dotted names that a module mentions, with their lines, whatever its imports call them.

    After `from time import time as now`, a mention of `now` is one of `time.time`. Names that are not imported stay as
    they are written.
    """
    known = dict(_imported_names(module.tree))
    found = []
    for node in nodes(module.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            found.append((known.get(first, first) + dot + rest, node.lineno))
    return tuple(found)


def _imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported anywhere below a node; `from a import b` gives `a` and `a.b`."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def generated_part(document: str, name: str) -> str:
    """The part of a document between `<!-- name -->` and `<!-- /name -->`."""
    match = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /{re.escape(name)} -->", read(document), re.DOTALL)
    assert match is not None, f"{document} has no part '{name}'"
    return match[1]


def table_rows(markdown: str) -> list[list[str]]:
    """The cells of every row of the Markdown tables in a text, headings and rules left out."""
    lines = [line.strip() for line in markdown.splitlines()]
    rows = []
    for number, line in enumerate(lines):
        is_rule = bool(re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line))
        is_heading = number + 1 < len(lines) and bool(re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", lines[number + 1]))
        if line.startswith("|") and not is_rule and not is_heading:
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows
