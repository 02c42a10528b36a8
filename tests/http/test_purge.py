"""PURGE with whole daemons: access, removed objects, and the stale ones that a soft purge leaves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.http.client import HttpClient, fetch
from tests.http.site import Site
from tests.http.test_vary import by_field
from tests.support.client import ask
from tests.support.waiting import WATCHDOG_S
from workloads.origin_stub import Framing, Route
from workloads.origin_stub.request import Request

HEADERS = {"Cache-Control": "max-age=600", "ETag": '"1"'}
BODY = b"0123456789" * 10_000


@pytest.mark.parametrize("size", [10, len(BODY)])
def test_what_is_purged_is_fetched_anew(site: Site, size: int) -> None:
    path = site.fill(Route(body=BODY[:size], headers=HEADERS))
    site.stored(path)
    reply = site.get(path, method="PURGE")
    assert (reply.status, reply.body) == (200, b"1 objects removed\n")
    assert site.get(path).cache["fwd"] == "uri-miss"
    assert "if-none-match" not in site.last(path).headers
    assert site.count(path) == 2


def test_nothing_to_purge(site: Site) -> None:
    reply = site.get("/nothing", method="PURGE")
    assert (reply.status, reply.body) == (200, b"0 objects removed\n")


def test_all_variants_at_once(site: Site) -> None:
    path = site.put(by_field("Foo"))
    for value in "123":
        site.get(path, f"Foo: {value}")
        site.stored(path, f"Foo: {value}")
    assert site.get(path, method="PURGE").body == b"4 objects removed\n"  # their index with them
    for value in "123":
        assert not site.get(path, f"Foo: {value}").is_hit
    assert site.count(path) == 6


@pytest.mark.parametrize("size", [10, len(BODY)])
def test_a_soft_purge_is_validated_away(site: Site, size: int) -> None:
    path = site.fill(Route(body=BODY[:size], headers=HEADERS))
    site.stored(path)
    assert site.get(path, "X-Purge: soft", method="PURGE").body == b"1 objects marked stale\n"
    reply = site.get(path)
    assert (reply.body, reply.cache["fwd"], reply.cache["fwd-status"]) == (BODY[:size], "stale", "304")
    assert site.last(path).headers["if-none-match"] == '"1"'
    assert site.get(path).is_hit
    assert site.count(path) == 2


def test_a_soft_purge_of_variants(site: Site) -> None:
    path = site.put(by_field("Foo"))
    for value in "12":
        site.get(path, f"Foo: {value}")
        site.stored(path, f"Foo: {value}")
    site.get(path, "X-Purge: soft", method="PURGE")
    for value in "12":
        assert site.get(path, f"Foo: {value}").cache["fwd-status"] == "304"
        assert site.get(path, f"Foo: {value}").is_hit


def test_getfile_has_it_no_more(site: Site) -> None:
    path = site.fill(Route(body=b"old", headers=HEADERS), Route(body=b"new", headers=HEADERS))
    assert ask(site.port, path).body == b"old"
    site.get(path, method="PURGE")
    assert ask(site.port, path).body == b"new"


def test_from_an_address_that_may_not(site: Site) -> None:
    proxy = site.daemons.yard.start_proxy("-s", site.origin.url, env={"WEBPROXY_PURGE_FROM": "10.0.0.0/8"})
    path = site.fill(Route(body=b"x", headers=HEADERS))
    assert fetch(proxy.port, path, method="PURGE").status == 405
    assert fetch(proxy.port, path).is_hit


ALL = ("GET", "POST")
NEW = Route(body=b"new", headers=HEADERS)


def held(gate: threading.Event, body: bytes = b"old", **how: object) -> Route:
    """An answer from before what comes next."""
    return Route(body=body, headers=HEADERS, hold=gate, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    ("how", "framing"),
    [({"hold_head": True}, Framing.LENGTH), ({"hold_at": 9}, Framing.LENGTH), ({"hold_at": 9}, Framing.CHUNKED)],
    ids=["before its head", "in its body", "in a body of unknown length"],
)
def test_what_is_on_its_way_is_neither_stored_nor_shared(
    site: Site, how: dict[str, object], framing: Framing, soft: bool
) -> None:
    gate = threading.Event()
    old = held(gate, framing=framing, body=BODY, **how)
    path = site.put(old, NEW)
    with HttpClient(site.port) as asker:
        asker.send(path)
        assert old.reached.wait(WATCHDOG_S)
        assert site.get(path, *(["X-Purge: soft"] if soft else []), method="PURGE").status == 200
        assert site.get(path).body == b"new"
        gate.set()
        assert asker.receive().body == BODY
    assert site.stored(path).body == b"new"
    assert site.count(path) == 2


@pytest.mark.parametrize("method", ["PURGE", "POST"])
def test_what_was_on_its_way_is_not_stored_after_it_either(site: Site, method: str) -> None:
    gate = threading.Event()
    old = held(gate, hold_head=True)
    given = iter([old])

    def choose(request: Request) -> Route:
        return next(given, NEW) if request.method == "GET" else Route(body=b"done", methods=ALL)

    path = site.put(Route(choose=choose, methods=ALL))
    with ThreadPoolExecutor(1) as crew:
        asker = crew.submit(site.get, path)
        assert old.reached.wait(WATCHDOG_S)
        assert site.get(path, method=method).status == 200
        gate.set()
        assert asker.result().body == b"old"
    assert site.get(path).body == b"new"
    assert site.stored(path).body == b"new"
    assert [request.method for request in site.asked(path)].count("GET") == 2


def test_a_validation_on_its_way_does_not_make_good_what_was_invalidated_meanwhile(site: Site) -> None:
    gate = threading.Event()
    validation = held(gate, hold_head=True)
    path = site.fill(Route(body=b"old", headers=HEADERS), validation, Route(body=b"new", headers={"ETag": '"2"'}))
    with HttpClient(site.port) as asker:
        asker.send(path, "Cache-Control: no-cache")
        assert validation.reached.wait(WATCHDOG_S)
        site.get(path, "X-Purge: soft", method="PURGE")
        gate.set()
        assert asker.receive().body == b"old"
    assert site.get(path).body == b"new"
    assert site.count(path) == 3


def test_a_getfile_fetch_on_its_way(site: Site) -> None:
    gate = threading.Event()
    old = held(gate, hold_head=True)
    path = site.put(old, NEW)
    with ThreadPoolExecutor(1) as crew:
        asker = crew.submit(ask, site.port, path)
        assert old.reached.wait(WATCHDOG_S)
        site.get(path, method="PURGE")
        gate.set()
        assert asker.result().body == b"old"
    assert ask(site.port, path).body == b"new"
    site.settle(path)
    assert site.stored(path).body == b"new"
    assert site.count(path) == 2


def test_a_soft_purge_goes_before_stale_while_revalidate(site: Site) -> None:
    path = site.fill(
        Route(body=b"old", headers={"Cache-Control": "max-age=600, stale-while-revalidate=600", "ETag": '"0"'}), NEW
    )
    site.get(path, "X-Purge: soft", method="PURGE")
    assert site.get(path).body == b"new"
