"""A proxy spreads its keys over three caches: one that is lost moves only its keys, and has them when it is back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from shmchannel.registry import Registry, RendezvousTable
from tests.http.client import fetch
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.stores import rows_written
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import OriginStub, Route

PATHS = [f"/object/{number}" for number in range(24)]
FRESH = {"Cache-Control": "max-age=3600", "ETag": '"1"'}
SILENCE = {"WEBPROXY_CACHE_FIRST_BYTE_TIMEOUT_S": "0.3", "WEBPROXY_CACHE_TIMEOUT_S": "1"}


def body_of(path: str) -> bytes:
    return path.encode() * 300


def run_webproxy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webproxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


class Several:
    """Three caches, one proxy, one origin; which cache has which path is known from the names."""

    def __init__(self, yard: DaemonYard, origin: OriginStub, directory: Path, caches: str = "") -> None:
        self.yard = yard
        self.origin = origin
        self.directory = directory
        self.queues = [f"{yard.queue}-{letter}" for letter in "abc"]
        self.caches = {queue: self.start(queue) for queue in self.queues}
        self.proxy = yard.start_proxy("--caches", caches or ",".join(self.queues), "-s", origin.url, env=SILENCE)
        self.table = RendezvousTable(self.queues)

    def start(self, queue: str) -> DaemonProcess:
        """A cache that keeps its objects over a restart."""
        return self.yard.start_cache("-q", queue, "--store", str(self.directory / queue[1:]))

    def homes(self) -> dict[str, str]:
        """The cache of each path."""
        return {path: self.table.order(path.encode())[0] for path in PATHS}

    def paths_of(self, queue: str) -> list[str]:
        """The paths of a cache."""
        found = [path for path, home in self.homes().items() if home == queue]
        assert found, "each cache has some of this many"
        return found

    def get(self, path: str) -> bool:
        """Whether it is a hit; it is right in any case."""
        reply = fetch(self.proxy.port, path)
        assert (reply.status, reply.body) == (200, body_of(path))
        return reply.is_hit

    def wait_hits(self, paths: list[str] = PATHS) -> None:
        """Until all of them come from a cache."""
        for path in paths:
            wait_until(lambda path=path: self.get(path), what=f"{path} is in a cache")

    def asked(self) -> Counter[str]:
        """How often the origin was asked for each path."""
        return Counter({path: self.origin.count(path) for path in PATHS})

    def asked_since(self, before: Counter[str]) -> set[str]:
        """The paths for which it was asked again."""
        return set(self.asked() - before)

    def wait_event(self, name: str, queue: str) -> None:
        """Until the proxy has logged that of this cache."""
        wait_until(
            lambda: any(event["queue"] == queue for event in self.proxy.events(name)), what=f"{name!r} of {queue}"
        )

    def purge(self, *arguments: str) -> str:
        """`webproxy purge` with the caches of the proxy; what it prints."""
        ended = run_webproxy("purge", "--caches", ",".join(self.queues), *arguments)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    with OriginStub({path: Route(body=body_of(path), headers=FRESH) for path in PATHS}) as stub:
        yield stub


@pytest.fixture
def several(yard: DaemonYard, origin: OriginStub, tmp_path: Path) -> Several:
    made = Several(yard, origin, tmp_path)
    made.wait_hits()
    for queue in made.queues:
        rows = partial(rows_written, str(tmp_path / queue[1:]))
        wait_until(lambda rows=rows, queue=queue: rows() == len(made.paths_of(queue)), what="all survive a kill")  # type: ignore[misc]
    return made


def held(several: Several, queue: str) -> set[str]:
    """The paths that a cache has, asked past the proxy of three."""
    single = several.yard.start_proxy("-q", queue, "--protocols", "http")
    found = {path for path in PATHS if fetch(single.port, path, "Cache-Control: only-if-cached").status == 200}
    assert single.stop() == 0
    return found


def test_each_key_is_in_one_cache(several: Several) -> None:
    for queue in several.queues:
        assert held(several, queue) == set(several.paths_of(queue))
    assert set(several.asked().values()) == {1}


def test_a_cache_that_is_killed_under_load_moves_only_its_keys_and_gets_them_back(several: Several) -> None:
    """No request fails, the origin is asked once more for each of its keys, and when it is back it has them again."""
    lost = several.queues[1]
    before = several.asked()
    stop = threading.Event()

    def ask_for_all(number: int) -> int:
        count = 0
        while not stop.is_set():
            several.get(PATHS[(number + count) % len(PATHS)])
            count += 1
        return count

    with ThreadPoolExecutor(4) as crew:
        asking = [crew.submit(ask_for_all, 6 * number) for number in range(4)]
        try:
            several.caches[lost].kill()
            several.wait_hits()
        finally:
            stop.set()
        assert all(one.result(WATCHDOG_S) > 0 for one in asking)
    assert several.asked_since(before) == set(several.paths_of(lost))
    moved = several.asked()
    several.caches[lost] = several.start(lost)
    several.wait_event("cache found", lost)
    several.wait_hits()
    assert several.asked_since(moved) == set(), "it kept its objects on disk"
    others = [queue for queue in several.queues if queue != lost]
    for queue in others:
        several.caches[queue].kill()
    before = several.asked()
    assert all(several.get(path) for path in several.paths_of(lost)), "they are served by itself again"
    assert several.asked() == before


def test_a_cache_that_hangs_moves_only_its_keys_and_gets_them_back(several: Several) -> None:
    lost = several.queues[0]
    before = several.asked()
    several.caches[lost].signal(signal.SIGSTOP)
    while not several.proxy.events("cache does not answer"):
        several.get(several.paths_of(lost)[0])
    several.wait_hits()
    assert several.asked_since(before) == set(several.paths_of(lost))
    several.caches[lost].signal(signal.SIGCONT)
    wait_until(
        lambda: (several.get(several.paths_of(lost)[0]), several.proxy.events("cache answers again"))[1],
        what="it is asked again",
    )
    moved = several.asked()
    several.wait_hits()
    assert several.asked() == moved


def test_all_workers_of_a_proxy_agree(several: Several, yard: DaemonYard, origin: OriginStub) -> None:
    """What one has stored the others find, with a cache lost too."""
    several.proxy.stop()
    several.proxy = yard.start_proxy("--workers", "2", "--caches", ",".join(several.queues), "-s", origin.url)
    before = several.asked()
    for _ in range(3):
        several.wait_hits()
    assert several.asked() == before
    lost = several.queues[0]
    several.caches[lost].kill()
    several.wait_hits()
    moved = several.asked()
    assert several.asked_since(before) == set(several.paths_of(lost))
    for _ in range(3):
        assert all(several.get(path) for path in PATHS)
    assert several.asked() == moved


def test_without_any_cache_the_origin_serves(several: Several) -> None:
    for cache in several.caches.values():
        cache.kill()
    for path in PATHS:
        assert not several.get(path)


def test_a_purge_reaches_every_cache_also_one_that_is_away(several: Several) -> None:
    """The cache comes back with its objects on disk, and the purged one is not served from there."""
    lost = several.queues[2]
    path, kept = several.paths_of(lost)[:2]
    several.caches[lost].kill()
    several.wait_hits([path, kept])
    assert fetch(several.proxy.port, path, method="PURGE").status in (200, 404)
    assert not several.get(path), "gone from the cache that had it meanwhile"
    several.caches[lost] = several.start(lost)
    several.wait_event("purges told to the cache", lost)
    assert several.get(kept)
    assert path not in held(several, lost)
    several.wait_hits()


def test_an_unsafe_request_invalidates_in_every_cache(several: Several, origin: OriginStub) -> None:
    lost = several.queues[0]
    path = several.paths_of(lost)[0]
    several.caches[lost].kill()
    several.wait_hits([path])
    origin.add(path, Route(body=b"new", headers=FRESH, methods=("GET", "POST")))
    assert fetch(several.proxy.port, path, method="POST", body=b"x").status == 200
    several.caches[lost] = several.start(lost)
    several.wait_event("cache found", lost)
    for _ in range(3):
        assert fetch(several.proxy.port, path).body == b"new"


def test_the_command_purges_in_all(several: Several) -> None:
    assert several.purge(PATHS[0]) == "1 object removed\n"
    assert several.purge("/object/*") == f"{len(PATHS) - 1} objects removed\n"
    assert not several.get(PATHS[1])


def test_the_command_tells_the_others_and_names_one_that_is_away(several: Several) -> None:
    several.caches[several.queues[0]].kill()
    arguments = ["purge", "--caches", ",".join(several.queues), "*"]
    ended = run_webproxy(*arguments)
    assert ended.returncode != 0
    assert f"start simplecached -q {several.queues[0]}" in ended.stderr
    for queue in several.queues[1:]:
        assert held(several, queue) == set()


@pytest.mark.alone  # it finds every cache of this user
def test_auto_finds_the_caches_and_those_that_come_later(yard: DaemonYard, origin: OriginStub, tmp_path: Path) -> None:
    several = Several(yard, origin, tmp_path, caches="auto")
    several.wait_hits()
    for queue in several.queues:
        assert set(several.paths_of(queue)) == held(several, queue)
    before = several.asked()
    fourth = f"{yard.queue}-d"
    several.start(fourth)
    several.wait_event("cache joined", fourth)
    several.wait_hits()
    table = RendezvousTable([*several.queues, fourth])
    assert several.asked_since(before) == {path for path in PATHS if table.order(path.encode())[0] == fourth}
    assert run_webproxy("purge", "--caches", "auto", "*").stdout.endswith("objects removed\n")
    for path in PATHS:
        assert not several.get(path)


@pytest.mark.alone  # as above
def test_a_cache_that_joins_after_a_purge_is_validated_as_a_whole(
    yard: DaemonYard, origin: OriginStub, tmp_path: Path
) -> None:
    """The proxy did not know it when it was told to purge: whatever it brings is asked for at the origin once."""
    several = Several(yard, origin, tmp_path)
    several.wait_hits()
    late = several.queues[0]
    several.caches[late].kill()
    proxy = yard.start_proxy("--caches", "auto", "-s", origin.url, env=SILENCE)
    several.proxy = proxy
    path = several.paths_of(late)[0]
    origin.add(path, Route(body=body_of(path), headers={**FRESH, "ETag": '"2"'}))
    assert fetch(proxy.port, path, method="PURGE").status in (200, 404)
    several.caches[late] = several.start(late)
    several.wait_event("cache joined", late)
    several.wait_event("purges told to the cache", late)
    assert fetch(proxy.port, path).get("ETag") == '"2"'


def test_both_daemons_are_in_the_registry(several: Several) -> None:
    caches = {member.entry.queue_name: member.identity.pid for member in Registry().find("cache")}
    assert {queue: cache.pid for queue, cache in several.caches.items()}.items() <= caches.items()
    (proxy,) = [member for member in Registry().find("proxy") if member.identity.pid == several.proxy.pid]
    assert proxy.entry.address == f"127.0.0.1:{several.proxy.port}"
    assert several.proxy.stop() == 0
    assert several.proxy.pid not in {member.identity.pid for member in Registry().find("proxy")}
    os.kill(several.caches[several.queues[0]].pid, signal.SIGKILL)
    several.caches[several.queues[0]].wait_exit()
    assert several.queues[0] not in {member.entry.queue_name for member in Registry().find("cache")}
