"""The hot table of a whole cache, seen by what proxies are to it: clients that look there before they ask.

Looking and asking never differ: no client gives out what was replaced, purged or changed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.hot_table_writer import is_supported
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from shmchannel.streams.pool import SegmentPool
from tests.support.channels import reading
from tests.support.daemons import NO_HOT_TABLE, DaemonProcess, DaemonYard
from tests.support.pairs import body_of_transfer
from tests.support.programs import require_program
from tests.support.waiting import WATCHDOG_S, wait_until

KEY = b"/hot"
pytestmark = pytest.mark.skipif(not is_supported(), reason="a cache makes no hot table on this processor")


class Proxy:
    """As much of a proxy as a cache sees."""

    def __init__(self, queue_name: str) -> None:
        self.pool = SegmentPool.create(2, 65_536)
        self.client = ChannelClient(queue_name, self.pool)
        self.looked = self.asked = 0

    def fetch(self, key: bytes = KEY) -> bytes | None:
        """The body from the hot table, else by a command; None for a miss."""
        found = self.client.peek(key)
        if found is not None:
            self.looked += 1
            return found.body
        self.asked += 1
        with self.client.get(key, Deadline.after(WATCHDOG_S)) as transfer:
            return body_of_transfer(transfer)

    def connect(self) -> None:
        """Find the cache, and its hot table."""
        self.client.connect()

    def look(self, key: bytes = KEY) -> bytes:
        """Fetch until it comes from the hot table."""

        def seen() -> bool:
            before = self.looked
            self.last = self.fetch(key)
            return self.looked > before

        wait_until(seen, what=f"{key!r} on the hot table")
        assert self.last is not None
        return self.last

    def store(self, body: bytes, key: bytes = KEY) -> None:
        """Fill the cache."""
        deadline = Deadline.after(WATCHDOG_S)
        with self.client.put(key, len(body), b"facts", self.pool.lease(deadline), deadline) as transfer:
            transfer.pump(reading(body), len(body), wait=True)
            assert transfer.commit()

    def purge(self, key: bytes = KEY, *, prefix: bool = False) -> int:
        """Remove from the cache."""
        return self.client.purge(key, Deadline.after(WATCHDOG_S), prefix=prefix)

    def close(self) -> None:
        self.client.close()
        self.pool.close()


@pytest.fixture
def proxies(yard: DaemonYard) -> Iterator[list[Proxy]]:
    """Three of them, on the yard's queue; connected when they first ask."""
    made = [Proxy(yard.queue) for _ in range(3)]
    yield made
    for proxy in made:
        proxy.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "hot").write_bytes(b"first" * 1000)
    return directory


def path_of(yard: DaemonYard) -> str:
    """Where the hot table lies."""
    return SHM_DIRECTORY + hot_table_name(yard.queue)


def test_replaced_object(yard: DaemonYard, proxies: list[Proxy]) -> None:
    """One stores, all see the new body from the moment that the store is acknowledged."""
    cache = yard.start_cache()
    for number in range(20):
        body = b"%d;" % number * 1000
        proxies[number % 3].store(body)
        assert [proxy.fetch() for proxy in proxies] == [body] * 3
        assert [proxy.look() for proxy in proxies] == [body] * 3
    assert cache.stop() == 0
    assert cache.events("stopped")[-1]["hot_table_published"] >= 20
    assert cache.events("stopped")[-1]["hot_table_dropped"] >= 1
    assert not os.path.exists(path_of(yard))


@pytest.mark.parametrize("prefix", [False, True])
def test_purged_object(yard: DaemonYard, proxies: list[Proxy], *, prefix: bool) -> None:
    yard.start_cache()
    proxies[0].store(b"body")
    assert [proxy.look() for proxy in proxies] == [b"body"] * 3
    assert proxies[1].purge(KEY[:2] if prefix else KEY, prefix=prefix) == 1
    assert [proxy.fetch() for proxy in proxies] == [None] * 3


@pytest.mark.parametrize("in_place", [False, True])
def test_changed_file(yard: DaemonYard, proxies: list[Proxy], files: Path, *, in_place: bool) -> None:
    """The new content comes by itself, and the old one never after it; a removed file is a miss."""
    yard.start_cache(content=files)
    assert [proxy.look() for proxy in proxies] == [b"first" * 1000] * 3
    if in_place:
        (files / "hot").write_bytes(b"second")
    else:
        (files / "other").write_bytes(b"second")
        (files / "other").rename(files / "hot")
    wait_until(lambda: proxies[0].fetch() == b"second", what="the new content")
    assert [proxy.fetch() for proxy in proxies for _ in range(20)] == [b"second"] * 60
    assert [proxy.look() for proxy in proxies] == [b"second"] * 3
    (files / "hot").unlink()
    wait_until(lambda: proxies[0].fetch() is None, what="the end of the file")
    assert [proxy.fetch() for proxy in proxies] == [None] * 3


