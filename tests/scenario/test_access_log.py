"""The access log of a running pair: a line for each request, hits of every kind included, and rotation."""

import json
import shutil
import signal
import subprocess

import pytest

from tests.http.client import HttpClient
from tests.support.client import ask
from tests.support.contents import write_files
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import Route


def lines_of(path, count):
    """The lines, once there are so many."""

    def found():
        lines = path.read_text().splitlines() if path.exists() else []
        return lines if len(lines) >= count else None

    return wait_until(found, what=f"{count} lines in {path.name}")


def get(port, target, *arguments):
    return subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", *arguments, f"http://127.0.0.1:{port}{target}"],
        check=True,
        timeout=WATCHDOG_S,
    )


@pytest.fixture
def files(tmp_path):
    return tmp_path / "files", write_files(tmp_path / "files", {"small": 500, "large": 3_000_000})


def test_each_request_has_its_line(yard, files, tmp_path):
    log = tmp_path / "access.log"
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy("--access-log", str(log), "--access-log-format", "json")
    ask(proxy.port, "/small")
    for _ in range(3):
        get(proxy.port, "/small", "-A", 'a"b')
    get(proxy.port, "/large")
    get(proxy.port, "/large", "-r", "0-99")
    get(proxy.port, "/nothing")
    get(proxy.port, "/small", "-X", "TRACE")
    told = [json.loads(line) for line in lines_of(log, 8)]
    assert len({one["id"] for one in told}) == 8
    assert [(one["protocol"], one["target"], one["status"], one["bytes"], one["cache"]) for one in told] == [
        ("GETFILE", "/small", 200, 500, "hit"),
        *[("HTTP/1.1", "/small", 200, 500, "hit")] * 3,
        ("HTTP/1.1", "/large", 200, 3_000_000, "hit"),
        ("HTTP/1.1", "/large", 206, 100, "hit"),
        ("HTTP/1.1", "/nothing", 404, len("no such object\n"), "none"),
        ("HTTP/1.1", "/small", 501, len("TRACE is not supported\n"), "none"),
    ]
    assert {one["client"] for one in told} == {"127.0.0.1"}
    assert told[1]["user_agent"] == 'a"b'
    assert all(0 <= one["first_byte_us"] <= one["time_us"] for one in told)
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["access_log_dropped"] == 0


def test_sigusr1_ends_neither_daemon_and_reopens_the_log(yard, files, tmp_path):
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    cache = yard.start_cache(content=files[0])
    proxy = yard.start_proxy("--access-log", str(log))
    get(proxy.port, "/small")
    lines_of(log, 1)
    log.rename(moved)
    for daemon in (cache, proxy):
        daemon.signal(signal.SIGUSR1)
    proxy.wait_event("access log reopened")
    get(proxy.port, "/small")
    assert len(lines_of(log, 1)) == len(lines_of(moved, 1)) == 1
    assert (proxy.stop(), cache.stop()) == (0, 0)


def test_the_id_is_in_each_response_and_in_the_log(yard, files, tmp_path):
    log = tmp_path / "access.log"
    yard.start_cache(content=files[0])
    env = {"WEBPROXY_REQUEST_ID_HEADER": "true", "WEBPROXY_REQUEST_ID_FROM_CLIENT": "true"}
    proxy = yard.start_proxy("--access-log", str(log), "--access-log-format", "json", env=env)
    told = []
    for target in ("/small", "/small", "/small", "/large", "/large", "/nothing"):
        for name in ("", f"client-{target[1:]}"):
            wish = ("-H", f"X-Request-Id: {name}") if name else ()
            command = [
                "curl",
                "-sS",
                "-D-",
                "-o",
                str(tmp_path / "body"),
                *wish,
                f"http://127.0.0.1:{proxy.port}{target}",
            ]
            head = subprocess.run(command, check=True, capture_output=True, text=True, timeout=WATCHDOG_S).stdout
            (said,) = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("X-Request-Id: ")]
            assert said == name or not name
            assert (tmp_path / "body").read_bytes() == files[1].get(target, b"no such object\n")
            told.append(said)
    assert [json.loads(line)["id"] for line in lines_of(log, len(told))] == told


def test_workers_share_a_file_and_reopen_it(yard, files, tmp_path):
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy("--workers", "2", "--access-log", str(log), "--access-log-format", "json")
    for _ in range(40):
        get(proxy.port, "/small")
    lines_of(log, 40)
    log.rename(moved)
    proxy.signal(signal.SIGUSR1)
    proxy.wait_event("access log reopened", count=2)
    for _ in range(40):
        get(proxy.port, "/small")
    told = [json.loads(line) for line in (*lines_of(moved, 40), *lines_of(log, 40))]
    assert len({one["id"] for one in told}) == len(told) == 80
    assert proxy.stop() == 0


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_logrotate(yard, files, tmp_path):
    log, settings = tmp_path / "access.log", tmp_path / "rotate.conf"
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy("--access-log", str(log))
    settings.write_text(
        f"{log} {{\n  rotate 2\n  nocreate\n  postrotate\n    kill -USR1 {proxy.pid}\n  endscript\n}}\n"
    )
    settings.chmod(0o600)
    tmp_path.chmod(0o755)
    get(proxy.port, "/small")
    lines_of(log, 1)
    command = ["logrotate", "-f", "-s", str(tmp_path / "state"), str(settings)]
    subprocess.run(command, check=True, timeout=WATCHDOG_S)
    proxy.wait_event("access log reopened")
    get(proxy.port, "/small")
    assert len(lines_of(log, 1)) == len(lines_of(tmp_path / "access.log.1", 1)) == 1


@pytest.mark.parametrize("path", ["{}/nowhere/log", "{}"])
def test_a_log_that_cannot_be(yard, tmp_path, path):
    proxy = yard.start_proxy("--access-log", path.format(tmp_path), wait=False)
    assert proxy.wait_exit() == 2
    assert "access_log: " in proxy.log_text()


def test_the_id_of_a_large_hit_whose_client_is_slow(yard, origin, tmp_path):
    """From the hot table, and paused in its body: the log has the id that the head has said."""
    log, body = tmp_path / "access.log", bytes(5_000_000)
    origin.add("/large", Route(body=body, headers={"Cache-Control": "max-age=600"}))
    yard.start_cache()
    settings = ("--access-log", str(log), "--access-log-format", "json", "--log-level", "debug", "-s", origin.url)
    proxy = yard.start_proxy(*settings, env={"WEBPROXY_REQUEST_ID_HEADER": "true"})
    asked = []

    def from_the_hot_table():
        with HttpClient(proxy.port, receive_buffer_bytes=65_536) as client:
            client.send("/large")
            asked.append(client.head().get("x-request-id"))
            left = len(body)
            while left:
                left -= len(client.some())
        return asked[-1] not in {event.get("request") for event in proxy.events("command sent")}

    wait_until(from_the_hot_table, what="a hit by the hot table")
    assert asked == [json.loads(line)["id"] for line in lines_of(log, len(asked))]
    ended = [event for event in proxy.events("request ends") if event["request"] == asked[-1]]
    assert [(event["outcome"], event["status"]) for event in ended] == [("hit", 200)]
