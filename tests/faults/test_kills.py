"""SIGKILL at every kill point: the other side ends the request correctly, names vanish, and the service comes back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from shmchannel.faults import KILL_POINTS
from tests.faults.harness import (
    CONTENT,
    LARGE,
    POOL_FLAGS,
    SEGMENTS,
    SMALL,
    Reply,
    ask,
    ask_until_dead,
    assert_ends_well,
    assert_forgets,
    assert_serves,
    pool_of,
    segments_of,
)
from tests.support import names
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub


@dataclass(frozen=True, slots=True)
class Kill:
    """Where the daemon dies: at the `number`-th pass of the point, while this path is asked for."""

    point: str
    number: int
    path: str

    @property
    def fault(self) -> dict[str, str]:
        """The environment that arms it."""
        return {"GFCACHE_FAULT": f"{self.point}:{self.number}:kill"}

    def __str__(self) -> str:
        return f"{self.point}:{self.number}-{self.path[1:]}"


HITS_PROXY = [
    Kill("proxy.leased", 1, SMALL),
    Kill("proxy.leased", 5, LARGE),
    Kill("proxy.sent", 1, SMALL),
    Kill("proxy.sent", 3, LARGE),
    Kill("proxy.received", 1, SMALL),
    Kill("proxy.received", 1, LARGE),
    Kill("proxy.posted", 1, LARGE),
    Kill("proxy.posted", 700, LARGE),
    Kill("proxy.completed", 1, SMALL),
    Kill("proxy.completed", 1, LARGE),
]
HITS_CACHE = [
    Kill("cache.received", 1, SMALL),
    Kill("cache.received", 3, LARGE),
    Kill("cache.attached", 1, SMALL),
    Kill("cache.attached", 3, LARGE),
    Kill("cache.first_chunk", 1, LARGE),
    Kill("cache.streaming", 1, LARGE),
    Kill("cache.streaming", 700, LARGE),
    Kill("cache.last_chunk", 1, SMALL),
    Kill("cache.last_chunk", 1, LARGE),
    Kill("cache.publishing", 1, SMALL),
]
FILLS_PROXY = [
    Kill("proxy.fill_chunk", 1, LARGE),
    Kill("proxy.fill_chunk", 400, LARGE),
    Kill("proxy.fill_last", 1, SMALL),
    Kill("proxy.fill_last", 1, LARGE),
]
FILLS_CACHE = [
    Kill("cache.received", 1, LARGE),
    Kill("cache.put_begun", 1, SMALL),
    Kill("cache.put_begun", 1, LARGE),
    Kill("cache.put_chunk", 1, LARGE),
    Kill("cache.put_chunk", 400, LARGE),
    Kill("cache.put_uncommitted", 1, SMALL),
    Kill("cache.put_uncommitted", 1, LARGE),
    Kill("cache.publishing", 1, SMALL),
    Kill("cache.put_committed", 1, SMALL),
    Kill("cache.put_committed", 1, LARGE),
]
RETIRED = "proxy.retired"
UPDATED = "cache.update_uncommitted"  # in test_updates.py: getfile updates nothing
WITHDRAWN = "cache.withdrawing"  # in test_updates.py as well: nor does it purge


def test_every_kill_point_is_here() -> None:
    tested = {kill.point for kill in (*HITS_PROXY, *HITS_CACHE, *FILLS_PROXY, *FILLS_CACHE)} | {
        RETIRED,
        UPDATED,
        WITHDRAWN,
    }
    assert tested == set(KILL_POINTS)


def assert_swept(proxy: DaemonProcess) -> None:
    """A dead proxy's names are gone once another daemon has started."""
    wait_until(lambda: names.names_of({proxy.pid}) == [], what="the sweep")  # perhaps by another that started just now


def assert_pool_whole(proxy: DaemonProcess) -> None:
    """Every segment that was retired has a successor."""
    wait_until(lambda: len(segments_of(proxy)) == SEGMENTS, what="all segments are there")


@pytest.mark.parametrize("kill", HITS_PROXY, ids=str)
def test_proxy_dies_in_a_hit(kill: Kill, yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS, env=kill.fault)
    pool = pool_of(proxy)
    ask_until_dead(proxy, partial(ask, proxy.port, kill.path), CONTENT[kill.path])
    successor = yard.start_proxy(*POOL_FLAGS)
    assert_swept(proxy)
    assert_serves(successor.port, kill.path)
    assert_forgets(cache, pool)
    assert_ends_well(successor, cache)


