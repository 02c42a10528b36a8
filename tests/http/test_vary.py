"""RFC 9111 section 4.1 with whole daemons: several stored responses for one URL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.http.site import Site
from tests.support.client import ask
from tests.support.waiting import wait_until
from webproxy.caching.variants import new_variant
from workloads.origin_stub import Route
from workloads.origin_stub.request import Request

FRESH = {"Cache-Control": "max-age=60"}


def by_field(name: str, headers: dict[str, str] | None = None) -> Route:
    """The answer is the value of a request's field, with an ETag of its own."""
    base = Route(headers={"Vary": name, **(FRESH if headers is None else headers)})

    def choose(request: Request) -> Route:
        value = request.headers.get(name.lower(), "none")
        return replace(base, body=value.encode(), headers={**dict(base.headers), "ETag": f'"{value}"'}, choose=None)

    return Route(choose=choose)


def test_each_variant_is_stored(site: Site) -> None:
    path = site.put(by_field("Accept-Language"))
    asked = [(f"Accept-Language: {language}",) for language in ("de", "en", "fr")] + [()]
    for fields in asked:
        site.get(path, *fields)
    for fields in asked:
        expected = fields[0].partition(": ")[2] if fields else "none"
        assert site.stored(path, *fields).body == expected.encode()
    assert site.count(path) == 4


def test_many_values_of_accept_encoding(site: Site) -> None:
    """More than are kept: the last ones are, and each is answered with its own."""
    path = site.put(by_field("Accept-Encoding"))
    values = [f"x-{number}" for number in range(80)]
    for value in values:
        assert site.get(path, f"Accept-Encoding: {value}").body == value.encode()
    for value in values[-20:]:
        assert site.stored(path, f"Accept-Encoding: {value}").body == value.encode()
    assert site.count(path) == 80


def test_white_space_and_case_of_what_negotiates_make_no_variant(site: Site) -> None:
    path = site.put(by_field("Accept-Encoding"))
    site.get(path, "Accept-Encoding: gzip,br")
    assert site.stored(path, "Accept-Encoding: GZIP , br").body == b"gzip,br"
    assert site.count(path) == 1


def test_star_is_never_used_again(site: Site) -> None:
    path = site.put(by_field("Foo", {"Vary": "*", **FRESH}))
    assert [site.get(path, "Foo: 1").body for _ in range(2)] == [b"1"] * 2
    assert site.count(path) == 2


def test_an_answer_without_vary_does_not_hide_the_variants(site: Site) -> None:
    def choose(request: Request) -> Route:
        value = request.headers.get("foo")
        if value is None:
            return Route(body=b"plain", headers=FRESH)
        return Route(body=value.encode(), headers={"Vary": "Foo", **FRESH})

    path = site.put(Route(choose=choose))
    site.get(path, "Foo: 1")
    site.stored(path, "Foo: 1")
    site.get(path)
    site.stored(path)
    assert site.stored(path, "Foo: 1").body == b"1"
    assert site.stored(path).body == b"plain"
    assert site.count(path) == 2


def test_a_variant_is_validated_and_the_others_stay(site: Site) -> None:
    path = site.put(by_field("Foo", {"Cache-Control": "max-age=60", "Vary": "Foo"}))
    for value in "123":
        site.get(path, f"Foo: {value}")
        site.stored(path, f"Foo: {value}")
    before = site.count(path)
    assert site.get(path, "Foo: 2", "Cache-Control: no-cache").body == b"2"
    assert site.last(path).headers["if-none-match"] == '"2"'
    for value in "123":
        assert site.get(path, f"Foo: {value}").is_hit
    assert site.count(path) == before + 1


def test_what_getfile_has_stored_of_what_varies_serves_both_protocols(site: Site) -> None:
    """HTTP clients whose fields are those of getfile's request, and getfile itself, which can ask for nothing else."""
    path = site.put(by_field("Accept-Encoding"))
    assert ask(site.port, path).body == b"identity"
    site.settle(path)
    reply = site.get(path, "Accept-Encoding: Identity")
    assert reply.is_hit
    assert (reply.body, reply.get("etag"), int(reply.cache["ttl"]) > 0) == (b"identity", '"identity"', True)
    assert ask(site.port, path).body == b"identity"
    assert site.count(path) == 1
    assert site.get(path, "Accept-Encoding: gzip").cache["fwd"] == "vary-miss"
    assert site.get(path).body == b"none"  # a request without the field is no request with it
    for _ in range(2):
        assert ask(site.port, path).body == b"identity"
        assert site.stored(path, "Accept-Encoding: gzip").body == b"gzip"
        assert site.stored(path, "Accept-Encoding: identity").body == b"identity"
    assert site.count(path) == 3


def test_getfile_is_served_by_the_variant_that_http_has_stored(site: Site) -> None:
    path = site.put(by_field("Accept-Encoding"))
    site.get(path, "Accept-Encoding: identity")
    site.stored(path, "Accept-Encoding: identity")
    assert ask(site.port, path).body == b"identity"
    assert site.count(path) == 1


def test_a_large_body_that_varies(site: Site) -> None:
    """In many chunks, and later from the cache's own file: the way back to getfile is that of every hit."""
    body = bytes(range(256)) * 20_000
    path = site.put(Route(body=body, headers={"Vary": "Accept", **FRESH}))
    for _ in range(4):
        assert ask(site.port, path).body == body
        site.settle(path)
        assert site.get(path, "Accept: */*").body == body
    assert site.count(path) == 1


