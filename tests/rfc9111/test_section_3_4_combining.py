"""RFC 9111 section 3.4: what is stored of parts that were combined has the fields of the newer response."""

from __future__ import annotations

from tests.rfc9111.exchanges import kept
from tests.support.http_values import NOW, request, response
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import freshen, may_keep

FIRST = kept(b'ETag: "a"', b"Cache-Control: max-age=60", b"Content-Type: text/plain", b"X: 1", b"Y: 1", b"Age: 7")


def combined(*lines: bytes) -> StoredResponse:
    """The first part's response as a 206 updates it, a minute later."""
    rest = response(b'ETag: "a"', b"Content-Range: bytes 5-9/10", *lines, status=206)
    return freshen(request(), FIRST, rest, request_time=NOW + 60, response_time=NOW + 61)


def test_the_fields_of_the_newer_one_replace_those_of_the_older() -> None:
    fields = combined(b"X: 2", b"Z: 2").fields
    assert [fields.get(name) for name in (b"x", b"y", b"z")] == [b"2", b"1", b"2"]


def test_it_is_the_complete_response_and_no_206() -> None:
    both = combined(
        b"Content-Type: text/html", b"Content-Length: 5", b"Content-Encoding: gzip", b"Content-Digest: sha-256=:rest:"
    )
    assert both.status == 200
    names = (b"content-range", b"content-length", b"content-encoding", b"content-digest", b"content-type")
    assert [both.fields.get(name) for name in names] == [None, None, None, None, b"text/html"]


def test_freshness_and_age_are_the_newer_ones() -> None:
    both = combined(b"Cache-Control: max-age=600")
    assert (both.lifetime_s, both.initial_age_s, both.response_time) == (600, 1, NOW + 61)


def test_the_newer_one_may_forbid_to_store_them() -> None:
    assert may_keep(request(), combined())
    assert not may_keep(request(), combined(b"Cache-Control: no-store"))
    assert not may_keep(request(), combined(b"Vary: *"))
