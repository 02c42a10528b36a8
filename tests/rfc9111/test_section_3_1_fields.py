"""RFC 9111 section 3.1: which fields of a response are stored with it."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, kept, refusal
from tests.support.http_values import fields

FRESH = b"Cache-Control: max-age=60"

STAYS = [b"Content-Type", b"Content-Foo", b"X-Frame-Options", b"Strict-Transport-Security", b"WWW-Authenticate"]
STAYS += [b"ETag", b"Repr-Digest", b"Set-Cookie", b"Clear-Site-Data", b"Via", b"Proxy-Status", b"CDN-Cache-Control"]


@pytest.mark.parametrize("name", STAYS)
def test_fields_are_stored_also_unknown_ones(name: bytes) -> None:
    assert kept(FRESH, DATE, name + b": x").fields == fields(FRESH, DATE, name + b": x")


GOES = [b"Age", b"Content-Range", b"Connection", b"Keep-Alive", b"Proxy-Authenticate", b"Proxy-Authentication-Info"]
GOES += [b"Upgrade", b"TE", b"Proxy-Authorization", b"Proxy-Connection", b"Transfer-Encoding", b"Trailer"]


@pytest.mark.parametrize("name", GOES)
def test_fields_of_the_connection_are_not(name: bytes) -> None:
    assert kept(FRESH, DATE, name + b": 5").fields == fields(FRESH, DATE)


def test_fields_that_connection_lists_are_not() -> None:
    stored = kept(FRESH, DATE, b"Connection: a, B", b"a: 1", b"b: 2", b"c: 3")
    assert stored.fields == fields(FRESH, DATE, b"c: 3")


def test_what_connection_lists_still_counts_for_storing() -> None:
    """The list names fields not to forward; they still count for this cache."""
    assert refusal(b"Connection: cache-control", b"Cache-Control: no-store", ETAG) == b"no-store"
