"""A site for tests: an origin whose requests are counted, with the cache and the proxy before it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from time import time

from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from tests.http.client import Reply, fetch, fetch_all, free_port
from tests.support.daemons import NO_HOT_TABLE, DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import OriginStub, Route
from workloads.origin_stub.request import Request

_numbers = itertools.count()


def http_date(seconds_from_now: float = 0) -> str:
    """A date as a field has it."""
    return formatdate(time() + seconds_from_now, usegmt=True)


@dataclass
class Daemons:
    """The daemons that a module's tests share; each test has its own origin on `origin_port`."""

    yard: DaemonYard
    holder: DaemonProcess
    """The cache."""
    proxy: DaemonProcess
    port: int
    origin_port: int
    cache: ChannelClient
    """A look into the cache past the proxy."""


@dataclass
class Site:
    """One test's view: its origin, and the proxy before it."""

    origin: OriginStub
    port: int
    daemons: Daemons

    def put(self, *routes: Route, path: str | None = None) -> str:
        """Answer a path of its own by these routes in turn, the last one for good; returns the path."""
        path = path or f"/{next(_numbers)}"
        self.origin.add(path, list(routes))
        return path

    def get(self, target: str, *fields: str, **how: object) -> Reply:
        """One request to the proxy."""
        return fetch(self.port, target, *fields, **how)  # type: ignore[arg-type]

    def get_all(self, requests: Sequence[tuple[str, ...]], clients: int = 50) -> list[Reply]:
        """Many at once."""
        return fetch_all(self.port, list(requests), clients=clients)

    def count(self, path: str) -> int:
        """How many requests the origin had for the path."""
        return self.origin.count(path)

    def asked(self, path: str) -> list[Request]:
        """These requests."""
        return [request for request in self.origin.requests if request.path == path]

    def last(self, path: str) -> Request:
        """The last of them."""
        return self.asked(path)[-1]

    def wait_count(self, path: str, count: int) -> None:
        """Wait until the origin had so many."""
        assert self.origin.wait_for(path, count, WATCHDOG_S)

    def holds(self, key: str, *, exactly: bool | None = None) -> bool:
        """Whether the cache has an object of this key, or variants of it; `exactly` these (True), or that (False)."""
        held = []
        for name in (key.encode(), key.encode() + b"\0"):
            with self.daemons.cache.get(name, Deadline.after(WATCHDOG_S)) as transfer:
                held.append(transfer.found)
                transfer.cancel_quietly()
        return any(held) if exactly is None else held == [not exactly, exactly]

    def held_of(self, key: str) -> int | None:
        """How many bytes the cache has of an incomplete response of this key; None without one."""
        with self.daemons.cache.get(key.encode() + b"\0partial", Deadline.after(WATCHDOG_S)) as transfer:
            held = transfer.facts.size_bytes if transfer.found else None
            transfer.cancel_quietly()
            return held

    def settle(self, key: str) -> None:
        """Wait until the cache has it; a client has its last byte a moment before the commit."""
        wait_until(lambda: self.holds(key), what=f"{key} in the cache")

    def fill(self, *routes: Route, path: str | None = None) -> str:
        """As put(); then the first answer is stored."""
        path = self.put(*routes, path=path)
        self.get(path)
        self.settle(path)
        return path

    def stored(self, path: str, *fields: str) -> Reply:
        """Ask until the answer comes from the cache."""

        def hit() -> Reply | None:
            reply = self.get(path, *fields)
            return reply if reply.is_hit else None

        reply = wait_until(hit, what=f"{path} from the cache")
        assert reply is not None
        return reply


@contextmanager
def daemons(
    directory: str | os.PathLike[str],
    *arguments: str,
    env: Mapping[str, str] | None = None,
    hot_table: bool = True,
    cache: Sequence[str] = (),
) -> Iterator[Daemons]:
    """A cache and a proxy, whose origin is to come."""
    with DaemonYard(directory, cache_env={} if hot_table else NO_HOT_TABLE) as yard:
        origin_port = free_port()
        holder = yard.start_cache(*cache)
        proxy = yard.start_proxy("-s", f"http://127.0.0.1:{origin_port}", "-t", "16", *arguments, env=env)
        with ExitStack() as resources:
            pool = SegmentPool.create(2, 8192)
            resources.callback(pool.close)
            client = ChannelClient(yard.queue, pool, between_bytes_timeout_s=WATCHDOG_S)
            resources.callback(client.close)
            yield Daemons(yard, holder, proxy, proxy.port, origin_port, client)


@contextmanager
def origin_of(shared: Daemons) -> Iterator[Site]:
    """An origin for one test; its port is that of all tests, so its paths are new each time."""
    with OriginStub({}, port=shared.origin_port) as origin:
        yield Site(origin, shared.port, shared)
