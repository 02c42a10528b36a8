"""Things that must not be in the code, each for a reason that has bitten somebody."""

import ast
import re
import subprocess
import sys
import tomllib

from tests.architecture.tree import PACKAGES, ROOT, Module, files, imports, modules, nodes, read, references

_MACHINE_PATH = re.compile(r"(?<![\w.$}\])])/(?:" + "|".join(("work", "root", "home")) + r")/\w")
_REGISTRIES = tuple(
    ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("docker", "io"))
)
_PURE = re.compile(r"\bPURE\b")


_TIME = "time time_ns clock_gettime clock_gettime_ns CLOCK_REALTIME ctime gmtime localtime strftime"
_DATETIME = "datetime.now datetime.today datetime.utcnow date.today"
_WALL_CLOCK = frozenset([f"time.{name}" for name in _TIME.split()] + [f"datetime.{name}" for name in _DATETIME.split()])

# The wall clock jumps, so code is given the time of day as an argument; these modules read it, each for a reason.
_READS_THE_WALL_CLOCK = {
    "simplecached.content.static": "how long ago a file changed, which the file system dates by this clock",
    "simplecached.stores.lru_store": "versions that are higher than those before a restart",
    "webproxy.admin.overview": "when an overview was taken, for people",
    "webproxy.exchange.fast_path": "the age of a hit",
    "webproxy.exchange.http_request": "when a request came, and when a HEAD was asked and answered",
    "webproxy.exchange.origin_rest": "whether a Last-Modified is a strong validator by now",
    "webproxy.exchange.pass_through": "Date of a response that has none",
    "webproxy.fetch.job": "when the origin answered",
    "webproxy.origin.driver": "when the origin was asked",
    "webproxy.serving.http1_server": "Date of a refusal before there is a request",
    "webproxy.telemetry.access_log": "when a request ended",
    "webproxy.store.lookup": "when a file of the cache was first seen: it came with no Date",
}
_SLEEPS = {"shmchannel.process.guard": "a sweeper lets go of a guard without telling anybody"}


def _mentions(wanted: frozenset[str]) -> dict[str, set[str]]:
    """The modules that mention one of these names, and which."""
    found: dict[str, set[str]] = {}
    for module in modules():
        names = wanted & {name for name, _ in references(module)}
        if names:
            found[module.name] = set(names)
    return found


def test_the_wall_clock_is_read_in_few_places() -> None:
    """Under whatever name it was imported."""
    readers = _mentions(_WALL_CLOCK)
    assert {name: names for name, names in readers.items() if name not in _READS_THE_WALL_CLOCK} == {}
    assert set(_READS_THE_WALL_CLOCK) - set(readers) == set(), "these no longer read it"


def test_nothing_sleeps() -> None:
    """A sleep is a wait that nothing can end: wait for an event with a deadline instead."""
    assert set(_mentions(frozenset(("time.sleep",)))) == set(_SLEEPS)


def test_calls_that_bite() -> None:
    """`pack_into` zeroes shared memory before it writes; `fork` copies locks and guards; a shell takes names apart."""
    bad = ("pack_into", "os.fork", "os.forkpty", "os.system", "os.popen")
    found = [
        f"{module.path}:{line}: {name}"
        for module in modules()
        for name, line in references(module)
        if name.endswith(bad)
    ]
    assert found == []


_CHARACTER_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_POSSESSIVE_GROUP = re.compile(r"(?<!\()\)(?:[*+?]|\{[0-9,]*\})\+|\(\?>")


def _has_possessive_group(pattern: str) -> bool:
    return _POSSESSIVE_GROUP.search(_CHARACTER_CLASS.sub("x", pattern)) is not None


def test_no_group_is_possessive() -> None:
    """Before CPython 3.11.5 (its issue 106052), one that could backtrack inside matched what it must not match."""
    found = []
    for module in modules():
        for node in nodes(module.tree):
            value = node.value if isinstance(node, ast.Constant) else None
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if isinstance(text, str) and _has_possessive_group(text):
                found.append(f"{module.path}:{node.lineno}: {text}")
    assert found == []


def test_a_possessive_group_is_seen() -> None:
    assert all(map(_has_possessive_group, ("(?:a|b)*+", "(a)?+", "(?:ab){1,3}+", "(?>a)", "[()]*+(a)++")))
    assert not any(map(_has_possessive_group, ("[!()*+,;]", "!()*+", "[a-z]*+", r"(a)* +", r"[\])*+]")))


def _private_imports(module: Module) -> list[str]:
    """The names that a module has from another module of ours by reaching for what begins with an underscore."""
    wanted = [*imports(module.tree), *(name for name, _ in references(module))]
    return [
        name
        for name in wanted
        if name.partition(".")[0] in PACKAGES
        and not name.startswith(f"{module.name}.")
        and any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]


def test_private_names_stay_in_their_module() -> None:
    """A package is used through its public modules and their public names, also by its neighbours and by scripts."""
    found = {module.path: _private_imports(module) for module in modules(*PACKAGES, "scripts")}
    assert {path: names for path, names in found.items() if names} == {}


def test_reaching_for_a_private_name_is_seen() -> None:
    """As an import, as an attribute of an imported module, and as a module that is private itself."""
    text = "from webproxy.http import dates\nfrom webproxy.http.dates import _x\nimport webproxy._y\ndates._z()"
    seen = _private_imports(Module("webproxy/a.py", "webproxy.a", text, ast.parse(text)))
    assert {"webproxy.http.dates._x", "webproxy._y", "webproxy.http.dates._z"} <= set(seen)


