"""RFC 9111 section 4.1: which of several stored responses a request selects."""

from __future__ import annotations

import pytest

from tests.support.http_values import NOW, fields, request, response, stored_response
from webproxy.caching.stored import Selecting
from webproxy.caching.validation import freshen, varies_otherwise
from webproxy.caching.variants import (
    Variant,
    VariantIndex,
    choose,
    has_others,
    matches,
    new_variant,
    replaced_by,
    selecting_fields,
    with_variant,
)


def selecting(vary: bytes, *lines: bytes) -> Selecting:
    """Those of a request with these lines, for a response with this Vary."""
    found = selecting_fields(fields(b"Vary: " + vary), request(*lines))
    assert found is not None
    return found


def variant(name: bytes, vary: bytes, *lines: bytes) -> Variant:
    """The variant that was stored for such a request; its ETag is its name."""
    return new_variant(selecting(vary, *lines), name)


def index_of(*variants: Variant) -> VariantIndex:
    """They were stored one after the other."""
    index = VariantIndex()
    for one in variants:
        index = with_variant(index, one)
    return index


@pytest.mark.parametrize(
    ("vary", "first", "second", "same"),
    [
        pytest.param(b"Foo", [b"Foo: 1"], [b"Foo: 1"], True, id="the-same-value"),
        pytest.param(b"Foo", [b"Foo: 1"], [b"Foo: 2"], False, id="another-value"),
        pytest.param(b"Foo", [b"Foo: 1"], [], False, id="left-out"),
        pytest.param(b"Foo", [], [b"Foo: 1"], False, id="come-in"),
        pytest.param(b"Foo", [], [], True, id="absent-in-both"),
        pytest.param(b"Foo", [], [b"Foo:"], False, id="absent-is-not-empty"),
        pytest.param(b"Foo", [b"Foo: 1", b"Bar: 1"], [b"Foo: 1", b"Bar: 2"], True, id="others-do-not-matter"),
        pytest.param(b"FOO", [b"fOO: 1"], [b"foo: 1"], True, id="names-have-no-case"),
        pytest.param(b"Foo", [b"Foo: a"], [b"Foo: A"], False, id="unknown-values-have-case"),
        pytest.param(b"Foo", [b"Foo: 1, 2"], [b"Foo: 1", b"Foo: 2"], True, id="lines-are-joined"),
        pytest.param(b"Foo", [b"Foo: 1, 2"], [b"Foo: 2, 1"], False, id="order-counts"),
        pytest.param(b"Foo, Bar", [b"Foo: 1", b"Bar: 2"], [b"Bar: 2", b"Foo: 1"], True, id="two-fields"),
        pytest.param(b"Foo, Bar", [b"Foo: 1", b"Bar: 2"], [b"Foo: 1", b"Bar: 3"], False, id="two-fields-one-differs"),
        pytest.param(b"Foo, Bar", [b"Foo: 1"], [b"Foo: 1", b"Bar: 1"], False, id="two-fields-one-comes-in"),
        pytest.param(
            b"Accept-Encoding", [b"Accept-Encoding: gzip, br"], [b"Accept-Encoding: GZIP,br"], True, id="white-space"
        ),
        pytest.param(
            b"Accept-Encoding", [b"Accept-Encoding: gzip, br"], [b"Accept-Encoding: br, gzip"], False, id="preference"
        ),
    ],
)
def test_selecting_fields_match(vary: bytes, first: list[bytes], second: list[bytes], same: bool) -> None:
    assert matches(selecting(vary, *first), request(*second)) is same


@pytest.mark.parametrize("vary", [b"*", b"*, Foo", b"Foo, *"])
def test_star_never_matches(vary: bytes) -> None:
    assert selecting_fields(fields(b"Vary: " + vary), request(b"Foo: 1")) is None


def test_star_on_a_line_of_its_own() -> None:
    assert selecting_fields(fields(b"Vary: Foo", b"Vary: *"), request(b"Foo: 1")) is None


def test_lines_of_vary_are_one_list() -> None:
    assert selecting_fields(fields(b"Vary: Foo", b"Vary: Bar"), request(b"Foo: 1")) == ((b"bar", None), (b"foo", b"1"))


def test_every_variant_is_found() -> None:
    one, two, none = (variant(b'"%d"' % at, b"Foo", *lines) for at, lines in enumerate([[b"Foo: 1"], [b"Foo: 2"], []]))
    index = index_of(one, two, none)
    assert choose(index, request(b"Foo: 2")) == two
    assert choose(index, request(b"Foo: 1")) == one
    assert choose(index, request()) == none
    assert choose(index, request(b"Foo: 3")) is None


def test_the_most_recent_of_several_that_match() -> None:
    """They were stored under different Vary fields, and the request matches both."""
    older, newer = variant(b'"old"', b"Foo", b"Foo: 1"), variant(b'"new"', b"Foo, Bar", b"Foo: 1")
    assert choose(index_of(older, newer), request(b"Foo: 1")) == newer
    assert choose(index_of(newer, older), request(b"Foo: 1")) == older
    assert choose(index_of(newer, older, newer), request(b"Foo: 1")) == newer


def test_one_without_vary_does_not_hide_the_others() -> None:
    plain, varied = new_variant((), b'"plain"'), variant(b'"varied"', b"Foo", b"Foo: 1")
    index = index_of(varied, plain)
    assert choose(index, request(b"Foo: 1")) == varied
    assert choose(index, request(b"Foo: 2")) == plain


def test_one_without_vary_takes_the_place_of_those_that_answered_its_request() -> None:
    """Or it would be stored and never chosen, and what the origin has replaced would be."""
    one, two, other = variant(b'"1"', b"Foo", b"Foo: 1"), variant(b'"2"', b"Foo", b"Foo: 2"), variant(b'"3"', b"Bar")
    index, asked = index_of(one, two, other), request(b"Foo: 1")
    replaced = replaced_by(index, (), asked)
    assert set(replaced) == {one, other}
    plain = new_variant((), None)
    assert with_variant(index, plain, replaced).variants == (plain, two)
    assert choose(with_variant(index, plain, replaced), asked) == plain
    assert replaced_by(index, one.selecting, asked) == ()
    assert replaced_by(index_of(plain), (), asked) == ()  # its own place is taken anyway
    assert [has_others(found, asked) for found in (index, index_of(one, other, plain), None)] == [True, False, False]


@pytest.mark.parametrize(
    ("vary", "expected"),
    [(b"Foo", False), (b"foo", False), (b"Foo, Bar", True), (b"Bar", True), (b"*", True), (None, False)],
)
def test_a_304_that_changes_what_it_varies_in(vary: bytes | None, expected: bool) -> None:
    asked = request(b"Foo: 1")
    stored = stored_response(b'ETag: "1"', b"Vary: Foo", selecting=selecting(b"Foo", b"Foo: 1"))
    lines = [] if vary is None else [b"Vary: " + vary]
    fresh = freshen(asked, stored, response(*lines, status=304), request_time=NOW - 1, response_time=NOW)
    assert varies_otherwise(stored, fresh) is expected


def test_what_is_stored_again_takes_the_place_of_its_variant_only() -> None:
    one, two = variant(b'"1"', b"Foo", b"Foo: 1"), variant(b'"2"', b"Foo", b"Foo: 2")
    again = variant(b'"3"', b"Foo", b"Foo: 1")
    index = index_of(one, two, again)
    assert index.variants == (again, two)
    assert again.id == one.id
