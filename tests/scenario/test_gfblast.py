"""The load program must see every wrong reply: a benchmark on wrong bytes is worth nothing."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from scripts.benchmark.load import Group, LoadFailed, NativeLoad
from tests.support.programs import require_program

BODY = bytes(range(256)) * 40
WATCHDOG_S = 30


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> NativeLoad:
    require_program("cc")
    built = NativeLoad.built_in(str(tmp_path_factory.mktemp("gfblast")))
    assert built is not None
    return built


@dataclass
class TinyServer:
    """Answers every connection with the same bytes, sent in the given pieces; keeps what was asked."""

    port: int
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def serving(*pieces: bytes, hold: threading.Event | None = None) -> Iterator[TinyServer]:
    """Run a tiny server. With `hold` it keeps the connection open after the pieces until the event is set."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    server = TinyServer(listener.getsockname()[1])
    stopping = threading.Event()

    def answer(client: socket.socket) -> None:
        client.settimeout(WATCHDOG_S)
        server.requests.append(client.recv(8192))
        for piece in pieces:
            client.sendall(piece)
        if hold is not None:
            hold.wait(WATCHDOG_S)

    def run() -> None:
        while not stopping.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            with client:
                try:
                    answer(client)
                except OSError:  # the load program hung up early: that is what some cases are about
                    continue

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server
    finally:
        stopping.set()
        if hold is not None:
            hold.set()
        thread.join(WATCHDOG_S)
        listener.close()


@pytest.fixture
def blast(load: NativeLoad, tmp_path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the program against a port with a map of one key, /file; returns exit status and the report."""
    (tmp_path / "file").write_bytes(BODY)
    (tmp_path / "map.txt").write_text("/file file\n")

    def run(port: int, *options: str) -> tuple[int, dict[str, Any]]:
        command = [load.program, "-p", str(port), "-k", str(tmp_path / "map.txt"), *(options or ("-r", "3", "/file"))]
        result = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
        return result.returncode, json.loads(result.stdout) if result.stdout else {"complaint": result.stderr}

    return run


CRLF = b"GETFILE OK %d\r\n\r\n" % len(BODY)
SPACE = b"GETFILE OK %d " % len(BODY)


@pytest.mark.parametrize("pieces", [(CRLF + BODY,), (CRLF, BODY), (CRLF[:9], CRLF[9:] + BODY[:5], BODY[5:])])
def test_right_bytes_in_any_pieces(blast, pieces):
    with serving(*pieces) as server:
        status, report = blast(server.port)
    group = report["groups"][0]
    assert (status, report["all_right"], group["requests"], group["right"]) == (0, True, 3, 3)
    assert group["bytes"] == 3 * len(BODY)
    assert group["wires"] == {"crlf": 3}
    assert 0 < group["latency_ms"]["p50"] <= group["latency_ms"]["p99"] <= group["latency_ms"]["max"]
    assert server.requests == [b"GETFILE GET /file\r\n\r\n"] * 3


def test_the_other_wire_form(blast):
    with serving(SPACE + BODY) as server:
        status, report = blast(server.port)
    assert status == 0
    assert report["groups"][0]["wires"] == {"space": 3}


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (CRLF + b"X" + BODY[1:], "content"),
        (CRLF + BODY[:-1] + b"X", "content"),
        (CRLF + BODY[:-1], "short_body"),
        (CRLF, "short_body"),
        (CRLF + BODY + b"X", "excess_bytes"),
        (b"GETFILE OK 5\r\n\r\nabcde", "length"),
        (b"GETFILE FILE_NOT_FOUND\r\n\r\n", "status"),
        (b"GETFILE ERROR\r\n\r\n", "status"),
        (b"GETFILE INVALID 0\n", "status"),
        (b"", "empty_reply"),
        (b"GETFILE O", "bad_header"),
        (b"GETFILE OKAY 5\r\n\r\nabcde", "bad_header"),
        (b"GETFILE OK\r\n\r\n", "bad_header"),
        (b"GETFILE OK -5\r\n\r\n", "bad_header"),
        (b"GETFILE OK five\r\n\r\n", "bad_header"),
        (b"GETFILE OK 18446744073709551616\r\n\r\n", "bad_header"),
        (b"GETFILE  OK 5\r\n\r\nabcde", "bad_header"),
        (b"GETFILE ERROR 0\r\n\r\n", "bad_header"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "bad_header"),
    ],
)
def test_wrong_replies_are_failures(blast, reply, failure):
    with serving(reply) as server:
        status, report = blast(server.port)
    group = report["groups"][0]
    assert status == 1
    assert report["all_right"] is False
    assert group["failures"] == {failure: 3}
    assert group["first_failure"].startswith(f"/file: {failure}")


@pytest.mark.parametrize("pieces", [(), (CRLF,), (CRLF + BODY[:100],)])
def test_a_server_that_stalls_is_given_up(blast, pieces):
    with serving(*pieces, hold=threading.Event()) as server:
        status, report = blast(server.port, "-T", "50", "-r", "1", "/file")
    assert status == 1
    assert report["groups"][0]["failures"] == {"timeout": 1}


def test_nobody_listens(blast):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    status, report = blast(port)
    assert status == 1
    assert report["groups"][0]["failures"] == {"connect": 3}


def test_what_is_not_in_the_map_must_be_missing(blast):
    with serving(b"GETFILE FILE_NOT_FOUND\r\n\r\n") as server:
        assert blast(server.port, "-M", "-r", "2", "/other")[0] == 0
        assert blast(server.port, "-r", "2", "/other")[0] == 1


def test_groups_have_figures_of_their_own(blast, tmp_path):
    (tmp_path / "paths.txt").write_text("/file\n")
    with serving(CRLF + BODY) as server:
        status, report = blast(
            server.port,
            "-g",
            "counted,2,7,/file",
            "-g",
            f"beside,1,while,@{tmp_path}/paths.txt",
            "-g",
            "timed,1,0.1s,/file",
        )
    groups = {group["name"]: group for group in report["groups"]}
    assert status == 0
    assert list(groups) == ["counted", "beside", "timed"]
    assert groups["counted"]["requests"] == 7
    assert groups["timed"]["seconds"] >= 0.1
    assert groups["beside"]["requests"] >= 1
    assert len(server.requests) == sum(group["requests"] for group in groups.values())


def test_http_for_peers(load):
    http = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    with serving(http) as server:
        figures = load.run(server.port, [Group(name="all", clients=1, paths=("/a",))], 0.05, extra=["-H"])
    assert figures["all"].requests == len(server.requests) > 0
    with (
        serving(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as server,
        pytest.raises(LoadFailed, match="status"),
    ):
        load.run(server.port, [Group(name="all", clients=1, paths=("/a",))], 0.05, extra=["-H"])


@pytest.mark.parametrize(
    "options",
    [
        ["-p", "0", "/file"],
        ["-p", "7", "file"],
        ["-p", "7"],
        ["-p", "7", "-r", "0", "/file"],
        ["-p", "7", "-r", "3x", "/file"],
        ["-p", "7", "-t", "1.5", "/file"],
        ["-p", "7", "-g", "a,1,while,/file"],
        ["-p", "7", "-g", "a,1"],
        ["-p", "7", "-w", "/nowhere/paths"],
        ["-p", "7", "-Z"],
    ],
)
def test_usage_errors(load, options):
    result = subprocess.run([load.program, *options], capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    assert result.returncode == 2
    assert not result.stdout
    assert result.stderr
