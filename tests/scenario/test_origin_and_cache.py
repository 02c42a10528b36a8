"""Fallback mode with whole daemons: the cache first, the origin on a miss, and a fill while the client is served."""

from __future__ import annotations

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.client import Answer, ask, ask_all, connect, parse_answer, receive_to_end
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status, request_bytes
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(700_001)
ERROR = Answer(Status.ERROR, b"", 0)


def found(body: bytes) -> Answer:
    return Answer(Status.OK, body, len(body))


def wait_stored(proxy: DaemonProcess, origin: OriginStub, path: str, body: bytes) -> None:
    """Ask until a download makes no origin request: the client has its last byte a moment before the cache commits."""

    def served_by_the_cache() -> bool:
        before = origin.count(path)
        assert ask(proxy.port, path) == found(body)
        return origin.count(path) == before

    wait_until(served_by_the_cache, what=f"{path} in the cache")


def wait_fetched_again(proxy: DaemonProcess, origin: OriginStub, path: str, body: bytes) -> None:
    """Ask until a download makes an origin request: at first it may share the end of the fetch before."""
    before = origin.count(path)

    def fetched_again() -> bool:
        assert ask(proxy.port, path) == found(body)
        return origin.count(path) > before

    wait_until(fetched_again, what=f"another fetch of {path}")


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize(
    "segment", [["-n", "8"], ["-n", "1", "-z", "512"], ["-n", "2", "-z", "8k"], ["-n", "3", "-z", "1m"]]
)
def test_the_second_download_makes_no_origin_request(
    yard: DaemonYard, origin: OriginStub, framing: Framing, segment: list[str]
) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, *segment)
    for size in (0, 1, 128, 50_000):
        path = f"/{size}"
        origin.add(path, Route(body=BODY[:size], framing=framing))
        assert ask(proxy.port, path) == found(BODY[:size])
        assert ask(proxy.port, path) == found(BODY[:size])
        assert origin.count(path) == 1


def test_fifty_equal_misses_at_once_make_one_origin_request(yard: DaemonYard, origin: OriginStub) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    for path, body in {"/small": b"small", "/x": BODY}.items():
        origin.add(path, Route(body=body))
        assert ask_all(proxy.port, [path] * 50, clients=50) == [found(body)] * 50
        assert origin.count(path) == 1


def test_many_different_small_misses_at_once_are_each_fetched_once(yard: DaemonYard, origin: OriginStub) -> None:
    """The moment between a miss in the cache and the fetch of another that ends is short: many keys meet it."""
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    paths = [f"/{n}" for n in range(60)]
    for path in paths:
        origin.add(path, Route(body=path.encode() * 100))
    answers = ask_all(proxy.port, [path for path in paths for _ in range(8)], clients=16)
    assert answers == [found(path.encode() * 100) for path in paths for _ in range(8)]
    assert {path: origin.count(path) for path in paths} == dict.fromkeys(paths, 1)


def test_a_follower_is_served_while_the_leader_still_downloads(yard: DaemonYard, origin: OriginStub) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=400_000)
    origin.add("/x", route)
    with connect(proxy.port) as leader, connect(proxy.port) as follower:
        leader.sendall(request_bytes(b"/x"))
        assert route.reached.wait(WATCHDOG_S)
        follower.sendall(request_bytes(b"/x"))
        early = b""
        while len(early) < 400_000:  # and the origin has not sent the rest yet
            piece = follower.recv(65_536)
            assert piece
            early += piece
        assert not gate.is_set()
        gate.set()
        assert parse_answer(early + receive_to_end(follower)) == found(BODY)
        assert parse_answer(receive_to_end(leader)) == found(BODY)
    assert origin.count("/x") == 1
    assert ask(proxy.port, "/x") == found(BODY)
    assert origin.count("/x") == 1


def test_the_leader_goes_and_its_follower_and_the_cache_get_all(yard: DaemonYard, origin: OriginStub) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=400_000)
    origin.add("/x", route)
    with connect(proxy.port) as follower:
        with connect(proxy.port) as leader:
            leader.sendall(request_bytes(b"/x"))
            assert route.reached.wait(WATCHDOG_S)
            follower.sendall(request_bytes(b"/x"))
            beginning = follower.recv(1000)  # otherwise the leader could go first, and the fetch with it
            leader.recv(1000)
        gate.set()
        assert parse_answer(beginning + receive_to_end(follower)) == found(BODY)
    wait_stored(proxy, origin, "/x", BODY)
    assert origin.count("/x") == 1


