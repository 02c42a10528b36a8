"""SIGSTOP at every kill point, SIGCONT past the other side's limits: the late side gives up and does no harm."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.faults import KILL_POINTS
from tests.faults.harness import (
    CONTENT,
    LARGE,
    POOL_FLAGS,
    SEGMENTS,
    SMALL,
    ask,
    asking,
    assert_ends_well,
    assert_serves,
    leave_early,
    segments_of,
)
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from webproxy.getfile import Status
from workloads.origin_stub import OriginStub

LIMIT_S = 0.7
LIMITS = {
    "WEBPROXY_CACHE_TIMEOUT_S": str(2 * LIMIT_S),
    "WEBPROXY_CACHE_FIRST_BYTE_TIMEOUT_S": str(LIMIT_S),
    "WEBPROXY_BETWEEN_BYTES_TIMEOUT_S": str(LIMIT_S),
    "SIMPLECACHED_BETWEEN_BYTES_TIMEOUT_S": str(LIMIT_S),
}
CACHE_HITS = ("cache.received", "cache.attached", "cache.first_chunk", "cache.streaming", "cache.last_chunk")
CACHE_FILLS = ("cache.put_begun", "cache.put_chunk", "cache.put_uncommitted", "cache.put_committed")
PROXY_HITS = ("proxy.leased", "proxy.sent", "proxy.received", "proxy.posted", "proxy.completed")
PROXY_FILLS = ("proxy.fill_chunk", "proxy.fill_last")
PUBLISHING = "cache.publishing"
RETIRED = "proxy.retired"
UPDATED = "cache.update_uncommitted"  # in test_updates.py: getfile updates nothing
WITHDRAWN = "cache.withdrawing"  # in test_updates.py as well: nor does it purge
IN_FULL_STREAM = 100
"""The first chunks of a body may be the last of a narrow lease that is given up for a wider one."""
LEFT_IN_MID_STREAM = {"proxy.received", "proxy.posted"}
"""Where the cache has begun a body of many chunks and waits for the proxy's next step."""


def test_every_point_is_here() -> None:
    tested = {*CACHE_HITS, *CACHE_FILLS, *PROXY_HITS, *PROXY_FILLS, PUBLISHING, RETIRED, UPDATED, WITHDRAWN}
    assert tested == set(KILL_POINTS)


def stop_at(point: str) -> dict[str, str]:
    """The environment of a daemon that stops at the point, and of limits that are soon reached."""
    number = IN_FULL_STREAM if point == "proxy.posted" else 1
    return {**LIMITS, "GFCACHE_FAULT": f"{point}:{number}:stop"}


def wait_stopped(daemon: DaemonProcess) -> None:
    wait_until(daemon.is_stopped, what=f"{daemon.program} has come to its point")


def go_on(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGCONT)


@pytest.mark.parametrize("point", CACHE_HITS)
def test_late_cache_in_a_hit(point: str, yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content, env=stop_at(point))
    proxy = yard.start_proxy(*POOL_FLAGS, env=LIMITS)
    with asking(proxy.port, LARGE) as request:
        wait_stopped(cache)
        reply = request.result()
    reply.assert_honest(CONTENT[LARGE])
    assert reply.status is (Status.ERROR if point in ("cache.received", "cache.attached") else Status.OK)
    assert ask(proxy.port, SMALL).status is Status.ERROR, "a cache that stands still is one that is not there"
    go_on(cache)
    assert_serves(proxy.port, LARGE)
    assert_serves(proxy.port, SMALL, rounds=10)
    assert len(segments_of(proxy)) == SEGMENTS
    assert_ends_well(proxy, cache)


def test_late_cache_with_an_object_half_on_the_hot_hot_table(yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache("--hot-table-bytes", "256k", content=content, env=stop_at(PUBLISHING))
    proxy = yard.start_proxy(*POOL_FLAGS, env=LIMITS)

    def stands_still() -> bool:
        ask(proxy.port, SMALL).assert_honest(CONTENT[SMALL])  # asked for twice or so, it is hot
        return cache.is_stopped()

    wait_until(stands_still, what="the cache has come to its point")
    assert ask(proxy.port, SMALL).status is Status.ERROR, "a half entry is none"
    go_on(cache)
    assert_serves(proxy.port, SMALL, rounds=10)
    assert_serves(proxy.port, LARGE)
    assert len(segments_of(proxy)) == SEGMENTS
    assert_ends_well(proxy, cache)


@pytest.mark.parametrize("point", CACHE_FILLS)
def test_late_cache_in_a_fill(point: str, yard: DaemonYard, origin: OriginStub) -> None:
    cache = yard.start_cache(env=stop_at(point))
    proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=LIMITS)
    assert ask(proxy.port, LARGE).is_whole(CONTENT[LARGE]), "a fill never stops the client"
    wait_stopped(cache)
    assert ask(proxy.port, SMALL).is_whole(CONTENT[SMALL]), "nor does a cache that stands still"
    wait_until(lambda: ask(proxy.port, LARGE).is_whole(CONTENT[LARGE]) and origin.count(LARGE) > 1, what="a new fetch")
    go_on(cache)
    for path in (SMALL, LARGE):
        wait_until(partial(is_hit, proxy, path, origin), what=f"{path} is in the cache")
        assert_serves(proxy.port, path)
    assert_ends_well(proxy, cache)


