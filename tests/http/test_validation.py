"""RFC 9111 sections 4.3 and 3.2 with whole daemons: asking the origin whether a stored response still holds."""

from __future__ import annotations

import pytest

from tests.http.site import Site, http_date
from tests.support.waiting import wait_until
from workloads.origin_stub import Route

STALE = {"Cache-Control": "max-age=60", "Age": "100"}
MODIFIED = http_date(-10_000)


@pytest.mark.parametrize(
    ("validator", "condition", "value"),
    [
        pytest.param({"ETag": '"1"'}, "if-none-match", '"1"', id="etag"),
        pytest.param({"ETag": 'W/"1"'}, "if-none-match", 'W/"1"', id="weak-etag"),
        pytest.param({"Last-Modified": MODIFIED}, "if-modified-since", MODIFIED, id="last-modified"),
    ],
)
def test_a_304_brings_the_stored_body(site: Site, validator: dict[str, str], condition: str, value: str) -> None:
    path = site.fill(
        Route(body=b"body", headers={**STALE, **validator, "X": "old"}),
        Route(body=b"body", headers={"Cache-Control": "max-age=600", **validator, "X": "new"}),
    )
    reply = site.get(path)
    assert site.last(path).headers[condition] == value
    assert (reply.status, reply.body, reply.get("x")) == (200, b"body", "new")
    assert (reply.cache["fwd"], reply.cache["fwd-status"]) == ("stale", "304")
    again = site.get(path)  # the update is there before the answer is
    assert (again.is_hit, again.body, again.get("x"), again.get("etag")) == (
        True,
        b"body",
        "new",
        validator.get("ETag"),
    )
    assert site.count(path) == 2


def test_a_200_takes_the_place_of_the_stored_one(site: Site) -> None:
    path = site.fill(
        Route(body=b"one", headers={**STALE, "ETag": '"1"'}),
        Route(body=b"two!", headers={"Cache-Control": "max-age=600", "ETag": '"2"'}),
    )
    reply = site.get(path)
    assert (reply.status, reply.body) == (200, b"two!")
    assert site.stored(path).body == b"two!"
    assert site.count(path) == 2


def test_large_bodies_are_validated_too(site: Site) -> None:
    body = bytes(range(256)) * 8000
    path = site.fill(Route(body=body, headers={**STALE, "ETag": '"1"'}))
    for _ in range(3):
        reply = site.get(path)
        assert (reply.body, reply.cache["fwd-status"]) == (body, "304")


def test_a_304_for_something_else_asks_anew(site: Site) -> None:
    path = site.fill(
        Route(body=b"one", headers={**STALE, "ETag": '"1"'}),
        Route(status=304, headers={"ETag": '"other"'}),
        Route(body=b"other", headers={"Cache-Control": "max-age=600", "ETag": '"other"'}),
    )
    assert site.get(path).body == b"other"
    assert "if-none-match" not in site.last(path).headers
    assert site.count(path) == 3


@pytest.mark.parametrize("control", ["no-store", "private"])
def test_a_304_that_forbids_to_keep_it(site: Site, control: str) -> None:
    """It serves who asked, and nobody after that without another question."""
    path = site.fill(
        Route(body=b"body", headers={"Cache-Control": "max-age=600", "ETag": '"1"'}),
        Route(body=b"body", headers={"Cache-Control": control, "ETag": '"1"'}),
    )
    validated = site.get(path, "Cache-Control: no-cache")
    assert (validated.body, validated.cache["fwd-status"], "stored" in validated.cache) == (b"body", "304", False)
    for number in (3, 4):
        assert site.get(path).body == b"body"
        assert site.count(path) == number


def test_no_cache_with_fields_withholds_them(site: Site) -> None:
    path = site.put(
        Route(body=b"body", headers={"Cache-Control": 'max-age=600, no-cache="X-Once"', "X-Once": "1", "X-Kept": "2"})
    )
    assert site.get(path).get("x-once") == "1"
    again = site.stored(path)
    assert (again.get("x-once"), again.get("x-kept")) == (None, "2")


def test_the_clients_own_condition_is_not_the_origins(site: Site) -> None:
    path = site.fill(
        Route(body=b"one", headers={**STALE, "ETag": '"1"'}),
        Route(body=b"two", headers={"Cache-Control": "max-age=600", "ETag": '"2"'}),
    )
    reply = site.get(path, 'If-None-Match: "2"')
    assert (reply.status, site.last(path).headers["if-none-match"]) == (304, '"1"')
    assert site.stored(path).body == b"two"


def test_equal_validations_are_one(site: Site) -> None:
    path = site.fill(
        Route(body=b"one", headers={**STALE, "ETag": '"1"'}),
        Route(body=b"one", headers={"Cache-Control": "max-age=600", "ETag": '"1"'}),
    )
    wait_until(lambda: site.get(path, "Cache-Control: only-if-cached, max-stale").is_hit, what="a stale response")
    replies = site.get_all([(path,)] * 30)
    assert {(reply.status, reply.body) for reply in replies} == {(200, b"one")}
    assert site.count(path) == 2


def test_a_304_puts_a_wrong_content_type_right(site: Site) -> None:
    path = site.fill(
        Route(body=b"body", headers={**STALE, "ETag": '"1"', "Content-Type": "text/plain"}),
        Route(status=304, headers={"Cache-Control": "max-age=600", "ETag": '"1"', "Content-Type": "text/html"}),
    )
    assert site.get(path).all("content-type") == ["text/html"]
    assert site.stored(path).all("content-type") == ["text/html"]


@pytest.mark.parametrize("fields", [(), ("Cache-Control: no-store",)], ids=["fetched", "passed"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_304_that_nobody_asked_for(site: Site, method: str, fields: tuple[str, ...]) -> None:
    path = site.put(Route(status=304, headers={"ETag": '"1"'}))
    assert site.get(path, *fields, method=method).status == 502


def test_a_304_to_the_clients_own_condition_that_the_origin_judges(site: Site) -> None:
    path = site.put(Route(body=b"x", headers={"ETag": '"1"'}))
    assert site.get(path, 'If-None-Match: "1"', "Cache-Control: no-store").status == 304
