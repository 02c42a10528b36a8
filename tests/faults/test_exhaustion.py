"""The system refuses shared memory, queues, descriptors or disk: a clear error at the start, a bypass later."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from shmchannel.daemonkit.exits import ExitCode
from shmchannel.deadline import Deadline
from tests.faults.harness import (
    CONTENT,
    LARGE,
    SMALL,
    ask,
    assert_ends_well,
    pool_of,
)
from tests.support import names
from tests.support.client import connect, receive_to_end
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.http_wire import HttpClient, request
from tests.support.programs import require_program
from tests.support.waiting import wait_until
from webproxy.getfile import Status
from workloads.origin_stub import OriginStub, Route


@pytest.fixture
def prlimit() -> str:
    """The program that sets a limit for another."""
    return require_program("prlimit")


@pytest.fixture(scope="module")
def private_mounts() -> tuple[str, ...]:
    """The words that run a command where its mounts are seen by nobody else, or skip."""
    words = (require_program("unshare"), "--mount")
    require_program("nsenter")
    tried = subprocess.run([*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    if os.geteuid() != 0 or tried.returncode != 0:
        pytest.skip("this user may not mount a file system of its own")
    return words


def mounting(private_mounts: tuple[str, ...], directory: str, options: str) -> tuple[str, ...]:
    """Words that mount a tmpfs on a directory, for the process alone that they become."""
    script = f'mount -t tmpfs -o {options} tmpfs "{directory}" && exec "$@"'
    return (*private_mounts, "sh", "-c", script, "sh")


# -- at the start: exit status 69, the reason in the log, nothing left ------------------------------------------------
@pytest.mark.parametrize(
    ("program", "free_bytes"), [("webproxy", 0), ("webproxy", 1_000_000), ("simplecached", 0)], ids=str
)
def test_shared_memory_is_full_at_the_start(
    program: str, free_bytes: int, private_mounts: tuple[str, ...], yard: DaemonYard
) -> None:
    script = f"""
        mount -t tmpfs -o size={free_bytes + 4096} tmpfs /dev/shm
        head -c 4096 /dev/zero > /dev/shm/filler
        "$@"
        echo status $?
        ls -A /dev/shm
    """
    flags = ("-p", "0") if program == "webproxy" else ()
    command = (sys.executable, "-m", program, "-q", yard.queue, *flags)
    ended = subprocess.run(
        [*private_mounts, "sh", "-c", script, "sh", *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split() == ["status", str(int(ExitCode.CANNOT_START)), "filler"], ended.stderr
    assert "No space left on device" in ended.stderr
    assert "cannot start" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("webproxy", ("-n", "4096", "-z", str(1 << 32))),
        ("simplecached", ("--store-bytes", str(1 << 50))),
    ],
)
def test_more_memory_than_there_is(program: str, flags: tuple[str, ...], yard: DaemonYard) -> None:
    """Refused with both numbers, before a page is touched: the kernel would kill processes otherwise."""
    start = yard.start_cache if program == "simplecached" else yard.start_proxy
    daemon = start(*flags, wait=False)
    assert daemon.wait_exit() == ExitCode.CANNOT_START
    (failure,) = daemon.events("cannot start")
    assert re.search(r"[0-9,]{15,} bytes wanted, [0-9,]+ (bytes|free)", failure["reason"])
    assert flags[-2] in failure["reason"], "the remedy"
    assert names.names_of({daemon.pid}) == []


def test_no_more_message_queues(prlimit: str, yard: DaemonYard) -> None:
    cache = yard.start_cache(wait=False, wrap=(prlimit, "--msgqueue=4096:4096"))
    assert cache.wait_exit() == ExitCode.CANNOT_START
    (failure,) = cache.events("cannot start")
    assert yard.queue in failure["reason"]
    assert "ulimit" in failure["reason"], "it says what the operator can do"
    assert names.names_of({cache.pid}) == []
    yard.start_cache()


@pytest.mark.parametrize(
    ("program", "limit", "reason"),
    [
        ("simplecached", 6, "Too many open files"),
        ("webproxy", 7, "the limit of 7 descriptors is too low"),
        ("webproxy", 79, "the limit of 79 descriptors is too low for 8 threads and 8 segments"),
    ],
)
def test_no_descriptors_at_the_start(program: str, limit: int, reason: str, prlimit: str, yard: DaemonYard) -> None:
    wrap = (prlimit, f"--nofile={limit}:{limit}")
    start = yard.start_cache if program == "simplecached" else yard.start_proxy
    daemon = start(wait=False, wrap=wrap)
    assert daemon.wait_exit() == ExitCode.CANNOT_START
    (failure,) = daemon.events("cannot start")
    assert reason in failure["reason"]
    assert "ulimit" in failure["reason"]
    assert names.names_of({daemon.pid}) == []


def test_a_read_only_store_directory(private_mounts: tuple[str, ...], tmp_path: Path, yard: DaemonYard) -> None:
    wrap = mounting(private_mounts, str(tmp_path), "ro")
    cache = yard.start_cache("--store", str(tmp_path), wait=False, wrap=wrap)
    assert cache.wait_exit() == ExitCode.CANNOT_START
    (failure,) = cache.events("cannot start")
    assert str(tmp_path) in failure["reason"]
    assert "read-only" in failure["reason"].lower()
    assert names.names_of({cache.pid}) == []


# -- later: less service, never none, and all of it again -------------------------------------------------------------
def shared_memory_of(process: DaemonProcess) -> Path:
    """The shared-memory directory as the process sees it."""
    return Path(f"/proc/{process.pid}/root/dev/shm")


def fill_up(directory: Path) -> None:
    """Make a file as long as there is space."""
    with open(directory / "filler", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def mapped(process: DaemonProcess, pool: str, *, retired: bool) -> int:
    """How many segments of a pool a process maps; the memory of those that are `retired` is not free yet."""
    with open(f"/proc/{process.pid}/maps", encoding="utf-8", errors="replace") as lines:
        return sum(f"/dev/shm/{pool}-" in line and line.endswith("(deleted)\n") == retired for line in lines)


def test_shared_memory_is_full_when_segments_are_replaced(
    private_mounts: tuple[str, ...], content: Path, yard: DaemonYard
) -> None:
    cache = yard.start_cache(content=content, wrap=mounting(private_mounts, "/dev/shm", "size=4m"))
    inside = (require_program("nsenter"), "--target", str(cache.pid), "--mount", f"--wd={os.getcwd()}")
    limits = {"WEBPROXY_CACHE_TIMEOUT_S": "3"}
    proxy = yard.start_proxy(
        "-n", "2", "-z", "65536", "--segments-per-transfer-max", "1", "-t", "4", env=limits, wrap=inside
    )
    pool, directory = pool_of(proxy), shared_memory_of(cache)

    def segments() -> int:
        return len(list(directory.glob(f"gf-{proxy.pid}-*-*[0-9]")))

    def cache_holds_both() -> bool:
        with ThreadPoolExecutor(4) as crew:
            assert all(reply.is_whole(CONTENT[LARGE]) for reply in crew.map(ask, [proxy.port] * 4, [LARGE] * 4))
        return mapped(cache, pool, retired=False) == 2

    wait_until(cache_holds_both, what="both segments have been used")
    for left in (1, 0):
        wait_until(lambda: not mapped(cache, pool, retired=True), what="the cache has unmapped what was retired")
        fill_up(directory)
        cache.signal(signal.SIGSTOP)  # a stopped process keeps the memory of retired segments mapped
        wait_until(cache.is_stopped, what="the cache stands still")
        assert ask(proxy.port, SMALL).status is Status.ERROR
        assert segments() == left
        if left == 0:
            assert ask(proxy.port, SMALL).status is Status.ERROR
        cache.signal(signal.SIGCONT)
        if left:
            assert ask(proxy.port, LARGE).is_whole(CONTENT[LARGE]), "one segment is enough"
    assert proxy.events("segment not replaced")
    (directory / "filler").unlink()
    wait_until(lambda: ask(proxy.port, LARGE).is_whole(CONTENT[LARGE]), what="service is back")
    assert segments() == 2
    assert proxy.stop() == 0
    assert proxy.events("stopped")[-1]["leased"] == 0
    assert [event for event in proxy.events() if "exception" in event] == []
    assert list(directory.glob(f"gf-{proxy.pid}-*")) == []
    assert_ends_well(cache)


def cpu_seconds(process: DaemonProcess) -> float:
    """Processor time used so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Connections that are closed after the test at the latest."""
    connections: list[socket.socket] = []
    yield connections
    for client in connections:
        client.close()


def test_proxy_without_descriptors(content: Path, yard: DaemonYard, crowd: list[socket.socket]) -> None:
    """The limit is lowered while it runs: nobody has planned for that."""
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy("-t", "4", "-n", "4", env={"WEBPROXY_REQUEST_TIMEOUT_S": "300"})
    assert ask(proxy.port, LARGE).is_whole(CONTENT[LARGE])
    soft, hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (64, hard))

    def join_the_crowd() -> None:
        crowd.append(connect(proxy.port))
        crowd[-1].sendall(b"GETFILE")

    def is_told() -> bool:
        join_the_crowd()  # in the place of one that was still being closed when the crowd came
        return ask(proxy.port, SMALL).status is Status.ERROR

    for _ in range(100):
        join_the_crowd()
    assert "Too many open files" in proxy.wait_event("connection refused")["reason"]
    before, window = cpu_seconds(proxy), Deadline.after(1.0)
    wait_until(lambda: window.expired, what="a while without descriptors")
    assert cpu_seconds(proxy) - before < 0.5, "out of descriptors it turns in a loop"
    wait_until(is_told, what="an answer without a descriptor")
    while crowd:
        crowd.pop().close()
    wait_until(lambda: ask(proxy.port, SMALL).is_whole(CONTENT[SMALL]), what="service when the crowd has left")
    assert ask(proxy.port, LARGE).is_whole(CONTENT[LARGE])
    assert {event["kind"] for event in proxy.events("connection refused")} == {"descriptors"}
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert_ends_well(proxy, cache)


def test_bodies_and_origins_without_descriptors(content: Path, yard: DaemonYard) -> None:
    """Whoever needs one is told so at once, hits go on, and all is well when there are some again."""
    cache = yard.start_cache(content=content)
    big = os.urandom(1 << 20)
    hold = threading.Event()
    routes = {f"/b{number}": Route(body=big, methods=("GET", "PUT")) for number in range(6)}
    routes["/held"] = Route(body=b"held", hold=hold, hold_head=True)
    with OriginStub(routes) as origin, ExitStack() as clients:
        proxy = yard.start_proxy("-t", "4", "-n", "4", "-s", origin.url)
        kept = [clients.enter_context(HttpClient(proxy.port)) for _ in range(7)]
        for client in kept:
            assert client.ask(SMALL).body == CONTENT[SMALL]
        kept[6].send(request("/held"))
        assert origin.wait_for("/held", 1)
        soft, hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (16, hard))  # all of these are taken
        assert kept[0].ask("/b0").status >= 500
        kept[1].send(request("/b1", b"Content-Length: %d" % len(big), method=b"PUT") + big)
        assert kept[1].answer().status >= 500
        assert kept[2].ask(SMALL).body == CONTENT[SMALL]
        before, window = cpu_seconds(proxy), Deadline.after(1.0)
        wait_until(lambda: window.expired, what="a while without descriptors")
        assert cpu_seconds(proxy) - before < 0.5, "out of descriptors it turns in a loop"
        hold.set()
        assert kept[6].answer().body == b"held"
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (soft, hard))
        wait_until(lambda: ask(proxy.port, "/b2").is_whole(big), what="service when there are some again")
        kept[3].send(request("/b3", b"Content-Length: %d" % len(big), method=b"PUT") + big)
        assert kept[3].answer().body == big
    assert_ends_well(proxy, cache)


def test_a_proxy_plans_for_a_low_limit(
    prlimit: str, content: Path, yard: DaemonYard, crowd: list[socket.socket]
) -> None:
    """More come than it may have, with large bodies on their way: each is served or told so, and no limit is felt."""
    cache = yard.start_cache(content=content)
    big = os.urandom(1 << 20)
    with OriginStub({f"/b{number}": Route(body=big) for number in range(20)}) as origin:
        env = {"WEBPROXY_REQUEST_TIMEOUT_S": "2"}
        proxy = yard.start_proxy("-t", "4", "-n", "4", "-s", origin.url, env=env, wrap=(prlimit, "--nofile=128:128"))
        (event,) = proxy.events("few descriptors")
        assert (event["limit"], event["connections_max"]) == (128, 25)
        assert "connections_max is 25 instead of 10000" in event["reason"]
        for number in range(20):
            crowd.append(connect(proxy.port, receive_buffer_bytes=4096))
            crowd[-1].sendall(b"GET /b%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        wait_until(lambda: all(origin.count(f"/b{number}") for number in range(20)), what="all are asked for")
        for _ in range(100):
            crowd.append(connect(proxy.port))
            crowd[-1].sendall(b"GETFILE")
        assert proxy.wait_event("connection refused")["reason"] == "too many connections"
        assert proxy.descriptor_count() <= 128
        received = [receive_to_end(client) for client in crowd[60:]]
        # One that a worker has at the moment is not counted; in its place another one is let in, and does not end.
        assert set(received) <= {b"GETFILE ERROR\r\n\r\n", b"GETFILE INVALID\r\n\r\n"}
        assert received.count(b"GETFILE ERROR\r\n\r\n") >= 60 - 4
        while crowd:
            crowd.pop().close()
        wait_until(lambda: ask(proxy.port, SMALL).is_whole(CONTENT[SMALL]), what="service when the crowd has left")
        assert {event["reason"] for event in proxy.events("connection refused")} == {"too many connections"}
        assert not proxy.events("request failed")
        assert_ends_well(proxy, cache)


def test_spools_take_no_more_descriptors_than_planned(prlimit: str, yard: DaemonYard) -> None:
    """A request that is passed through has two spools; those that get no file go through memory."""
    body = os.urandom(1_500_000)
    routes = {f"/{number}": Route(body=body, methods=("POST",)) for number in range(20)}
    with OriginStub(routes) as origin, ExitStack() as clients:
        limits = (prlimit, "--nofile=128:128")
        proxy = yard.start_proxy("-t", "4", "-n", "4", "--no-cache", "-s", origin.url, wrap=limits)
        asking = [clients.enter_context(HttpClient(proxy.port, receive_buffer_bytes=4096)) for _ in range(20)]
        with ThreadPoolExecutor(20) as crew:
            uploads = [
                crew.submit(client.send, request(path, b"Content-Length: %d" % len(body), method=b"POST") + body)
                for client, path in zip(asking, routes, strict=True)
            ]
            wait_until(lambda: proxy.events("spool not written"), what="more spools than files")
            assert proxy.descriptor_count() <= 128
            answers = list(crew.map(lambda client: client.answer(b"POST"), asking))
            assert all(upload.result() for upload in uploads)
        assert {event["kind"] for event in proxy.events("spool not written")} == {"EMFILE"}
        assert "planned" in proxy.events("spool not written")[0]["reason"]
        assert [answer.body == body for answer in answers] == [True] * 20
        assert_ends_well(proxy)


def test_a_check_of_the_settings_tells_of_a_low_limit(prlimit: str, yard: DaemonYard) -> None:
    proxy = yard.start_proxy("--check-config", wrap=(prlimit, "--nofile=60:60"), wait=False)
    assert proxy.wait_exit() == ExitCode.CANNOT_START
    assert "webproxy: cannot start: the limit of 60 descriptors is too low for 8 threads" in proxy.log_text()
    proxy = yard.start_proxy("--check-config", wrap=(prlimit, "--nofile=512:1024"), wait=False)
    assert proxy.wait_exit() == 0
    assert "webproxy: the limit of 1024 descriptors is too low for the settings: connections_max is" in proxy.log_text()


def test_cache_with_few_descriptors_and_many_files(prlimit: str, tmp_path: Path, yard: DaemonYard) -> None:
    directory = tmp_path / "content"
    directory.mkdir()
    for number in range(150):
        (directory / str(number)).write_bytes(b"%d" % number * 100)
    cache = yard.start_cache("-t", "4", content=directory, wrap=(prlimit, "--nofile=64:64"))
    for _ in range(2):  # the second proxy's segments are attached when the files are open
        proxy = yard.start_proxy("-t", "4")
        for number in range(150):
            assert ask(proxy.port, f"/{number}").is_whole(b"%d" % number * 100)
        assert_ends_well(proxy)
    assert cache.descriptor_count() <= 64
    assert_ends_well(cache)


def test_a_full_store_is_bypassed(private_mounts: tuple[str, ...], tmp_path: Path, yard: DaemonYard) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with OriginStub({path: Route(body=body) for path, body in CONTENT.items()}) as origin:
        wrap = mounting(private_mounts, str(store), "size=2m")
        cache = yard.start_cache("--store", str(store), wrap=wrap)
        proxy = yard.start_proxy("-s", origin.url)
        while origin.count(LARGE) < 3:  # it cannot be stored, so it is fetched each time
            assert ask(proxy.port, LARGE).is_whole(CONTENT[LARGE])
        wait_until(lambda: cache.events("object not stored"), what="the bypass is logged")
        assert "No space left" in cache.events("object not stored")[-1]["reason"]
        ask(proxy.port, SMALL)
        wait_until(lambda: _is_hit(proxy, origin), what="what fits is stored all the same")
        assert_ends_well(proxy, cache)


@pytest.mark.parametrize("cache_control", ["max-age=600", "no-store"])
def test_bodies_come_all_the_same_when_no_spool_can_be_written(yard: DaemonYard, cache_control: str) -> None:
    """A limit of the size of files stands for a full disk."""
    body = os.urandom(6_000_001)
    paths = [f"/{number}" for number in range(5)]
    route = Route(body=body, headers={"Cache-Control": cache_control}, methods=("GET", "POST"))
    with OriginStub(dict.fromkeys(paths, route)) as origin:
        cache = yard.start_cache()
        proxy = yard.start_proxy("-s", origin.url)
        soft, hard = resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
        assert ask(proxy.port, paths[0]).is_whole(body), "getfile"
        with HttpClient(proxy.port) as client:
            assert client.ask(paths[1]).body == body
            assert client.ask(paths[2], method=b"POST").body == body
            client.send(request(paths[3], b"Content-Length: %d" % len(body), method=b"POST") + body)
            assert client.answer().body == body, "an upload, and its response"
            resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (soft, hard))
            assert client.ask(paths[4]).body == body
        assert not proxy.events("fetch failed")
        assert len(proxy.events("spool not written")) >= 4
        told = proxy.wait_event("spool not written")
        assert (told["kind"], told["remedy"]) == ("EFBIG", "make room there, or set spool_directory")
        if cache_control != "no-store":
            wait_until(lambda: is_hit(proxy, paths[4], body, origin), what="with room again, it is stored")
        assert_ends_well(proxy, cache)


def is_hit(proxy: DaemonProcess, path: str, body: bytes, origin: OriginStub) -> bool:
    before = origin.count(path)
    assert ask(proxy.port, path).is_whole(body)
    return origin.count(path) == before


def _is_hit(proxy: DaemonProcess, origin: OriginStub) -> bool:
    before = origin.count(SMALL)
    assert ask(proxy.port, SMALL).is_whole(CONTENT[SMALL])
    return origin.count(SMALL) == before
