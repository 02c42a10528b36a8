"""What is kept beside an object that getfile fills: HTTP's own words, or nothing that HTTP could rely on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.caching.variants import selecting_fields
from webproxy.http.fields import Fields
from webproxy.origin.request import getfile_request
from webproxy.origin.response_head import OriginResponse
from webproxy.store.getfile_objects import PLAIN_GET, forbids_storing, stored_for_getfile

NOW = 1_700_000_000.0
DATE = (b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT")
ETAG = (b"ETag", b'"a"')


def kept(*lines: tuple[bytes, bytes], options: CachingOptions = DEFAULT_OPTIONS) -> StoredResponse | None:
    response = OriginResponse(status=200, fields=Fields([DATE, (b"Content-Length", b"3"), *lines]), length=3)
    return None if forbids_storing(response, options) else stored_for_getfile(response, NOW - 1, NOW, options)


def kept_for_sure(*lines: tuple[bytes, bytes], options: CachingOptions = DEFAULT_OPTIONS) -> StoredResponse:
    stored = kept(*lines, options=options)
    assert stored is not None
    return stored


def test_what_http_storing_refused_is_kept_as_http_keeps_it() -> None:
    stored = kept_for_sure(ETAG, (b"Cache-Control", b"max-age=60"), (b"Content-Type", b"text/plain"))
    assert stored == StoredResponse(
        status=200,
        fields=Fields([DATE, ETAG, (b"Cache-Control", b"max-age=60"), (b"Content-Type", b"text/plain")]),
        request_time=NOW - 1,
        response_time=NOW,
        initial_age_s=1,
        lifetime_s=60,
    )


@pytest.mark.parametrize(
    "control",
    [
        [b"no-store"],
        [b"private"],
        [b"No-Store"],
        [b"max-age=60, PRIVATE"],
        [b"public, max-age=60", b"no-store"],
        [b'max-age="60'],
    ],
    ids=["no-store", "private", "capitals", "among others", "on a second line", "unreadable"],
)
def test_what_its_origin_wants_nobody_to_keep_is_not_kept(control: list[bytes]) -> None:
    assert kept(ETAG, *((b"Cache-Control", value) for value in control)) is None


@pytest.mark.parametrize("control", [b'x="no-store"', b"not-private=1", b"must-understand, no-store, max-age=60"])
def test_words_that_do_not_forbid_it(control: bytes) -> None:
    assert kept_for_sure(ETAG, (b"Cache-Control", control)).fields.get(b"etag") == b'"a"'


def test_what_varies_is_for_the_fields_that_getfile_sends_with_every_request() -> None:
    stored = kept_for_sure(ETAG, (b"Cache-Control", b"max-age=60"), (b"Vary", b"Accept-Encoding, Cookie, accept"))
    assert stored.selecting == ((b"accept", b"*/*"), (b"accept-encoding", b"identity"), (b"cookie", None))
    assert (stored.lifetime_s, stored.fields.get(b"etag")) == (60, b'"a"')
    assert stored.selecting == selecting_fields(stored.fields, replace(PLAIN_GET, fields=getfile_request("x").fields))


def test_fields_for_one_user_are_left_out_and_the_rest_is_kept() -> None:
    stored = kept_for_sure(ETAG, (b"Cache-Control", b'max-age=60, private="set-cookie"'), (b"Set-Cookie", b"a=1"))
    assert b"set-cookie" not in stored.fields
    assert stored.lifetime_s == 60


def test_the_field_for_caches_like_this_one_is_obeyed_when_it_is_enabled() -> None:
    lines = [ETAG, (b"Cache-Control", b"max-age=60"), (b"CDN-Cache-Control", b"no-store")]
    assert kept_for_sure(*lines).lifetime_s == 60
    assert kept(*lines, options=CachingOptions(targeted_control=True)) is None
    lines = [ETAG, (b"Cache-Control", b"no-store"), (b"CDN-Cache-Control", b"max-age=60")]
    assert kept(*lines) is None
    assert kept_for_sure(*lines, options=CachingOptions(targeted_control=True)).lifetime_s == 60


@pytest.mark.parametrize(
    "lines",
    [
        [ETAG, (b"Cache-Control", b"max-age=60"), (b"Vary", b"*")],
        [ETAG, (b"Cache-Control", b"max-age=60"), (b"Vary", b"a b")],
        [ETAG, (b"Cache-Control", b"max-age=60"), (b"Set-Cookie", b"a=1")],
        [],
        [(b"Cache-Control", b"max-age=0")],
    ],
    ids=["varies in everything", "varies in no name", "cookie", "says nothing", "stale at once"],
)
def test_what_http_may_not_reuse_is_kept_for_getfile_alone(lines: list[tuple[bytes, bytes]]) -> None:
    """An HTTP request finds it stale and without a validator: the origin is asked anew."""
    stored = kept_for_sure(*lines)
    assert (stored.lifetime_s, stored.always_validate, len(stored.fields)) == (0, True, 0)


def test_a_stale_answer_with_a_validator_is_kept_to_be_validated() -> None:
    stored = kept_for_sure(ETAG, (b"Cache-Control", b"no-cache"))
    assert (stored.lifetime_s, stored.always_validate) == (0, True)
    assert stored.fields.get(b"etag") == b'"a"'
