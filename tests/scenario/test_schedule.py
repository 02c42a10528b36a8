"""--schedule under overload: who is served first, and who is refused, when all workers are busy and a line forms."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.http.client import HttpClient, fetch
from tests.support.daemons import NO_HOT_TABLE, DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from webproxy.serving.run_queue import LIFO_DEPTH
from workloads.origin_stub import OriginStub, Route

CLIENTS, LINE_MAX = 100, 80
ENV = {
    "WEBPROXY_CACHE_FIRST_BYTE_TIMEOUT_S": "600",  # a worker is held by a cache that does not answer
    "WEBPROXY_CACHE_TIMEOUT_S": "600",
    "WEBPROXY_RUN_QUEUE_MAX": str(LINE_MAX),
    "WEBPROXY_RUN_QUEUE_S": "600",
    "WEBPROXY_ORIGIN_CONNECTIONS_EACH_MAX": "1",  # requests reach the origin in the order in which they are served
    "WEBPROXY_ORIGIN_LINE_MAX": str(CLIENTS),
    "WEBPROXY_ORIGIN_LINE_S": "600",
}


def in_line(port: int) -> int:
    """How many connections wait in a listener's queue, which is what /proc/net/tcp calls its receive queue."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        for _, local, _, state, queues, *_ in (line.split() for line in table):
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                return int(queues.partition(":")[2], 16)
    raise AssertionError(f"nobody listens on port {port}")


def hold_the_worker(cache: DaemonProcess, client: HttpClient, port: int) -> None:
    """The only worker waits for the cache: what comes behind it stays in the line."""
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped)
    client.send("/held")
    wait_until(lambda: in_line(port) == 0, what="a worker that is held")


@pytest.mark.parametrize("schedule", ["fifo", "lifo"])
def test_who_is_served_and_who_is_refused(yard: DaemonYard, tmp_path: Path, schedule: str) -> None:
    cache = yard.start_cache(env=NO_HOT_TABLE)
    with (
        OriginStub({"/held": Route(body=b"held", headers={"Cache-Control": "max-age=600"})}) as origin,
        ExitStack() as ending,
    ):
        for number in range(CLIENTS):
            origin.add(f"/{number}", Route(body=b"%d" % number, headers={"Cache-Control": "no-store"}))
        port = yard.start_proxy("-s", origin.url, "-t", "1", "--schedule", schedule, env=ENV).port
        wait_until(lambda: fetch(port, "/held").is_hit, what="a hit")
        held = ending.enter_context(HttpClient(port))
        hold_the_worker(cache, held, port)
        clients = []
        for number in range(CLIENTS):
            clients.append(ending.enter_context(HttpClient(port)))
            clients[-1].send(f"/{number}", "Connection: close")
            wait_until(lambda expected=number + 1: in_line(port) == expected, what="its place in the line")
        cache.signal(signal.SIGCONT)
        replies = [client.receive() for client in clients]
        assert held.receive().body == b"held"
        served = [number for number, reply in enumerate(replies) if reply.status == 200]
        refused = [(reply.status, reply.get("retry-after")) for reply in replies if reply.status != 200]
        assert [replies[number].body for number in served] == [b"%d" % number for number in served]
        assert refused == [(503, "1")] * (CLIENTS - LINE_MAX)
        order = [int(request.path[1:]) for request in origin.requests if request.path != "/held"]
        assert order == expected_order(schedule)
        assert served == sorted(order)


def expected_order(schedule: str) -> list[int]:
    """FIFO refuses the newest; LIFO the oldest, and takes the newest first until the line is short."""
    if schedule == "fifo":
        return list(range(LINE_MAX))
    oldest, newest = CLIENTS - LINE_MAX, CLIENTS - (LINE_MAX - LIFO_DEPTH)
    return [*range(CLIENTS - 1, newest - 1, -1), *range(oldest, newest)]
