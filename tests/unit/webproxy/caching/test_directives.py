"""directives: every form of a directive, and what stands in its place, read to the safe side."""

import pytest

from tests.support.http_values import fields
from webproxy.caching.directives import (
    DELTA_MAX_S,
    NO_WISHES,
    RequestDirectives,
    ResponseDirectives,
    delta_seconds,
    request_directives,
    response_directives,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"60", 60),
        (b"003600", 3600),
        (b"2147483647", 2**31 - 1),
        (b"2147483648", 2**31),
        (b"2147483649", 2**31),
        (b"99999999999", 2**31),
        (b"9" * 10_000, 2**31),
        (b"0" * 10_000 + b"7", 7),
        (None, None),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1a", None),
        (b"a1", None),
        (b" 1", None),
        (b"'1'", None),
        ("\u0663".encode(), None),
    ],
)
def test_delta_seconds(value: bytes | None, expected: int | None) -> None:
    assert delta_seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", RequestDirectives()),
        (b"no-cache", RequestDirectives(no_cache=True)),
        (b"No-Cache, NO-STORE,only-if-cached", RequestDirectives(no_cache=True, no_store=True, only_if_cached=True)),
        (b"max-age=0", RequestDirectives(max_age=0)),
        (b'max-age="60"', RequestDirectives(max_age=60)),
        (b"max-age=5, max-age=9", RequestDirectives(max_age=5)),
        (b"max-age", RequestDirectives(max_age=0)),
        (b"max-age=-1", RequestDirectives(max_age=0)),
        (b"max-age= 60", RequestDirectives(max_age=0)),
        (b"max-age =60", RequestDirectives(max_age=0)),
        (b"min-fresh=7", RequestDirectives(min_fresh=7)),
        (b"min-fresh", RequestDirectives()),
        (b"min-fresh=x", RequestDirectives()),
        (b"max-stale", RequestDirectives(max_stale=DELTA_MAX_S)),
        (b"max-stale=30", RequestDirectives(max_stale=30)),
        (b"max-stale=x", RequestDirectives()),
        (b"max-stale=", RequestDirectives()),
        (b"stale-if-error=9", RequestDirectives(stale_if_error=9)),
        (b"stale-if-error", RequestDirectives()),
        (b'x="no-cache, max-age=1", no-transform', RequestDirectives()),
        (b'x="open, no-cache', RequestDirectives(no_cache=True, no_store=True)),
        (b"no-cache" + b" " * 2_000, RequestDirectives(no_cache=True)),
    ],
)
def test_request(value: bytes, expected: RequestDirectives) -> None:
    assert request_directives(fields(b"Cache-Control: " + value)) == expected


def test_lines_of_a_request_are_joined() -> None:
    lines = fields(b"cache-control: max-age=3", b"Cache-Control: no-store")
    assert request_directives(lines) == RequestDirectives(max_age=3, no_store=True)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), NO_WISHES),
        ((b"Pragma: no-cache",), RequestDirectives(no_cache=True)),
        ((b"Pragma: x, No-Cache",), RequestDirectives(no_cache=True)),
        ((b"Pragma: x",), NO_WISHES),
        ((b"Pragma: no-cache", b"Cache-Control: max-age=5"), RequestDirectives(max_age=5)),
        ((b"Pragma: no-cache", b"Cache-Control: x"), NO_WISHES),
    ],
)
def test_pragma(lines: tuple[bytes, ...], expected: RequestDirectives) -> None:
    assert request_directives(fields(*lines)) == expected


