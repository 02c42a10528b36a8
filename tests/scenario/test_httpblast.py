"""The HTTP load and its origin: every wrong reply is seen, each object is asked for once, and hits are hits."""

import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scripts.benchmark.http_load import Draws, HttpLoad
from scripts.benchmark.http_rows import NGINX, OURS
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.native import build
from scripts.benchmark.nginx_cache import NginxCache, running_nginx_cache
from scripts.benchmark.peer_servers import Accepting
from scripts.benchmark.set_contest import SetContest, running_origin
from scripts.benchmark.set_measure import SetPace, TooSlow, fill_set, measure_set_row
from scripts.benchmark.set_rows import SET_ROWS
from scripts.benchmark.wait_counts import WaitCounter, usable_counter
from tests.support.programs import require_program

WATCHDOG_S = 30
BY_KEY = {row.key: row for row in SET_ROWS}
PACE = SetPace(rounds=2, warm_up_s=0.05, round_s=0.1, count_s=0.1)


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Not pytest's folder: the workers of an nginx that root started are another user, and could not enter it."""
    require_program("cc")
    with tempfile.TemporaryDirectory(prefix="gft-sets-") as directory:
        os.chmod(directory, 0o755)
        yield directory


@pytest.fixture(scope="module")
def load(place: str) -> HttpLoad:
    built = HttpLoad.built_in(place)
    assert built is not None
    return built


@pytest.fixture(scope="module")
def origin(place: str) -> Iterator[int]:
    program = build(place, "origin", ["origin.c"])
    assert program is not None
    with running_origin(program, place) as port:
        yield port


@pytest.fixture
def nginx(place: str, origin: int) -> Iterator[NginxCache]:
    with (
        tempfile.TemporaryDirectory(prefix="nginx-", dir=place) as home,
        running_nginx_cache(require_program("nginx"), origin, home, workers=1, accepting=Accepting.SHARED) as cache,
    ):
        yield cache


def contest_of(origin: int, ours: int, nginx: NginxCache) -> SetContest:
    return SetContest(
        ports={OURS: ours, NGINX: nginx.port}, pids={OURS: [os.getpid()], NGINX: [nginx.pid]}, origin_port=origin
    )


def asked(origin: int) -> int:
    return SetContest(ports={}, pids={}, origin_port=origin).origin_requests()


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A server that answers the first request of each connection with these bytes, and closes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # the listener was shut down
                    return
                with client:
                    client.settimeout(WATCHDOG_S)
                    if client.recv(8192):
                        client.sendall(reply)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(WATCHDOG_S)


def blast(place: str, port: int, *options: str) -> tuple[int, dict[str, Any]]:
    command = [os.path.join(place, "httpblast"), "-p", str(port), "-s", "a", "-b", "10", "-k", "1", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    return result.returncode, json.loads(result.stdout)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.usefixtures("load")
def test_a_right_reply_is_right(place: str) -> None:
    with answering(HEAD + b"/a/10/0\n/a") as port:
        status, report = blast(place, port, "-e", "0", "-C")
    assert (status, report["requests"], report["bytes"], report["failures"]) == (0, 1, 10, {})
    assert 0 < report["p50_us"] <= report["p99_us"] <= report["max_us"]


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (HEAD + b"/a/10/1\n/a", "content"),
        (HEAD + b"/a/10/0\n/b", "content"),
        (HEAD + b"/a/10/0\n/", "closed"),
        (HEAD, "closed"),
        (b"", "closed"),
        (HEAD + b"/a/10/0\n/aX", "length"),
        (HEAD.replace(b"10", b"11") + b"/a/10/0\n/a/", "length"),
        (HEAD.replace(b"200 OK", b"503 No"), "status"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "header"),
        (b"GETFILE OK 10\r\n\r\n/a/10/0\n/a", "header"),
    ],
)
def test_wrong_replies_are_failures(place: str, reply: bytes, failure: str) -> None:
    with answering(reply) as port:
        status, report = blast(place, port, "-e", "0", "-C")
    assert (status, report["failures"]) == (1, {failure: 1})
    assert report["first_failure"].startswith(f"/a/10/0: {failure}")


