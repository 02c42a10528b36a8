"""A cache stopped by SIGSTOP while there is an origin: two silences, then the service goes on as without a cache."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
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
    segments_of,
)
from tests.http.client import HttpClient
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status
from workloads.origin_stub import OriginStub

SILENCE = {"WEBPROXY_CACHE_FIRST_BYTE_TIMEOUT_S": "0.5", "WEBPROXY_CACHE_TIMEOUT_S": "1"}
ASKED = 40


def is_hit(proxy: DaemonProcess, path: str, origin: OriginStub) -> bool:
    before = origin.count(path)
    assert ask(proxy.port, path).is_whole(CONTENT[path])
    return origin.count(path) == before


def wait_hits(proxy: DaemonProcess, origin: OriginStub) -> None:
    """Until all comes from the cache."""
    for path in CONTENT:
        wait_until(partial(is_hit, proxy, path, origin), what=f"{path} is in the cache")


def hang(cache: DaemonProcess, proxy: DaemonProcess) -> None:
    """Stop the cache, and let the proxy find out."""
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped, what="the cache stands still")
    while not proxy.events("cache does not answer"):
        assert ask(proxy.port, SMALL).is_whole(CONTENT[SMALL])


@pytest.fixture
def cache(yard: DaemonYard) -> DaemonProcess:
    return yard.start_cache()


@pytest.fixture
def proxy(yard: DaemonYard, cache: DaemonProcess, origin: OriginStub) -> DaemonProcess:
    proxy = yard.start_proxy(*POOL_FLAGS, "--protocols", "getfile,http", "-s", origin.url, env=SILENCE)
    wait_hits(proxy, origin)
    return proxy


def test_the_origin_serves_at_once_and_the_cache_again_when_it_goes_on(
    cache: DaemonProcess, proxy: DaemonProcess, origin: OriginStub
) -> None:
    hang(cache, proxy)
    with ThreadPoolExecutor(4) as crew:
        replies = list(crew.map(ask, [proxy.port] * ASKED, [SMALL, LARGE] * (ASKED // 2)))
    assert all(reply.is_whole(CONTENT[path]) for reply, path in zip(replies, [SMALL, LARGE] * ASKED, strict=False))
    cache.signal(signal.SIGCONT)
    # What is in the hot table needs no answer: only a command finds out.
    wait_until(lambda: (ask(proxy.port, "/absent"), proxy.events("cache answers again"))[1], what="it is asked again")
    wait_hits(proxy, origin)
    told = proxy.wait_event("cache answers again")
    assert told["not_asked"] >= ASKED // 2, "most did not wait for it"
    assert len(proxy.events("cache does not answer")) == 1
    wait_until(lambda: len(segments_of(proxy)) == SEGMENTS, what="all segments are there")
    assert_ends_well(proxy, cache)


def test_it_is_killed_and_another_takes_its_place(
    yard: DaemonYard, cache: DaemonProcess, proxy: DaemonProcess, origin: OriginStub
) -> None:
    hang(cache, proxy)
    cache.kill()
    assert ask(proxy.port, LARGE).is_whole(CONTENT[LARGE])
    proxy.wait_event("cache lost")
    successor = yard.start_cache()
    wait_hits(proxy, origin)
    proxy.wait_event("cache found")
    proxy.wait_event("cache answers again")
    assert_ends_well(proxy, successor)


def test_a_purge_says_that_it_was_not_told(cache: DaemonProcess, proxy: DaemonProcess) -> None:
    hang(cache, proxy)
    with HttpClient(proxy.port) as client:
        assert client.ask("/small", method="PURGE").status == 503
    cache.signal(signal.SIGCONT)

    def is_purged() -> bool:
        with HttpClient(proxy.port) as client:
            return client.ask("/small", method="PURGE").status == 200

    wait_until(is_purged, what="a purge is told")
    assert_ends_well(proxy, cache)


def test_in_mid_body_it_holds_no_worker_for_long(yard: DaemonYard, content: Path, origin: OriginStub) -> None:
    cache = yard.start_cache(content=content, env={"GFCACHE_FAULT": "cache.streaming:100:stop"})
    for_ever = {**SILENCE, "WEBPROXY_BETWEEN_BYTES_TIMEOUT_S": "3600"}
    proxy = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=for_ever)
    with asking(proxy.port, LARGE) as request:
        wait_until(cache.is_stopped, what="the cache has stopped in mid-body")
        while not proxy.events("cache does not answer"):
            assert ask(proxy.port, SMALL).is_whole(CONTENT[SMALL])
        request.result(WATCHDOG_S).assert_honest(CONTENT[LARGE])
    cache.signal(signal.SIGCONT)

    def is_asked_again() -> bool:
        assert ask(proxy.port, SMALL).is_whole(CONTENT[SMALL])
        return bool(proxy.events("cache answers again"))

    wait_until(is_asked_again, what="the cache is asked again")
    assert_ends_well(proxy, cache)


def test_without_an_origin_it_is_waited_for(yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS, env={**SILENCE, "WEBPROXY_CACHE_TIMEOUT_S": "0.5"})
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped, what="the cache stands still")
    for _ in range(3):
        assert ask(proxy.port, SMALL).status is Status.ERROR
    cache.signal(signal.SIGCONT)
    assert_serves(proxy.port, SMALL)
    assert_ends_well(proxy, cache)


def test_a_forward_proxy_without_a_cache_does_not_wait_for_one(yard: DaemonYard, origin: OriginStub) -> None:
    host = origin.url.removeprefix("http://").rstrip("/")
    limits = {"WEBPROXY_CACHE_FIRST_BYTE_TIMEOUT_S": str(WATCHDOG_S), "WEBPROXY_FORWARD_HOSTS": host}
    proxy = yard.start_proxy("--protocols", "http", env=limits)
    proxy.wait_event("cache not found")  # without a request
    deadline = Deadline.after(WATCHDOG_S / 2)
    with HttpClient(proxy.port) as client:
        for _ in range(3):
            assert client.ask(f"http://{host}{SMALL}").body == CONTENT[SMALL]
    assert not deadline.expired
    assert_ends_well(proxy)
