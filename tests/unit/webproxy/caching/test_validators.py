"""validators: entity tags and their comparison; the conditions are in tests/rfc9111."""

from __future__ import annotations

import pytest

from tests.support.http_values import NOW, fields
from webproxy.caching.validators import (
    is_entity_tag,
    is_strong,
    last_modified_is_strong,
    not_modified_fields,
    strong_match,
    weak_match,
)


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'W/"1"', False, True),
        (b'"1"', b'"1"', True, True),
        (b'"1"', b'"2"', False, False),
        (b'""', b'""', True, True),
        (b"1", b"1", False, False),
        (b'w/"1"', b'w/"1"', False, False),
        (b'W/W/"1"', b'W/W/"1"', False, False),
        (b"", b"", False, False),
    ],
)
def test_comparison(one: bytes, other: bytes, strong: bool, weak: bool) -> None:
    """The table of RFC 9110 section 8.8.3.2, and what is no entity tag."""
    assert strong_match(one, other) is strong
    assert weak_match(one, other) is weak


@pytest.mark.parametrize(
    ("etag", "well_formed", "strong"),
    [
        pytest.param(b'"a,b;\\c!"', True, True, id="comma-and-backslash-are-plain"),
        pytest.param(b'"\xc3\xbc"', True, True, id="beyond-ASCII"),
        pytest.param(b'W/"a"', True, False, id="weak"),
        pytest.param(b'"a b"', False, False, id="blank"),
        pytest.param(b'"a"b"', False, False, id="quote-inside"),
        pytest.param(b'"a', False, False, id="open"),
        pytest.param(b"a", False, False, id="bare"),
        pytest.param(b'"', False, False, id="one-quote"),
        pytest.param(b'"a\x7f"', False, False, id="control"),
        pytest.param(b'W/ "a"', False, False, id="blank-behind-the-mark"),
        pytest.param(b'"a", "b"', False, False, id="two"),
    ],
)
def test_what_is_an_entity_tag(etag: bytes, well_formed: bool, strong: bool) -> None:
    assert is_entity_tag(etag) is well_formed
    assert is_strong(etag) is strong


@pytest.mark.parametrize(
    ("date", "strong"),
    [
        pytest.param(b"Date: Sat, 21 Nov 2026 10:00:00 GMT", False, id="same-second"),
        pytest.param(b"Date: Sat, 21 Nov 2026 10:00:01 GMT", True, id="one-second-later"),
        pytest.param(b"Date: Sat, 21 Nov 2026 09:59:59 GMT", False, id="earlier"),
        pytest.param(b"Date: yesterday", False, id="no-date"),
        pytest.param(b"X: y", False, id="missing"),
    ],
)
def test_when_last_modified_is_strong(date: bytes, strong: bool) -> None:
    assert last_modified_is_strong(fields(b"Last-Modified: Sat, 21 Nov 2026 10:00:00 GMT", date), NOW) is strong
    assert not last_modified_is_strong(fields(date), NOW)


def test_a_304_keeps_what_is_not_about_the_body() -> None:
    """RFC 9110 section 15.4.5: what guides caches stays, the representation's own fields go."""
    kept = [
        b"Cache-Control: max-age=1",
        b"Content-Location: /y",
        b"Date: d",
        b'ETag: "a"',
        b"Expires: e",
        b"Vary: Accept",
        b"Access-Control-Allow-Origin: *",
        b"Content-Security-Policy: default-src",
    ]
    dropped = [
        b"Content-Type: a/b",
        b"Content-Length: 3",
        b"Content-Encoding: gzip",
        b"Content-Language: en",
        b"Content-Range: bytes 0-1/2",
        b"Content-Disposition: inline",
        b"Content-MD5: x",
        b"Content-Digest: x",
        b"Repr-Digest: x",
        b"Digest: x",
        b"Accept-Ranges: bytes",
        b"Last-Modified: l",
    ]
    assert not_modified_fields(fields(*dropped, *kept)) == fields(*kept)


def test_a_304_without_etag_keeps_last_modified() -> None:
    assert not_modified_fields(fields(b"Last-Modified: l", b"Content-Type: a/b")) == fields(b"Last-Modified: l")
