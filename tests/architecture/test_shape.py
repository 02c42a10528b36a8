"""The countable parts of the code's shape: sizes, docstrings, unit tests of each package, unused names."""

import ast
import os
import re
from collections.abc import Iterator

from tests.architecture.tree import PACKAGES, files, functions, modules, nodes, references

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
_UNIT_TEST = re.compile(r"tests/unit/.*/test_\w+\.py")


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_module_size() -> None:
    """A module is one idea, however long; one beyond this says in its docstring why ("long because ...")."""
    counts = {module.path: module.text.count("\n") for module in modules(*PACKAGES, "scripts")}
    excused = {module.path for module in modules(*PACKAGES, "scripts") if "long because" in module.docstring.lower()}
    assert {path: count for path, count in counts.items() if count > MODULE_LINES_MAX and path not in excused} == {}


def test_function_size() -> None:
    """No function is longer than a screen; nor is one of a test."""
    long = {
        f"{module.path}: {node.name}": _lines(node)
        for module in modules(*PACKAGES, "scripts", "tests")
        for node in functions(module.tree)
        if _lines(node) > FUNCTION_LINES_MAX
    }
    assert long == {}


def _public_parts(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public_parts(node.body, f"{prefix}{node.name}.")


def test_public_parts_are_described() -> None:
    """Every module with code in it, public class and public function has its sentence."""
    bare = [module.path for module in modules(*PACKAGES, "scripts") if module.text.strip() and not module.docstring]
    for module in modules(*PACKAGES, "scripts"):
        bare += [f"{module.path}: {name}" for name, node in _public_parts(module.tree.body, "") if not _described(node)]
    assert bare == []


def _described(node: ast.FunctionDef | ast.ClassDef) -> bool:
    is_setter = any(isinstance(item, ast.Attribute) and item.attr == "setter" for item in node.decorator_list)
    return is_setter or ast.get_docstring(node) is not None


def test_every_package_has_its_unit_tests() -> None:
    """The tests of a package are below tests/unit, in a folder that bears its path.

    Which tests look at which module is theirs to say; what none looks at, the measured branch coverage shows.
    """
    packages = {os.path.dirname(module.path) for module in modules() if any(functions(module.tree))}
    tested = {os.path.dirname(path).removeprefix("tests/unit/") for path in files() if _UNIT_TEST.fullmatch(path)}
    assert packages - tested == set()


# Public names that nothing in the packages and scripts mentions, and why they are there.
_FOR_OTHERS = {
    "MemoryAttachments": "shmchannel.testing, for the tests of programs that use the library",
    "MemoryQueue": "shmchannel.testing, for the tests of programs that use the library",
    "MemorySender": "shmchannel.testing, for the tests of programs that use the library",
    **dict.fromkeys(
        ("mean",),
        "shmchannel.stats_pages, for programs that count or that show the counts",
    ),
    **dict.fromkeys(("action_show", "compose", "on_mount", "on_resize"), "textual calls them"),
    **dict.fromkeys(("handle_error", "service_actions"), "the standard library's server calls them"),
    "serve_one": "the library's: a program that serves without a pool of workers",
}


def test_public_parts_are_used() -> None:
    """A name that only tests call is dead, except in the origin that is made for them.

    A name that something else bears as well escapes this.
    """
    ours = modules(*PACKAGES, "scripts")
    mentioned = {name.rpartition(".")[2] for module in ours for name, _ in references(module)}
    mentioned |= {
        node.value
        for module in ours
        for node in nodes(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)  # an annotation, a name in __all__
    }
    unused = {
        name.rpartition(".")[2]: f"{module.path}: {name}"
        for module in modules()
        if not module.name.startswith("workloads.origin_stub")
        for name, _ in _public_parts(module.tree.body, "")
        if name.rpartition(".")[2] not in mentioned
    }
    assert [place for name, place in unused.items() if name not in _FOR_OTHERS] == []
    assert set(_FOR_OTHERS) - set(unused) == set(), "these are used, or gone"