def test_every_package_has_its_layer() -> None:
    """A package of the daemons and the library that no layer names could import whatever it likes."""
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    closed = {name for contract in contracts if contract.get("exhaustive") for name in contract["containers"]}
    assert closed == {"shmchannel", "simplecached", "webproxy"}


def test_imports_hide_no_name() -> None:
    """The tests above find what they look for under any name."""
    text = "from time import time as now\nimport time as t, os.path\nnow(); t.sleep(1); os.fork(); x.pack_into()"
    found = {name for name, _ in references(Module("x.py", "x", text, ast.parse(text)))}
    assert {"time.time", "time.sleep", "os.fork", "x.pack_into"} <= found


def test_the_library_loads_one_package_of_others() -> None:
    """A program that takes `shmchannel` alone pays for `posix_ipc` and for nothing that a daemon or a tool needs."""
    program = (
        "import sys; before = set(sys.modules); import shmchannel; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.split() == ["posix_ipc", "shmchannel"]


def test_packages_do_not_print() -> None:
    """The daemons and the library log; only a command line writes to the terminal."""
    printing = {module.name for module in modules() for name, _ in references(module) if name == "print"}
    allowed = {name for name in printing if name.startswith("workloads.")}
    assert printing <= allowed


def test_semaphores_are_called_in_one_file() -> None:
    """`sem_*` belongs to semaphore.py, also as an attribute of a library."""
    users = {module.name for module in modules() for name, _ in references(module) if re.search(r"(^|\.)sem_", name)}
    assert users == {"shmchannel.sync.semaphore"}


def test_low_wings_of_the_library_know_no_commands() -> None:
    """Queues and streams know nothing of the cache's protocol, which is above them in `shmchannel.objects`."""
    low = re.compile(r"shmchannel\.(process|sync|streams|messages)\b")
    commands = re.compile(r"\b(GET|PUT|UPDATE|PURGE)s?\b")
    library = [module for module in modules("shmchannel") if low.match(module.name)]
    assert [module.path for module in library if commands.search(module.text)] == []


def test_environment_is_read_in_few_places() -> None:
    """A setting that is read anywhere else would be in no table and no `--check-config`."""
    readers = {
        module.name
        for module in modules("shmchannel", "simplecached", "webproxy")
        for name, _ in references(module)
        if name in ("os.environ", "os.environb", "os.getenv", "os.putenv")
    }
    handed_over = "webproxy.daemon.handover"  # no settings: descriptors from one process of the proxy to another
    assert readers == {
        "shmchannel.daemonkit.readiness",
        "shmchannel.daemonkit.sources",
        "shmchannel.faults",
        handed_over,
    }


def test_broad_excepts_are_at_the_edges() -> None:
    """`except Exception` that does not raise again: only where a thread or a program would end otherwise."""
    broad = {
        module.name
        for module in modules("shmchannel", "simplecached", "webproxy")
        for node in nodes(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in nodes(node))
    }
    edges = {
        "shmchannel.daemonkit.daemon",
        "shmchannel.objects.server",  # other PUTs wait behind the one that failed
        "shmchannel.workers",
        "simplecached.stores.store_keeper",  # the thread goes on: rows are to be written
        "webproxy.serving.parking",
        "webproxy.fetch.job",  # its readers are told, and would wait for ever otherwise
        "webproxy.fetch.spool",  # one reader's wake-up is not the others'
        "webproxy.fetch.strand",
        "webproxy.serving.http1_server",  # only here it is known whose connection failed
        "webproxy.origin.driver",  # one transfer's failure is not the others'
        "webproxy.origin.handle",  # libcurl stands between callback and caller: kept, and raised after it
    }
    assert broad <= edges


def test_committed_files_name_no_machine_and_no_registry() -> None:
    """What is committed works anywhere, and says nothing of where it was made."""
    found = []
    for path in files():
        try:
            text = read(path)
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if _MACHINE_PATH.search(line) or any(host in line for host in _REGISTRIES):
                found.append(f"{path}:{number}: {line.strip()[:80]}")
    assert not found


def test_pure_modules_are_under_the_contract() -> None:
    """A module that calls itself PURE is named in the import contract that holds it to that."""
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    rules = next(contract for contract in contracts if contract["name"].startswith("rules do no I/O"))
    held = tuple(rules["source_modules"])
    pure = {module.name for module in modules() if _PURE.search(module.docstring)}
    unheld = {name for name in pure if not any(name == one or name.startswith(f"{one}.") for one in held)}
    # Values made of http.HTTPStatus: the package `http` is no I/O, but its neighbours are.
    assert unheld <= {"workloads.origin_stub.plan"}


def test_contracts_name_every_module() -> None:
    """A contract that lists what is forbidden forgets nothing; one that lists what is allowed allows one package."""
    contracts = {
        contract["name"].partition(" ")[0]: contract
        for contract in tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    }
    library = {".".join(module.name.split(".")[:2]) for module in modules("shmchannel") if "." in module.name}
    assert library - {"shmchannel.daemonkit"} <= set(contracts["daemonkit"]["forbidden_modules"])
    assert set(contracts["workloads"]["forbidden_modules"]) == {"shmchannel", "simplecached", "webproxy"}
    assert contracts["workloads"]["ignore_imports"] == ["workloads.** -> webproxy.getfile"]
