"""After any failure, no wrong byte is delivered as part of a whole answer, and no bad object is stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.http.client import HttpClient, fetch
from tests.http.site import Site
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status
from workloads.origin_stub import Framing, OriginStub, Route

PROXY_ENV = {"WEBPROXY_ORIGIN_STALL_S": "2"}
FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"'}
BODY = bytes(range(256)) * 4000


FAULTS = {
    "truncated": Route(body=BODY, headers=FRESH, truncate_at=300_000),
    "truncated at once": Route(body=BODY, headers=FRESH, truncate_at=0),
    "truncated at the last byte": Route(body=BODY, headers=FRESH, truncate_at=len(BODY) - 1),
    "reset": Route(body=BODY, headers=FRESH, reset_at=300_000),
    "stalled": Route(body=BODY, headers=FRESH, stall_at=300_000, stall_s=30.0),
    "declares too much": Route(body=BODY, headers=FRESH, declared_length=len(BODY) + 1),
    "two lengths": Route(body=BODY, headers={**FRESH, "Content-Length": "5, 6"}),
}


@pytest.mark.parametrize(
    ("fault", "framing"),
    [(fault, Framing.LENGTH) for fault in FAULTS]
    + [(fault, Framing.CHUNKED) for fault in FAULTS if "length" not in fault and "declares" not in fault]
    + [(fault, Framing.CLOSE) for fault in ("reset", "stalled")],  # cut short it would be whole: nobody could tell
)
def test_a_fault_of_the_origin(site: Site, fault: str, framing: Framing) -> None:
    """The client gets an error or a body that is visibly short; later clients get all of it."""
    path = site.put(replace(FAULTS[fault], framing=framing), Route(body=BODY, headers=FRESH))
    reply = site.get(path)
    assert reply.status in (502, 504) or not reply.whole
    assert reply.status != 200 or reply.body == BODY[: len(reply.body)]
    assert not site.holds(path)
    assert site.get(path).body == BODY
    assert site.stored(path).body == BODY


@pytest.mark.parametrize("fault", ["truncated", "reset", "stalled"])
def test_a_fault_while_many_ask(site: Site, fault: str) -> None:
    path = site.put(FAULTS[fault])
    for reply in site.get_all([(path,)] * 12):
        assert reply.status in (502, 504) or (not reply.whole and BODY.startswith(reply.body))
    assert not site.holds(path)


def test_a_fault_of_a_replacement_leaves_what_is_stored(site: Site) -> None:
    path = site.fill(
        Route(body=b"old", headers={**FRESH, "Age": "1000"}),
        Route(body=BODY, headers={**FRESH, "ETag": '"2"'}, truncate_at=500_000),
        Route(status=304, headers={"ETag": '"1"'}),
    )
    assert not site.get(path).whole
    assert site.get(path).body == b"old"


def test_a_redirect_loop_is_the_clients(site: Site) -> None:
    """HTTP clients follow by themselves; getfile, which cannot, is told that it failed."""
    path = site.put(Route())
    site.origin.add(path, Route(redirect_to=path))
    reply = site.get(path)
    assert (reply.status, reply.get("location")) == (302, path)
    assert ask(site.port, path).status is Status.ERROR
    assert not site.holds(path)


def test_a_body_of_unknown_length_that_is_cut_is_not_stored_as_whole(site: Site) -> None:
    """Chunks have an end of their own; a body that ends with its connection has none, so nobody can tell."""
    path = site.put(Route(body=BODY, headers=FRESH, framing=Framing.CHUNKED, truncate_at=70_000))
    reply = site.get(path)
    assert not reply.whole
    assert not site.holds(path)


def test_a_body_that_ends_with_its_connection_by_a_reset(site: Site) -> None:
    """Then it can be told after all: nothing is stored, and who reads sees that it is short, by either protocol."""
    path = site.put(Route(body=BODY, headers=FRESH, framing=Framing.CLOSE, reset_at=70_000))
    reply = site.get(path)
    assert (reply.status, reply.whole, BODY.startswith(reply.body)) == (200, False, True) or reply.status == 502
    assert ask(site.port, path).status is Status.ERROR
    assert not site.holds(path)


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    """An origin for daemons of the test's own."""
    with OriginStub({"/x": Route(body=BODY, headers=FRESH)}) as stub:
        yield stub


def wait_hit(port: int, path: str) -> None:
    wait_until(lambda: fetch(port, path).is_hit, what=f"{path} from the cache")


@pytest.mark.parametrize("store", ["memory", "directory"])
def test_a_restart_of_the_cache(yard: DaemonYard, origin: OriginStub, tmp_path: Path, store: str) -> None:
    where = ("--store", "memory" if store == "memory" else str(tmp_path / "store"))
    origin.add("/v", Route(body=b"varying", headers={**FRESH, "Vary": "A"}))
    origin.add("/gone", Route(status=410, body=b"gone", headers=FRESH))
    cache = yard.start_cache(*where)
    port = yard.start_proxy("-s", origin.url, env={"WEBPROXY_FAILURES_SHARED_S": "0"}).port
    paths = ("/x", "/v", "/gone")
    for path in paths:
        wait_hit(port, path)
    bodies = {path: fetch(port, path).body for path in paths}
    assert cache.stop() == 0
    assert fetch(port, "/x").body == BODY  # without a cache the origin is asked
    before = {path: origin.count(path) for path in paths}
    yard.start_cache(*where)
    for path in paths:
        reply = fetch(port, path)
        assert reply.body == bodies[path]
        assert reply.is_hit == (store == "directory")
        assert origin.count(path) == before[path] + (store == "memory")


