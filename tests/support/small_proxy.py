"""The HTTP side of a proxy without a daemon and a cache: real workers, parking lot and origin driver.

The test plays both ends itself: the clients, and the origin behind the proxy, connection by connection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.support.handlers import LIMITS
from tests.support.streams import NO_LIMIT, source_of
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.options import DEFAULT_OPTIONS
from webproxy.exchange.deliver_stored import StoredDelivery
from webproxy.exchange.fast_path import FastPath
from webproxy.exchange.http_request import Answers, HttpRequestHandler, Policy
from webproxy.exchange.origin_rest import OriginRest
from webproxy.exchange.pass_through import PassThrough
from webproxy.exchange.relay import SpoolLimits
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.fetch.http_fetch import HttpFetches
from webproxy.fetch.partial_response import PartialStore
from webproxy.fetch.plan import FetchMeans
from webproxy.fetch.table import FetchTable
from webproxy.origin.driver import OriginDriver
from webproxy.origin.health import HealthSettings
from webproxy.origin.request import OriginLimits
from webproxy.origin.routing import OriginRule, OriginTable
from webproxy.origin.via import Via
from webproxy.serving.http1_server import Http1Server
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.store.fill import Fills
from webproxy.store.lookup import ObjectLookup
from webproxy.store.store import NoStore
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.request_ids import RequestIds
from webproxy.telemetry.requests import RequestObserver
from webproxy.transport import sockets
from webproxy.transport.client_rate import UploadLimits
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.job import Idles, Job
from webproxy.transport.listener import open_listener

SPOOLS = SpoolLimits(directory=None, window_bytes=1 << 16)
PATIENT = UploadLimits(WATCHDOG_S, NO_LIMIT)


def http_handler(
    driver: OriginDriver,
    table: FetchTable,
    origins: OriginTable,
    shutdown: Shutdown,
    *,
    spools: SpoolLimits = SPOOLS,
    uploads: UploadLimits = PATIENT,
    fetches: HttpFetches | None = None,
    updates: CacheUpdater | None = None,
    purge_from: str = "127.0.0.0/8",
    observers: Sequence[RequestObserver] = (),
    ids: RequestIds | None = None,
    health_path: bytes | None = None,
) -> HttpRequestHandler:
    """What answers requests in a proxy without a cache."""
    store = NoStore()
    source, heads, via = source_of(store), ResponseHeads(b"us"), Via(b"us", b"0123")
    lookup = ObjectLookup(store)
    updates = updates or CacheUpdater(store, lookup)
    fills = Fills(store)
    means = FetchMeans(
        origin=driver,
        via=via,
        options=DEFAULT_OPTIONS,
        fills=fills,
        updates=updates,
        partials=PartialStore(store, lookup, updates, fills),
        window_bytes=spools.window_bytes,
        continue_after_share=0.0,
    )
    answers = Answers(
        FastPath(source, origins, heads, shutdown),
        StoredDelivery(source, OriginRest(driver, spools), via),
        PassThrough(driver, via, updates, spools, uploads),
    )
    policy = Policy(DEFAULT_OPTIONS, WATCHDOG_S, 2.0, (ipaddress.ip_network(purge_from),), health_path)
    fetches = fetches or HttpFetches(table, means)
    return HttpRequestHandler(heads, lookup, updates, origins, fetches, answers, policy, shutdown, observers, ids=ids)


class Peer:
    """One end of a connection, played by the test."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(WATCHDOG_S)
        self.socket = connection
        self._received = bytearray()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def send_beside(self, data: bytes) -> threading.Thread:
        """Send it in a thread, as far as the other side takes it."""

        def send() -> None:
            with contextlib.suppress(OSError):
                self.socket.sendall(data)

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    def until(self, mark: bytes = b"\r\n\r\n") -> bytes:
        """What comes up to and with the mark."""
        while mark not in self._received:
            self._more()
        return self._take(self._received.index(mark) + len(mark))

    def exactly(self, count: int) -> bytes:
        """The next bytes."""
        while len(self._received) < count:
            self._more()
        return self._take(count)

    def rest(self) -> bytes:
        """All that comes until the end of the connection, clean or not."""
        try:
            while data := self.socket.recv(65_536):
                self._received += data
        except ConnectionError:
            pass
        return bytes(self._received)

    def has_more(self) -> bool:
        """Whether there is anything to read now, the end included."""
        return bool(self._received) or bool(select.select([self.socket], [], [], 0)[0])

    def leave(self) -> None:
        """Close it."""
        self.socket.close()

    def reset(self) -> None:
        """Close it so that the other side's next send fails."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def _take(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        assert data, f"the connection ended after {self._received!r}"
        self._received += data


class SmallProxy:
    """`workers` threads serve; without any, the test takes the jobs itself."""

    def __init__(
        self,
        resources: ExitStack,
        *,
        workers: int = 2,
        window_bytes: int = 1 << 16,
        uploads: UploadLimits = PATIENT,
        spool_directory: Path | None = None,
        limits: OriginLimits | None = None,
        observers: Sequence[RequestObserver] = (),
        ids: RequestIds | None = None,
    ) -> None:
        self._resources = resources
        self.origin = resources.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.origin.settimeout(WATCHDOG_S)
        self._listener = resources.enter_context(open_listener("127.0.0.1", 0))
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        self.driver = OriginDriver()
        resources.callback(self.driver.close)
        self.idle, self.run_queue = IdleConnections(), RunQueue()
        resources.callback(self.run_queue.close)
        resources.callback(self.idle.close)
        self.shutdown = Shutdown()
        self.parking = ParkingLot(self.run_queue, self.idle, None, self.shutdown)
        resources.callback(self.parking.close)
        directory = None if spool_directory is None else str(spool_directory)
        self.table = FetchTable(threads=2, spool_directory=directory)
        resources.callback(self.table.stop, WATCHDOG_S)
        limits = replace(limits or OriginLimits(), health=HealthSettings(failures_to_open=0))
        url = f"http://127.0.0.1:{self.origin.getsockname()[1]}"
        self.handler = http_handler(
            self.driver,
            self.table,
            OriginTable([OriginRule(url=url, tries=1, limits=limits)]),
            self.shutdown,
            spools=SpoolLimits(directory=directory, window_bytes=window_bytes),
            uploads=uploads,
            observers=observers,
            ids=ids,
        )
        self.server = Http1Server(
            self.handler,
            self.parking,
            self.idle,
            ResponseHeads(b"us"),
            replace(LIMITS, keepalive_s=60.0),
            self.shutdown,
        )
        self._ending = False
        self.driver.start()
        self.parking.start()
        for _ in range(workers):
            thread = threading.Thread(target=self._work)
            thread.start()
            resources.callback(thread.join)
        resources.callback(self._end)

    # -- both ends -----------------------------------------------------------------------------------------------
    def client(self, request: bytes = b"", *, buffer_bytes: int = 0) -> Peer:
        """A connected client that has sent this; `buffer_bytes` bounds what it takes without reading."""
        connection = self._resources.enter_context(socket.socket())
        if buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.connect(self._listener.getsockname())
        fd = wait_until(lambda: sockets.accept(self._listener.fileno()), what="the connection")
        assert fd is not None
        if buffer_bytes:
            with socket.socket(fileno=os.dup(fd)) as served:
                served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        peer = Peer(connection)
        peer.send(request)
        self.parking.settle(Idles(self.server.connect(fd, b""), WATCHDOG_S))
        return peer

    def asked(self) -> Peer:
        """The next connection that the proxy makes to the origin."""
        connection, _ = self.origin.accept()
        return Peer(self._resources.enter_context(connection))

    def is_asked(self) -> bool:
        """Whether the proxy has made another one by now."""
        return bool(select.select([self.origin], [], [], 0)[0])

    # -- what becomes of it --------------------------------------------------------------------------------------
    def waits(self, count: int = 1) -> None:
        """Until so many requests wait, and nothing else goes on."""
        wait_until(lambda: self.parking.parked == count and not self.run_queue.waiting, what=f"{count} that wait")

    def counted(self, count: int = 1) -> dict[str, int]:
        """The outcomes, once there are so many, and nothing waits any longer."""
        totals = self.handler.outcomes.totals
        wait_until(lambda: sum(totals().values()) >= count, what=f"{count} outcomes")
        wait_until(lambda: self.parking.waiting == 0, what="the end of all that waits")
        return totals()

    def next_job(self) -> Job:
        """The next job that can be run, for a test that is the worker."""
        found = wait_until(self._take, what="a job")
        assert found is not None
        return found

    def _take(self) -> Job | None:
        return self.run_queue.take() or self.run_queue.take_back() or self.idle.take()

    def _work(self) -> None:
        poll = select.poll()
        poll.register(self.run_queue.fileno(), select.POLLIN)
        poll.register(self.idle.fileno(), select.POLLIN)
        while not self._ending:
            job = self._take()
            if job is not None:
                self.parking.settle(job.run())
            else:
                poll.poll(50)

    def _end(self) -> None:
        self._ending = True


@contextmanager
def small_proxy(
    *,
    workers: int = 2,
    window_bytes: int = 1 << 16,
    uploads: UploadLimits = PATIENT,
    spool_directory: Path | None = None,
    limits: OriginLimits | None = None,
    observers: Sequence[RequestObserver] = (),
    ids: RequestIds | None = None,
) -> Iterator[SmallProxy]:
    """One that runs; see SmallProxy."""
    with ExitStack() as resources:
        yield SmallProxy(
            resources,
            workers=workers,
            window_bytes=window_bytes,
            uploads=uploads,
            spool_directory=spool_directory,
            limits=limits,
            observers=observers,
            ids=ids,
        )
