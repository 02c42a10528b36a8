"""RFC 5861 and RFC 9111 section 4.2.4 with whole daemons: stale responses while revalidating and on errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.http.site import Site, daemons, origin_of
from tests.support.rawserver import RESET, RawServer
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import OriginStub, Route

PROXY_ENV = {"WEBPROXY_ORIGIN_STALL_S": "2", "WEBPROXY_ORIGIN_CONNECT_S": "2"}
OutOfOrder: TypeAlias = Callable[[int], AbstractContextManager[None]]
BODY = bytes(range(256)) * 400


def stale(control: str, body: bytes = b"old") -> Route:
    return Route(body=body, headers={"Cache-Control": f"max-age=60, {control}", "Age": "100", "ETag": '"1"'})


FRESH = {"Cache-Control": "max-age=600", "ETag": '"2"'}


def test_while_revalidate_nobody_waits(site: Site) -> None:
    gate = threading.Event()
    held = Route(body=b"new", headers=FRESH, hold=gate, hold_head=True)
    path = site.fill(stale("stale-while-revalidate=600"), held)
    replies = [site.get(path) for _ in range(5)]
    assert {(reply.body, reply.is_hit) for reply in replies} == {(b"old", True)}
    assert int(replies[0].cache["ttl"]) < 0
    assert held.reached.wait(WATCHDOG_S)
    assert site.count(path) == 2  # one validation for all of them
    gate.set()
    wait_until(lambda: site.get(path).body == b"new", what="the new one")
    assert site.count(path) == 2


def test_while_revalidate_with_a_304(site: Site) -> None:
    path = site.fill(
        stale("stale-while-revalidate=600"), Route(body=b"old", headers={"Cache-Control": "max-age=600", "ETag": '"1"'})
    )
    assert site.get(path).is_hit
    wait_until(lambda: int(site.get(path).cache["ttl"]) > 0, what="the update")
    assert (site.count(path), site.last(path).headers["if-none-match"]) == (2, '"1"')


def test_while_revalidate_for_who_leaves_nothing(site: Site) -> None:
    """The result of a validation could not be stored, so the next request validates."""
    path = site.fill(stale("stale-while-revalidate=600"), Route(body=b"new", headers=FRESH))
    assert site.get(path, "Cache-Control: no-store").body == b"old"
    assert site.get(path).body == b"old"
    wait_until(lambda: site.get(path).body == b"new", what="the new one")
    assert site.count(path) == 2


def test_while_revalidate_is_over(site: Site) -> None:
    path = site.fill(stale("stale-while-revalidate=10"), Route(body=b"new", headers=FRESH))
    assert site.get(path).body == b"new"


def test_while_revalidate_ends_though_its_validations_fail(site: Site) -> None:
    path = site.fill(stale("stale-while-revalidate=600"), Route(status=503))
    for count in (2, 3, 4):  # a request that finds the validation before it still ending starts none

        def asked_anew(count: int = count) -> bool:
            assert site.get(path).body == b"old"
            return site.count(path) >= count

        wait_until(asked_anew, what=f"validation {count - 1}")


@pytest.mark.parametrize("failure", ["500", "502", "503", "504"])
def test_if_error(site: Site, failure: str) -> None:
    path = site.fill(stale("stale-if-error=600"), Route(status=int(failure)))
    reply = site.get(path)
    assert (reply.status, reply.body, reply.cache["fwd-status"]) == (200, b"old", failure)
    assert reply.cache["detail"] == "stale"
    assert (reply.age or 0) >= 100


@pytest.mark.parametrize("control", ["stale-if-error=10", "x", "must-revalidate, stale-if-error=600"])
def test_an_error_where_stale_is_not_allowed(site: Site, control: str) -> None:
    path = site.fill(stale(control), Route(status=503, body=b"no"))
    assert (site.get(path).status, site.count(path)) == (503, 2)


def test_if_error_by_the_request(site: Site) -> None:
    path = site.fill(stale("x"), Route(status=503))
    assert site.get(path, "Cache-Control: stale-if-error=600").body == b"old"


def test_other_statuses_are_no_errors(site: Site) -> None:
    path = site.fill(stale("stale-if-error=600"), Route(status=404, body=b"gone"))
    assert site.get(path).status == 404


ANSWERS_THAT_ARE_NOT_KEPT = [
    pytest.param(Route(status=404, body=b"now"), id="404"),
    pytest.param(Route(status=401, body=b"now"), id="401"),
    pytest.param(Route(status=302, body=b"now", headers={"Location": "/elsewhere"}), id="302"),
    pytest.param(Route(status=410, body=b"now"), id="410"),
    pytest.param(Route(body=b"now"), id="200-without-freshness"),
    pytest.param(Route(body=b"now", headers={"Cache-Control": "no-store", "ETag": '"2"'}), id="200-no-store"),
]
ASKS_FIRST = [
    pytest.param("stale-while-revalidate=600", (), id="in-the-background"),
    pytest.param("x", (), id="stale"),
    pytest.param("x", ("Cache-Control: no-cache",), id="reload"),
]


@pytest.mark.parametrize("answer", ANSWERS_THAT_ARE_NOT_KEPT)
@pytest.mark.parametrize(("control", "fields"), ASKS_FIRST)
def test_what_the_origin_has_replaced_serves_no_more(
    site: Site, answer: Route, control: str, fields: tuple[str, ...]
) -> None:
    """Also when what takes its place is not stored, and while the origin cannot be reached."""
    path = site.fill(stale(control), answer)
    site.get(path, *fields)
    wait_until(lambda: site.get(path).body == b"now", what="what the origin has now")
    assert not site.holds(path)
    site.origin.close()
    with nobody(site.daemons.origin_port):  # a 404 is shared for a moment by those who ask after it
        wait_until(lambda: site.get(path).status == 502, what="a request that needs the origin")


def test_a_reload_that_is_not_kept_is_for_all(site: Site) -> None:
    path = site.fill(Route(body=b"old", headers=FRESH), Route(status=404, body=b"now"))
    site.stored(path)
    assert site.get(path, "Cache-Control: no-cache").status == 404
    assert site.get(path).status == 404


@pytest.mark.parametrize("status", [429, 500, 501, 503, 507])
def test_what_says_nothing_of_the_object_leaves_it(site: Site, status: int) -> None:
    path = site.fill(Route(body=b"old", headers=FRESH), Route(status=status))
    site.get(path, "Cache-Control: no-cache")
    assert site.stored(path).body == b"old"


def test_what_the_cache_has_no_room_for_replaces_too(tmp_path: Path) -> None:
    with daemons(tmp_path, cache=("--store-bytes", "100000")) as living, origin_of(living) as site:
        path = site.fill(stale("stale-while-revalidate=600"), Route(body=2 * BODY, headers=FRESH))
        assert site.get(path).body == b"old"
        wait_until(lambda: site.get(path).body == 2 * BODY, what="the new one")


@pytest.mark.parametrize("control", ["no-store", "private"])
def test_a_304_that_forbids_to_keep_it_goes_before_stale_while_revalidate(site: Site, control: str) -> None:
    path = site.fill(
        stale("stale-while-revalidate=600"),
        Route(body=b"old", headers={"Cache-Control": control, "ETag": '"1"'}),
        Route(body=b"new", headers=FRESH),
    )
    assert site.get(path).body == b"old"
    wait_until(lambda: not site.get(path).is_hit, what="a request that waits for the origin")
    assert site.get(path).body == b"new"


def test_a_304_that_forbids_to_keep_it_and_then_no_origin(site: Site) -> None:
    path = site.fill(stale("x"), Route(body=b"old", headers={"Cache-Control": "no-store", "ETag": '"1"'}))
    assert site.get(path).body == b"old"
    site.origin.close()
    with nobody(site.daemons.origin_port):
        assert site.get(path).status == 502


@contextmanager
def resetting(port: int) -> Iterator[None]:
    """A server that resets each connection at once."""
    with RawServer([RESET], port=port, reads_request=False):
        yield


@contextmanager
def nobody(port: int) -> Iterator[None]:
    """Nobody listens."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        yield


