"""The admin server of whole daemons: whatever becomes of the proxy, it answers, and says what is the matter."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.http.client import fetch, free_port
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub, Route

SECRET = "Dragon-7b3f"


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def status_of(port: int, path: str) -> int | None:
    """The status of an answer; None if nobody listens, or the server has just ended."""
    try:
        return get(port, path)[0]
    except OSError:
        return None


def stats_of(port: int) -> dict[str, Any]:
    """What /stats says."""
    found: dict[str, Any] = json.loads(get(port, "/stats")[1])
    return found


def admin_of(proxy_pid: int) -> psutil.Process | None:
    """The admin server of a proxy."""
    found = [child for child in psutil.Process(proxy_pid).children() if "webproxy.admin" in child.cmdline()]
    return found[0] if found else None


@pytest.fixture
def port() -> int:
    """For the admin server."""
    return free_port()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_path_of_a_pair_that_serves(yard: DaemonYard, origin: OriginStub, port: int, workers: str) -> None:
    origin.add("/x", Route(body=b"x" * 5000, headers={"Cache-Control": "max-age=600"}))
    yard.start_cache()
    proxy = yard.start_proxy("--workers", workers, "-s", origin.url, "--admin", f"127.0.0.1:{port}")
    for _ in range(5):
        assert fetch(proxy.port, "/x").status == 200
    assert get(port, "/health")[0] == 200
    wait_until(lambda: status_of(port, "/ready") == 200)

    def requests(numbers: Callable[[], dict[str, float]]) -> bool:
        return sum(numbers().values()) == 5

    def by_statistics() -> dict[str, float]:
        rows = stats_of(port)["metrics"]["gfcache_proxy_requests_total"]["rows"]
        return {str(row["labels"]): row["value"] for row in rows}

    def by_exposition() -> dict[str, float]:
        families = text_string_to_metric_families(get(port, "/metrics")[1].decode())
        family = next(found for found in families if found.name == "gfcache_proxy_requests")
        return {str(sample.labels): sample.value for sample in family.samples}

    wait_until(lambda: requests(by_statistics) and requests(by_exposition), what="five requests, told by both")
    roles = sorted(process["role"] for process in stats_of(port)["processes"])
    assert roles == ["cache", *["proxy"] * int(workers), *(["supervisor"] if workers == "2" else [])]
    assert len(json.loads(get(port, "/segments")[1])) == 8 * int(workers)
    assert proxy.stop() == 0
    assert status_of(port, "/health") is None


def test_what_is_saved_and_what_is_missed(yard: DaemonYard, origin: OriginStub, port: int) -> None:
    """Over protocols and kinds of hits; and `/metrics` has no label that a client has chosen."""
    origin.add("/kept", Route(body=b"x" * 5000, headers={"Cache-Control": "max-age=600"}))
    origin.add("/again", Route(body=b"y" * 700, headers={"Cache-Control": "no-store"}))
    yard.start_cache()
    proxy = yard.start_proxy("--workers", "2", "-s", origin.url, "--admin", f"127.0.0.1:{port}")
    for _ in range(4):
        assert fetch(proxy.port, "/kept?").status == fetch(proxy.port, f"/again?{SECRET}").status == 200
    base = origin.url.rstrip("/")

    def saved() -> tuple[float, float]:
        metrics = stats_of(port)["metrics"]
        found = (metrics[f"gfcache_proxy_origin_saved{name}_total"]["rows"] for name in ("", "_bytes"))
        requests, sent = (sum(row["value"] for row in rows if row["labels"]["origin"] == base) for rows in found)
        return requests, sent

    wait_until(lambda: saved()[0] == 3, what="three hits of one origin")
    assert saved()[1] > 3 * 5000

    def missed() -> list[tuple[str, float]]:
        return [(row["path"], row["requests"]) for row in stats_of(port)["top"]["missed"]]

    wait_until(lambda: missed() == [("/again", 4), ("/kept", 1)], what="what the origin has answered")
    exposed = get(port, "/metrics")[1].decode()
    assert f'gfcache_proxy_origin_saved_total{{instance="127.0.0.1:{proxy.port}",origin="{base}"' in exposed
    assert "/again" not in exposed


def test_who_got_most_and_what_of_it_was_saved(yard: DaemonYard, origin: OriginStub, port: int) -> None:
    """A connection is counted when it ends; hits that are answered at once belong to it, too."""
    origin.add("/kept", Route(body=b"x" * 5000, headers={"Cache-Control": "max-age=600"}))
    origin.add("/again", Route(body=b"y" * 700, headers={"Cache-Control": "no-store"}))
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, "--admin", f"127.0.0.1:{port}")
    client = HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    for path in ("/kept", "/again") * 40:
        client.request("GET", path)
        client.getresponse().read()
    client.close()
    (found,) = wait_until(lambda: stats_of(port)["top"]["clients"], what="the client of a connection that has ended")
    assert (found["client"], found["requests"], found["saved_requests"]) == ("127.0.0.1", 80, 39)
    assert found["sent_bytes"] - 41 * 700 > found["saved_bytes"] > 39 * 5000
    assert b"client=" not in get(port, "/metrics")[1]


def test_clients_of_small_connections(yard: DaemonYard, port: int, tmp_path: Path) -> None:
    """Of getfile each request has a connection of its own."""
    (tmp_path / "file").write_bytes(bytes(5000))
    yard.start_cache(content=tmp_path)
    proxy = yard.start_proxy("--admin", f"127.0.0.1:{port}")
    for _ in range(12):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as client:
            client.sendall(b"GETFILE GET /file\r\n\r\n")
            while client.recv(1 << 16):
                pass

    def all_of_it() -> Any:
        found = stats_of(port)["top"]["clients"]
        return found[0] if found and found[0]["requests"] == 12 else None

    found = wait_until(all_of_it, what="the client of them")
    assert found["saved_requests"] == 12
    assert found["sent_bytes"] == found["saved_bytes"] > 12 * 5000


def test_no_credential_is_shown(yard: DaemonYard, origin: OriginStub, port: int, tmp_path: Path) -> None:
    """Neither one that is configured nor one in a request; an origin's URL with a user is refused from the start."""
    origin.add("/x", Route(body=b"x"))
    settings = tmp_path / "webproxy.toml"
    settings.write_text(f'[[origin]]\nurl = "{origin.url}"\nheaders = ["Authorization: Bearer {SECRET}"]\n')
    proxy = yard.start_proxy("--config", str(settings), "--no-cache", "--admin", f"127.0.0.1:{port}")
    fetch(proxy.port, f"/x?token={SECRET}", f"Authorization: Basic {SECRET}", f"Cookie: {SECRET}")
    fetch(proxy.port, f"http://user:{SECRET}@127.0.0.1/x")
    wait_until(lambda: origin.url.rstrip("/") in get(port, "/metrics")[1].decode())
    wait_until(lambda: [row["path"] for row in stats_of(port)["top"]["missed"]] == ["/x"])
    for path in ("/", "/health", "/ready", "/metrics", "/stats", "/segments", f"/{SECRET}"):
        assert SECRET.encode() not in get(port, path)[1]
    assert SECRET not in " ".join(admin_of(proxy.pid).cmdline())  # type: ignore[union-attr]
    refused = yard.start_proxy("-s", f"http://user:{SECRET}@127.0.0.1/", wait=False)
    assert refused.wait_exit() == 2


