"""serialise: heads, error responses and chunks as bytes, and what must never be sent."""

import pytest

from webproxy.http.fields import Fields
from webproxy.http.serialise import (
    CHUNK_END,
    CONTINUE,
    LAST_CHUNK,
    REASONS,
    chunk_head,
    error_response,
    response_head,
    status_line,
)

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        pytest.param(200, b"", b"HTTP/1.1 200 OK\r\n", id="usual-words"),
        pytest.param(200, b"Fine \xff", b"HTTP/1.1 200 Fine \xff\r\n", id="own-words"),
        pytest.param(299, b"", b"HTTP/1.1 299 \r\n", id="unknown-status"),
        pytest.param(999, b"x", b"HTTP/1.1 999 x\r\n", id="last-status"),
    ],
)
def test_status_line(status: int, reason: bytes, line: bytes) -> None:
    assert status_line(status, reason) == line


def test_response_head() -> None:
    fields = Fields([(b"Date", DATE), (b"X", b""), (b"X", b"a:b \xff\t")])
    assert response_head(404, b"", fields) == (
        b"HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX: \r\nX: a:b \xff\t\r\n\r\n"
    )


def test_response_head_of_a_block_and_of_no_fields() -> None:
    assert response_head(200, b"OK", Fields.parse_block(b"A: b\r\n")) == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    assert response_head(200, b"OK", Fields()) == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        pytest.param(200, b"", (b"A", b"b\r\nSet-Cookie: x"), id="second-line-in-a-value"),
        pytest.param(200, b"", (b"A", b"b\n"), id="lf-in-a-value"),
        pytest.param(200, b"", (b"A", b"b\r"), id="cr-in-a-value"),
        pytest.param(200, b"", (b"A", b"b\0"), id="nul-in-a-value"),
        pytest.param(200, b"", (b"A b", b"c"), id="blank-in-a-name"),
        pytest.param(200, b"", (b"A:", b"c"), id="colon-in-a-name"),
        pytest.param(200, b"", (b"", b"c"), id="empty-name"),
        pytest.param(200, b"OK\r\nA: b", (b"A", b"b"), id="second-line-in-the-reason"),
        pytest.param(200, b"\0", (b"A", b"b"), id="nul-in-the-reason"),
        pytest.param(99, b"", (b"A", b"b"), id="status-of-two-digits"),
        pytest.param(1000, b"", (b"A", b"b"), id="status-of-four-digits"),
    ],
)
def test_what_would_begin_something_else_is_not_sent(status: int, reason: bytes, line: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="not "):
        response_head(status, reason, Fields([line]))


def test_error_response() -> None:
    assert error_response(400, close=True, text="no Host", date=DATE) == (
        b"HTTP/1.1 400 Bad Request\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno Host\n"
    )


def test_error_response_with_fields_and_without_a_body() -> None:
    response = error_response(
        405, close=False, text="ü", date=DATE, fields=Fields([(b"Allow", b"GET")]), with_body=False
    )
    assert response == (
        b"HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nAllow: GET\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\n"
    )


def test_chunks() -> None:
    assert chunk_head(26) + b"x" * 26 + CHUNK_END + LAST_CHUNK == b"1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"
    with pytest.raises(AssertionError):
        chunk_head(0)


def test_reasons_are_what_a_client_may_be_sent() -> None:
    assert all(status_line(status) == b"HTTP/1.1 %d %s\r\n" % (status, words) for status, words in REASONS.items())
    assert status_line(100) + b"\r\n" == CONTINUE
