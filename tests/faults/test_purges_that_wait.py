"""An invalidation that succeeds while the cache is stopped or gone: nobody is served the old object afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import POOL_FLAGS, assert_ends_well
from tests.http.client import HttpClient
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub, Route

PATH, OTHER = "/thing", "/other"
FRESH = {"Cache-Control": "max-age=3600"}
ENV = {"WEBPROXY_CACHE_FIRST_BYTE_TIMEOUT_S": "0.5", "WEBPROXY_CACHE_TIMEOUT_S": "1"}
OLD, NEW = b"old" * 100, b"new" * 100


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    with OriginStub({path: Route(body=OLD, headers=FRESH) for path in (PATH, OTHER)}) as stub:
        yield stub


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[DaemonYard]:
    """With a hot table, which must not serve it either."""
    with DaemonYard(tmp_path) as living:
        yield living


def start_cache(yard: DaemonYard, directory: Path) -> DaemonProcess:
    return yard.start_cache("--store", str(directory))


@pytest.fixture
def cache(yard: DaemonYard, tmp_path: Path) -> DaemonProcess:
    return start_cache(yard, tmp_path / "store")


@pytest.fixture
def proxy(yard: DaemonYard, cache: DaemonProcess, origin: OriginStub) -> DaemonProcess:
    proxy = yard.start_proxy(*POOL_FLAGS, "--protocols", "getfile,http", "-s", origin.url, env=ENV)
    for path in (PATH, OTHER):
        wait_until(lambda path=path: is_hit(proxy, path), what=f"{path} is stored")  # type: ignore[misc]
    return proxy


def is_hit(proxy: DaemonProcess, path: str) -> bool:
    with HttpClient(proxy.port) as client:
        return client.ask(path).is_hit


def change(proxy: DaemonProcess, origin: OriginStub, path: str = PATH) -> None:
    """A POST changes the object at the origin, and is told so."""
    origin.add(path, Route(body=NEW, headers=FRESH, methods=("GET", "POST")))
    with HttpClient(proxy.port) as client:
        assert client.ask(path, method="POST", body=b"x").status == 200


def assert_only_new(proxy: DaemonProcess, path: str = PATH) -> None:
    """Until it is a hit again, and then."""

    def is_new_and_hit() -> bool:
        with HttpClient(proxy.port) as client:
            reply = client.ask(path)
        assert reply.body == NEW
        return reply.is_hit

    wait_until(is_new_and_hit, what="the new object is a hit")


def test_it_was_stopped(cache: DaemonProcess, proxy: DaemonProcess, origin: OriginStub) -> None:
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped, what="the cache stands still")
    change(proxy, origin)
    with HttpClient(proxy.port) as client:
        assert client.ask(PATH).body == NEW
    cache.signal(signal.SIGCONT)
    assert_only_new(proxy)
    proxy.wait_event("purges told to the cache")
    assert len(proxy.events("purges wait for the cache")) == 1
    wait_until(lambda: is_hit(proxy, OTHER), what="the other one is still stored")
    assert origin.count(OTHER) <= 2, "only what was purged is fetched anew"
    assert_ends_well(proxy, cache)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_it_was_restarted(
    yard: DaemonYard, cache: DaemonProcess, proxy: DaemonProcess, origin: OriginStub, tmp_path: Path, ending: str
) -> None:
    getattr(cache, ending)()
    change(proxy, origin)
    successor = start_cache(yard, tmp_path / "store")
    assert_only_new(proxy)
    proxy.wait_event("purges told to the cache")
    assert_ends_well(proxy, successor)


@pytest.mark.parametrize("ending", ["stopped", "restarted"])
def test_other_proxies_of_the_cache_know_of_it(
    yard: DaemonYard,
    cache: DaemonProcess,
    proxy: DaemonProcess,
    origin: OriginStub,
    tmp_path: Path,
    ending: str,
) -> None:
    """From the answer to the POST on, also where the hot table has it, and if the one that was asked is killed."""
    other = yard.start_proxy(*POOL_FLAGS, "-s", origin.url, env=ENV)
    wait_until(lambda: is_hit(other, PATH), what="the other one serves it")
    if ending == "stopped":
        cache.signal(signal.SIGSTOP)
        wait_until(cache.is_stopped, what="the cache stands still")
    else:
        cache.kill()
    change(proxy, origin)
    with HttpClient(other.port) as client:
        assert client.ask(PATH).body == NEW
    proxy.kill()
    if ending == "stopped":
        cache.signal(signal.SIGCONT)
    else:
        cache = start_cache(yard, tmp_path / "store")
    assert_only_new(other)
    other.wait_event("purges told to the cache")
    assert other.events("purge not known to all") == []
    assert_ends_well(other, cache)


def test_a_successor_is_told_what_is_left(
    yard: DaemonYard, cache: DaemonProcess, proxy: DaemonProcess, origin: OriginStub, tmp_path: Path
) -> None:
    """A reload while the cache is away."""
    cache.kill()
    change(proxy, origin)
    proxy.signal(signal.SIGHUP)
    successor = proxy.wait_event("successor ready")["successor"]
    assert proxy.wait_exit() == 0
    assert proxy.wait_event("purges left to others")["purges"] == 1
    assert proxy.events("purges lost") == []
    cache = start_cache(yard, tmp_path / "store")
    assert_only_new(proxy)
    os.kill(successor, signal.SIGTERM)
    proxy.wait_all_ended()
    assert_ends_well(cache)


def test_a_proxy_that_stops_says_what_is_lost(
    yard: DaemonYard, cache: DaemonProcess, proxy: DaemonProcess, origin: OriginStub
) -> None:
    """The proxy of another cache takes nothing over."""
    queue = f"{yard.queue}-2"
    stranger = yard.start_cache("-q", queue)
    others = yard.start_proxy(*POOL_FLAGS, "-q", queue, "--protocols", "getfile,http", "-s", origin.url, env=ENV)
    wait_until(lambda: is_hit(others, PATH), what="the other pair serves it")
    cache.stop()
    change(proxy, origin)
    assert_ends_well(proxy)
    assert proxy.wait_event("purges lost")["purges"] == 1
    assert is_hit(others, PATH)
    assert_ends_well(others, stranger)
    assert others.events("purges wait for the cache") == []
    assert proxy.events("purge not known to all") == []