@pytest.mark.parametrize("store", ["memory", "directory"])
def test_an_object_larger_than_the_store_is_delivered_and_not_stored(
    yard: DaemonYard, origin: OriginStub, tmp_path: Path, store: str
) -> None:
    where = "memory" if store == "memory" else str(tmp_path / "store")
    cache = yard.start_cache("--store", where, "--store-bytes", "256k")
    proxy = yard.start_proxy("-s", origin.url)
    origin.add("/large", Route(body=BODY))
    origin.add("/chunked", Route(body=BODY, framing=Framing.CHUNKED))
    origin.add("/fits", Route(body=BODY[:100_000]))
    for _ in range(3):
        wait_fetched_again(proxy, origin, "/large", BODY)
    assert not cache.events("object not stored")  # it is not offered
    wait_fetched_again(proxy, origin, "/chunked", BODY)
    wait_stored(proxy, origin, "/fits", BODY[:100_000])
    assert cache.events("object not stored")
    assert proxy.stop() == 0
    assert proxy.events("stopped")[0]["retired"] == 0


def test_cached_objects_are_served_while_the_origin_is_down(yard: DaemonYard) -> None:
    yard.start_cache()
    with OriginStub({"/x": Route(body=BODY), "/y": Route(body=b"y")}) as origin:
        proxy = yard.start_proxy("-s", origin.url, env={"WEBPROXY_ORIGIN_TRIES": "1"})
        wait_stored(proxy, origin, "/x", BODY)
    for _ in range(3):
        assert ask(proxy.port, "/x") == found(BODY)
    assert ask(proxy.port, "/y") == ERROR


def test_a_directory_store_keeps_what_was_filled_over_a_restart_of_the_cache(
    yard: DaemonYard, origin: OriginStub, tmp_path: Path
) -> None:
    store = ("--store", str(tmp_path / "store"))
    cache = yard.start_cache(*store)
    proxy = yard.start_proxy("-s", origin.url)
    bodies = {f"/{n}": BODY[: 1 + n * 60_000] for n in range(8)}
    for path, body in bodies.items():
        origin.add(path, Route(body=body, framing=Framing.CHUNKED))
        wait_stored(proxy, origin, path, body)
    assert cache.stop() == 0
    yard.start_cache(*store)
    assert ask_all(proxy.port, bodies, clients=4) == [found(body) for body in bodies.values()]
    assert {origin.count(path) for path in bodies} == {1}


def test_a_proxy_notices_that_its_cache_comes_goes_and_comes_again(yard: DaemonYard, origin: OriginStub) -> None:
    proxy = yard.start_proxy("-s", origin.url)
    origin.add("/x", Route(body=BODY))
    for _ in range(2):
        wait_fetched_again(proxy, origin, "/x", BODY)
    for round_number in range(2):
        cache = yard.start_cache()
        origin.add("/x", Route(body=b"%d" % round_number + BODY))
        wait_stored(proxy, origin, "/x", b"%d" % round_number + BODY)
        if round_number:
            cache.kill()
        else:
            assert cache.stop() == 0
        wait_fetched_again(proxy, origin, "/x", b"%d" % round_number + BODY)
    assert (len(proxy.events("cache not found")), len(proxy.events("cache lost"))) == (1, 2)


def test_proxies_share_what_one_of_them_filled(yard: DaemonYard, origin: OriginStub) -> None:
    yard.start_cache()
    first, *others = [yard.start_proxy("-s", origin.url) for _ in range(3)]
    origin.add("/x", Route(body=BODY))
    wait_stored(first, origin, "/x", BODY)
    requests = origin.count("/x")
    for other in others:
        assert ask(other.port, "/x") == found(BODY)
    assert origin.count("/x") == requests


def test_a_cache_killed_in_mid_fill_costs_the_client_nothing(yard: DaemonYard, origin: OriginStub) -> None:
    cache = yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    gate = threading.Event()
    route = Route(body=BODY * 4, hold=gate, hold_at=len(BODY) * 2)
    origin.add("/x", route)
    with ThreadPoolExecutor(1) as crew:
        answer = crew.submit(ask, proxy.port, "/x")
        assert route.reached.wait(WATCHDOG_S)
        cache.kill()
        gate.set()
        assert answer.result(WATCHDOG_S) == found(BODY * 4)
    yard.start_cache()
    wait_stored(proxy, origin, "/x", BODY * 4)


def test_a_cache_that_hangs_in_mid_fill_costs_the_client_nothing(yard: DaemonYard, origin: OriginStub) -> None:
    cache = yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, "-z", "4k", env={"WEBPROXY_BETWEEN_BYTES_TIMEOUT_S": "0.5"})
    gate = threading.Event()
    route = Route(body=BODY * 4, hold=gate, hold_at=len(BODY) * 2)
    origin.add("/x", route)
    with ThreadPoolExecutor(1) as crew:
        answer = crew.submit(ask, proxy.port, "/x")
        assert route.reached.wait(WATCHDOG_S)
        cache.signal(signal.SIGSTOP)
        wait_until(cache.is_stopped)
        gate.set()
        assert answer.result(WATCHDOG_S) == found(BODY * 4)
        wait_until(lambda: ask(proxy.port, "/missing").status is Status.FILE_NOT_FOUND)
        cache.signal(signal.SIGCONT)
    wait_stored(proxy, origin, "/x", BODY * 4)


