"""The commands of README, as a user types them, and the program of docs/library.md."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.daemons import Daemon, executable
from tests.architecture.tree import ROOT, generated_part, is_program, read
from tests.http.client import fetch, free_port
from tests.support.daemons import DaemonYard
from tests.support.programs import require_program
from tests.support.waiting import wait_until

_COMMAND_TIMEOUT_S = 100
_PORT_IN_README = "25362"
_ADMIN_PORT = "25363"
_ORIGIN_PORT = "8000"
_ORIGIN_IN_README = f"http://127.0.0.1:{_ORIGIN_PORT}"
_ENVIRONMENT_PREFIX = ".venv/bin/"


def _commands(part: str) -> list[str]:
    """The lines of README's shell block in a part."""
    lines = generated_part("README.md", part).splitlines()
    return [line for line in lines if line and not line.startswith("```")]


def _words(command: str, work: Path, port: int) -> list[str]:
    """The command for a shell, with this environment's programs and the test's folder and port."""
    command = command.replace("$work", str(work)).replace(_PORT_IN_README, str(port))
    words = shlex.split(command)
    return (
        [executable(words[0].removeprefix(_ENVIRONMENT_PREFIX)), *words[1:]] if words[0].startswith(".venv") else words
    )


def _run(words: list[str], **environ: str) -> str:
    result = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S
    )
    assert result.returncode == 0, f"{shlex.join(words)}: {result.stdout}{result.stderr}"
    return result.stdout


@contextmanager
def _first_minute(commands: list[str], work: Path, logs: Path) -> Iterator[int]:
    """README's origin and its two daemons, on a queue and ports of this test; yields the proxy's port."""
    queue = f"/readme-{os.getpid()}"
    environ = {"SIMPLECACHED_QUEUE_NAME": queue, "WEBPROXY_QUEUE_NAME": queue}
    started: list[Daemon] = []
    url = ""
    with ExitStack() as undo:
        for command in commands:
            given = command.removesuffix("&").replace(_ORIGIN_IN_README, url).replace(f"--port {_ORIGIN_PORT}", "")
            words = _words(given, work, 0)
            daemon = Daemon(os.path.basename(words[0]), words, str(logs / f"{len(started)}.log"), environ)
            undo.callback(daemon.stop)
            started.append(daemon)
            if not url:
                url = daemon.wait_for_event("http").strip()
        _, cache, proxy = started
        cache.wait_for_event("ready")
        yield proxy.wait_for_port()
        assert [daemon.stop() for daemon in reversed(started)] == [0, 0, 0]


def test_readme_by_hand(tmp_path: Path) -> None:
    """The commands of the first minute do what they say, in their order."""
    curl = require_program("curl")
    start, over_http, use = (_commands(f"by hand: {part}") for part in ("start", "http", "use"))
    make_folder, generate, *daemons = start
    assert make_folder == "work=$(mktemp -d)"
    assert [command.endswith("&") for command in daemons] == [True, True, True]
    work = tmp_path / "work"
    _run(_words(generate, work, 0))
    with _first_minute(daemons, work, tmp_path) as port:
        first, second, comparison = over_http
        assert _told(curl, _words(first, work, port)) == [_inline_code_with("fwd=uri-miss")]
        again = _words(second, work, port)
        hit = _inline_code_with("; hit")
        wait_until(lambda: hit in _told(curl, again)[-1], what="a hit: the object may be on its way into the cache")
        assert [line.split(":")[0] for line in _told(curl, again)] == ["Age", "Cache-Status"]
        assert _run(["bash", "-c", comparison], work=str(work)) == "equal\n"
        clients = [command for command in use if command.startswith(_ENVIRONMENT_PREFIX)]
        assert [shlex.split(command)[1] for command in clients] == ["download", "measure"]
        for command in clients:
            _run(_words(command, work, port))
        comparison = use[-1]
        assert comparison.startswith("diff -r ")
        assert _run(["bash", "-c", comparison], work=str(work)) == "equal\n"


def test_readme_in_front_of_a_server() -> None:
    """The daemons of the examples take the settings that they are given; what their clients do, tests/clients has."""
    for command in (*_commands("in front: daemons"), *_commands("admin: daemon"), *_commands("in front: forwarding")):
        *settings, program = command.partition("&")[0].split(_ENVIRONMENT_PREFIX)
        environ = dict(word.split("=", 1) for word in shlex.split("".join(settings)))
        said = _run(_words(f"{_ENVIRONMENT_PREFIX}{program} --check-config", Path(), 0), **environ)
        assert ("  [flag --" in said) or ("  [environment " in said), command
    assert "forward_hosts = deb.debian.org, *.example.org" in said


def test_readme_admin(yard: DaemonYard) -> None:
    """Each command shows something, and all of them tell the same number of requests."""
    curl = require_program("curl")
    yard.start_cache()
    [daemon], port = _commands("admin: daemon"), str(free_port())
    flags = shlex.split(daemon.replace(_ADMIN_PORT, port).removesuffix("&"))[1:]
    proxy = yard.start_proxy(*flags)
    for _ in range(3):
        fetch(proxy.port, "/x", "Cache-Control: only-if-cached")
    *requests, monitor = _commands("admin: use")
    words = {line: shlex.split(line.replace(_ADMIN_PORT, port), comments=True) for line in (*requests, monitor)}
    paths = {given[-1].rpartition("/")[2]: [curl, *given[1:]] for line, given in words.items() if line != monitor}
    assert set(paths) == {"health", "ready", "metrics", "stats", "segments"}
    wait_until(lambda: subprocess.run(paths["ready"], capture_output=True).returncode == 0)
    said = {path: _run(given) for path, given in paths.items()}
    assert json.loads(said["health"])["live"] is True
    assert len(json.loads(said["segments"])) == 16
    gfmon = [executable("gfmon"), *words[monitor][1:], "--owner", str(proxy.pid)]
    name = "gfcache_proxy_requests_total"

    def counts() -> set[float]:
        rows = [json.loads(_run(given))["metrics"][name]["rows"] for given in (paths["stats"], gfmon)]
        scraped = re.findall(rf"(?m)^{name}\{{.*\}} (\S+)$", _run(paths["metrics"]))
        return {*(sum(row["value"] for row in found) for found in rows), sum(map(float, scraped))}

    wait_until(lambda: counts() == {3}, what="three requests, told by all")
    assert proxy.stop() == 0


def _told(curl: str, words: list[str]) -> list[str]:
    """The lines in which an answer says what the cache did."""
    return [line for line in _run([curl, *words[1:]]).splitlines() if line.startswith(("Cache-Status", "Age"))]


def _inline_code_with(words: str) -> str:
    """The one piece of inline code in README that holds these words."""
    found = [code for code in re.findall(r"`([^`\n]+)`", read("README.md")) if words in code]
    assert len(found) == 1
    return found[0]


def test_readme_names_commands_that_are_there() -> None:
    """Every `./scripts/...` and `.venv/bin/...` in README's blocks is a program of the clone or of the package."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", read("README.md"), re.DOTALL))
    scripts = set(re.findall(r"(?m)^\./(scripts/\S+)", blocks))
    assert {"scripts/demo", "scripts/test", "scripts/check-ipc-leaks"} <= scripts
    assert [script for script in scripts if not is_program(ROOT / script)] == []
    programs = set(re.findall(r"(?m)^\.venv/bin/(\S+)", blocks))
    assert {"simplecached", "webproxy", "gfclient"} <= programs
    assert [program for program in programs if not is_program(Path(executable(program)))] == []
