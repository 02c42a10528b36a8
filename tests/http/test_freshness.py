"""RFC 9111 sections 4.2, 5.1 and 5.2.1 with whole daemons: age, and what a request asks of caches."""

from __future__ import annotations

import pytest

from tests.http.site import Site, http_date
from workloads.origin_stub import Route

ETAG = {"ETag": '"1"'}


@pytest.mark.parametrize(
    ("headers", "fresh"),
    [
        pytest.param({"Cache-Control": "max-age=60", "Age": "50"}, True, id="not-yet"),
        pytest.param({"Cache-Control": "max-age=60", "Age": "60"}, False, id="stale-when-it-came"),
        pytest.param({"Cache-Control": "max-age=60", "Date": -100}, False, id="by-its-date"),
        pytest.param({"Cache-Control": "max-age=60", "Date": 100}, True, id="a-clock-that-is-ahead"),
        pytest.param({"Expires": -1}, False, id="expired"),
        pytest.param({"Expires": "0"}, False, id="invalid-expires"),
        pytest.param({"Cache-Control": "max-age=60", "Expires": -100}, True, id="max-age-before-expires"),
        pytest.param({"Cache-Control": "max-age=60, no-cache"}, False, id="no-cache"),
        pytest.param({"Last-Modified": -1000, "Age": "101"}, False, id="heuristic-stale"),
        pytest.param({"Last-Modified": -10_000, "Age": "101"}, True, id="heuristic-fresh"),
    ],
)
def test_fresh_or_not(site: Site, headers: dict[str, str | int], fresh: bool) -> None:
    """A number is a date, so many seconds from when the test runs: some time after it was collected."""
    dated = {name: http_date(value) if isinstance(value, int) else value for name, value in headers.items()}
    path = site.fill(Route(body=b"x", headers={**dated, **ETAG}))
    assert site.get(path).body == b"x"
    assert site.count(path) == (1 if fresh else 2)


def test_age_is_counted_from_what_the_origin_says_and_date_stays(site: Site) -> None:
    date = http_date(-20)
    path = site.put(Route(body=b"x", headers={"Cache-Control": "max-age=600", "Age": "100", "Date": date}))
    first = site.get(path)
    again = site.stored(path)
    assert (first.get("age"), first.get("date"), again.get("date")) == ("100", date, date)
    assert again.all("age") == [again.get("age")]
    assert again.age is not None
    assert again.age >= 100
    assert int(again.cache["ttl"]) == 600 - again.age


def test_an_answer_without_date_gets_one_and_keeps_it(site: Site) -> None:
    path = site.put(Route(body=b"x", bare=True, headers={"Cache-Control": "max-age=600"}))
    first = site.get(path)
    assert len(first.all("date")) == 1
    again = site.stored(path)
    assert len(again.all("date")) == 1


@pytest.mark.parametrize(
    ("wish", "asks"),
    [
        ("no-cache", True),
        ("max-age=0", True),
        ("max-age=99", True),
        ("max-age=3000", False),
        ("min-fresh=60", False),
        ("min-fresh=501", True),
        ("max-stale", False),
        ("only-if-cached", False),
        ("unknown=1", False),
    ],
)
def test_terms_of_a_request_for_a_fresh_response(site: Site, wish: str, asks: bool) -> None:
    path = site.fill(Route(body=b"x", headers={"Cache-Control": "max-age=600", "Age": "100", **ETAG}))
    reply = site.get(path, f"Cache-Control: {wish}")
    assert (reply.status, reply.body, reply.is_hit) == (200, b"x", not asks)
    assert site.count(path) == 1 + asks


def test_pragma_counts_without_cache_control(site: Site) -> None:
    path = site.fill(Route(body=b"x", headers={"Cache-Control": "max-age=600", **ETAG}))
    assert not site.get(path, "Pragma: no-cache").is_hit
    assert site.get(path, "Pragma: no-cache", "Cache-Control: max-age=60").is_hit
    assert site.count(path) == 2


@pytest.mark.parametrize(
    ("control", "wish", "hit"),
    [
        ("max-age=60", "max-stale", True),
        ("max-age=60", "max-stale=1000", True),
        ("max-age=60", "max-stale=10", False),
        ("max-age=60, must-revalidate", "max-stale", False),
        ("s-maxage=60", "max-stale", False),
        ("max-age=60", "max-age=3000", False),
    ],
)
def test_terms_of_a_request_for_a_stale_response(site: Site, control: str, wish: str, hit: bool) -> None:
    path = site.fill(Route(body=b"x", headers={"Cache-Control": control, "Age": "100", **ETAG}))
    before = site.count(path)
    reply = site.get(path, f"Cache-Control: {wish}")
    assert (reply.body, reply.is_hit, site.count(path) - before) == (b"x", hit, 0 if hit else 1)


def test_only_if_cached(site: Site) -> None:
    path = site.put(Route(body=b"x", headers={"Cache-Control": "max-age=600", **ETAG}))
    assert site.get(path, "Cache-Control: only-if-cached").status == 504
    assert site.count(path) == 0
    site.get(path)
    site.stored(path)
    assert site.get(path, "Cache-Control: only-if-cached").body == b"x"
    stale = site.fill(Route(body=b"x", headers={"Cache-Control": "max-age=1", "Age": "100", **ETAG}))
    assert site.get(stale, "Cache-Control: only-if-cached").status == 504
    assert site.count(stale) == 1


@pytest.mark.parametrize("status", [404, 410, 301, 308, 302, 307, 500])
def test_other_statuses_are_stored_with_explicit_freshness(site: Site, status: int) -> None:
    headers = {"Cache-Control": "max-age=60", "Location": "/elsewhere"}
    path = site.put(Route(status=status, body=b"words", headers=headers))
    assert site.get(path).status == status
    again = site.stored(path)
    assert (again.status, again.body, again.get("location")) == (status, b"words", "/elsewhere")
    assert site.count(path) == 1


@pytest.mark.parametrize("status", [404, 302, 500, 299])
def test_other_statuses_are_not_stored_without(site: Site, status: int) -> None:
    path = site.put(Route(status=status, body=b"words"))
    assert [site.get(path).status for _ in range(2)] == [status] * 2
    assert site.count(path) == 2


@pytest.mark.parametrize("first", [404, 302])
def test_what_was_missing_or_elsewhere_and_is_there_now(site: Site, first: int) -> None:
    """The object replaces whatever stood for it, for HTTP and for getfile."""
    fresh, past = {"Cache-Control": "max-age=60"}, {"Cache-Control": "max-age=60", "Age": "100", "ETag": '"0"'}
    path = site.put(Route(status=first, headers=past), Route(body=b"there", headers=fresh))
    assert site.get(path).status == first
    site.settle(path)
    assert site.get(path).body == b"there"
    assert site.stored(path).body == b"there"
    assert site.count(path) == 2
    assert site.get(path, method="PURGE").body == b"1 objects removed\n"