def test_hits_go_before_a_fill_that_waits_for_its_origin(yard: DaemonYard, origin: OriginStub) -> None:
    """One segment: a fill holds it, and the origin pauses; a hit gets it, and the object is stored all the same."""
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, "-n", "1", "-z", "64k")
    origin.add("/hit", Route(body=BODY))
    wait_stored(proxy, origin, "/hit", BODY)
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=400_000)
    origin.add("/slow", route)
    with ThreadPoolExecutor(1) as crew:
        slow = crew.submit(ask, proxy.port, "/slow")
        assert route.reached.wait(WATCHDOG_S)
        before = origin.count("/hit")
        for _ in range(3):
            assert ask(proxy.port, "/hit") == found(BODY)
        assert origin.count("/hit") == before
        gate.set()
        assert slow.result(WATCHDOG_S) == found(BODY)
    wait_stored(proxy, origin, "/slow", BODY)
    assert origin.count("/slow") == 1


def test_a_slow_reader_of_a_hit_leaves_the_only_segment_to_others(yard: DaemonYard, origin: OriginStub) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url, "-n", "1")
    body = BODY * 30
    origin.add("/x", Route(body=body))
    origin.add("/y", Route(body=b"y"))
    wait_stored(proxy, origin, "/x", body)
    wait_stored(proxy, origin, "/y", b"y")
    with connect(proxy.port, receive_buffer_bytes=4096) as slow:
        slow.sendall(request_bytes(b"/x"))
        early = slow.recv(1000)
        for _ in range(5):
            assert ask(proxy.port, "/y") == found(b"y")
        assert parse_answer(early + receive_to_end(slow)) == found(body)
    assert (origin.count("/x"), origin.count("/y")) == (1, 1)


@pytest.mark.parametrize("store_bytes", ["64m", "4m"])
def test_a_mixed_load_with_failing_objects_keeps_every_byte_right(
    yard: DaemonYard, origin: OriginStub, store_bytes: str
) -> None:
    """In the small store objects come and go, also while a response of theirs is paused."""
    yard.start_cache("--store-bytes", store_bytes)
    proxy = yard.start_proxy("-s", origin.url, "-n", "3", "-z", "16k", env={"WEBPROXY_ORIGIN_TRIES": "2"})
    bodies = {f"/{n}": os.urandom(1 + 97_003 * (n % 9)) for n in range(24)}
    for number, (path, body) in enumerate(bodies.items()):
        broken = len(body) // 2 if number % 8 == 7 else None
        framing = list(Framing)[number % 3]
        origin.add(path, Route(body=body, framing=framing, truncate_at=broken))
    paths = list(bodies) * 8
    for path, answer in zip(paths, ask_all(proxy.port, paths, clients=12), strict=True):
        if answer.status is Status.OK:
            assert bodies[path].startswith(answer.body), path
            assert answer.whole or int(path[1:]) % 8 == 7, path
        else:
            assert int(path[1:]) % 8 == 7, path


@pytest.mark.parametrize("control", ["no-store", "private"])
def test_what_the_origin_wants_nobody_to_keep_is_delivered_and_not_stored(
    yard: DaemonYard, origin: OriginStub, control: str
) -> None:
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    origin.add("/x", Route(body=BODY, headers={"Cache-Control": control}))
    for _ in range(3):
        wait_fetched_again(proxy, origin, "/x", BODY)


def test_from_its_share_on_a_fetch_goes_on_though_its_client_has_left(yard: DaemonYard, origin: OriginStub) -> None:
    """Both clients leave in mid-body. The fetch that has got half of it fills the cache, the other one ends."""
    yard.start_cache()
    proxy = yard.start_proxy("-s", origin.url)
    body = BODY * 30
    gate = threading.Event()
    routes = {"/begun": Route(body=body, hold=gate, hold_at=len(body) // 4),
              "/nearly": Route(body=body, hold=gate, hold_at=len(body) * 3 // 4)}  # fmt: skip
    for path, route in routes.items():
        origin.add(path, route)
        with connect(proxy.port) as client:
            client.sendall(request_bytes(path.encode()))
            assert route.reached.wait(WATCHDOG_S)
            assert route.hold_at is not None
            for _ in range(route.hold_at // 65_536):  # what a client has, the proxy has received
                assert client.recv(65_536, socket.MSG_WAITALL)
    failed = wait_until(lambda: proxy.events("fetch failed"))
    assert [event["url"] for event in failed] == [f"{origin.url}/begun"]
    gate.set()
    wait_stored(proxy, origin, "/nearly", body)
    assert origin.count("/nearly") == 1
    wait_stored(proxy, origin, "/begun", body)
    assert origin.count("/begun") == 2