def gone(cache: DaemonProcess, proxies: list[Proxy]) -> None:
    """Nobody is given anything of an ended cache."""
    assert not cache.running
    wait_until(lambda: all(proxy.client.peek(KEY) is None for proxy in proxies), what="the end of the hot table")
    for proxy in proxies:
        with pytest.raises(ShmChannelError):
            proxy.fetch()


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_cache_ends_and_another_comes(yard: DaemonYard, proxies: list[Proxy], files: Path, way: str) -> None:
    """The entries of a dead cache's hot table are no longer served; those of its successor's are."""
    cache = yard.start_cache(content=files)
    assert [proxy.look() for proxy in proxies] == [b"first" * 1000] * 3
    getattr(cache, way)()
    gone(cache, proxies)
    assert os.path.exists(path_of(yard)) == (way == "kill")
    (files / "hot").write_bytes(b"second")
    successor = yard.start_cache(content=files)
    assert [proxy.fetch() for proxy in proxies] == [b"second"] * 3
    assert [proxy.look() for proxy in proxies] == [b"second"] * 3
    assert successor.stop() == 0
    assert not os.path.exists(path_of(yard))


def test_successor_without_a_hot_table(yard: DaemonYard, proxies: list[Proxy], files: Path) -> None:
    """It removes the dead one's, and everything goes by commands."""
    cache = yard.start_cache(content=files)
    assert proxies[0].look() == b"first" * 1000
    cache.kill()
    yard.start_cache(content=files, env=NO_HOT_TABLE)
    assert not os.path.exists(path_of(yard))
    asked = proxies[0].asked
    assert [proxies[0].fetch() for _ in range(5)] == [b"first" * 1000] * 5
    assert proxies[0].asked == asked + 5


def test_stopped_cache(yard: DaemonYard, proxies: list[Proxy], files: Path) -> None:
    """One that stands still cannot take anything off: what lies there ends by itself."""
    cache = yard.start_cache(content=files)
    assert proxies[0].look() == b"first" * 1000
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped, what="the stop")
    wait_until(lambda: proxies[0].client.peek(KEY) is None, what="the end of its life")
    cache.signal(signal.SIGCONT)
    assert proxies[0].look() == b"first" * 1000


def test_stopped_cache_of_stored_objects(yard: DaemonYard, proxies: list[Proxy]) -> None:
    """They do not change while it stands still, and need nobody's answer."""
    cache = yard.start_cache()
    proxies[0].store(b"body")
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped, what="the stop")
    assert proxies[0].look() == b"body"
    cache.signal(signal.SIGCONT)
    assert proxies[0].purge() == 1
    assert proxies[0].fetch() is None


def test_thousands_of_objects_need_one_command_each(yard: DaemonYard, proxies: list[Proxy]) -> None:
    """The one that stores it; whoever asks for it, however rarely, and in whatever order."""
    cache = yard.start_cache("--store-bytes", "64m")
    keys = [b"/%d" % number for number in range(2000)]
    for key in keys:
        proxies[0].store(key * 100, key)
    for proxy in proxies:
        proxy.connect()
        assert [proxy.fetch(key) for key in keys] == [key * 100 for key in keys]
        assert (proxy.asked, proxy.looked) == (0, 2000)
    assert proxies[1].purge(b"/1", prefix=True) == 1111
    assert [proxies[2].client.peek(key) is None for key in keys] == [key.startswith(b"/1") for key in keys]
    assert cache.stop() == 0


@pytest.mark.parametrize("store", ["memory", "directory"])
def test_more_than_the_table_has_room_for(yard: DaemonYard, proxies: list[Proxy], tmp_path: Path, store: str) -> None:
    """Small objects that gave way in it are read from their files, and need no command either."""
    where = "memory" if store == "memory" else str(tmp_path / "store")
    cache = yard.start_cache("--hot-table-bytes", "256k", "--store", where)
    keys = [b"/%d" % number for number in range(100)]
    for key in keys:
        proxies[0].store((key * 8000)[:8000], key)
    for proxy in proxies:
        proxy.connect()
        assert [proxy.fetch(key) for key in keys] == [(key * 8000)[:8000] for key in keys]
    asked = [proxy.asked for proxy in proxies]
    assert [proxies[0].fetch(key) for key in keys] == [(key * 8000)[:8000] for key in keys]
    assert max(asked) <= 5, "few: what gave way last is referred to at the next publication"
    proxies[0].store(b"new", keys[0])
    assert proxies[1].fetch(keys[0]) == b"new"
    assert cache.stop() == 0


@pytest.mark.parametrize("flags", [("--hot-table-bytes", "0"), ("-d", "1")], ids=str)
def test_no_hot_table(yard: DaemonYard, proxies: list[Proxy], files: Path, flags: tuple[str, ...]) -> None:
    cache = yard.start_cache(*flags, content=files)
    assert cache.wait_event("ready")["hot_table_cells"] == 0
    assert not os.path.exists(path_of(yard))
    assert [proxies[0].fetch() for _ in range(5)] == [b"first" * 1000] * 5
    assert (proxies[0].asked, proxies[0].looked) == (5, 0)


def test_no_room_for_a_hot_table(yard: DaemonYard, proxies: list[Proxy], files: Path) -> None:
    """It says so, and serves without."""
    limit = (require_program("prlimit"), "--fsize=1000000", "--")
    cache = yard.start_cache(content=files, wrap=limit)
    assert "File too large" in cache.wait_event("no hot table")["reason"]
    assert not os.path.exists(path_of(yard))
    assert [proxies[0].fetch() for _ in range(5)] == [b"first" * 1000] * 5


@pytest.mark.parametrize("size", ["1", "65535", "2g", "-1"])
def test_silly_size(yard: DaemonYard, size: str) -> None:
    cache = yard.start_cache("--hot-table-bytes", size, wait=False)
    assert cache.wait_exit() == 2
    assert "hot_table_bytes" in cache.log_text()