def test_proxy_dies_between_a_retired_segment_and_its_replacement(yard: DaemonYard, content: Path) -> None:
    dying = yard.start_cache(content=content, env={"GFCACHE_FAULT": "cache.first_chunk"})
    proxy = yard.start_proxy(*POOL_FLAGS, env={"GFCACHE_FAULT": RETIRED})
    pool = pool_of(proxy)
    ask(proxy.port, LARGE).assert_honest(CONTENT[LARGE], server_died=True)
    assert (dying.wait_exit(), proxy.wait_exit()) == (-9, -9)
    cache = yard.start_cache(content=content)
    successor = yard.start_proxy(*POOL_FLAGS)
    assert_swept(proxy)
    assert_serves(successor.port, LARGE)
    assert_forgets(cache, pool)
    assert_ends_well(successor, cache)


@pytest.mark.parametrize("kill", HITS_CACHE, ids=str)
def test_cache_dies_in_a_hit(kill: Kill, yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content, env={**kill.fault, "SIMPLECACHED_HOT_TABLE_BYTES": "1m"})
    proxy = yard.start_proxy(*POOL_FLAGS, env={"WEBPROXY_CACHE_TIMEOUT_S": "3"})
    ask_until_dead(cache, partial(ask, proxy.port, kill.path), CONTENT[kill.path])
    successor = yard.start_cache(content=content)
    assert names.names_of({cache.pid}) == []
    assert_serves(proxy.port, kill.path)
    assert_pool_whole(proxy)
    assert_ends_well(proxy, successor)


def fetched_until_hit(port: int, path: str, origin: OriginStub) -> int:
    """Ask until a reply came without the origin; returns how many requests the origin got for that."""
    before = origin.count(path)

    def hit() -> bool:
        seen = origin.count(path)
        assert ask(port, path).is_whole(CONTENT[path])
        return origin.count(path) == seen

    wait_until(hit, what=f"{path} is in the cache")
    return origin.count(path) - before


@pytest.mark.parametrize("kill", FILLS_PROXY, ids=str)
def test_proxy_dies_in_a_fill(kill: Kill, yard: DaemonYard, origin: OriginStub) -> None:
    cache = yard.start_cache()
    proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=kill.fault)
    pool = pool_of(proxy)
    ask_until_dead(proxy, partial(ask, proxy.port, kill.path), CONTENT[kill.path])
    successor = yard.start_proxy(*POOL_FLAGS, "-s", origin.url)
    assert_swept(proxy)
    fetched = fetched_until_hit(successor.port, kill.path, origin)
    assert fetched >= 1 or kill.point == "proxy.fill_last", "half an object was served from the cache"
    assert_serves(successor.port, kill.path)
    assert_forgets(cache, pool)
    assert_ends_well(successor, cache)


@pytest.mark.parametrize("kill", FILLS_CACHE, ids=str)
def test_cache_dies_in_a_fill(kill: Kill, yard: DaemonYard, origin: OriginStub, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    hot = {"SIMPLECACHED_HOT_TABLE_BYTES": "1m"} if kill.point == "cache.publishing" else {}
    cache = yard.start_cache(*store, env={**kill.fault, **hot})
    proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env={"WEBPROXY_LOG_LEVEL": "debug"})

    def whole_from_the_origin() -> Reply:
        reply = ask(proxy.port, kill.path)
        assert reply.is_whole(CONTENT[kill.path]), "a lost cache slows the proxy and never stops it"
        return reply

    whole_from_the_origin()
    cache.wait_exit()
    whole_from_the_origin()  # without any cache
    if kill.point != "cache.received":  # there no fill had begun
        proxy.wait_event("fill broken")  # until then the body of that fetch is there for everyone who asks
    successor = yard.start_cache(*store)
    assert names.names_of({cache.pid}) == []
    fetched = fetched_until_hit(proxy.port, kill.path, origin)
    # What was committed is kept if its row was written already; nothing else is.
    assert fetched > 0 or kill.point in ("cache.put_committed", "cache.publishing")
    assert_serves(proxy.port, kill.path)
    assert_pool_whole(proxy)
    assert_ends_well(proxy, successor)