@pytest.mark.usefixtures("load")
def test_a_server_that_is_silent_is_given_up(place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        status, report = blast(place, listener.getsockname()[1], "-T", "0.2", "-d", "0.1")
    assert (status, report["failures"]) == (1, {"timeout": 1})


@pytest.mark.usefixtures("load")
def test_a_kept_connection_may_end_between_replies(place: str) -> None:
    """The server closes after each reply: the next request is sent again on a new connection, and none is lost."""
    with answering(HEAD + b"/a/10/0\n/a") as port:
        status, report = blast(place, port, "-d", "0.2")
    assert (status, report["failures"]) == (0, {})
    assert report["answered"] > 1
    assert report["reconnects"] >= report["answered"] - 1


@pytest.mark.parametrize("object_bytes", [1, 100, 300_000, 2_000_000])
def test_each_object_is_asked_for_once(load: HttpLoad, origin: int, object_bytes: int) -> None:
    before = asked(origin)
    draws = Draws(set_name="each", object_bytes=object_bytes, objects=50, first=7, compares_all=True)
    figures = load.run(origin, draws, WATCHDOG_S, connections=8)
    assert figures.requests == figures.answered == 50
    assert asked(origin) - before == 50


def test_most_requests_by_zipf_are_for_few_objects(load: HttpLoad, origin: int, nginx: NginxCache) -> None:
    """A cache shows how many different objects were drawn: uniformly nearly as many as requests, by rank far fewer."""
    shares = {}
    for alpha in (0.0, 1.5):
        before = asked(origin)
        draws = Draws(set_name=f"rank{alpha:g}", object_bytes=100, objects=10**6, alpha=alpha)
        figures = load.run(nginx.port, draws, 0.3, connections=8)
        shares[alpha] = (asked(origin) - before) / figures.answered
    assert shares[0.0] > 0.9
    assert shares[1.5] < 0.5


def test_hits_are_measured_in_turn(load: HttpLoad, origin: int, nginx: NginxCache) -> None:
    row, contest = BY_KEY["hits_10_8"], contest_of(origin, nginx.port, nginx)
    before = asked(origin)
    fill_set(contest, load, row)
    assert asked(origin) - before == row.objects
    result = measure_set_row(contest, load, WaitCounter(None, ""), row, PACE)
    assert asked(origin) - before == row.objects
    assert {name: len(rounds) for name, rounds in result.rounds.items()} == {OURS: 2, NGINX: 2}
    assert result.of_nginx("cpu_us").other > 0
    waits = result.waits[NGINX]
    assert waits is not None
    assert waits > 0


def test_a_cache_that_asks_the_origin_serves_no_hits(load: HttpLoad, origin: int, nginx: NginxCache) -> None:
    row, contest = BY_KEY["hits_10_8"], contest_of(origin, origin, nginx)
    with pytest.raises(LoadFailed, match=r"the origin was asked \d+ times while hits were measured"):
        measure_set_row(contest, load, WaitCounter(None, ""), row, PACE)


def test_a_miss_that_asks_no_origin_is_none(load: HttpLoad, origin: int, nginx: NginxCache) -> None:
    """Both names are the same cache, so that the second asks for what the first has had fetched."""
    contest = contest_of(origin, nginx.port, nginx)
    with pytest.raises(LoadFailed, match="misses were answered, but the origin was asked"):
        measure_set_row(contest, load, WaitCounter(None, ""), BY_KEY["misses_8"], PACE)


def test_a_set_that_would_take_too_long_is_left_out(load: HttpLoad, origin: int, nginx: NginxCache) -> None:
    before = asked(origin)
    with pytest.raises(TooSlow, match=r"to fill ours would take \d+ s"):
        fill_set(contest_of(origin, nginx.port, nginx), load, BY_KEY["zipf_8"], limit_s=0.001)
    assert asked(origin) - before <= 1000


def test_waits_are_counted_while_the_run_works(place: str) -> None:
    """A shell that waits for each of a hundred lines."""
    counter = WaitCounter(None, "")
    with subprocess.Popen(["sh", "-c", "while read line; do echo $line; done"], stdin=-1, stdout=-1) as shell:
        stdin, stdout = shell.stdin, shell.stdout
        assert stdin is not None
        assert stdout is not None

        def run(_: object) -> int:
            for _ in range(100):
                stdin.write(b"line\n")
                stdin.flush()
                assert stdout.readline() == b"line\n"
            return 100

        counted = counter.count([shell.pid], run)
        stdin.close()
    assert counted is not None
    assert counted > 0
    assert usable_counter(place).unit in ("futex calls", "context switches")