def test_a_proxy_that_hangs_is_shown(yard: DaemonYard, port: int) -> None:
    """Of one process: not healthy while it is stopped, and healthy again."""
    proxy = yard.start_proxy("--admin", f"127.0.0.1:{port}")
    wait_until(lambda: status_of(port, "/ready") == 200)
    proxy.signal(signal.SIGSTOP)
    wait_until(lambda: status_of(port, "/health") == 503, what="503 for a proxy that hangs")
    assert json.loads(get(port, "/health")[1]) == {"live": False, "processes": {str(proxy.pid): "stuck"}}
    assert status_of(port, "/ready") == 503
    assert {process["state"] for process in stats_of(port)["processes"]} == {"stuck"}
    proxy.signal(signal.SIGCONT)
    wait_until(lambda: status_of(port, "/health") == 200 and status_of(port, "/ready") == 200)


def test_a_worker_or_a_cache_that_hangs_is_shown(yard: DaemonYard, port: int) -> None:
    """The proxy is healthy as long as one worker serves."""
    cache = yard.start_cache()
    proxy = yard.start_proxy("--workers", "2", "--admin", f"127.0.0.1:{port}")

    def pids(state: str) -> set[int]:
        return {process["pid"] for process in stats_of(port)["processes"] if process["state"] == state}

    wait_until(lambda: len(pids("live")) == 4)
    worker = next(process["pid"] for process in stats_of(port)["processes"] if process["role"] == "proxy")
    for pid in (worker, cache.pid):
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: pids("stuck") == {worker, cache.pid}, what="the two that are stopped")
        assert status_of(port, "/health") == 200
        assert json.loads(get(port, "/health")[1])["processes"][str(worker)] == "stuck"
        assert worker not in json.loads(get(port, "/ready")[1])["accepting"]
    finally:
        for pid in (worker, cache.pid):
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not pids("stuck"))
    assert proxy.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("caches", ["auto", "a list"])
