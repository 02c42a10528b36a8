"""SIGKILL at every kill point of a worker: the supervisor replaces it, its names vanish, and the others serve.

The one that replaces it dies there too, as often as the point is passed.
"""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from shmchannel.faults import KILL_POINTS
from tests.faults.harness import CONTENT, LARGE, POOL_FLAGS, SMALL, ask, assert_serves
from tests.support import names
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub

TWO = ("--workers", "2")
HITS = [
    ("proxy.leased", SMALL),
    ("proxy.sent", SMALL),
    ("proxy.received", SMALL),
    ("proxy.posted", LARGE),
    ("proxy.completed", SMALL),
]
FILLS = [("proxy.fill_chunk", LARGE, 2), ("proxy.fill_last", SMALL, 1)]
"""With the number of workers that die: what was handed over as a whole is stored, and then nobody fills it again."""
RETIRED = "proxy.retired"


def test_every_kill_point_of_the_proxy_is_here() -> None:
    tested = {point for point, *_ in (*HITS, *FILLS)} | {RETIRED}
    assert tested == {point for point in KILL_POINTS if point.startswith("proxy.")}


def ask_until_workers_have_died(proxy: DaemonProcess, path: str, count: int = 2) -> None:
    """Ask until so many have; each answer is honest, and somebody serves again after each death."""

    def has_died(deaths: int) -> bool:
        ask(proxy.port, path).assert_honest(CONTENT[path], server_died=True)
        return len(proxy.events("worker ended")) >= deaths

    for deaths in range(1, count + 1):
        wait_until(partial(has_died, deaths), what=f"death {deaths} of a worker")
        ended = proxy.events("worker ended")[deaths - 1]
        assert ended["status"] == "SIGKILL"
        wait_until(lambda pid=ended["worker"]: names.names_of({pid}) == [], what="the sweep")  # type: ignore[misc]
    assert proxy.running
    wait_until(lambda: proxy.ready_workers(), what="a worker that serves")


def end(proxy: DaemonProcess) -> None:
    assert proxy.stop() == 0
    proxy.wait_all_ended()
    assert names.names_of(proxy.all_pids()) == []


@pytest.mark.parametrize(("point", "path"), HITS)
def test_workers_die_in_hits(point: str, path: str, yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS, *TWO, env={"GFCACHE_FAULT": point})
    ask_until_workers_have_died(proxy, path)
    end(proxy)
    assert cache.stop() == 0


def test_a_worker_dies_between_a_retired_segment_and_its_replacement(yard: DaemonYard, content: Path) -> None:
    """A segment is retired when the cache dies with it; those who replace the worker have a cache that lives."""
    dying = yard.start_cache(content=content, env={"GFCACHE_FAULT": "cache.first_chunk"})
    proxy = yard.start_proxy(*POOL_FLAGS, *TWO, env={"GFCACHE_FAULT": RETIRED})
    ask(proxy.port, LARGE).assert_honest(CONTENT[LARGE], server_died=True)
    assert dying.wait_exit() == -signal.SIGKILL
    ended = proxy.wait_event("worker ended")
    assert ended["status"] == "SIGKILL"
    wait_until(lambda: names.names_of({ended["worker"]}) == [], what="the sweep")
    cache = yard.start_cache(content=content)
    proxy.wait_event("worker ready", count=3)
    assert_serves(proxy.port, LARGE)
    assert len(proxy.events("worker ended")) == 1
    end(proxy)
    assert cache.stop() == 0


@pytest.mark.parametrize(("point", "path", "count"), FILLS)
def test_workers_die_in_fills(point: str, path: str, count: int, yard: DaemonYard, origin: OriginStub) -> None:
    """What a dead worker had half stored is nobody's: the next one stores it anew."""
    cache = yard.start_cache(env={"SIMPLECACHED_HOT_TABLE_BYTES": "0"})
    fault = {"GFCACHE_FAULT": point, "WEBPROXY_CACHE_TIMEOUT_S": "3"}
    proxy = yard.start_proxy(*POOL_FLAGS, *TWO, "-s", origin.url, env=fault)
    ask_until_workers_have_died(proxy, path, count)
    end(proxy)
    assert cache.stop() == 0
