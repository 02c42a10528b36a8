"""RFC 9111 section 4.1 with whole daemons: several stored responses for one URL."""

from __future__ import annotations

from dataclasses import replace

from tests.http.site import Site
from tests.support.client import ask
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