def test_all_caches_of_a_proxy_are_shown(yard: DaemonYard, port: int, workers: str, caches: str) -> None:
    queues = [f"{yard.queue}-{letter}" for letter in "abc"]
    for queue in queues:
        yard.start_cache("-q", queue)
    known = queues if caches == "auto" else queues[:2]
    named = caches if caches == "auto" else ",".join(known)
    yard.start_proxy("--caches", named, "--workers", workers, "--admin", f"127.0.0.1:{port}")

    def shown() -> set[str]:
        return {str(page["instance"]) for page in stats_of(port)["pages"] if page["role"] == "cache"}

    if caches == "auto":  # others of this user may run
        wait_until(lambda: shown() >= set(known))
    else:
        wait_until(lambda: shown() == set(known))


def test_workers_that_have_ended_are_no_processes_that_are_missing(yard: DaemonYard, port: int) -> None:
    """Neither those of a reload, whose slots nobody has any more, nor one that was killed and has a successor."""
    proxy = yard.start_proxy("--workers", "2", "--admin", f"127.0.0.1:{port}")
    steer("reload", proxy)
    proxy.wait_event("worker retired", count=2)
    os.kill(proxy.ready_workers()[0], signal.SIGKILL)
    proxy.wait_event("worker ready", count=5)

    def states() -> list[str]:
        return [process["state"] for process in stats_of(port)["processes"] if process["role"] == "proxy"]

    wait_until(lambda: states() == ["live", "live"], what="the two that serve, and nobody else")
    assert {page["state"] for page in stats_of(port)["pages"]} == {"live", "no writer"}


def test_the_page_of_a_cache_that_was_killed_does_no_harm(yard: DaemonYard, port: int) -> None:
    cache = yard.start_cache()
    yard.start_proxy("--admin", f"127.0.0.1:{port}")
    wait_until(lambda: cache.pid in {process["pid"] for process in stats_of(port)["processes"]})
    cache.kill()
    wait_until(lambda: cache.pid not in {p["pid"] for p in stats_of(port)["processes"] if p["state"] == "live"})
    assert status_of(port, "/metrics") == status_of(port, "/health") == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_admin_server_that_was_killed_is_started_again(yard: DaemonYard, port: int, workers: str) -> None:
    proxy = yard.start_proxy("--workers", workers, "--admin", f"127.0.0.1:{port}")
    first = wait_until(lambda: admin_of(proxy.pid))
    assert first is not None
    first.kill()
    proxy.wait_event("admin server ended")
    assert get(port, "/health")[0] == 200  # the socket is open all the time: who asks waits
    second = admin_of(proxy.pid)
    assert second is not None
    assert second.pid != first.pid
    assert proxy.stop() == 0