def test_a_plain_request_costs_no_value() -> None:
    assert request_directives(fields(b"Host: a")) is NO_WISHES


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", ResponseDirectives()),
        (b"max-age=60, s-maxage=5", ResponseDirectives(max_age=60, s_maxage=5)),
        (b"MAX-AGE=60", ResponseDirectives(max_age=60)),
        (b'max-age="60"', ResponseDirectives(max_age=60)),
        (b"max-age=60,max-age=1", ResponseDirectives(max_age=60)),
        (b"max-age=1, max-age=60", ResponseDirectives(max_age=1)),
        (b"max-age=x, max-age=60", ResponseDirectives(max_age=0)),
        (b"max-age", ResponseDirectives(max_age=0)),
        (b"max-age=", ResponseDirectives(max_age=0)),
        (b"max-age=60.0", ResponseDirectives(max_age=0)),
        (b"max-age='60'", ResponseDirectives(max_age=0)),
        (b"max-age= 60", ResponseDirectives(max_age=0)),
        (b"max-age =60", ResponseDirectives(max_age=0)),
        (b"max-age=99999999999", ResponseDirectives(max_age=DELTA_MAX_S)),
        (b"s-maxage=-1", ResponseDirectives(s_maxage=0)),
        (b'extension="max-age=3600", max-age=1', ResponseDirectives(max_age=1)),
        (b'extension="a\\", max-age=3600"', ResponseDirectives()),
        (b'x="open, max-age=60', ResponseDirectives(no_cache=True, no_store=True)),
        (b"stale-while-revalidate=3, stale-if-error=4", ResponseDirectives(stale_while_revalidate=3, stale_if_error=4)),
        (b"stale-while-revalidate, stale-if-error=x", ResponseDirectives(stale_while_revalidate=0, stale_if_error=0)),
        (b"no-store , ,public", ResponseDirectives(no_store=True, public=True)),
        (b"no-store=please", ResponseDirectives(no_store=True)),
        (b"no-store =x", ResponseDirectives(no_store=True)),
        (b"must-revalidate,proxy-revalidate", ResponseDirectives(must_revalidate=True, proxy_revalidate=True)),
        (b"must-understand, no-store", ResponseDirectives(must_understand=True, no_store=True)),
        (b"immutable, no-transform, unknown=1", ResponseDirectives()),
        (b"no-stores, xno-store, no store", ResponseDirectives()),
    ],
)
def test_response(value: bytes, expected: ResponseDirectives) -> None:
    assert response_directives(fields(b"Cache-Control: " + value)) == expected


EVERYTHING: frozenset[bytes] = frozenset()


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        (b"", EVERYTHING),
        (b'=""', EVERYTHING),
        (b"=", EVERYTHING),
        (b'=" , "', EVERYTHING),
        (b'="set-cookie"', {b"set-cookie"}),
        (b'="Set-Cookie, A"', {b"set-cookie", b"a"}),
        (b"=Set-Cookie", {b"set-cookie"}),
        (b'="a b"', EVERYTHING),
        (b'="a, (b)"', EVERYTHING),
        (b'="a, content-encoding"', EVERYTHING),
        (b'="Vary"', EVERYTHING),
        (b' ="a"', EVERYTHING),
    ],
)
def test_lists_of_field_names(argument: bytes, names: frozenset[bytes]) -> None:
    for name in (b"no-cache", b"private"):
        found = response_directives(fields(b"Cache-Control: " + name + argument))
        flag, listed = (
            (found.no_cache, found.no_cache_fields) if name == b"no-cache" else (found.private, found.private_fields)
        )
        assert (flag, listed) == (not names, names)


def test_lists_add_up_and_the_plain_form_stays() -> None:
    found = response_directives(fields(b'Cache-Control: no-cache="a"', b'Cache-Control: no-cache, no-cache="b"'))
    assert (found.no_cache, found.no_cache_fields) == (True, {b"a", b"b"})


def test_pragma_of_a_response_means_nothing() -> None:
    assert response_directives(fields(b"Pragma: no-cache")) == ResponseDirectives()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"max-age=60", ResponseDirectives(max_age=60, targeted=True)),
        (b"max-age=60;a=b", ResponseDirectives(max_age=60, targeted=True)),
        (b"max-age=60, max-age=5", ResponseDirectives(max_age=5, targeted=True)),
        (b"max-age=-5", ResponseDirectives(max_age=0, targeted=True)),
        (b"max-age=99999999999", ResponseDirectives(max_age=DELTA_MAX_S, targeted=True)),
        (b"no-store, private", ResponseDirectives(no_store=True, private=True, targeted=True)),
        (b'no-cache="a, b"', ResponseDirectives(no_cache_fields=frozenset((b"a", b"b")), targeted=True)),
        (b"private=a", ResponseDirectives(private_fields=frozenset((b"a",)), targeted=True)),
        (b"unknown=(1 2)", ResponseDirectives(targeted=True)),
    ],
)
def test_targeted(value: bytes, expected: ResponseDirectives) -> None:
    lines = fields(b"Cache-Control: max-age=1, public", b"CDN-Cache-Control: " + value)
    assert response_directives(lines, targeted_control=True) == expected
    assert response_directives(lines) == ResponseDirectives(max_age=1, public=True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"max-age=60, &&",
        b"Max-Age=60",
        b"max-age =60",
        b'max-age="60"',
        b"max-age",
        b"max-age=1.5",
        b"no-store=?0",
        b"no-store=1",
        b"no-cache=1",
        b"private=(a b)",
        b"public, max-age=tok",
    ],
)
def test_a_targeted_field_that_is_not_usable_is_ignored(value: bytes) -> None:
    lines = fields(b"Cache-Control: no-store", b"CDN-Cache-Control: " + value)
    assert response_directives(lines, targeted_control=True) == ResponseDirectives(no_store=True)
