"""The documents say what the code says: names, settings, tables, log events, locks, links."""

import ast
import functools
import os
import re
from collections.abc import Iterator

import pytest

from scripts.benchmark.rows import FAIRNESS_ROW, MEMORY_TARGET, ROWS
from scripts.document_tables import OPERATIONS, with_tables
from shmchannel.daemonkit.settings import environment_prefix, settings_of
from simplecached.daemon.config import CacheConfig
from simplecached.telemetry.metrics import SCHEMA as CACHE_SCHEMA
from tests.architecture.tree import ROOT, Module, documents, files, functions, modules, nodes, read, table_rows
from webproxy.admin.exposition import ADDED
from webproxy.daemon.config import ProxyConfig
from webproxy.telemetry.metrics import SCHEMA as PROXY_SCHEMA

_ARCHITECTURE = "docs/ARCHITECTURE.md"
_HTTP_CACHING = "docs/http-caching.md"
_TEST = re.compile(r"`([\w/-]+\.py::test_\w+)`")
_CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FILE_NAME = re.compile(r"[\w./-]+\.(?:py|toml|md)")
_FLAG = re.compile(r"--?[A-Za-z][\w-]*")
_NAME = re.compile(r"[A-Za-z]+(?:_[A-Za-z0-9]+)+|(?:[A-Z][a-z0-9]+){2,}|_[A-Z]\w+")
_LOG_METHODS = ("info", "warning", "error", "exception", "critical")

# Words of other programs and systems that the documents use as code.
_FOREIGN = {
    "--ipc",
    "-o",
    "-X",
    "-x",
    "http_proxy",
    "LimitNOFILE",
    "TimeoutStopSec",
    "CacheDirectory",
    "DynamicUser",
    "ReadWritePaths",
    "enableServiceLinks",
    "RLIMIT_MSGQUEUE",
    "TCP_CORK",
    "logind.conf",
    "BSD_3",
    "mq_notify",
    "shared_memory",
}


def _inline_code(document: str) -> Iterator[str]:
    yield from _INLINE_CODE.findall(_CODE_BLOCK.sub("", read(document)))


def _constants(*tops: str) -> Iterator[str]:
    for module in modules(*tops):
        for node in nodes(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@functools.cache
def _flags() -> set[str]:
    return {text for text in _constants() for text in [text] if _FLAG.fullmatch(text)} | {
        text for text in _constants("scripts") if _FLAG.fullmatch(text)
    }


@functools.cache
def _words_of_the_code() -> set[str]:
    sources = [
        path
        for path in files()
        if path.startswith(("shm", "simple", "web", "workloads", "scripts", "pyproject", "tests"))
    ]
    text = "".join(read(path) for path in sources if path.endswith((".py", ".c", ".h", ".toml")))
    return set(re.findall(r"\w+", text)) | {os.path.basename(path).removesuffix(".py") for path in sources}


@pytest.mark.parametrize("document", documents())
def test_files_that_are_named_exist(document: str) -> None:
    """A backticked file name is a file of ours, by its whole path or by its end."""
    named = {
        name for code in _inline_code(document) for name in _FILE_NAME.findall(code) if not name.startswith("/")
    } - _FOREIGN
    ends = tuple(f"/{path}" for path in files())
    assert not {name for name in named if not any(end.endswith(f"/{name}") for end in ends)}


@pytest.mark.parametrize("document", documents())
def test_flags_that_are_named_exist(document: str) -> None:
    """A backticked flag is one of our programs'."""
    named = {
        word.partition("=")[0] for code in _inline_code(document) for word in code.split() if _FLAG.match(word)
    } - _FOREIGN
    assert not named - _flags()


@pytest.mark.parametrize("document", documents())
def test_identifiers_that_are_named_exist(document: str) -> None:
    """A backticked word that looks like a name in code is in the code, or is a variable of the environment we read."""
    variables = {
        setting.environment_name(environment_prefix(prog))
        for prog, config in (("webproxy", ProxyConfig), ("simplecached", CacheConfig))
        for setting in settings_of(config)
    }
    metrics = {metric.name for metric in (*PROXY_SCHEMA.metrics, *CACHE_SCHEMA.metrics, *ADDED)}
    known = _words_of_the_code() | variables | metrics | {"WEBPROXY_CONFIG", "SIMPLECACHED_CONFIG"} | _FOREIGN
    named = {word for code in _inline_code(document) for word in re.findall(r"\w+", code) if _NAME.fullmatch(word)}
    assert not named - known


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document: str) -> None:
    """A relative link names a file or a folder of ours."""
    folder = ROOT / os.path.dirname(document)
    targets = {link for link in _LINK.findall(read(document)) if "://" not in link}
    assert not {link for link in targets if not (folder / link).exists()}


def test_generated_tables_are_up_to_date() -> None:
    """`python -m scripts.document_tables` would change nothing."""
    assert read(OPERATIONS) == with_tables(read(OPERATIONS))


