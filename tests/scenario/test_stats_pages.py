"""The stats pages of whole daemons, read as a monitor reads them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from shmchannel.stats_pages import PageReading, PageState, read_pages
from tests.support import client
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until

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