@contextmanager
def silent(port: int) -> Iterator[None]:
    """A server that never answers."""
    with RawServer([threading.Event()], port=port):
        yield


@pytest.mark.parametrize("out_of_order", [nobody, resetting, silent])
@pytest.mark.parametrize("control", ["x", "stale-if-error=600"])
def test_while_the_origin_cannot_be_reached(site: Site, out_of_order: OutOfOrder, control: str) -> None:
    """Section 4.2.4: it may serve when nothing forbids it."""
    path = site.fill(stale(control, BODY))
    site.origin.close()
    with out_of_order(site.daemons.origin_port):
        reply = site.get(path)
        assert (reply.status, reply.body == BODY, reply.cache["detail"]) == (200, True, "stale")
        assert site.get(path, method="HEAD").get("content-length") == str(len(BODY))


@pytest.mark.parametrize(("out_of_order", "status"), [(nobody, 502), (resetting, 502), (silent, 504)])
def test_a_miss_while_the_origin_cannot_be_reached(site: Site, out_of_order: OutOfOrder, status: int) -> None:
    path = site.put(Route(body=b"x"))
    site.origin.close()
    with out_of_order(site.daemons.origin_port):
        assert site.get(path).status == status
        assert site.get(path, "Content-Length: 1", method="POST", body=b"x").status == status
    with OriginStub({path: Route(body=b"there")}, port=site.daemons.origin_port):
        assert site.get(path).body == b"there"


@pytest.mark.parametrize("control", ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"])
def test_what_must_be_validated_is_not_served_without(site: Site, control: str) -> None:
    path = site.fill(stale(control))
    site.origin.close()
    assert site.get(path).status == 502


def test_many_stale_requests_make_one_try(site: Site) -> None:
    gate = threading.Event()
    held = Route(status=503, hold=gate, hold_head=True)
    path = site.fill(stale("stale-if-error=600"), held)
    with ThreadPoolExecutor(10) as crew:
        replies = [crew.submit(site.get, path) for _ in range(10)]
        assert held.reached.wait(WATCHDOG_S)
        gate.set()
        assert {reply.result().body for reply in replies} == {b"old"}