def test_a_cache_killed_in_mid_body_of_a_hit(yard: DaemonYard, origin: OriginStub) -> None:
    body = BODY * 20
    origin.add("/big", Route(body=body, headers=FRESH))
    cache = yard.start_cache()
    port = yard.start_proxy("-s", origin.url, "-n", "4", "-z", "65536").port
    wait_hit(port, "/big")
    with HttpClient(port) as client:
        client.send("/big")
        head = client.head()
        assert (head.is_hit, head.get("content-length")) == (True, str(len(body)))
        received = client.rest(100_000)
        cache.kill()
        received += client.rest(len(body) - 100_000)
        assert body.startswith(received)
        assert len(received) == len(body) or client.ended()
    assert fetch(port, "/big").body == body
    yard.start_cache()
    wait_hit(port, "/big")
    assert fetch(port, "/big").body == body


def test_an_absent_cache_slows_nothing_down_and_nothing_is_kept(yard: DaemonYard, origin: OriginStub) -> None:
    port = yard.start_proxy("-s", origin.url).port
    assert fetch(port, "/x").body == BODY

    def asked_again() -> bool:  # a request during the end of the previous fetch would share its answer
        assert fetch(port, "/x").body == BODY
        return origin.count("/x") > 1

    wait_until(asked_again, what="a second fetch")
    assert not fetch(port, "/x").cache.keys() & {"stored", "hit"}
    assert fetch(port, "/x", "Range: bytes=1-2").body == BODY[1:3]
    assert fetch(port, "/x", 'If-None-Match: "1"').status == 304
    assert fetch(port, "/x", method="PURGE").status == 503


def test_an_object_that_the_cache_cannot_hold(yard: DaemonYard, origin: OriginStub) -> None:
    """Cache-Status says so beforehand: the cache has announced how much it holds."""
    body = bytes(100_001)
    origin.add("/large", Route(body=body, headers=FRESH))
    origin.add("/small", Route(body=bytes(1000), headers=FRESH))
    origin.add("/chunked", Route(body=body, headers=FRESH, framing=Framing.CHUNKED))
    yard.start_cache("--store-bytes", "100000")
    port = yard.start_proxy("-s", origin.url).port
    for _ in range(2):
        reply = fetch(port, "/large")
        assert (reply.body == body, reply.cache["detail"]) == (True, '"object too large"')
        assert "stored" not in reply.cache
    assert fetch(port, "/chunked").body == body
    assert "stored" in fetch(port, "/small").cache


def test_without_any_cache(yard: DaemonYard, origin: OriginStub) -> None:
    port = yard.start_proxy("-s", origin.url, "--no-cache").port
    replies = [fetch(port, "/x") for _ in range(2)]
    assert [reply.body == BODY for reply in replies] == [True] * 2
    assert {reply.cache["detail"] for reply in replies} == {'"no cache connected"'}
    assert not any("stored" in reply.cache for reply in replies)
    assert fetch(port, "/x", method="PURGE").status == 405


def test_an_object_purged_while_it_is_sent(yard: DaemonYard, origin: OriginStub) -> None:
    """A client in mid-body gets all of it, or can see that it did not."""
    body = BODY * 20
    origin.add("/big", Route(body=body, headers=FRESH))
    yard.start_cache()
    port = yard.start_proxy("-s", origin.url).port
    wait_hit(port, "/big")
    with HttpClient(port) as client:
        client.send("/big")
        assert client.head().is_hit
        received = client.rest(100_000)
        assert fetch(port, "/big", method="PURGE").status == 200
        received += client.rest(len(body) - 100_000)
        assert body.startswith(received)
        assert len(received) == len(body) or client.ended()
    assert not fetch(port, "/big").is_hit


def test_an_object_replaced_while_its_validation_was_on_its_way(site: Site) -> None:
    """The 304 is for a body that is no longer stored: the client gets that body all the same, or the one stored now."""
    gate = threading.Event()
    held = Route(status=304, headers={"ETag": '"1"'}, hold=gate, hold_head=True)
    old = {"Cache-Control": "max-age=60", "Age": "100", "ETag": '"1"'}
    new = {**FRESH, "ETag": '"2"'}
    path = site.fill(Route(body=b"old" * 9000, headers=old), held, Route(body=b"new" * 9000, headers=new))
    with HttpClient(site.port) as client:
        client.send(path)
        assert held.reached.wait(WATCHDOG_S)
        assert site.get(path, method="PURGE").status == 200
        assert site.get(path, "Cache-Control: no-cache").body == b"new" * 9000
        site.settle(path)
        gate.set()
        reply = client.receive()
    assert (reply.get("etag"), reply.body) in (('"1"', b"old" * 9000), ('"2"', b"new" * 9000))
    assert site.get(path).body == b"new" * 9000