def test_a_page_about_an_error_is_no_variant_for_getfile(site: Site) -> None:
    path = site.put(Route(status=410, body=b"gone", headers=FRESH), Route(body=b"back", headers=FRESH))
    assert site.get(path).status == 410
    assert site.stored(path).status == 410
    assert ask(site.port, path).body == b"back"
    wait_until(lambda: site.holds(path, exactly=False), what="the file in place of the error")
    assert ask(site.port, path).body == b"back"
    assert site.get(path).body == b"back"
    assert site.count(path) == 2


def test_an_answer_to_getfile_without_vary_does_not_hide_the_variants(site: Site) -> None:
    def choose(request: Request) -> Route:
        if request.headers.get("accept-encoding") == "identity":
            return Route(body=b"plain", headers=FRESH)
        return Route(body=b"coded", headers={"Vary": "Accept-Encoding", **FRESH})

    path = site.put(Route(choose=choose))
    site.get(path, "Accept-Encoding: gzip")
    site.stored(path, "Accept-Encoding: gzip")
    for _ in range(2):
        assert ask(site.port, path).body == b"plain"
        site.settle(f"{path}\0{new_variant((), None).id.decode()}")
        assert site.get(path, "Accept-Encoding: gzip").body == b"coded"
    assert site.count(path) == 2


def test_a_purge_takes_what_getfile_has_stored_of_what_varies(site: Site) -> None:
    path = site.put(by_field("Accept-Encoding"))
    ask(site.port, path)
    site.settle(path)
    assert site.get(path, method="PURGE").status == 200
    assert ask(site.port, path).body == b"identity"
    assert site.count(path) == 2


STALE = {"Cache-Control": "max-age=60", "Age": "100", "ETag": '"1"'}
ENGLISH, GERMAN = "Accept-Language: en", "Accept-Language: de"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_vary_that_comes_with_a_validation(site: Site, method: str) -> None:
    """Section 4.1: what was stored for anybody turns out to be for some; the others do not get it."""
    stored = Route(body=b"english", headers=STALE)

    def choose(request: Request) -> Route:
        body = b"deutsch" if request.headers["accept-language"] == "de" else b"english"
        etag = '"2"' if body == b"deutsch" else '"1"'
        return Route(body=body, headers={**FRESH, "ETag": etag, "Vary": "Accept-Language"})

    path = site.fill(stored, Route(choose=choose))
    assert site.get(path, ENGLISH, method=method).status == 200
    german = site.get(path, GERMAN)
    assert (german.is_hit, german.body) == (False, b"deutsch")
    assert site.stored(path, GERMAN).body == b"deutsch"
    assert site.get(path, ENGLISH).body == b"english"
    assert site.stored(path, ENGLISH).body == b"english"


def test_vary_that_grows_with_a_validation(site: Site) -> None:
    path = site.put(
        Route(body=b"a1", headers={**STALE, "Vary": "A"}),
        Route(body=b"a1b1", headers={**FRESH, "ETag": '"1"', "Vary": "A, B"}),
        Route(body=b"a1b1", headers={**FRESH, "ETag": '"1"', "Vary": "A, B"}),
        Route(body=b"a1b2", headers={**FRESH, "ETag": '"2"', "Vary": "A, B"}),
    )
    site.get(path, "A: 1", "B: 1")
    site.settle(path)
    assert site.get(path, "A: 1", "B: 1").body == b"a1b1"
    assert site.get(path, "A: 1", "B: 2").body == b"a1b2"
    assert site.stored(path, "A: 1", "B: 1").body == b"a1b1"
    assert site.stored(path, "A: 1", "B: 2").body == b"a1b2"


@pytest.mark.parametrize(("status", "body"), [(200, b"new"), (404, b"gone")])
def test_an_answer_without_vary_takes_the_place_of_the_variant_that_it_was_asked_for(
    site: Site, status: int, body: bytes
) -> None:
    path = site.put(
        Route(body=b"old", headers={**STALE, "Vary": "Foo"}), Route(status=status, body=body, headers=FRESH)
    )
    site.get(path, "Foo: 1")
    site.settle(path)
    assert (site.get(path, "Foo: 1").status, site.stored(path, "Foo: 1").body) == (status, body)
    count = site.count(path)
    for value in "123":
        assert site.get(path, f"Foo: {value}").body == body
    assert site.count(path) == count == 2


def test_a_reload_without_vary_takes_the_place_of_a_fresh_variant(site: Site) -> None:
    path = site.put(by_field("Foo"), by_field("Foo"), Route(body=b"new", headers=FRESH))
    for value in "12":
        site.get(path, f"Foo: {value}")
        site.stored(path, f"Foo: {value}")
    assert site.get(path, "Foo: 1", "Cache-Control: no-cache").body == b"new"
    wait_until(lambda: site.get(path, "Foo: 1").body == b"new", what="the new one")
    assert site.stored(path, "Foo: 1").body == b"new"
    assert site.stored(path, "Foo: 2").body == b"2"  # it was not asked about
    assert site.count(path) == 3


def test_getfile_of_what_varies(site: Site) -> None:
    """getfile asks for it without coding, and HTTP clients get what they asked for."""
    path = site.put(by_field("Accept-Encoding"))
    assert ask(site.port, path).body == b"identity"
    assert site.get(path, "Accept-Encoding: gzip").body == b"gzip"
    assert site.stored(path, "Accept-Encoding: gzip").body == b"gzip"
    assert ask(site.port, path).body == b"identity"
    assert site.get(path, "Accept-Encoding: br").body == b"br"
    assert site.stored(path, "Accept-Encoding: gzip").body == b"gzip"
    assert site.stored(path, "Accept-Encoding: br").body == b"br"
