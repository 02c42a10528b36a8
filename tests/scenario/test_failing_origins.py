"""Origins that fail: said at once, with what is stale in their place, until they answer; and bounds for slow ones."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.http.client import HttpClient, Reply, fetch, free_port
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status
from workloads.origin_stub import OriginStub, Route

STALE_SOON = {"Cache-Control": "max-age=1", "ETag": '"1"'}


def test_a_dead_origin_and_its_return(yard: DaemonYard) -> None:
    port = free_port()
    yard.start_cache()
    settings = {
        "WEBPROXY_ORIGIN_TRIES": "1",
        "WEBPROXY_ORIGIN_FAILURES_TO_OPEN": "3",
        "WEBPROXY_ORIGIN_PAUSE_S": "600",
        "WEBPROXY_ORIGIN_PAUSE_MAX_S": "600",
    }
    proxy = yard.start_proxy("-s", f"http://127.0.0.1:{port}", env=settings)
    with OriginStub({"/old": Route(body=b"old", headers=STALE_SOON)}, port=port):
        wait_until(lambda: fetch(proxy.port, "/old").is_hit)
    assert [fetch(proxy.port, f"/{number}").status for number in range(3)] == [502] * 3
    proxy.wait_event("origin fails, not asked for now")
    refused = fetch(proxy.port, "/3")
    assert (refused.status, refused.get("retry-after")) == (503, "600")
    assert ask(proxy.port, "/3").status is Status.ERROR

    def stale() -> Reply | None:
        reply = fetch(proxy.port, "/old")
        return None if reply.is_hit else reply

    reply = wait_until(stale)
    assert reply is not None
    assert (reply.status, reply.body) == (200, b"old")
    assert reply.cache["detail"] == '"stale: origin fails: no connection"'
    assert proxy.stop() == 0


def test_one_request_tries_whether_an_origin_answers_again(yard: DaemonYard) -> None:
    port = free_port()
    settings = {
        "WEBPROXY_ORIGIN_TRIES": "1",
        "WEBPROXY_ORIGIN_FAILURES_TO_OPEN": "1",
        "WEBPROXY_ORIGIN_PAUSE_S": "0.05",
    }
    proxy = yard.start_proxy("-s", f"http://127.0.0.1:{port}", "--no-cache", env=settings)
    assert fetch(proxy.port, "/x").status == 502
    with OriginStub({"/x": Route(body=b"back")}, port=port):
        wait_until(lambda: fetch(proxy.port, "/x").status == 200)
        assert fetch(proxy.port, "/x").body == b"back"
    proxy.wait_event("origin answers again")


def test_a_slow_first_byte_is_asked_for_once(yard: DaemonYard) -> None:
    route = Route(body=b"late", hold=threading.Event(), hold_head=True)
    with OriginStub({"/x": route, "/y": route}) as origin:
        settings = {"WEBPROXY_ORIGIN_STALL_S": "0.5"}
        proxy = yard.start_proxy("-s", origin.url, "--no-cache", env=settings)
        assert fetch(proxy.port, "/x").status == 504
        assert ask(proxy.port, "/y").status is Status.ERROR
        assert (origin.count("/x"), origin.count("/y")) == (1, 1)


def test_one_origin_has_its_share_of_connections_and_a_line(yard: DaemonYard) -> None:
    hold = threading.Event()
    route = Route(body=b"late", hold=hold, hold_head=True)
    with OriginStub({f"/{number}": route for number in range(4)}) as origin, ThreadPoolExecutor(2) as crew:
        settings = {"WEBPROXY_ORIGIN_CONNECTIONS_EACH_MAX": "1", "WEBPROXY_ORIGIN_LINE_MAX": "1"}
        proxy = yard.start_proxy("-s", origin.url, "--no-cache", env=settings)
        first = crew.submit(fetch, proxy.port, "/0")
        assert origin.wait_for("/0", 1)
        with HttpClient(proxy.port) as second:
            second.send("/1")
            busy = wait_until(lambda: busy_reply(proxy.port))
            assert busy is not None
            assert busy.get("retry-after") == "1"
            hold.set()
            assert second.receive().body == b"late"
        assert first.result(WATCHDOG_S).body == b"late"
        assert origin.connections_peak == 1


def busy_reply(port: int) -> Reply | None:
    """An answer for a full line; None if this request, which has left, was the one in it."""
    with HttpClient(port) as client:
        client.send("/2", method="HEAD")
        reply = client.receive(bodiless=True)
        return reply if reply.status == 503 else None
