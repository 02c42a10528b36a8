"""RFC 9111 section 3 with whole daemons: what is stored, and what is asked for anew each time."""

from __future__ import annotations

import threading

import pytest

from tests.http.client import HttpClient
from tests.http.site import Site, http_date
from tests.support.waiting import WATCHDOG_S
from workloads.origin_stub import Framing, Route

FRESH = {"Cache-Control": "max-age=60"}


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        pytest.param({"Cache-Control": "no-store, max-age=60"}, (), id="no-store"),
        pytest.param({"Cache-Control": "private, max-age=60"}, (), id="private"),
        pytest.param(FRESH, ("Authorization: Basic eDp5",), id="authorization"),
        pytest.param({**FRESH, "Set-Cookie": "a=b"}, (), id="set-cookie"),
        pytest.param({**FRESH, "Vary": "*"}, (), id="vary-star"),
        pytest.param({}, (), id="nothing-said"),
        pytest.param(FRESH, ("Cache-Control: no-store",), id="request-no-store"),
        pytest.param({"Cache-Control": 'max-age=60, no-store="'}, (), id="unreadable"),
    ],
)
def test_not_stored(site: Site, headers: dict[str, str], asked: tuple[str, ...]) -> None:
    path = site.put(Route(body=b"1", headers=headers), Route(body=b"2", headers=headers))
    assert site.get(path, *asked).body == b"1"
    assert site.get(path, *asked).body == b"2"
    assert site.count(path) == 2


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        pytest.param(FRESH, (), id="max-age"),
        pytest.param({"Cache-Control": "s-maxage=60, max-age=0"}, (), id="s-maxage"),
        pytest.param({"Expires": http_date(86_400)}, (), id="expires"),
        pytest.param({"Last-Modified": http_date(-100_000)}, (), id="heuristic"),
        pytest.param({"Cache-Control": "public, max-age=60"}, ("Authorization: Basic eDp5",), id="public-authorized"),
        pytest.param({"Cache-Control": "s-maxage=60"}, ("Authorization: Basic eDp5",), id="s-maxage-authorized"),
        pytest.param({"Cache-Control": "public, max-age=60", "Set-Cookie": "a=b"}, (), id="public-set-cookie"),
        pytest.param({"Cache-Control": "no-store, must-understand, max-age=60"}, (), id="must-understand"),
    ],
)
def test_stored(site: Site, headers: dict[str, str], asked: tuple[str, ...]) -> None:
    path = site.put(Route(body=b"1", headers=headers), Route(body=b"2", headers=headers))
    assert site.get(path, *asked).body == b"1"
    assert site.stored(path, *asked).body == b"1"
    assert site.count(path) == 1


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_body_of_any_framing_is_stored_and_comes_with_its_length(site: Site, framing: Framing, size: int) -> None:
    body = b"0123456789" * (size // 10) or b"x" * size
    path = site.put(Route(body=body, framing=framing, headers=FRESH))
    first = site.get(path)
    assert (first.body, first.whole) == (body, True)
    again = site.stored(path)
    assert (again.body, again.get("content-length")) == (body, str(len(body)))
    assert site.count(path) == 1


def test_a_204_is_stored_without_a_length(site: Site) -> None:
    path = site.put(Route(status=204, headers=FRESH))
    assert site.get(path).status == 204
    again = site.stored(path)
    assert (again.status, again.get("content-length")) == (204, None)
    assert site.count(path) == 1


def test_what_is_withheld_by_name_goes_to_the_first_only(site: Site) -> None:
    """Sections 5.2.2.4 and 5.2.2.7, also for those who share the first one's fetch."""
    gate = threading.Event()
    route = Route(
        body=b"x" * 100_000,
        headers={"Cache-Control": 'max-age=60, private="Set-Cookie"', "Set-Cookie": "secret=1", "X-A": "b"},
        hold=gate,
    )
    path = site.put(route)
    with HttpClient(site.port) as leader, HttpClient(site.port) as follower:
        leader.send(path)
        assert route.reached.wait(WATCHDOG_S)
        follower.send(path)
        shared = follower.head()
        own = leader.head()
        gate.set()
    assert own.get("set-cookie") == "secret=1"
    assert (shared.get("set-cookie"), shared.get("x-a")) == (None, "b")
    assert "collapsed" in shared.cache
    assert site.stored(path).get("set-cookie") is None
    assert site.count(path) == 1


def test_a_key_too_long_for_the_cache_is_served_all_the_same(site: Site) -> None:
    path = site.put(Route(body=b"x", headers=FRESH), path="/" + "a" * 5000)
    replies = [site.get(path) for _ in range(2)]
    assert [reply.body for reply in replies] == [b"x"] * 2
    assert [reply.cache["detail"] for reply in replies] == ['"key too long"'] * 2
    assert site.count(path) == 2
    assert site.get(path, method="PURGE").status == 200
