"""validation: values that the rules of sections 3.2 and 4.3 do not speak of; those are in tests/rfc9111."""

from __future__ import annotations

from tests.support.http_values import NOW, fields, request, response, stored_response
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored_codec import decode, encode
from webproxy.caching.validation import conditional_request, freshen, head_update, may_keep

STORED = stored_response(b"Date: Sat, 21 Nov 2026 09:00:00 GMT", b'ETag: "a"', body_bytes=3)
TIMES = {"request_time": NOW - 2, "response_time": NOW}


def test_the_request_is_not_changed() -> None:
    asked = fields(b"Range: bytes=0-1")
    conditional_request(asked, STORED)
    assert asked == fields(b"Range: bytes=0-1")


def test_what_is_freshened_can_be_stored() -> None:
    new = freshen(request(), STORED, response(b"Expires: x", status=304), **TIMES)
    assert decode(encode(new)) == new


def test_options_reach_the_rules() -> None:
    line = b"CDN-Cache-Control: max-age=500"
    targeted = CachingOptions(targeted_control=True)
    answer = response(line, b"Cache-Control: max-age=1")
    assert freshen(request(), STORED, answer, **TIMES).lifetime_s == 1
    assert freshen(request(), STORED, answer, **TIMES, options=targeted).lifetime_s == 500
    updated = head_update(request(method=b"HEAD"), STORED, answer, **TIMES, options=targeted)
    assert updated is not None
    assert updated.lifetime_s == 500
    withheld = freshen(request(), STORED, response(b"CDN-Cache-Control: no-store"), **TIMES)
    assert may_keep(request(), withheld)
    assert not may_keep(request(), withheld, targeted)
