"""RFC 9111 section 4.3.5: what a 200 to HEAD makes of a stored response."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rfc9111.test_section_3_2_updating import DATE, OLD_DATE, STORED
from tests.support.http_values import NOW, request, response, stored_response
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import head_update


def after_head(*lines: bytes, stored: StoredResponse = STORED) -> StoredResponse | None:
    head = request(method=b"HEAD")
    return head_update(head, stored, response(*lines), request_time=NOW - 1, response_time=NOW)


DATED = stored_response(OLD_DATE, b"Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT", body_bytes=5)


@pytest.mark.parametrize(
    ("stored", "lines"),
    [
        pytest.param(STORED, [b'ETag: "b"'], id="another-etag"),
        pytest.param(STORED, [b'ETag: W/"a"'], id="a-weak-etag"),
        pytest.param(STORED, [b"Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT"], id="a-date-that-is-not-stored"),
        pytest.param(STORED, [b'ETag: "a"', b"Content-Length: 6"], id="another-length"),
        pytest.param(STORED, [b"Content-Length: 6"], id="another-length-without-validators"),
        pytest.param(STORED, [b"Content-Length: five"], id="no-length"),
        pytest.param(STORED, [b'ETag: "a"', b"Content-Length: 5, 5"], id="two-lengths"),
        pytest.param(DATED, [b"Last-Modified: Sat, 21 Nov 2026 08:00:01 GMT"], id="another-date"),
        pytest.param(DATED, [b'ETag: "a"'], id="an-etag-that-is-not-stored"),
        pytest.param(STORED, [b'ETag: "a"', b"Cache-Control: no-store"], id="no-store"),
        pytest.param(replace(STORED, status=404), [b'ETag: "a"'], id="another-status"),
    ],
)
def test_a_head_that_differs_makes_it_stale(stored: StoredResponse, lines: list[bytes]) -> None:
    assert after_head(DATE, *lines, stored=stored) is None


@pytest.mark.parametrize(
    ("stored", "lines"),
    [
        pytest.param(STORED, [b'ETag: "a"'], id="etag"),
        pytest.param(STORED, [b'ETag: "a"', b"Content-Length: 5"], id="etag-and-length"),
        pytest.param(STORED, [], id="nothing-that-differs"),
        pytest.param(DATED, [b"Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT"], id="date"),
    ],
)
def test_a_head_that_agrees_updates(stored: StoredResponse, lines: list[bytes]) -> None:
    new = after_head(DATE, *lines, b"Cache-Control: max-age=77", b"X-New: 1", stored=stored)
    assert new is not None
    assert (new.lifetime_s, new.response_time, new.body_bytes, new.invalidated) == (77, NOW, 5, False)
    assert new.fields.get(b"x-new") == b"1"
    assert new.fields.get(b"content-type") == stored.fields.get(b"content-type")
