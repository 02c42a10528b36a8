"""PURGE with whole daemons: who may, what goes, and what a soft one leaves."""

from __future__ import annotations

import pytest

from tests.http.client import fetch
from tests.http.site import Site
from tests.http.test_vary import by_field
from tests.support.client import ask
from workloads.origin_stub import Route

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
