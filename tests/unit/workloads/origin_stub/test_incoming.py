"""Requests off a connection: every framing of a body, and every end before its end."""

import io
from typing import Any

import pytest

from workloads.origin_stub.incoming import read_body, read_head
from workloads.origin_stub.request import BadRequestError


def reading(data: bytes) -> io.BufferedReader:
    raw: Any = io.BytesIO(data)
    return io.BufferedReader(raw)


def received(head: bytes, body: bytes = b"") -> tuple[bytes | None, bytes]:
    """The body, and what was left unread."""
    reader = reading(head + b"\r\n" + body)
    request = read_head(reader)
    assert request is not None
    return read_body(reader, request), reader.read()


POST = b"POST /a HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("head", "sent", "body"),
    [
        (POST, b"", b""),
        (POST + b"Content-Length: 3\r\n", b"abc", b"abc"),
        (POST + b"Transfer-Encoding: chunked\r\n", b"2\r\nab\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", b"ab0123456789"),
        (POST + b"Transfer-Encoding: Chunked\r\n", b"0\r\nT: 1\r\n\r\n", b""),
    ],
    ids=["none", "length", "chunks", "trailers"],
)
def test_bodies(head: bytes, sent: bytes, body: bytes) -> None:
    assert received(head, sent + b"next") == (body, b"next")


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (POST + b"Content-Length: 4\r\n", b"abc"),
        (POST + b"Transfer-Encoding: chunked\r\n", b""),
        (POST + b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n", b"0\r\n"),
    ],
)
def test_a_body_that_ends_short_is_none(head: bytes, sent: bytes) -> None:
    assert received(head, sent)[0] is None


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        (b"Content-Length: -1", b""),
        (b"Content-Length: x", b""),
        (b"Transfer-Encoding: gzip", b""),
        (b"Transfer-Encoding: chunked", b"zz\r\n"),
    ],
)
def test_a_framing_that_is_none(field: bytes, sent: bytes) -> None:
    with pytest.raises(BadRequestError):
        received(POST + field + b"\r\n", sent)


def test_the_end_of_the_connection() -> None:
    assert read_head(reading(b"")) is None
    assert read_head(reading(b"GET / HT")) is None
