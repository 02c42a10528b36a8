"""One fetch for equal misses over all processes of one cache: whole daemons, of which some end or hang."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from shmchannel.stats_pages import OTHER, PageReading, read_pages
from tests.http.client import HttpClient, Reply, fetch
from tests.support.client import Answer, ask, connect
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status, request_bytes
from workloads.origin_stub import Framing, OriginStub, Request, Route

SMALL, LARGE = os.urandom(8192), os.urandom(3_000_000)
FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"'}


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    with OriginStub({}) as stub:
        yield stub


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[DaemonYard]:
    with DaemonYard(tmp_path) as started:
        yield started


@pytest.fixture
def crew() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(128) as executor:
        yield executor


def held_route(body: bytes, **more: object) -> Route:
    """A route whose body stops at a third until the test lets it go on."""
    return Route(body=body, headers=FRESH, hold=threading.Event(), hold_at=len(body) // 3, **more)  # type: ignore[arg-type]


def misses(
    crew: ThreadPoolExecutor, proxies: list[DaemonProcess], path: str, count: int, *fields: str
) -> list[Future[Reply]]:
    """So many requests at each proxy, at once."""
    ports = [proxy.port for proxy in proxies]
    return [crew.submit(fetch, port, path, *fields) for _ in range(count) for port in ports]


def replies(futures: list[Future[Reply]]) -> list[Reply]:
    return [future.result(WATCHDOG_S) for future in futures]


def connections_at(proxy: DaemonProcess) -> int:
    """How many processes follow a fetch of this one, or did a moment ago, by the sockets that bear its pool's name."""
    pool = str(proxy.wait_event("listening")["pool"])
    lines = Path("/proc/net/unix").read_text(encoding="ascii", errors="replace").splitlines()
    return sum(line.endswith(f" @{pool}") and line.split()[5] == "03" for line in lines)


def pages_of(proxies: list[DaemonProcess]) -> list[PageReading]:
    """One of each worker."""
    pids = {proxy.pid for proxy in proxies}
    return [page for page in read_pages("proxy") if page.owner and page.owner.pid in pids]


