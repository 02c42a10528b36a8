"""gfmon beside whole daemons: as a command for scripts, and on the screen of a terminal with its keys pressed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shmchannel.process.naming import SHM_DIRECTORY, stats_page_name
from shmchannel.stats_pages import layout
from tests.http.client import fetch
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.stats_pages import SCHEMA, open_pages, raw_page
from tests.support.terminal import Terminal
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.telemetry.metrics import REQUESTS, SENT_BYTES
from workloads.origin_stub import OriginStub, Route

GFMON = (sys.executable, "-m", "webproxy.monitor")
BODY = os.urandom(8192)
NOBODY = "1"
"""As an owner: the pid and the port of no proxy."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GFMON, *arguments], capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


def figures(proxy: DaemonProcess) -> dict[str, Any]:
    """What `gfmon --once --json` says of a proxy."""
    done = run("--once", "--json", "--interval", "0.1", "--owner", str(proxy.port))
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def metrics(address: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Counters and counts of histograms in `/metrics`, added up over pages, by name and labels."""
    connection = HTTPConnection(address, timeout=WATCHDOG_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "role" in sample.labels and "pid" not in sample.labels and sample.name.endswith(("_total", "_count")):
                labels = {k: v for k, v in sample.labels.items() if k not in ("role", "instance", "slot")}
                key = sample.name, tuple(sorted(labels.items()))
                found[key] = found.get(key, 0) + sample.value
    return found


def counted(said: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The same of what gfmon says."""
    found = {}
    for name, metric in said["metrics"].items():
        for row in metric["rows"]:
            labels = tuple(sorted(row["labels"].items()))
            if metric["kind"] == "counter":
                found[name, labels] = row["value"]
            elif metric["kind"] == "histogram" and row["count"]:
                found[f"{name}_count", labels] = row["count"]
    return found


def test_it_agrees_with_the_metrics(tmp_path: Path, origin: OriginStub) -> None:
    """Every counter and histogram, over two workers and their cache, and what is derived from them."""
    origin.add("/x", Route(body=BODY, headers={"Cache-Control": "max-age=600"}))
    admin = _free_address()
    with DaemonYard(tmp_path) as yard:
        yard.start_cache()
        proxy = yard.start_proxy("--workers", "2", "-s", origin.url, "--admin", admin)
        answers = []

        def is_hit() -> bool:
            answers.append(fetch(proxy.port, "/x"))
            return answers[-1].is_hit

        wait_until(is_hit, what="a hit")
        assert {answer.body for answer in answers} == {BODY}
        assert fetch(proxy.port, "/nowhere").status == 404

        def at_rest() -> tuple[dict[str, Any], dict[Any, float]] | None:
            before, said, after = metrics(admin), figures(proxy), metrics(admin)
            came = sum(value for (name, _), value in after.items() if name == REQUESTS)
            return (said, after) if before == after and came == len(answers) + 1 else None

        found = wait_until(at_rest, what="figures that do not change")
        assert found is not None
        said, scraped = found
        assert counted(said) == scraped
        derived = said["derived"]
        requests = {labels: value for (name, labels), value in scraped.items() if name == REQUESTS}
        assert derived["requests_total"] == sum(requests.values()) == len(answers) + 1
        hits = sum(value for labels, value in requests.items() if dict(labels)["outcome"] in ("hot", "hit"))
        assert hits > 0
        assert derived["since_start"]["hit_ratio"] == hits / len(answers)  # the error is none of either
        sent = {dict(labels)["source"]: value for (name, labels), value in scraped.items() if name == SENT_BYTES}
        assert derived["since_start"]["byte_hit_ratio"] == sent["cache"] / (sent["cache"] + sent["origin"])
        assert [cache["queue"] for cache in derived["caches"]] == [yard.queue]
        assert [row["name"] for row in derived["origins"]] == [origin.url.rstrip("/")]
        roles = sorted(process["role"] for process in said["processes"])
        assert roles == ["cache", "proxy", "proxy", "supervisor"]
        assert derived["troubled"] == []
        assert {segment["owner_pid"] for segment in said["segments"]} == {
            process["pid"] for process in said["processes"] if process["role"] == "proxy"
        }
        assert proxy.stop() == 0  # with its workers, whose names are their own


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_once_as_text(tmp_path: Path) -> None:
    """The pid of a worker names its proxy as well as the port does."""
    (tmp_path / "file").write_bytes(BODY)
    with DaemonYard(tmp_path) as yard:
        yard.start_cache(content=tmp_path)
        proxy = yard.start_proxy()
        assert fetch(proxy.port, "/file").body == BODY
        for owner in (proxy.port, proxy.pid):
            done = run("--once", "--interval", "0.1", "--owner", str(owner))
            assert (done.returncode, done.stderr) == (0, "")
            assert "1 cache, 1 proxy; all make progress" in done.stdout
            assert f"commands to {yard.queue}" in done.stdout


def test_nobody_is_there() -> None:
    done = run("--once", "--interval", "0.1", "--owner", NOBODY)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "No proxy of this user has the pid 1, or listens on port 1.\n"
    done = run("--once", "--json", "--interval", "0.1", "--owner", NOBODY)
    assert (done.returncode, json.loads(done.stdout)["processes"]) == (1, [])


def test_an_output_that_cannot_be_written_is_no_shared_memory_that_cannot_be_read() -> None:
    command = [sys.executable, "-m", "webproxy.monitor", "--once", "--interval", "0.1"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "gfmon: cannot write to the standard output: No space left on device\n"


def test_pages_that_cannot_be_read_do_no_harm() -> None:
    """Half-written, and of an older and a newer release: they are named, and add nothing to any number."""
    with open_pages("proxy") as pages:
        page = pages.add(0, SCHEMA)
        page.begin()
        whole = Path(SHM_DIRECTORY + page.name).read_bytes()
        cut = 8 * layout.VERSION_WORD
        contents = [bytes(len(whole))]
        for version in (layout.LAYOUT_VERSION - 1, layout.LAYOUT_VERSION + 1):
            contents.append(whole[:cut] + version.to_bytes(8, sys.byteorder) + whole[cut + 8 :])
        with ExitStack() as made:
            named = [stats_page_name(pages.name, 97 + number) for number in range(3)]
            for name, content in zip(named, contents, strict=True):
                made.enter_context(raw_page(name, content))
            done = run("--once", "--json", "--interval", "0.1")
            said = {found["name"]: found for found in json.loads(done.stdout)["pages"]}
            text = run("--once", "--interval", "0.1")
    assert done.stderr == text.stderr == ""
    assert [said[name]["state"] for name in named] == ["half-written", "other version", "other version"]
    assert [said[name]["numbers"] for name in named] == [{}, {}, {}]
    assert said[page.name]["state"] == "live"


def test_a_screen_needs_a_terminal() -> None:
    done = run("--owner", NOBODY)
    assert done.returncode == 2
    assert done.stderr == "gfmon: standard input or output is no terminal: use --once, or --once --json in scripts\n"


def test_each_page_by_its_key(tmp_path: Path, origin: OriginStub) -> None:
    """And `q` ends it, with the terminal as it was."""
    origin.add("/x", Route(body=BODY, headers={"Cache-Control": "max-age=600"}))
    with DaemonYard(tmp_path) as yard:
        cache = yard.start_cache()
        proxy = yard.start_proxy("-s", origin.url)
        with Terminal([*GFMON, "--interval", "0.1", "--owner", str(proxy.port)]) as terminal:
            terminal.wait_for("1 cache, 1 proxy; all make progress", "requests in all 0", "q quit")
            wait_until(lambda: fetch(proxy.port, "/x").is_hit)
            terminal.wait_for("since the start", origin.url.rstrip("/"), "answers", without="requests in all 0")
            terminal.press("2")
            terminal.wait_for(f"of pid {proxy.pid}:", "at rest", "progress")
            terminal.press("3")
            terminal.wait_for("Caches", yard.queue, "Commands in the last")
            terminal.press("4")
            terminal.wait_for("Processes", str(proxy.pid), str(cache.pid), "live", "heartbeat")
            terminal.press("5")
            terminal.wait_for("Origins", origin.url.rstrip("/"), without="heartbeat")
            terminal.press("6")
            terminal.wait_for("by outcome, slowest first")
            terminal.press("?")
            terminal.wait_for("no daemon is asked")
            terminal.press("1")
            terminal.wait_for("requests in all")
            terminal.press("q")
            assert terminal.wait_exit() == 0
            assert terminal.is_restored()


@pytest.mark.parametrize("how", ["key", "signal"])
def test_ctrl_c_ends_it(how: str) -> None:
    """As a key of the terminal, which is in raw mode, and as a signal."""
    with Terminal([*GFMON, "--owner", NOBODY]) as terminal:
        terminal.wait_for("listens on port 1.")
        if how == "key":
            terminal.press("\x03")
        else:
            terminal.signal(signal.SIGINT)
        assert terminal.wait_exit() == 128 + signal.SIGINT
        assert terminal.is_restored()


def test_a_proxy_that_hangs_is_shown_and_said_to_hang(tmp_path: Path) -> None:
    """By its heartbeat alone; it is well again when it beats."""
    with DaemonYard(tmp_path) as yard:
        yard.start_cache()
        proxy = yard.start_proxy()
        with Terminal([*GFMON, "--interval", "0.1", "--owner", str(proxy.port)]) as terminal:
            terminal.wait_for("all make progress")
            proxy.signal(signal.SIGSTOP)
            terminal.wait_for("1 in trouble", f"(pid {proxy.pid}) hangs: no heartbeat for", without="all make progress")
            terminal.press("4")
            terminal.wait_for("stuck (hangs)")
            said = figures_of_stopped(proxy)
            assert said["derived"]["troubled"] == [{"pid": proxy.pid, "state": "stuck"}]
            terminal.press("1")
            proxy.signal(signal.SIGCONT)
            terminal.wait_for("all make progress", without="in trouble")


def figures_of_stopped(proxy: DaemonProcess) -> dict[str, Any]:
    """What is said of it by its pid."""
    found: dict[str, Any] = json.loads(run("--once", "--json", "--interval", "0.1", "--owner", str(proxy.pid)).stdout)
    return found


def test_a_pair_that_comes_and_goes(tmp_path: Path) -> None:
    """One screen through it all, in a window that changes its size."""
    (tmp_path / "file").write_bytes(BODY)
    with DaemonYard(tmp_path) as yard:
        cache, proxy = yard.start_cache(content=tmp_path), yard.start_proxy()
        port = str(proxy.port)
        with Terminal([*GFMON, "--interval", "0.1", "--owner", port]) as terminal:
            terminal.wait_for("all make progress")
            assert fetch(proxy.port, "/file").body == BODY
            terminal.wait_for("requests in all 1")
            proxy.stop()
            terminal.wait_for(f"listens on port {port}.", without="requests in all")
            cache.kill()
            terminal.resize(80, 24)
            terminal.wait_for("listens on port", "q quit")
            terminal.resize(130, 40)
            yard.start_cache(content=tmp_path)
            proxy = yard.start_proxy("-p", port)
            terminal.wait_for("1 cache, 1 proxy; all make progress", "requests in all 0")
            for _ in range(3):
                assert fetch(proxy.port, "/file").body == BODY
            terminal.wait_for("requests in all 3")
            proxy.kill()
            terminal.wait_for(f"listens on port {port}.")
            terminal.signal(signal.SIGTERM)
            assert terminal.wait_exit() == 128 + signal.SIGTERM
            assert terminal.is_restored()