def test_late_cache_in_a_fill_whose_client_has_left(yard: DaemonYard, origin: OriginStub) -> None:
    cache = yard.start_cache(env=stop_at("cache.put_chunk"))
    limits = {**LIMITS, "WEBPROXY_SPOOL_WINDOW_BYTES": "65536", "WEBPROXY_LOG_LEVEL": "debug"}
    proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=limits)
    leave_early(proxy.port, LARGE, reset=True)
    wait_stopped(cache)

    def ended() -> list[str]:  # broken if all of the body had come before the client was missed
        return [event["reason"] for name in ("fill abandoned", "fill broken") for event in proxy.events(name)]

    wait_until(ended, what="the fill ends")  # else it would hold its segments, and its thread, for ever
    assert "nothing from" in ended()[0]
    go_on(cache)
    assert_serves(proxy.port, LARGE)
    assert_ends_well(proxy, cache)


def is_hit(proxy: DaemonProcess, path: str, origin: OriginStub) -> bool:
    """Ask, and say whether the origin was left alone."""
    before = origin.count(path)
    assert ask(proxy.port, path).is_whole(CONTENT[path])
    return origin.count(path) == before


@pytest.mark.parametrize("point", PROXY_HITS)
def test_late_proxy_in_a_hit(point: str, yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content, env=LIMITS)
    other = yard.start_proxy(*POOL_FLAGS, env=LIMITS)
    proxy = yard.start_proxy(*POOL_FLAGS, env=stop_at(point))
    with asking(proxy.port, LARGE) as request:
        wait_stopped(proxy)
        past_all_limits = Deadline.after(2 * LIMIT_S)
        assert_serves(other.port, LARGE)  # while this one is stopped
        wait_until(lambda: past_all_limits.expired, what="the limits have passed")
        if point in LEFT_IN_MID_STREAM:
            cache.wait_event("transfer broken")
        go_on(proxy)
        reply = request.result()
    reply.assert_honest(CONTENT[LARGE])
    if point == "proxy.completed":
        assert reply.is_whole(CONTENT[LARGE])
    assert_serves(proxy.port, LARGE)
    assert_serves(proxy.port, SMALL, rounds=10)
    assert len(segments_of(proxy)) == SEGMENTS
    for daemon in (proxy, other, cache):
        assert_ends_well(daemon)


@pytest.mark.parametrize("point", PROXY_FILLS)
def test_late_proxy_in_a_fill(point: str, yard: DaemonYard, origin: OriginStub) -> None:
    cache = yard.start_cache(env=LIMITS)
    other = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=LIMITS)
    proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=stop_at(point))
    with asking(proxy.port, LARGE) as request:
        wait_stopped(proxy)
        assert_serves(other.port, SMALL)
        if point == "proxy.fill_chunk":
            cache.wait_event("transfer broken")
        go_on(proxy)
        assert request.result().is_whole(CONTENT[LARGE]), (
            "the client's bytes come from the origin, whatever the fill does"
        )
    for port in (proxy.port, other.port):
        assert_serves(port, LARGE)
    assert len(segments_of(proxy)) == SEGMENTS
    for daemon in (proxy, other, cache):
        assert_ends_well(daemon)


def test_late_proxy_between_a_retired_segment_and_its_replacement(yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content, env=stop_at("cache.first_chunk"))
    proxy = yard.start_proxy(*POOL_FLAGS, env=stop_at(RETIRED))
    with asking(proxy.port, LARGE) as request:
        wait_stopped(cache)
        wait_stopped(proxy)
        go_on(cache)
        go_on(proxy)
        request.result().assert_honest(CONTENT[LARGE])
    assert_serves(proxy.port, LARGE)
    wait_until(lambda: len(segments_of(proxy)) == SEGMENTS, what="all segments are there")
    for daemon in (proxy, cache):
        assert_ends_well(daemon)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_clients_vanish_in_mid_body(reset: bool, yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content, env=LIMITS)
    proxy = yard.start_proxy(*POOL_FLAGS, env=LIMITS)
    for _ in range(2 * SEGMENTS):
        leave_early(proxy.port, LARGE, reset=reset)
    assert_serves(proxy.port, LARGE)
    wait_until(lambda: len(segments_of(proxy)) == SEGMENTS, what="all segments are there")
    for daemon in (proxy, cache):
        assert_ends_well(daemon)
    assert proxy.events("stopped")[-1]["client_gone"] == 2 * SEGMENTS
