"""The whole proxy and the whole cache in the test's process, built as the daemons build them, with their threads.

For a test that must do or see something inside: each system call that sends, or what is held when a client has left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from shmchannel.daemonkit.daemon import Drain
from shmchannel.deadline import Deadline
from simplecached.daemon.app import CacheService
from simplecached.daemon.config import CacheConfig
from tests.http.client import fetch
from tests.support.channels import unique_queue
from tests.support.queue_room import wait_for_queue_room
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.daemon.assembly import build
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.worker import ProxyService
from workloads.origin_stub import OriginStub, Route

HOT_TABLE_BYTES = 1 << 20
STORE_BYTES = 1 << 24


class _Drain:
    """Time enough, and no second signal."""

    def __init__(self) -> None:
        self.expires_ns = Deadline.after(WATCHDOG_S).expires_ns

    def interrupted(self, _wait_s: float = 0.0) -> bool:
        return False


class WholePair:
    """Both services, before an origin that the test scripts."""

    def __init__(self, proxy: ProxyService, origin: OriginStub) -> None:
        self.proxy = proxy
        self.origin = origin
        self.port = proxy.address[1]

    def fill(self, path: str, route: Route) -> None:
        """Have the cache hold what a route answers, and its hot table too, if it has one and the object fits."""
        self.origin.add(path, route)
        wait_until(lambda: fetch(self.port, path).is_hit, what=f"{path} from the cache")

    def held(self) -> dict[str, int]:
        """What requests under way hold, by kind; all are 0 when there is none."""
        proxy = self.proxy
        return {
            "waiting jobs": proxy.parking.waiting,
            "segments": 0 if proxy.cache is None else proxy.cache.pool.stats().segments_leased,
            "spool bytes": proxy.table.budget.used_bytes,
        }

    def settle(self) -> None:
        """Wait until nothing is under way and nothing is held."""
        wait_until(lambda: not any(self.held().values()), what=f"the end of all that is held: {self.held()}")
        wait_until(lambda: not self.proxy.is_busy(), what="workers without work")


@contextmanager
def whole_pair(*, hot: bool = True, **settings: Any) -> Iterator[WholePair]:
    """`settings` are the proxy's. Without `hot` each hit costs a command."""
    wait_for_queue_room()
    queue_name = unique_queue()
    with ExitStack() as resources:
        origin = resources.enter_context(OriginStub({}))
        store = CacheConfig(
            queue_name=queue_name,
            worker_threads=2,
            store_bytes=STORE_BYTES,
            hot_table_bytes=HOT_TABLE_BYTES if hot else 0,
        )
        cache = CacheService(store, resources)
        cache.start()
        resources.callback(cache.finish, cast("Drain", _Drain()))
        usual = {"worker_threads": 2, "origin_tries": 1, "origin_failures_to_open": 0, "failures_shared_s": 0.0}
        config = ProxyConfig(queue_name=queue_name, port=0, **{"origin_url": origin.url, **usual, **settings})
        proxy = build(config, resources)
        proxy.start()
        try:
            yield WholePair(proxy, origin)
        finally:
            proxy.stop_accepting()
            assert proxy.finish(cast("Drain", _Drain())) == 0, "requests cut off"