def test_a_unix_socket(yard: DaemonYard, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl is installed")
    path = tmp_path / "admin.sock"
    proxy = yard.start_proxy("--admin", str(path))
    for host in ("localhost", "anything.example"):
        command = [curl, "-sS", "--fail", "--unix-socket", str(path), f"http://{host}/health"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["live"] is True
    assert proxy.stop() == 0
    assert not path.exists()


def steer(word: str, proxy: DaemonProcess) -> str:
    """`webproxy reload` or `webproxy upgrade`, and what it said."""
    command = [sys.executable, "-m", "webproxy", word, "-p", str(proxy.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(pid: int) -> bool:
    """Whether there is no such process."""
    return not os.path.exists(f"/proc/{pid}")


@pytest.fixture
def successor(yard: DaemonYard) -> Iterator[list[int]]:
    """Pids of processes that took over, which the yard has not started: ended with the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if not ended(pid):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: all(map(ended, pids)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_changes_the_address(
    yard: DaemonYard, tmp_path: Path, port: int, workers: str, successor: list[int]
) -> None:
    """An address that cannot be had is refused, and the old one stays; a free one takes its place; then none."""
    settings, other = tmp_path / "webproxy.toml", free_port()
    settings.write_text(f'admin = "127.0.0.1:{port}"\n')
    proxy = yard.start_proxy("--workers", workers, "--config", str(settings))
    wait_until(lambda: status_of(port, "/ready") == 200)
    settings.write_text(f'admin = "127.0.0.1:{proxy.port}"\n')
    command = [sys.executable, "-m", "webproxy", "reload", "-p", str(proxy.port)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert status_of(port, "/ready") == 200
    settings.write_text(f'admin = "127.0.0.1:{other}"\n')
    steer("reload", proxy)
    successor += [event["successor"] for event in proxy.events("successor ready")]
    wait_until(lambda: status_of(other, "/ready") == 200)
    wait_until(lambda: status_of(port, "/ready") is None, what="the end of the old address")
    # One that has a successor ends by itself, and a signal to what is about to end could still kill it.
    assert (proxy.wait_exit() if successor else proxy.stop()) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upgrade_keeps_the_address(yard: DaemonYard, port: int, workers: str, successor: list[int]) -> None:
    """It is listened on all the time, and shows the new processes."""
    proxy = yard.start_proxy("--workers", workers, "--admin", f"127.0.0.1:{port}")
    old = {process["pid"] for process in stats_of(port)["processes"]}
    steer("upgrade", proxy)
    successor.append(proxy.wait_event("successor ready")["successor"])

    def shows_only_the_new() -> bool:
        now = {process["pid"] for process in stats_of(port)["processes"]}
        return bool(now) and not now & old

    assert proxy.wait_exit() == 0
    wait_until(shows_only_the_new)
    assert status_of(port, "/ready") == 200


@pytest.mark.parametrize("address", ["25363", "127.0.0.1:99999", "no-such-dir"])
def test_a_text_that_is_no_address_is_refused(yard: DaemonYard, address: str) -> None:
    proxy = yard.start_proxy("--admin", address, wait=False)
    assert proxy.wait_exit() == 2
    assert re.search(rf"admin: '?{address}'? .*HOST:PORT", proxy.log_text())


@pytest.mark.parametrize("address", ["127.0.0.1:{taken}", "/nonexistent/admin.sock", "192.0.2.1:25363"])
def test_an_address_that_cannot_be_had_is_refused(yard: DaemonYard, address: str) -> None:
    taken = yard.start_proxy().port
    wanted = address.format(taken=taken)
    proxy = yard.start_proxy("--admin", wanted, wait=False)
    assert proxy.wait_exit() == 69
    assert f"cannot listen on {wanted} (admin)" in proxy.log_text()


def test_a_name_of_a_stranger_is_not_answered(yard: DaemonYard, port: int) -> None:
    """A page of his, in a browser whose resolver he has told so, would otherwise read all this."""
    yard.start_proxy("--admin", f"localhost:{port}")
    assert get(port, "/stats", Host=f"evil.example:{port}")[0] == 421
    assert b"localhost" in get(port, "/stats", Host="evil.example")[1]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert get(port, "/stats", Host=host)[0] == 200
