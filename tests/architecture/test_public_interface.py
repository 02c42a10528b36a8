"""Tests use what users of the code use: no private attributes of others, no fakes that are real things half made."""

import ast
from collections.abc import Iterator

from tests.architecture.tree import PACKAGES, Module, functions, modules, nodes

_TUPLE_METHODS = {"_replace", "_asdict", "_make", "_fields"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in _TUPLE_METHODS


def _is_own(node: ast.expr) -> bool:
    """Whether what an attribute is asked of is the object itself, or its class above."""
    return ast.unparse(node) in ("self", "cls", "super()")


def _private_uses(module: Module) -> Iterator[int]:
    """The lines that name a private attribute of something else, as an attribute, an import, or for setattr()."""
    for node in nodes(module.tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node.value):
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (*PACKAGES, "scripts"):
            yield from (node.lineno for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            texts = [word.value for word in node.args[:2] if isinstance(word, ast.Constant)]
            yield from (node.lineno for text in texts if isinstance(text, str) and _is_private(text.rpartition(".")[2]))


def test_private_attributes_are_left_alone() -> None:
    """A test that reaches for one holds the code to how it does a thing, and not to what it does."""
    assert sorted({f"{module.path}:{line}" for module in modules("tests") for line in _private_uses(module)}) == []


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
