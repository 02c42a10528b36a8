"""Where RFC 9111 leaves a choice, with whole daemons: what the operator has set is what happens."""

from __future__ import annotations

import pytest

from tests.http.site import Site, http_date
from workloads.origin_stub import Route

PROXY_ENV = {
    "WEBPROXY_HEURISTIC_FRACTION": "0.5",
    "WEBPROXY_NEGATIVE_LIFETIME_S": "600",
    "WEBPROXY_STALE_IF_ERROR_DEFAULT_S": "3600",
    "WEBPROXY_STALE_IF_DISCONNECTED_S": "0",
    "WEBPROXY_STORE_SET_COOKIE": "true",
}
STALE = {"Cache-Control": "max-age=60", "Age": "100", "ETag": '"1"'}


def test_the_share_that_is_guessed(site: Site) -> None:
    path = site.fill(Route(body=b"x", headers={"Last-Modified": http_date(-10_000)}))
    assert 4_900 < int(site.stored(path).cache["ttl"]) <= 5_000


@pytest.mark.parametrize("status", [404, 410])
def test_a_404_without_a_word_has_the_lifetime_that_is_set(site: Site, status: int) -> None:
    path = site.put(Route(status=status, body=b"gone"))
    assert site.get(path).status == status
    reply = site.stored(path)
    assert (reply.status, site.count(path)) == (status, 1)
    assert 0 < int(reply.cache["ttl"]) <= 600


def test_errors_are_covered_for_as_long_as_is_set(site: Site) -> None:
    path = site.fill(Route(body=b"old", headers=STALE), Route(status=503))
    assert (site.get(path).body, site.count(path)) == (b"old", 2)
    path = site.fill(Route(body=b"old", headers={**STALE, "Age": "4000"}), Route(status=503))
    assert site.get(path).status == 503


def test_no_longer_than_is_set_without_the_origin(site: Site) -> None:
    """The default would be a day; what a response says of errors goes before it."""
    paths = [
        site.fill(Route(body=b"old", headers={**STALE, "Cache-Control": f"max-age=60, stale-if-error={seconds}"}))
        for seconds in (0, 600)
    ]
    site.origin.close()
    assert [site.get(path).status for path in paths] == [502, 200]


def test_cookies_are_shared_where_the_operator_says_so(site: Site) -> None:
    path = site.fill(Route(body=b"x", headers={"Cache-Control": "max-age=60", "Set-Cookie": "a=1"}))
    assert site.stored(path).get("set-cookie") == "a=1"
