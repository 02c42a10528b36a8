"""messages: heads as bytes, and what must never be sent; HttpError."""

import pytest

from webproxy.http.fields import Fields
from webproxy.http.messages import CONTINUE, REASONS, HttpError, response_head

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_response_head() -> None:
    fields = Fields([(b"Date", DATE), (b"X", b""), (b"X", b"a:b \xff\t")])
    assert response_head(404, fields) == (
        b"HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX: \r\nX: a:b \xff\t\r\n\r\n"
    )


def test_response_head_of_a_block_and_of_no_fields() -> None:
    assert response_head(200, Fields.parse_block(b"A: b\r\n")) == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    assert response_head(200, Fields()) == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "line"),
    [
        pytest.param(200, (b"A", b"b\r\nSet-Cookie: x"), id="second-line-in-a-value"),
        pytest.param(200, (b"A", b"b\n"), id="lf-in-a-value"),
        pytest.param(200, (b"A", b"b\r"), id="cr-in-a-value"),
        pytest.param(200, (b"A", b"b\0"), id="nul-in-a-value"),
        pytest.param(200, (b"A b", b"c"), id="blank-in-a-name"),
        pytest.param(200, (b"A:", b"c"), id="colon-in-a-name"),
        pytest.param(200, (b"", b"c"), id="empty-name"),
        pytest.param(99, (b"A", b"b"), id="status-of-two-digits"),
        pytest.param(1000, (b"A", b"b"), id="status-of-four-digits"),
    ],
)
def test_what_would_begin_something_else_is_not_sent(status: int, line: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="not "):
        response_head(status, Fields([line]))


def test_reasons_are_what_a_client_may_be_sent() -> None:
    assert all(
        response_head(status, Fields()) == b"HTTP/1.1 %d %s\r\n\r\n" % (status, words)
        for status, words in REASONS.items()
    )
    assert response_head(100, Fields()) == CONTINUE
    assert response_head(299, Fields()) == b"HTTP/1.1 299 \r\n\r\n"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (413, b"Content Too Large"),
        (414, b"URI Too Long"),
        (416, b"Range Not Satisfiable"),
        (422, b"Unprocessable Content"),
    ],
)
def test_reasons_are_those_of_rfc_9110(status: int, words: bytes) -> None:
    assert REASONS[status] == words


def test_an_error_keeps_status_and_text_and_tells_them() -> None:
    error = HttpError(431, "too many fields")
    assert (error.status, error.text, str(error)) == (431, "too many fields", "431: too many fields")
