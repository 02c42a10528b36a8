"""What can be counted of the code's shape: sizes, docstrings, a unit test for each module."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.tree import PACKAGES, functions, imports, modules

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

# Modules without a unit test file that bears their name, and what tests them instead.
TESTED_ELSEWHERE = {
    "shmchannel.chunk_reader": "both ends over segments and over the fakes: the channel contract",
    "shmchannel.chunk_writer": "both ends over segments and over the fakes: the channel contract",
    "shmchannel.daemonkit.commandline": "through options: test_options.py",
    "shmchannel.daemonkit.sources": "through options: test_options.py",
    "shmchannel.leased_transfer": "a transfer with its lease, from both sides: the pair contract",
    "shmchannel.pool": "the pool contract, and a stateful test against a model",
    "shmchannel.testing": "the fakes: they pass the contract tests of what they stand for",
    "simplecached.app": "life cycle of a daemon: scenario and fault tests run it",
    "simplecached.cli": "argument to exit code of a daemon: scenario tests run it",
    "simplecached.config": "declarations: the settings tables hold the content, daemonkit's tests the mechanism",
    "simplecached.lru_store": "what two stores share: contract and stateful tests run both",
    "webproxy.app": "life cycle of a daemon: scenario and fault tests run it",
    "webproxy.cli": "argument to exit code of a daemon: scenario tests run it",
    "webproxy.errors": "names and fields only: the tests of what raises them",
    "webproxy.getfile.errors": "names and fields only: test_getfile_messages.py",
    "webproxy.getfile.client": "bytes to values: the wire corpus, and a property over any split",
    "webproxy.getfile.server": "bytes to values: the wire corpus, and a property over any split",
    "webproxy.http_setup": "builds what serves HTTP from the settings: scenario tests and tests/http run it",
    "workloads.gfclient.cancel": "through connection and cli: test_connection.py, test_cli.py",
    "workloads.gfclient.download": "through cli: test_cli.py",
    "workloads.gfclient.measure": "through cli: test_cli.py",
    "workloads.gfclient.outcome": "names of what can happen: test_connection.py, test_cli.py",
    "workloads.gfclient.reporters": "what is printed: test_cli.py",
    "workloads.origin_stub.body": "through the server: test_server.py",
    "workloads.origin_stub.folder": "through the server: test_server.py",
    "workloads.origin_stub.request": "through the server and the plan: test_server.py, test_plan.py",
    "workloads.origin_stub.route": "what a path answers, as a value: test_plan.py, test_server.py",
}


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_module_size() -> None:
    """A module that is too long says in its docstring why ("long because ...")."""
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


def _unit_tests_by_import() -> dict[str, set[str]]:
    """For each of our modules, the names of the unit test files that import it."""
    found: dict[str, set[str]] = {}
    for module in modules("tests"):
        if module.path.startswith("tests/unit/") and module.stem.startswith("test_"):
            for name in imports(module.tree):
                found.setdefault(name, set()).add(module.stem)
    return found


def _without_unit_test() -> set[str]:
    """Modules with functions in them that no unit test file bears the name of and imports, by itself or its package."""
    testers = _unit_tests_by_import()
    missing = set()
    for module in modules():
        if module.stem == "__main__" or module.path.endswith("__init__.py") or not any(functions(module.tree)):
            continue
        package = module.name.rpartition(".")[0]
        stems = testers.get(module.name, set()) | testers.get(package, set())
        bears_name = re.compile(rf"_{module.stem}(_|$)")
        if not any(bears_name.search(stem) for stem in stems):
            missing.add(module.name)
    return missing


def test_every_module_has_its_unit_test() -> None:
    """Or it is in the list above, with what tests it instead."""
    assert _without_unit_test() - set(TESTED_ELSEWHERE) == set()


def test_the_list_of_exceptions_is_needed() -> None:
    """A module that has got its unit test, or is gone, leaves the list."""
    assert set(TESTED_ELSEWHERE) - _without_unit_test() == set()