def _logged_events(module: Module) -> Iterator[str]:
    """The texts a module logs for an operator, by a logger or through a helper that takes the event first."""
    for node in nodes(module.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        is_logger = ast.unparse(node.func.value) in ("log", "self._log") and node.func.attr in _LOG_METHODS
        first = node.args[0]
        if (is_logger or node.func.attr == "_log_now_and_then") and isinstance(first, ast.Constant):
            yield str(first.value)


def test_every_log_event_is_explained() -> None:
    """Each event from INFO up has its row in operations.md, and each row its event."""
    section = read(OPERATIONS).partition("## Log events")[2].partition("\n## ")[0]
    explained = {event for row in table_rows(section) for event in _INLINE_CODE.findall(row[0])}
    logged = {event for module in modules("shmchannel", "simplecached", "webproxy") for event in _logged_events(module)}
    assert logged - explained == set()
    assert explained - logged == set()


def _locks() -> set[str]:
    """`Class.attribute` of every lock and condition that an object of ours keeps, the test fakes' left out."""
    found = set()
    for module in modules("shmchannel", "simplecached", "webproxy"):
        classes = [node for node in nodes(module.tree) if isinstance(node, ast.ClassDef)]
        for owner in classes if module.name != "shmchannel.testing" else []:
            for node in nodes(owner):
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    made = ast.unparse(node.value)
                    if re.fullmatch(r"threading\.(R?Lock|Condition|Semaphore)\(.*\)", made):
                        found.add(f"{owner.name}.{ast.unparse(target).removeprefix('self.')}")
    return found


def test_lock_order_names_every_lock() -> None:
    """A new lock gets its place in the order before it comes in; one that is gone leaves it."""
    section = read(_ARCHITECTURE).partition("## Lock order")[2].partition("\n## ")[0]
    named = {code for code in _INLINE_CODE.findall(section) if re.fullmatch(r"_?[A-Z]\w+\._\w+", code)}
    assert named == _locks()


def test_code_map_names_every_module_of_library_and_daemons() -> None:
    """Every file of these three packages has its place in the code map."""
    text = read(_ARCHITECTURE)
    daemons = modules("shmchannel", "simplecached", "webproxy")
    own = [module.path for module in daemons if not re.search("daemonkit|getfile", module.path)]
    names = {os.path.basename(path) for path in own} - {
        "__init__.py",
        "__main__.py",
        "cli.py",
        "config.py",
        "errors.py",
    }
    assert not {name for name in names if f"`{name}`" not in text}


def _result_tables(document: str) -> str:
    """The tables of measured results, as they stand between the document's markers."""
    block = read(document).partition("<!-- bench -->")[2].partition("<!-- /bench -->")[0]
    return "\n".join(line for line in block.splitlines() if line.startswith("|"))


def test_results_are_the_same_in_both_documents() -> None:
    """README shows what tuning.md explains: the figures of one run."""
    assert _result_tables("README.md")
    assert _result_tables("README.md") == _result_tables("docs/tuning.md")


def test_results_have_the_loads_and_goals_of_the_benchmark() -> None:
    """Each load that `scripts/bench` measures has its row, with its goal and a ratio within its range."""
    found = {row[0].replace("`", ""): row for row in table_rows(_result_tables("README.md"))}
    for row in ROWS:
        assert row.title in found, row.title
        _, ratio, value_range, goal, c_pair, ours = found[row.title]
        c_pair_goal = rf" \(goal {row.c_pair_target.value}\)" if row.c_pair_target else ""
        assert re.fullmatch(rf"\d+\.\d\d{c_pair_goal}|-", c_pair)
        assert goal == ("" if row.target is None else str(row.target.value))
        low, high = map(float, value_range.split("-"))
        assert low <= float(ratio) <= high
        assert ours.endswith(row.figure)
    fairness = next(row for title, row in found.items() if title.startswith("p99 "))
    assert f"{FAIRNESS_ROW.crowd} clients of 10 MB, to that beside {FAIRNESS_ROW.few}" in fairness[0]
    assert fairness[3] == f"at most {FAIRNESS_ROW.target.value:g}"
    memory = next(row for title, row in found.items() if title.startswith("resident memory"))
    assert memory[3] == f"at most {MEMORY_TARGET.value:g} MB"


def test_tests_that_are_named_exist() -> None:
    """`FOLDER/FILE.py::TEST` in a document is a test below `tests/`, and http-caching.md has one for each rule."""
    tests = {f"{module.path}::{node.name}" for module in modules("tests") for node in functions(module.tree)}
    named = {(document, name) for document in documents() for name in _TEST.findall(read(document))}
    assert [(document, name) for document, name in sorted(named) if f"tests/{name}" not in tests] == []
    rules = [row for row in table_rows(read(_HTTP_CACHING)) if len(row) == 3]
    assert rules
    assert [row[0] for row in rules if not _TEST.search(row[2])] == []


def test_decisions_have_number_date_status_and_parts() -> None:
    """Each decision has a number of its own, a date, a status, its four parts, and a row in the index."""
    index = "docs/decisions/README.md"
    pages = [path for path in files() if path.startswith("docs/decisions/") and path != index]
    numbers = [os.path.basename(path)[:4] for path in pages]
    assert len(set(numbers)) == len(numbers)
    for number, page in zip(numbers, pages, strict=True):
        text = read(page)
        assert re.match(rf"# {number}: .+\n\n\d{{4}}-\d\d-\d\d · (accepted|superseded by)", text), page
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Rejected", "Consequence")), page
    assert [row[0] for row in table_rows(read(index))] == [
        f"[{number}]({os.path.basename(page)})" for number, page in zip(numbers, pages, strict=True)
    ]


def test_readme_leads_to_every_document() -> None:
    """The index in README forgets none."""
    readme = read("README.md")
    pages = [path for path in files() if re.fullmatch(r"docs/[^/]+\.md", path)]
    assert not [page for page in pages if f"({page})" not in readme]
