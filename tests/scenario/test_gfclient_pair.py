"""gfclient against the real pair: the files it leaves, the figures it prints, and its exit codes."""

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import ask, connect
from tests.support.contents import write_files
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import OriginStub, Route

SIZES = {"empty": 0, "one": 1, "small": 8_192, "middle": 1_000_003, "large": 20 << 20}
PATHS = [f"/{name}" for name in SIZES]
SERVED, FAILED, USAGE = 0, 1, 2


def gfclient(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "workloads.gfclient", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


def digests(directory: Path) -> dict[str, str]:
    """Of every file below, hidden ones too: a partial file would show."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gfclient") / "files"
    write_files(directory, SIZES)
    return directory


@pytest.fixture(scope="module")
def shared_yard(files: Path) -> Iterator[DaemonYard]:
    with DaemonYard(files.parent) as yard:
        yard.start_cache("-t", "4", content=files)
        yield yard


@pytest.fixture(scope="module", params=["crlf", "space"])
def port(request: pytest.FixtureRequest, shared_yard: DaemonYard) -> str:
    return str(shared_yard.start_proxy("-n", "8", "-z", "8192", "--wire", request.param).port)


class TestDownload:
    def test_leaves_the_same_files(self, port, files, tmp_path):
        (tmp_path / "workload").write_text("".join(f"{path}\n" for path in PATHS))
        copies = tmp_path / "copies"
        done = gfclient("download", "-p", port, "-w", str(tmp_path / "workload"), "-t", "4", "-o", str(copies))
        assert (done.returncode, done.stderr) == (SERVED, "")
        assert digests(copies) == digests(files)

    def test_a_missing_path_fails_and_the_others_are_there(self, port, files, tmp_path):
        done = gfclient("download", "-p", port, "-o", str(tmp_path), "/small", "/absent", "/one")
        assert done.returncode == FAILED
        assert "/absent" in done.stdout + done.stderr
        expected = digests(files)
        assert digests(tmp_path) == {name: expected[name] for name in ("small", "one")}


class TestMeasure:
    def test_counts_what_the_pair_served(self, port, tmp_path):
        rows_path = tmp_path / "rows.csv"
        done = gfclient("measure", "--json", "-p", port, "-t", "4", "-r", "40", "-m", str(rows_path), *PATHS)
        assert (done.returncode, done.stderr) == (SERVED, "")
        report = json.loads(done.stdout)
        assert report["requests"] == report["served"] == 40
        assert report["latency_ms"]["p50"] > 0
        with rows_path.open(newline="") as file:
            rows = list(csv.reader(file))
        received = sum(int(row[1]) for row in rows if row[0][:1].isdigit())
        assert received == 8 * sum(SIZES.values())

    def test_open_loop(self, port):
        done = gfclient("measure", "--json", "-p", port, "--rate", "200", "-r", "20", "/small")
        assert done.returncode == SERVED
        assert json.loads(done.stdout)["served"] == 20

    def test_failures_have_an_exit_code(self, port):
        done = gfclient("measure", "--json", "-p", port, "-r", "10", "/small", "/absent")
        assert done.returncode == FAILED
        report = json.loads(done.stdout)
        assert (report["requests"], report["served"]) == (10, 5)


class TestWarm:
    def test_fills_the_cache_so_that_the_origin_is_not_asked_again(self, yard, tmp_path):
        bodies = {f"/{number}": bytes([number]) * (1_000 * number) for number in range(1, 13)}
        with OriginStub({path: Route(body=body) for path, body in bodies.items()}) as origin:
            yard.start_cache()
            proxy = yard.start_proxy("-s", origin.url)
            (tmp_path / "list").write_text("".join(f"{path}\n" for path in bodies))
            done = gfclient("warm", "-p", str(proxy.port), "-w", str(tmp_path / "list"), "-t", "4")
            assert (done.returncode, done.stderr) == (SERVED, "")
            assert done.stdout.startswith(f"warmed 12 of 12, {sum(map(len, bodies.values()))} bytes in ")
            assert {path: origin.count(path) for path in bodies} == dict.fromkeys(bodies, 1)
            for path, body in bodies.items():
                assert ask(proxy.port, path).body == body
            assert {path: origin.count(path) for path in bodies} == dict.fromkeys(bodies, 1)

    def test_counts_what_could_not_be_had(self, port):
        done = gfclient("warm", "-p", port, "/small", "/absent")
        assert done.returncode == FAILED
        assert "/absent: file-not-found" in done.stderr
        assert done.stdout.startswith("warmed 1 of 2, 8192 bytes in ")


def test_nobody_listens(yard, tmp_path):
    proxy = yard.start_proxy()
    port = str(proxy.port)
    assert proxy.stop() == 0
    assert gfclient("download", "-p", port, "-o", str(tmp_path / "copies"), "/small").returncode == FAILED
    assert digests(tmp_path / "copies") == {}


def test_usage_errors():
    assert gfclient("download").returncode == USAGE
    assert gfclient("download", "-p", "0", "/a").returncode == USAGE
    assert gfclient("measure", "-w", "/nowhere/workload").returncode == USAGE


def test_a_proxy_killed_in_mid_body_leaves_no_file(yard, files, tmp_path):
    """The body ends short: gfclient must see that, and not leave the part under the file's name."""
    yard.start_cache(content=files)
    proxy = yard.start_proxy("-n", "2", "-z", "4096", env={"GFCACHE_FAULT": "proxy.posted:1000:kill"})
    done = gfclient("download", "-p", str(proxy.port), "-t", "1", "-o", str(tmp_path / "copies"), "/small", "/large")
    assert done.returncode == FAILED
    wait_until(lambda: not proxy.running)
    assert digests(tmp_path / "copies") == {"small": digests(files)["small"]}
    with pytest.raises(ConnectionRefusedError):
        connect(proxy.port)
