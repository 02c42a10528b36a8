"""The stats pages of whole daemons, read as a monitor reads them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from shmchannel.stats_pages import PageReading, PageState, read_pages
from tests.http.client import fetch
from tests.support import client
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub, Route

BODY = os.urandom(8192)


def page_of(daemon: DaemonProcess) -> PageReading | None:
    """What a reader sees of the page that it writes."""
    found = [page for page in read_pages() if page.writer is not None and page.writer.pid == daemon.pid]
    assert len(found) <= 1
    return found[0] if found else None


def seen(daemon: DaemonProcess, condition: Callable[[PageReading], bool]) -> PageReading:
    """The page, as soon as the condition holds for it."""

    def look() -> PageReading | None:
        page = page_of(daemon)
        return page if page is not None and condition(page) else None

    found = wait_until(look, what="the condition on the stats page")
    assert found is not None
    return found


def test_a_cache_counts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    with DaemonYard(tmp_path) as yard:
        cache, proxy = yard.start_cache(content=tmp_path), yard.start_proxy()
        assert client.ask(proxy.port, "/file").body == BODY
        page = seen(cache, lambda page: page.number("gfcache_cache_commands_total", "get", "served") == 1)
        assert (page.state, page.role, page.instance) == (PageState.LIVE, "cache", yard.queue)
        times = page.histogram("gfcache_cache_command_seconds", "get")
        assert times is not None
        assert times.count == 1
        seen(cache, lambda page: page.number("gfcache_cache_chunks_total") == 1)
        assert cache.stop() == 0
        assert [found for found in read_pages("cache") if found.owner and found.owner.pid == cache.pid] == []


def test_a_cache_that_hangs_is_seen(tmp_path: Path) -> None:
    """Its values can be read all the same."""
    with DaemonYard(tmp_path) as yard:
        cache = yard.start_cache()
        seen(cache, lambda page: page.state is PageState.LIVE)
        cache.signal(signal.SIGSTOP)
        page = seen(cache, lambda page: page.state is PageState.STUCK)
        assert page.number("gfcache_cache_threads") > 0
        cache.signal(signal.SIGCONT)
        seen(cache, lambda page: page.state is PageState.LIVE)


def requests(page: PageReading, protocol: str, outcome: str, status: str = "2xx") -> int:
    """How many requests ended so."""
    return page.number("gfcache_proxy_requests_total", protocol, outcome, status)


def test_a_proxy_counts(tmp_path: Path, origin: OriginStub) -> None:
    """A miss, hits by command and from the hot table, by both protocols, and what the origin was asked."""
    origin.add("/x", Route(body=BODY, headers={"Cache-Control": "max-age=600"}))
    with DaemonYard(tmp_path) as yard:
        yard.start_cache()
        proxy = yard.start_proxy("-s", origin.url)
        assert fetch(proxy.port, "/x").body == BODY
        page = seen(proxy, lambda page: requests(page, "http", "miss") == 1)
        assert (page.state, page.role, page.instance) == (PageState.LIVE, "proxy", f"127.0.0.1:{proxy.port}")

        def is_hot() -> bool:
            assert fetch(proxy.port, "/x").body == client.ask(proxy.port, "/x").body == BODY
            now = page_of(proxy)
            return now is not None and requests(now, "http", "hot") > 0 and requests(now, "getfile", "hot") > 0

        wait_until(is_hot, what="an answer from the hot table")
        assert fetch(proxy.port, "/nowhere").status == 404
        page = seen(proxy, lambda page: requests(page, "http", "miss", "4xx") == 1)
        for protocol, outcome in (("http", "hot"), ("http", "miss"), ("getfile", "hot")):
            times = page.histogram("gfcache_proxy_request_seconds", protocol, outcome)
            assert times is not None
            assert times.count >= 1
        assert page.number("gfcache_proxy_sent_bytes_total", "cache") > len(BODY)
        assert page.number("gfcache_proxy_sent_bytes_total", "origin") > len(BODY)
        name = origin.url.rstrip("/")
        page = seen(proxy, lambda page: page.number("gfcache_proxy_origin_requests_total", name) == 2)
        heads = page.histogram("gfcache_proxy_origin_head_seconds", name)
        assert heads is not None
        assert heads.count == 2
        seen(proxy, lambda page: page.number("gfcache_proxy_caches_ready") == 1)
        page = seen(proxy, lambda page: page.number("gfcache_proxy_fetches_total", "begun") == 2)
        assert page.number("gfcache_proxy_segments") > 0
        assert proxy.stop() == 0
        hits = sum(requests(page, "http", outcome) for outcome in ("hot", "hit"))
        assert proxy.wait_event("stopped")["http_hit"] == hits


def test_a_proxy_that_hangs_is_seen(tmp_path: Path) -> None:
    """And so is one that was killed while it hung, until somebody sweeps its names."""
    with DaemonYard(tmp_path) as yard:
        proxy = yard.start_proxy()
        seen(proxy, lambda page: page.state is PageState.LIVE)
        proxy.signal(signal.SIGSTOP)
        seen(proxy, lambda page: page.state is PageState.STUCK)
        proxy.kill()
        found = page_of(proxy)
        assert found is None or found.state is PageState.OWNER_DEAD


def test_a_worker_that_is_replaced_is_counted_on(tmp_path: Path) -> None:
    """Each worker has a page of its own; the pages are the supervisor's, and go with it."""
    (tmp_path / "file").write_bytes(BODY)
    with DaemonYard(tmp_path) as yard:
        yard.start_cache(content=tmp_path)
        proxy = yard.start_proxy("--workers", "2")

        def pages() -> dict[int, PageReading]:
            return {page.slot: page for page in read_pages("proxy") if page.owner and page.owner.pid == proxy.pid}

        def answered() -> dict[int, int]:
            name = "gfcache_proxy_requests_total"
            return {slot: sum(page.metrics[name].numbers.values()) for slot, page in pages().items()}

        wait_until(lambda: [page.state for page in pages().values()] == [PageState.LIVE] * 2)
        for _ in range(20):
            assert fetch(proxy.port, "/file").body == BODY
        wait_until(lambda: sum(answered().values()) == 20)
        slot, before = max(answered().items(), key=lambda item: item[1])
        writer = pages()[slot].writer
        assert writer is not None
        os.kill(writer.pid, signal.SIGKILL)
        wait_until(lambda: pages()[slot].writers_total == 2 and pages()[slot].state is PageState.LIVE)
        assert answered()[slot] >= before
        assert proxy.stop() == 0
        assert pages() == {}
