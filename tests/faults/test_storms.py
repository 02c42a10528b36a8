"""Killed and started again, over and over, under load: never a wrong byte, and service when the storm is over."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from shmchannel.process import reaper
from tests.faults.harness import (
    CONTENT,
    LARGE,
    POOL_FLAGS,
    SMALL,
    ask,
    assert_ends_well,
    assert_forgets,
    assert_serves,
    pool_of,
)
from tests.support import names
from tests.support.daemons import DaemonYard
from tests.support.waiting import wait_until

KILLS = 10
CLIENTS = 4


class Load:
    """Clients that ask on and on and look at every byte; `whole` counts the whole replies so far."""

    def __init__(self, port: int, *, server_dies: bool) -> None:
        self._port = port
        self._server_dies = server_dies
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.whole = 0
        self.broken = 0

    def end(self) -> None:
        """Let each client end after the request it is in."""
        self._ended.set()

    def run(self, paths: Iterator[str]) -> None:
        """One client's life."""
        while not self._ended.is_set():
            path = next(paths)
            reply = ask(self._port, path)
            reply.assert_honest(CONTENT[path], server_died=self._server_dies)
            with self._lock:
                if reply.is_whole(CONTENT[path]):
                    self.whole += 1
                else:
                    self.broken += 1

    def wait_progress(self, clients: list[Future[None]]) -> None:
        """Wait until some more requests have been served whole; a client's failed assertion ends the wait."""
        goal = self.whole + 2 * CLIENTS
        wait_until(
            lambda: self.whole >= goal or any(client.done() for client in clients),
            what="requests served since the last start",
        )
        for client in clients:
            if client.done():
                client.result()


@contextmanager
def running(load: Load) -> Iterator[list[Future[None]]]:
    """The load's clients, to the end of the block; what one of them saw wrong is raised."""
    with ThreadPoolExecutor(CLIENTS) as crew:
        clients = [crew.submit(load.run, itertools.cycle((SMALL, LARGE, SMALL))) for _ in range(CLIENTS)]
        try:
            yield clients
        finally:
            load.end()
    for client in clients:
        client.result()


def test_cache_killed_again_and_again(yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS)
    load = Load(proxy.port, server_dies=False)
    with running(load) as clients:
        for _ in range(KILLS):
            load.wait_progress(clients)
            cache.kill()
            cache = yard.start_cache(content=content)
        load.wait_progress(clients)
    assert_serves(proxy.port, LARGE)
    assert_ends_well(proxy, cache)


def test_proxy_killed_again_and_again(yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS)
    port = proxy.port
    load = Load(port, server_dies=True)
    dead = []
    with running(load) as clients:
        for _ in range(KILLS):
            load.wait_progress(clients)
            dead.append(pool_of(proxy))
            proxy.kill()
            proxy = yard.start_proxy("-p", str(port), *POOL_FLAGS)
            assert names.names_of({daemon.pid for daemon in yard.started if not daemon.running}) == []
        load.wait_progress(clients)
    assert load.broken, "no request was hit by a kill: the load is too light to tell anything"
    assert_serves(port, LARGE)
    for pool in dead:
        assert_forgets(cache, pool)
    assert_ends_well(proxy, cache)


def test_both_die_at_once(yard: DaemonYard, content: Path) -> None:
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS)
    load = Load(proxy.port, server_dies=True)
    with running(load) as clients:
        load.wait_progress(clients)
        cache.signal(9)
        proxy.signal(9)
        assert (cache.wait_exit(), proxy.wait_exit()) == (-9, -9)
        load.end()
    dead = {cache.pid, proxy.pid}
    reaper.sweep()
    # Another daemon that starts on this machine may be sweeping just now: then it finishes the work.
    wait_until(lambda: names.names_of(dead) == [], what="nothing is left")
    cache = yard.start_cache(content=content)
    proxy = yard.start_proxy(*POOL_FLAGS)
    assert_serves(proxy.port, LARGE)
    assert_ends_well(proxy, cache)
