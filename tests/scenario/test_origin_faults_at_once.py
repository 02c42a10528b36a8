"""All faults of an origin at once, by all kinds of requests: one thread drives them all, and none harms another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.http.client import Reply, fetch
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S
from webproxy.getfile import Status
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(100_000)
FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"'}
METHODS = {"GET", "HEAD", "POST"}
ENV = {
    "WEBPROXY_ORIGIN_STALL_S": "4",
    "WEBPROXY_ORIGIN_TRIES": "1",
    "WEBPROXY_ORIGIN_FAILURES_TO_OPEN": "0",  # all share one origin
    "WEBPROXY_FAILURES_SHARED_S": "0",
    "WEBPROXY_ORIGIN_CONNECTIONS_EACH_MAX": "200",
}


def route(**script: object) -> Route:
    return Route(**{"body": BODY, "headers": FRESH, "methods": METHODS, **script})  # type: ignore[arg-type]


FAULTS = {
    "ends before the body": route(truncate_at=0),
    "ends in mid-body": route(truncate_at=50_000),
    "ends before the last byte": route(truncate_at=len(BODY) - 1),
    "ends between chunks": route(truncate_at=50_000, framing=Framing.CHUNKED),
    "resets before the body": route(reset_at=0),
    "resets in mid-body": route(reset_at=50_000),
    "resets between chunks": route(reset_at=50_000, framing=Framing.CHUNKED),
    "resets a body to the close": route(reset_at=50_000, framing=Framing.CLOSE),
    "stalls in mid-body": route(stall_at=50_000, stall_s=60.0),
    "stalls between chunks": route(stall_at=50_000, stall_s=60.0, framing=Framing.CHUNKED),
    "sends no head": route(hold=threading.Event(), hold_head=True),
    "sends an interim response and no head": route(hold=threading.Event(), hold_head=True, interim=[(103, {})]),
    "declares too much": route(declared_length=len(BODY) + 1),
    "two lengths": route(headers={**FRESH, "Content-Length": "5, 6"}),
    "a length that is none": route(headers={**FRESH, "Content-Length": "many"}),
}
"""No client may take what comes of these for a whole response of status 200."""
GOOD = {
    "plain": route(),
    "in chunks": route(framing=Framing.CHUNKED),
    "to the close": route(framing=Framing.CLOSE),
    "HTTP/1.0": route(version="HTTP/1.0"),
    "late": route(delay_s=0.3),
    "slow": route(drip_bytes_per_s=200_000),
    "with a pause": route(stall_at=50_000, stall_s=0.3),
    "with interim responses and trailers": route(
        interim=[(103, {"Link": "</a>"})], framing=Framing.CHUNKED, trailers={"A": "b"}
    ),
    "answers without reading": route(reads_body=False),
    "asks nobody to continue": route(continues=False),
}


class Got(NamedTuple):
    """What came: whether it says that it is all, and the part of the body."""

    is_whole: bool
    body: bytes


def of_http(reply: Reply) -> Got:
    return Got(reply.whole and reply.status == 200, reply.body if reply.status == 200 else b"")


def by_getfile(port: int, path: str) -> Got:
    answer = ask(port, path)
    return Got(answer.whole and answer.status is Status.OK, answer.body)


ASKING: dict[str, Callable[[int, str], Got]] = {
    "GET": lambda port, path: of_http(fetch(port, path)),
    "no-store": lambda port, path: of_http(fetch(port, path, "Cache-Control: no-store")),
    "POST": lambda port, path: of_http(fetch(port, path, "Content-Length: 3", method="POST", body=b"abc")),
    "Expect": lambda port, path: of_http(
        fetch(port, path, "Content-Length: 3", "Expect: 100-continue", method="POST", body=b"abc")
    ),
    "getfile": by_getfile,
}


def test_each_ends_as_it_must_and_the_others_are_whole(yard: DaemonYard) -> None:
    yard.start_cache()
    routes = {**FAULTS, **GOOD}
    paths = {name: f"/{number}" for number, name in enumerate(routes)}
    asked = [(name, how) for name in routes for how in ASKING]
    with OriginStub({}) as origin, ThreadPoolExecutor(len(asked)) as crew:
        for name, how in asked:
            origin.add(f"{paths[name]}?{how}", routes[name])
        proxy = yard.start_proxy("-s", origin.url, env=ENV)
        futures = {(name, how): crew.submit(ASKING[how], proxy.port, f"{paths[name]}?{how}") for name, how in asked}
        got = {request: future.result(WATCHDOG_S) for request, future in futures.items()}
        assert [request for request in got if request[0] in GOOD and got[request] != (True, BODY)] == []
        assert [request for request in got if request[0] in FAULTS and got[request].is_whole] == []
        assert [request for request in got if not BODY.startswith(got[request].body)] == []
        for name in FAULTS:
            origin.add(f"{paths[name]}?GET", route())
            assert fetch(proxy.port, f"{paths[name]}?GET").body == BODY, f"nothing of {name} is stored"
    assert proxy.stop() == 0
    (stopped,) = proxy.events("stopped")
    assert (stopped["unfinished"], stopped["leased"]) == (0, 0)
    assert [event for event in proxy.events() if "exception" in event] == []
