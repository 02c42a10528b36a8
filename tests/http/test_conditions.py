"""RFC 9110 section 13 with whole daemons: conditions of clients, judged by the cache."""

from __future__ import annotations

import pytest

from tests.http.site import Site, http_date
from workloads.origin_stub import Route

MODIFIED = http_date(-10_000)
HEADERS = {"Cache-Control": "max-age=600", "ETag": '"1"', "Last-Modified": MODIFIED, "X": "y"}
CONDITIONS = [
    pytest.param(('If-None-Match: "1"',), 304, id="etag"),
    pytest.param(('If-None-Match: W/"1"',), 304, id="weakly"),
    pytest.param(('If-None-Match: "0", "1"',), 304, id="a list"),
    pytest.param(("If-None-Match: *",), 304, id="star"),
    pytest.param(('If-None-Match: "2"',), 200, id="another"),
    pytest.param((f"If-Modified-Since: {MODIFIED}",), 304, id="not modified since"),
    pytest.param((f"If-Modified-Since: {http_date(-20_000)}",), 200, id="modified since"),
    pytest.param(("If-Modified-Since: yesterday",), 200, id="no date"),
    pytest.param(('If-None-Match: "2"', f"If-Modified-Since: {MODIFIED}"), 200, id="the etag counts"),
    pytest.param(('If-Match: "1"',), 200, id="match"),
]


@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
@pytest.mark.parametrize(("fields", "status"), CONDITIONS)
def test_conditions(site: Site, fields: tuple[str, ...], status: int, stored: bool) -> None:
    path = site.put(Route(body=b"body", headers=HEADERS))
    if stored:
        site.get(path)
        site.stored(path)
    reply = site.get(path, *fields)
    assert reply.status == status
    assert reply.body == (b"body" if status == 200 else b"")
    assert (reply.get("etag"), reply.get("x"), reply.get("cache-control")) == ('"1"', "y", "max-age=600")
    if not stored:
        assert site.stored(path).body == b"body"  # also when the client needed none of it
    assert site.count(path) == 1


@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
def test_what_only_the_origin_may_judge_is_left_to_it(site: Site, stored: bool) -> None:
    path = site.put(Route(body=b"body", headers=HEADERS))
    if stored:
        site.get(path)
        site.stored(path)
    site.get(path, 'If-Match: "2"')
    assert site.last(path).headers["if-match"] == '"2"'


def test_conditions_hold_for_what_is_not_stored_too(site: Site) -> None:
    """The origin is asked without them, as long as nobody knows that its answer is not for others."""
    path = site.put(Route(body=b"body", headers={**HEADERS, "Cache-Control": "no-store"}))
    assert site.get(path, 'If-None-Match: "1"').status == 304
    assert site.get(path, "Range: bytes=1-2").body == b"od"


def test_a_head_gets_a_304_too(site: Site) -> None:
    path = site.fill(Route(body=b"body", headers=HEADERS))
    assert site.get(path, 'If-None-Match: "1"', method="HEAD").status == 304
    assert site.count(path) == 1


def test_the_304_of_an_errors_page_is_none(site: Site) -> None:
    path = site.fill(Route(status=404, body=b"no", headers=HEADERS))
    assert site.stored(path, 'If-None-Match: "1"').status == 404