def test_one_fetch_over_all_workers_and_proxies(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    route = held_route(LARGE)
    origin.add("/x", [route])
    yard.start_cache("--store-bytes", "64m")
    proxies = [yard.start_proxy("-s", origin.url, "--workers", str(count), wait=False) for count in (4, 1)]
    for proxy in proxies:
        proxy.wait_ready()
    asked = misses(crew, proxies, "/x", 50)
    assert route.reached.wait(WATCHDOG_S)
    wait_until(
        lambda: sum(page.number("gfcache_proxy_requests_waiting") for page in pages_of(proxies)) >= len(asked),
        what="all of them waiting, none of which can be a hit",
    )
    route.hold.set()  # type: ignore[union-attr]
    assert {reply.body for reply in replies(asked)} == {LARGE}
    assert origin.count("/x") == 1
    pages = pages_of(proxies)
    counted = {name for page in pages for (name,) in page.metrics["gfcache_proxy_origin_requests_total"].numbers}
    assert len(pages) == 5
    assert counted - {OTHER} == {origin.url.rstrip("/")}, "whoever holds a fetch is no origin"
    for proxy in proxies:
        assert proxy.stop() == 0


def two(yard: DaemonYard, origin: OriginStub, *arguments: str, count: int = 2) -> list[DaemonProcess]:
    """Proxies on one cache."""
    yard.start_cache("--store-bytes", "64m")
    return [yard.start_proxy("-s", origin.url, *arguments) for _ in range(count)]


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
def test_a_follower_reads_the_body_as_it_grows(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor, framing: Framing
) -> None:
    route = held_route(LARGE, framing=framing)
    origin.add("/x", [route])
    first, second = two(yard, origin)
    leader = crew.submit(fetch, first.port, "/x")
    assert route.reached.wait(WATCHDOG_S)
    with HttpClient(second.port) as client:
        client.send("/x")
        head = client.head()
        assert head.status == 200
        assert head.cache.get("fwd") == "uri-miss"
        assert "collapsed" in head.cache
        assert head.get("etag") == '"1"'
        beginning = client.some()
        assert LARGE.startswith(beginning[-100:]) or beginning
    with HttpClient(second.port) as client:
        client.send("/x")
        route.hold.set()  # type: ignore[union-attr]
        assert client.receive().body == LARGE
    assert leader.result(WATCHDOG_S).body == LARGE
    assert origin.count("/x") == 1


def test_a_holder_that_is_killed_in_mid_body(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    """Every follower is complete and exact, and the next who asks fetches it for all."""
    route = held_route(LARGE)
    origin.add("/x", [route, Route(body=LARGE, headers=FRESH)])
    holder, *others = two(yard, origin, count=3)
    broken = crew.submit(fetch, holder.port, "/x")
    assert route.reached.wait(WATCHDOG_S)
    asked = misses(crew, others, "/x", 20)
    wait_until(lambda: connections_at(holder) >= 2, what="followers")
    holder.kill()
    route.hold.set()  # type: ignore[union-attr]
    assert {(reply.status, reply.whole, reply.body) for reply in replies(asked)} == {(200, True, LARGE)}
    assert not broken.result(WATCHDOG_S).whole
    # For what is missing one for each process at most, and one under a new lease, for whoever came after the end.
    assert origin.count("/x") <= 2 + len(others)
    wait_until(lambda: fetch(others[0].port, "/x").is_hit, what="the object in the cache")


def test_a_holder_that_is_killed_before_the_head(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    """One of the others takes the lease, and the rest follow that one."""
    held = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    again = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    origin.add("/x", [held, again])
    holder, *others = two(yard, origin, count=3)
    with HttpClient(holder.port) as client:
        client.send("/x")
        assert held.reached.wait(WATCHDOG_S)
        asked = misses(crew, others, "/x", 20)
        wait_until(lambda: connections_at(holder) >= 2, what="followers")
        holder.kill()
    assert again.reached.wait(WATCHDOG_S)
    again.hold.set()  # type: ignore[union-attr]
    held.hold.set()  # type: ignore[union-attr]
    assert {(reply.status, reply.body) for reply in replies(asked)} == {(200, SMALL)}
    assert origin.count("/x") == 2


def test_a_holder_that_is_told_to_stop_before_the_head(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    """Its end is no failure of the origin: the others fetch it."""
    held = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    origin.add("/x", [held, Route(body=SMALL, headers=FRESH)])
    holder, *others = two(yard, origin, count=3)
    with HttpClient(holder.port) as client:
        client.send("/x")
        assert held.reached.wait(WATCHDOG_S)
        asked = misses(crew, others, "/x", 20)
        wait_until(lambda: connections_at(holder) >= 2, what="followers")
        for _ in range(2):  # the second one does not wait
            holder.signal(signal.SIGINT)
        assert {(reply.status, reply.body) for reply in replies(asked)} == {(200, SMALL)}
    held.hold.set()  # type: ignore[union-attr]
    assert not [event for proxy in others for event in proxy.events("fetch failed")]


def test_a_client_that_leaves_what_is_followed_is_no_failure(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    route = held_route(LARGE)
    origin.add("/x", [route])
    holder, follower = two(yard, origin, "--log-level", "debug")
    leader = crew.submit(fetch, holder.port, "/x")
    assert route.reached.wait(WATCHDOG_S)
    with HttpClient(follower.port) as client:
        client.send("/x")
        assert client.head().status == 200
    failed = follower.wait_event("fetch failed")
    assert (failed["level"], "no reader left" in failed["reason"]) == ("info", True)
    assert "process" not in failed["reason"], "the holder lives"
    route.hold.set()  # type: ignore[union-attr]
    assert leader.result(WATCHDOG_S).body == LARGE
    assert origin.count("/x") == 1


def test_a_holder_that_hangs(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    held = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    origin.add("/x", [held, Route(body=SMALL, headers=FRESH)])
    yard.start_cache("--store-bytes", "64m")
    holder, *others = [yard.start_proxy("-s", origin.url, env={"WEBPROXY_HOLDER_TIMEOUT_S": "2"}) for _ in range(3)]
    first = crew.submit(fetch, holder.port, "/x")
    assert held.reached.wait(WATCHDOG_S)
    asked = misses(crew, others, "/x", 10)
    wait_until(lambda: connections_at(holder) >= 2, what="followers")
    holder.signal(signal.SIGSTOP)
    try:
        assert {(reply.status, reply.body) for reply in replies(asked)} == {(200, SMALL)}
    finally:
        holder.signal(signal.SIGCONT)
        held.hold.set()  # type: ignore[union-attr]
    assert first.result(WATCHDOG_S).body == SMALL
    assert origin.count("/x") == 2, "one of the two says first that the lease is void, and the other follows it"


def test_a_slow_origin_is_waited_for(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    """Longer than a holder may be silent: it says that it lives."""
    origin.add("/x", [Route(body=SMALL, headers=FRESH, delay_s=3.5), Route(body=b"another")])
    yard.start_cache("--store-bytes", "64m")
    proxies = [yard.start_proxy("-s", origin.url, env={"WEBPROXY_HOLDER_TIMEOUT_S": "2"}) for _ in range(2)]
    assert {reply.body for reply in replies(misses(crew, proxies, "/x", 5))} == {SMALL}
    assert origin.count("/x") == 1


@pytest.mark.parametrize("why", ["private", "no-store"])
def test_what_may_not_be_shared_is_fetched_by_all_at_once(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor, why: str
) -> None:
    """The origin answers none of those who followed before all have asked: they do not wait for each other."""
    rules, everybody = {"Cache-Control": why}, threading.Barrier(2)
    held = Route(body=b"first", headers=rules, hold=threading.Event(), hold_head=True)

    def answer(_request: Request) -> Route:
        everybody.wait(WATCHDOG_S)
        return Route(body=os.urandom(100), headers=rules)

    origin.add("/x", [held, Route(choose=answer)])
    holder, *others = two(yard, origin, count=3)
    leader = crew.submit(fetch, holder.port, "/x")
    assert held.reached.wait(WATCHDOG_S)
    asked = misses(crew, others, "/x", 1)
    wait_until(lambda: connections_at(holder) >= 2, what="followers")
    held.hold.set()  # type: ignore[union-attr]
    bodies = {reply.body for reply in replies(asked)}
    assert len(bodies | {leader.result(WATCHDOG_S).body}) == 3
    assert origin.count("/x") == 3


def test_a_stale_object_is_validated_once_by_each_process_at_most(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    """And by none that looks after the first answer (docs/decisions/0033)."""
    stale = {"Cache-Control": "max-age=600", "Age": "600", "ETag": '"1"'}
    first = Route(body=SMALL, headers=stale)
    again = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    origin.add("/x", [first, again])
    proxies = two(yard, origin, count=3)
    assert fetch(proxies[0].port, "/x").body == SMALL
    only_stored = "Cache-Control: only-if-cached"
    wait_until(lambda: "stale" in fetch(proxies[0].port, "/x", only_stored).get("cache-status"), what="it is stored")
    asked = misses(crew, proxies[:2], "/x", 20)
    wait_until(lambda: origin.count("/x") == 3, what="a validation of each")
    again.hold.set()  # type: ignore[union-attr]
    assert {(reply.status, reply.body) for reply in replies(asked)} == {(200, SMALL)}
    assert fetch(proxies[2].port, "/x").is_hit
    assert origin.count("/x") == 3
    assert [request.headers.get("if-none-match") for request in origin.requests] == [None, '"1"', '"1"']


def test_a_failure_of_the_origin_is_one_for_all(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    held = Route(status=404, body=b"nothing", hold=threading.Event(), hold_head=True)
    origin.add("/x", [held])
    first, second = two(yard, origin)
    leader = crew.submit(fetch, first.port, "/x")
    assert held.reached.wait(WATCHDOG_S)
    asked = misses(crew, [second], "/x", 5)
    wait_until(lambda: connections_at(first) >= 1, what="a follower")
    held.hold.set()  # type: ignore[union-attr]
    assert {(reply.status, reply.body) for reply in [leader.result(WATCHDOG_S), *replies(asked)]} == {(404, b"nothing")}
    assert origin.count("/x") == 1


def test_a_purge_ends_what_others_follow(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    """Who asks after it gets what the origin says after it, from whichever process, and so does the cache."""
    held = Route(body=b"old", headers=FRESH, hold=threading.Event(), hold_head=True)
    origin.add("/x", [held, Route(body=SMALL, headers=FRESH)])
    first, second = two(yard, origin)
    before = [crew.submit(fetch, first.port, "/x")]
    assert held.reached.wait(WATCHDOG_S)
    before.append(crew.submit(fetch, second.port, "/x"))
    wait_until(lambda: connections_at(first) >= 1, what="a follower")
    assert fetch(second.port, "/x", method="PURGE").status == 200
    assert fetch(second.port, "/x").body == SMALL
    held.hold.set()  # type: ignore[union-attr]
    assert {reply.body for reply in replies(before)} == {b"old"}
    first.wait_event("object not stored")
    assert [fetch(proxy.port, "/x").body for proxy in (first, second)] == [SMALL] * 2


def test_without_a_cache_each_process_fetches(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    """Leases vanish with it; nobody waits."""
    origin.add("/x", [Route(body=SMALL, headers=FRESH)])
    cache = yard.start_cache("--store-bytes", "64m")
    proxies = [yard.start_proxy("-s", origin.url) for _ in range(2)]
    cache.kill()
    assert {reply.body for reply in replies(misses(crew, proxies, "/x", 5))} == {SMALL}


def test_switched_off(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    held = held_route(LARGE)
    origin.add("/x", [held, Route(body=LARGE, headers=FRESH)])
    first, second = two(yard, origin, "--no-shared-fetches")
    leader = crew.submit(fetch, first.port, "/x")
    assert held.reached.wait(WATCHDOG_S)
    assert fetch(second.port, "/x").body == LARGE
    held.hold.set()  # type: ignore[union-attr]
    assert leader.result(WATCHDOG_S).body == LARGE
    assert origin.count("/x") == 2


# -- getfile ---------------------------------------------------------------------------------------------------------
def asks(crew: ThreadPoolExecutor, proxies: list[DaemonProcess], path: str, count: int) -> list[Future[Answer]]:
    """So many getfile requests at each proxy, at once."""
    ports = [proxy.port for proxy in proxies]
    return [crew.submit(ask, port, path) for _ in range(count) for port in ports]


def test_getfile_shares_its_fetches_too(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    route = held_route(LARGE)
    origin.add("/x", [route])
    proxies = two(yard, origin)
    asked = asks(crew, proxies, "/x", 50)
    assert route.reached.wait(WATCHDOG_S)
    wait_until(lambda: sum(map(connections_at, proxies)) >= 1, what="a follower")
    route.hold.set()  # type: ignore[union-attr]
    assert {future.result(WATCHDOG_S).body for future in asked} == {LARGE}
    assert origin.count("/x") == 1


def test_getfile_follows_a_holder_that_is_killed(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    route = held_route(LARGE)
    origin.add("/x", [route, Route(body=LARGE, headers=FRESH)])
    holder, *others = two(yard, origin, count=3)
    with connect(holder.port) as client:
        client.sendall(request_bytes(b"/x"))
        assert route.reached.wait(WATCHDOG_S)
        asked = asks(crew, others, "/x", 10)
        wait_until(lambda: connections_at(holder) >= 2, what="followers")
        holder.kill()
    route.hold.set()  # type: ignore[union-attr]
    assert {future.result(WATCHDOG_S).body for future in asked} == {LARGE}


def test_getfile_follows_a_holder_that_is_killed_before_the_head(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    held = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    again = Route(body=SMALL, headers=FRESH, hold=threading.Event(), hold_head=True)
    origin.add("/x", [held, again])
    holder, *others = two(yard, origin, count=3)
    with connect(holder.port) as client:
        client.sendall(request_bytes(b"/x"))
        assert held.reached.wait(WATCHDOG_S)
        asked = asks(crew, others, "/x", 10)
        wait_until(lambda: connections_at(holder) >= 2, what="followers")
        holder.kill()
    assert again.reached.wait(WATCHDOG_S)
    again.hold.set()  # type: ignore[union-attr]
    held.hold.set()  # type: ignore[union-attr]
    assert {future.result(WATCHDOG_S).body for future in asked} == {SMALL}
    assert origin.count("/x") == 2


def test_a_missing_file_is_one_question_for_all(yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor) -> None:
    held = Route(status=404, hold=threading.Event(), hold_head=True)
    origin.add("/x", [held])
    first, second = two(yard, origin)
    leader = crew.submit(ask, first.port, "/x")
    assert held.reached.wait(WATCHDOG_S)
    asked = asks(crew, [second], "/x", 5)
    wait_until(lambda: connections_at(first) >= 1, what="a follower")
    held.hold.set()  # type: ignore[union-attr]
    statuses = {future.result(WATCHDOG_S).status for future in (leader, *asked)}
    assert statuses == {Status.FILE_NOT_FOUND}
    assert origin.count("/x") == 1


def test_the_two_protocols_do_not_wait_for_each_other(
    yard: DaemonYard, origin: OriginStub, crew: ThreadPoolExecutor
) -> None:
    """Each has its own fetch, as in one process."""
    held = held_route(LARGE)
    origin.add("/x", [held, Route(body=LARGE, headers=FRESH)])
    first, second = two(yard, origin)
    leader = crew.submit(fetch, first.port, "/x")
    assert held.reached.wait(WATCHDOG_S)
    assert ask(second.port, "/x").body == LARGE
    held.hold.set()  # type: ignore[union-attr]
    assert leader.result(WATCHDOG_S).body == LARGE
    assert origin.count("/x") == 2
