"""Tests use what users of the code use: no private attributes of others, no fakes that are real things half made."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from tests.architecture.tree import PACKAGES, Module, functions, modules, nodes

_TAKES_A_NAME = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "patch", "object"}
_TUPLE_METHODS = {"_replace", "_asdict", "_make", "_fields"}


def _is_private(text: object) -> bool:
    """Whether a name, or the last part of a dotted one, is private; Python's own `__x__` are not."""
    name = text.rpartition(".")[2] if isinstance(text, str) else ""
    return name.startswith("_") and not name.endswith("__") and name not in _TUPLE_METHODS


def _bound(node: ast.ClassDef) -> set[str]:
    """The names of the attributes and methods that a class makes itself."""
    stored = {n.attr for n in nodes(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    fields = {n.id for n in nodes(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | fields | {function.name for function in functions(node)}


def _not_its_own(tree: ast.Module, classes: Mapping[str, list[ast.ClassDef]]) -> Iterator[ast.Attribute]:
    """Private attributes of `self`, `cls` and `super()` that neither the class nor a base among `classes` makes."""
    for node in nodes(tree):
        if isinstance(node, ast.ClassDef):
            family = [node]
            for member in family:
                bases = [found for base in member.bases for found in classes.get(ast.unparse(base), [])]
                family += [base for base in bases if base not in family]
            names = set[str]().union(*map(_bound, family))
            yield from (n for n in nodes(node) if isinstance(n, ast.Attribute) and n.attr not in names and _is_own(n))


def _is_own(node: ast.Attribute) -> bool:
    return _is_private(node.attr) and ast.unparse(node.value) in ("self", "cls", "super()")


def _private_uses(tree: ast.Module, classes: Mapping[str, list[ast.ClassDef]]) -> set[int]:
    """The lines that name a private part of something else: as an attribute, an inherited one, an import, a string."""
    found: list[tuple[object, int]] = [(node.attr, node.lineno) for node in _not_its_own(tree, classes)]
    for node in nodes(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node):
            found.append((node.attr, node.lineno))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (*PACKAGES, "scripts"):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _TAKES_A_NAME:
            found += [(word.value, node.lineno) for word in node.args[:2] if isinstance(word, ast.Constant)]
        elif isinstance(node, ast.Subscript) and re.search(r"^vars\(|\.__dict__$", ast.unparse(node.value)):
            found += [(word.value, node.lineno) for word in [node.slice] if isinstance(word, ast.Constant)]
    return {line for name, line in found if _is_private(name)}


def test_private_attributes_are_left_alone() -> None:
    """A test that reaches for one holds the code to how it does a thing, and not to what it does."""
    classes = defaultdict(list)
    for node in (node for module in modules("tests") for node in nodes(module.tree)):
        if isinstance(node, ast.ClassDef):
            classes[node.name].append(node)
    assert [f"{m.path}:{line}" for m in modules("tests") for line in sorted(_private_uses(m.tree, classes))] == []


@pytest.mark.parametrize(
    "statement",
    [
        "pool._leases",
        "pool.stats()._leases",
        "pool._leases = 3",
        "pool._Pool__leases",
        "del pool._leases[0]",
        "from shmchannel.streams.pool import _Lease",
        "getattr(pool, '_leases')",
        "monkeypatch.setattr(pool, '_leases', 3)",
        "monkeypatch.setattr('shmchannel.streams.pool._LIMIT', 3)",
        "patch.object(pool, '_leases')",
        "vars(pool)['_leases']",
        "pool.__dict__['_leases']",
        "class Fake(Pool):\n    def leases(self): return self._leases",
    ],
)
def test_private_attributes_are_found(statement: str) -> None:
    """The rule above sees each way to reach for one, and leaves a class alone that uses its own."""
    assert _private_uses(ast.parse(statement), {})
    assert not _private_uses(
        ast.parse("class Fake(Pool):\n    def __init__(self): self._own = 1; self._own.x += 1"), {}
    )


def _constructed() -> set[str]:
    """Names of our classes that have a constructor of their own, or a base of ours that has one."""
    classes = [
        node
        for module in modules(*PACKAGES, "scripts")
        for node in nodes(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    found = {node.name for node in classes if any(function.name == "__init__" for function in functions(node))}
    while True:
        more = {node.name for node in classes if {ast.unparse(base) for base in node.bases} & found} - found
        if not more:
            return found
        found |= more


def _half_made(module: Module, constructed: set[str]) -> Iterator[str]:
    for node in nodes(module.tree):
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & constructed:
            for function in functions(node):
                if function.name == "__init__" and "super().__init__" not in ast.unparse(function):
                    yield f"{module.path}:{node.lineno} {node.name}"


def test_fakes_are_whole() -> None:
    """A fake fulfils a protocol, or calls the constructor of what it stands for; else it is half of a real thing."""
    constructed = _constructed()
    places = [*modules("tests"), *(module for module in modules("shmchannel") if module.stem == "testing")]
    assert sorted(row for module in places for row in _half_made(module, constructed)) == []
