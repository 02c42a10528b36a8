"""ChunkedBody by itself: where it stops, and its limits to the byte; more of it in the wire corpus."""

import pytest

from webproxy.http.chunked import (
    CHUNK_END,
    CHUNK_LINE_BYTES_MAX,
    EXTENSION_BYTES_MAX,
    LAST_CHUNK,
    ChunkedBody,
    chunk_head,
)
from webproxy.http.messages import HttpError


def chunks(*, trailer_bytes_max: int = 64, trailers_max: int = 4) -> ChunkedBody:
    return ChunkedBody(trailer_bytes_max=trailer_bytes_max, trailers_max=trailers_max)


def refused(body: ChunkedBody, data: bytes) -> int:
    with pytest.raises(HttpError) as refusal:
        body.take(data, 0)
    return refusal.value.status


def test_it_stops_behind_its_end() -> None:
    body = chunks()
    assert body.take(b"..3\r\nabc\r\n0\r\n\r\nGET", 2) == (b"abc", 15)
    assert body.complete


def test_it_takes_what_is_there_and_goes_on() -> None:
    body = chunks()
    assert body.take(b"3", 0) == (b"", 0)
    assert body.take(b"3\r\nab", 0) == (b"ab", 5)
    assert body.take(b"c\r", 0) == (b"c", 1)
    assert body.take(b"\r\n0\r\nA: b\r\n\r", 0) == (b"", 11)
    assert not body.complete
    assert body.take(b"\r\n", 0) == (b"", 2)
    assert body.complete


@pytest.mark.parametrize(("more", "status"), [(0, None), (1, 400)], ids=["longest", "too-long"])
def test_the_length_of_a_chunk_line(more: int, status: int | None) -> None:
    line = b"1;" + b"a" * (CHUNK_LINE_BYTES_MAX - 4 + more) + b"\r\n"
    assert len(line) == CHUNK_LINE_BYTES_MAX + more
    if status is None:
        assert chunks().take(line, 0) == (b"", len(line))
    else:
        assert refused(chunks(), line) == status
        assert refused(chunks(), line[:CHUNK_LINE_BYTES_MAX]) == status


def test_all_extensions_of_a_body_together_have_a_limit() -> None:
    chunk = b"1;" + b"a" * 127 + b"\r\nx\r\n"
    assert EXTENSION_BYTES_MAX == 64 * 128
    body = chunks()
    assert body.take(chunk * 64, 0) == (b"x" * 64, len(chunk) * 64)
    assert refused(body, b"1;a\r\n") == 400


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        pytest.param(b"A: b\r\n" * 4 + b"\r\n", None, id="most"),
        pytest.param(b"A: b\r\n" * 5, 431, id="too-many"),
        pytest.param(b"A:" + b"b" * 58 + b"\r\n\r\n", None, id="longest"),
        pytest.param(b"A:" + b"b" * 62, 431, id="too-long"),
        pytest.param(b"A:" + b"b" * 40 + b"\r\nA:" + b"b" * 40 + b"\r\n\r\n", 431, id="together-too-long"),
        pytest.param(b"A b\r\n\r\n", 400, id="no-colon"),
        pytest.param(b"A : b\r\n\r\n", 400, id="blank-before-the-colon"),
    ],
)
def test_trailers_have_limits(trailers: bytes, status: int | None) -> None:
    if status is None:
        body = chunks()
        assert body.take(b"0\r\n" + trailers, 0) == (b"", 3 + len(trailers))
        assert body.complete
    else:
        assert refused(chunks(), b"0\r\n" + trailers) == status


def test_chunks() -> None:
    assert chunk_head(26) + b"x" * 26 + CHUNK_END + LAST_CHUNK == b"1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"
    with pytest.raises(AssertionError):
        chunk_head(0)
