"""One origin request for all who ask at once, as far as its answer may serve them (RFC 9111 section 4)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.http.client import HttpClient
from tests.http.site import Site, daemons, http_date, origin_of
from tests.http.test_vary import by_field
from tests.support.client import ask
from tests.support.waiting import WATCHDOG_S
from workloads.origin_stub import Framing, Route

BODY = bytes(range(256)) * 2000
FRESH = {"Cache-Control": "max-age=60"}


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [5, len(BODY)])
def test_fifty_equal_misses(site: Site, framing: Framing, size: int) -> None:
    path = site.put(Route(body=BODY[:size], framing=framing, headers=FRESH))
    replies = site.get_all([(path,)] * 50)
    assert {(reply.status, reply.body == BODY[:size], reply.whole) for reply in replies} == {(200, True, True)}
    assert site.count(path) == 1


def test_a_follower_gets_what_is_there_while_the_rest_is_still_to_come(site: Site) -> None:
    gate = threading.Event()
    route = Route(body=BODY, headers=FRESH, hold=gate, hold_at=400_000)
    path = site.put(route)
    with HttpClient(site.port) as leader, HttpClient(site.port) as follower:
        leader.send(path)
        assert route.reached.wait(WATCHDOG_S)
        follower.send(path)
        head = follower.head()
        assert head.cache == {"fwd": "uri-miss", "fwd-status": "200", "stored": "", "collapsed": ""}
        assert follower.rest(400_000) == BODY[:400_000]
        assert not gate.is_set()
        gate.set()
        assert follower.rest(len(BODY) - 400_000) == BODY[400_000:]
        assert leader.receive().body == BODY
    assert site.count(path) == 1


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Cache-Control": "no-store"}, id="not-stored"),
        pytest.param({"Cache-Control": "no-cache", "ETag": '"1"'}, id="to-be-validated-each-time"),
        pytest.param({"Cache-Control": "max-age=10", "Age": "20", "ETag": '"1"'}, id="stale-when-it-came"),
    ],
)
def test_an_answer_for_one_releases_the_others_at_once(site: Site, headers: dict[str, str]) -> None:
    """They ask for themselves as soon as its head is there, and do not wait for its body."""
    gate = threading.Event()
    slow = Route(body=BODY, headers=headers, hold=gate, hold_at=400_000)
    path = site.put(slow, Route(body=b"own", headers=headers))
    with HttpClient(site.port) as leader, ThreadPoolExecutor(10) as crew:
        leader.send(path)
        assert slow.reached.wait(WATCHDOG_S)
        others = [crew.submit(site.get, path) for _ in range(10)]
        assert [other.result(WATCHDOG_S).body for other in others] == [b"own"] * 10
        assert not gate.is_set()
        assert 11 <= site.count(path) <= 21  # a validation of the response being replaced asks once more
        gate.set()
        assert leader.receive().body == BODY


def test_followers_of_other_variants_share_among_themselves(site: Site) -> None:
    path = site.put(by_field("Accept-Encoding"))
    asked = [(path, f"Accept-Encoding: {value}") for value in ("gzip", "br", "zstd") for _ in range(12)]
    replies = site.get_all(asked)
    assert [reply.body for reply in replies] == [fields.partition(": ")[2].encode() for _, fields in asked]
    assert 3 <= site.count(path) <= 6  # one that was fetched before Vary was known may be fetched again
    before = site.count(path)
    site.get_all([(path, f"Accept-Encoding: {value}") for value in ("deflate", "x") for _ in range(12)])
    assert site.count(path) == before + 2  # by now it is known what it varies in


def test_a_request_that_will_have_it_new_shares_nothing(site: Site) -> None:
    gate = threading.Event()
    held = Route(body=b"old", headers=FRESH, hold=gate, hold_head=True)
    path = site.put(held, Route(body=b"new", headers=FRESH))
    with HttpClient(site.port) as leader:
        leader.send(path)
        assert held.reached.wait(WATCHDOG_S)
        assert site.get(path, "Cache-Control: no-cache").body == b"new"
        gate.set()
        assert leader.receive().body == b"old"


def test_the_first_one_leaves_and_the_others_get_all(site: Site) -> None:
    gate = threading.Event()
    route = Route(body=BODY, headers=FRESH, hold=gate, hold_at=1000)
    path = site.put(route)
    with HttpClient(site.port) as follower:
        with HttpClient(site.port) as leader:
            leader.send(path)
            assert route.reached.wait(WATCHDOG_S)
            follower.send(path)
            assert follower.head().status == 200
        gate.set()
        assert follower.rest(len(BODY)) == BODY
    assert site.count(path) == 1
    assert site.stored(path).body == BODY


def test_getfile_and_http_share_what_either_has_stored(site: Site) -> None:
    path = site.put(Route(body=BODY, headers=FRESH))
    assert ask(site.port, path).body == BODY
    reply = site.stored(path)
    assert (reply.body, reply.get("cache-control")) == (BODY, "max-age=60")
    path = site.fill(Route(body=BODY[:100], headers=FRESH))
    assert ask(site.port, path).body == BODY[:100]
    assert site.count(path) == 1


def test_a_reply_to_many_terms_at_once(site: Site) -> None:
    """Whole, a part, a 304 and a head of one fetch."""
    gate = threading.Event()
    route = Route(body=BODY, headers={**FRESH, "ETag": '"1"'}, hold=gate, hold_head=True)
    path = site.put(route)
    with ThreadPoolExecutor(8) as crew:
        whole = crew.submit(site.get, path)
        assert route.reached.wait(WATCHDOG_S)
        part = crew.submit(site.get, path, "Range: bytes=-10")
        same = crew.submit(site.get, path, 'If-None-Match: "1"')
        gate.set()
        assert whole.result().body == BODY
        assert (part.result().status, part.result().body) == (206, BODY[-10:])
        assert same.result().status == 304
    assert site.count(path) == 1


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(Route(body=b"x", headers={"ETag": '"1"'}), id="no-lifetime"),
        pytest.param(Route(body=b"x", headers={"ETag": '"1"', "Cache-Control": "max-age=0"}), id="stale-at-once"),
        pytest.param(Route(status=404, body=b"x"), id="404"),
        pytest.param(Route(status=503, body=b"x"), id="503"),
    ],
)
def test_who_asked_before_the_head_came_shares_it(site: Site, route: Route) -> None:
    gate = threading.Event()
    path = site.put(replace(route, hold=gate, hold_head=True, interim=[(103, {})]))
    with ExitStack() as stack:
        clients = [stack.enter_context(HttpClient(site.port)) for _ in range(20)]
        for client in clients:
            client.send(path)
        assert {client.head().status for client in clients} == {103}  # they are all waiting
        gate.set()
        assert {(reply.status, reply.body) for reply in (client.receive() for client in clients)} == {
            (route.status, b"x")
        }
    assert site.count(path) == 1


def test_a_response_that_may_be_one_users_is_not_shared(site: Site) -> None:
    gate = threading.Event()
    held = Route(body=b"x", headers={"ETag": '"1"'}, hold=gate, hold_head=True)
    path = site.put(held, Route(body=b"own", headers={"ETag": '"2"'}))
    with ThreadPoolExecutor(2) as crew:
        first = crew.submit(site.get, path, "Cookie: user=1")
        assert held.reached.wait(WATCHDOG_S)
        second = crew.submit(site.get, path, "Cookie: user=2")
        gate.set()
        assert (first.result(WATCHDOG_S).body, second.result(WATCHDOG_S).body) == (b"x", b"own")


def test_what_was_just_published_is_fetched_once(site: Site) -> None:
    """Its heuristic lifetime would be nothing (heuristic_floor_s)."""
    path = site.put(Route(body=BODY, headers={"Last-Modified": http_date(-2)}))
    for _ in range(3):
        replies = site.get_all([(path,)] * 20)
        assert {(reply.status, reply.body == BODY) for reply in replies} == {(200, True)}
    assert site.count(path) == 1


def test_twenty_equal_requests_for_a_failure_are_one(tmp_path: Path) -> None:
    """Those too that come a moment after the answer; not after something was put there."""
    with daemons(tmp_path, env={"WEBPROXY_FAILURES_SHARED_S": "30"}) as shared, origin_of(shared) as site:
        for route in (Route(status=404, body=b"x"), Route(status=503, body=b"x"), Route(status=404, headers=FRESH)):
            path = site.put(replace(route, methods={"GET", "PUT"}))
            assert {reply.status for reply in site.get_all([(path,)] * 20)} == {route.status}
            assert site.count(path) == 1
        path = site.put(Route(status=404), Route(status=201, methods={"PUT"}), Route(body=b"made"))
        assert (site.get(path).status, site.get(path).status) == (404, 404)
        assert site.get(path, method="PUT", body=b"made").status == 201
        assert site.get(path).body == b"made"
        path = site.put(Route(status=404), Route(body=b"mine"))
        assert site.get(path).status == 404
        assert site.get(path, "Cookie: a=b").body == b"mine"
