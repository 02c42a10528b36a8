"""Heads line by line: what an answer says, and every head whose body could end at two places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from webproxy.errors import OriginBadReply, OriginError, OriginTooLarge
from webproxy.http.fields import Fields
from webproxy.origin.response_head import FIELDS_MAX, HEADER_BYTES_MAX, HeadReader, OriginResponse

OK = b"HTTP/1.1 200 OK\r\n"


Heads = tuple[list[OriginResponse], Fields]


def heads(text: bytes, method: bytes = b"GET") -> Heads:
    """Read line by line, and each head at once, which makes no difference."""
    lines = text.splitlines(keepends=True)
    by_line, at_once = ([line] for line in lines), _ended_by_blanks(lines)
    expected, found = _read(by_line, method), _read(at_once, method)
    if isinstance(expected, Exception):
        assert (type(found), str(found)) == (type(expected), str(expected))
        raise expected
    assert found == expected
    return expected


def _ended_by_blanks(lines: list[bytes]) -> Iterator[list[bytes]]:
    part = []
    for line in lines:
        part.append(line)
        if line in (b"\r\n", b"\n"):
            yield part
            part = []
    if part:
        yield part


def _read(parts: Iterable[list[bytes]], method: bytes) -> Heads | Exception:
    reader = HeadReader("http://h/x", method)
    try:
        found = [head for part in parts if (head := reader.take_all(part)) is not None]
    except OriginError as error:
        return error
    return found, reader.trailers


def final(text: bytes, method: bytes = b"GET") -> OriginResponse:
    (head,), _ = heads(text, method)
    return head


@pytest.mark.parametrize(
    ("line", "status", "reason", "version"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200, b"OK", b"1.1"),
        (b"HTTP/1.0 404 Not Found\r\n", 404, b"Not Found", b"1.0"),
        (b"HTTP/1.1 200\r\n", 200, b"", b"1.1"),
        (b"HTTP/1.1 200 \r\n", 200, b"", b"1.1"),
        (b"HTTP/2 200 \r\n", 200, b"", b"2"),
        (b"HTTP/1.1 599 \xe9 b\n", 599, b"\xe9 b", b"1.1"),
        (b"HTTP/1.1 999 Odd\r\n", 999, b"Odd", b"1.1"),
    ],
)
def test_status_lines(line: bytes, status: int, reason: bytes, version: bytes) -> None:
    head = final(line + b"\r\n")
    assert (head.status, head.reason, head.http_version) == (status, reason, version)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 099",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1 \xb2\xb0\xb0 OK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/11 200 OK",
        b"Content-Length: 3",
    ],
    ids=repr,
)
def test_no_status_line(line: bytes) -> None:
    with pytest.raises(OriginBadReply, match="not a status line"):
        HeadReader("http://h/x", b"GET").take(line + b"\r\n")


def test_fields_are_kept_as_received() -> None:
    head = final(OK + b"X-B: 1\r\nx-a:2\r\nX-B:\t 3 \t\r\nEmpty:\r\nHigh: \xe9\r\nColon: a: b\r\n\r\n")
    assert head.fields.lines == (
        (b"X-B", b"1"),
        (b"x-a", b"2"),
        (b"X-B", b"3"),
        (b"Empty", b""),
        (b"High", b"\xe9"),
        (b"Colon", b"a: b"),
    )


def test_a_blank_before_the_colon_goes() -> None:
    assert final(OK + b"X-A \t: 1\r\n\r\n").fields.lines == ((b"X-A", b"1"),)


@pytest.mark.parametrize(
    "line",
    [
        b"no colon",
        b": no name",
        b" folded: too early",
        b"X Y: z",
        b"X\xe9: z",
        b"X: a\0b",
        b"X: a\rb",
        b"Content-Length : 3",
        b"Transfer-Encoding\t: chunked",
    ],
    ids=repr,
)
def test_no_field(line: bytes) -> None:
    reader = HeadReader("http://h/x", b"GET")
    reader.take(OK)
    with pytest.raises(OriginBadReply, match="not a field line"):
        reader.take(line + b"\r\n")


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (b"", None),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 003\r\n", 3),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", 5),
        (b"Content-Length: 9223372036854775807\r\n", 2**63 - 1),
        (b"Transfer-Encoding: Chunked\r\n", None),
    ],
)
def test_lengths(lines: bytes, length: int | None) -> None:
    assert final(OK + lines + b"\r\n").length == length


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 3, 4\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3_0\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length:\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding:\r\n",
    ],
    ids=repr,
)
def test_framing_in_doubt(lines: bytes) -> None:
    with pytest.raises(OriginBadReply):
        final(OK + lines + b"\r\n")


def test_http_1_0_knows_no_chunks() -> None:
    with pytest.raises(OriginBadReply, match=r"in HTTP/1\.0"):
        final(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("digits", [b"9223372036854775808", b"9" * 5000])
def test_a_length_that_no_file_has(digits: bytes) -> None:
    with pytest.raises(OriginTooLarge):
        final(OK + b"Content-Length: " + digits + b"\r\n\r\n")


def test_chunks_override_a_length_that_is_not_passed_on() -> None:
    head = final(OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n")
    assert (head.length, head.fields.lines) == (None, ((b"Transfer-Encoding", b"chunked"), (b"X", b"y")))


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200"), (b"HEAD", b"404"), (b"GET", b"204"), (b"POST", b"304")]
)
def test_answers_without_a_body_keep_what_they_declare(method: bytes, status: bytes) -> None:
    head = final(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 7\r\n\r\n", method)
    assert (head.length, head.fields.get(b"content-length")) == (0, b"7")


@pytest.mark.parametrize(
    ("method", "status", "kept"),
    [
        (b"GET", b"206", True),
        (b"GET", b"416", True),
        (b"GET", b"200", False),
        (b"GET", b"304", False),
        (b"HEAD", b"200", False),
        (b"GET", b"404", False),
        (b"PUT", b"308", True),
    ],
)
def test_content_range_where_it_has_a_meaning(method: bytes, status: bytes, kept: bool) -> None:
    """RFC 9110 section 14.4; what an answer to another method means by it is between client and origin."""
    head = final(b"HTTP/1.1 " + status + b" X\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 0\r\n\r\n", method)
    assert (b"content-range" in head.fields) is kept


def test_interim_heads_come_first_and_have_no_framing() -> None:
    text = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    found, _ = heads(text + OK + b"Content-Length: 3\r\n\r\n")
    assert [(head.status, head.fields.lines, head.length) for head in found] == [
        (103, ((b"Link", b"</a>"),), 0),
        (100, (), 0),
        (200, ((b"Content-Length", b"3"),), 3),
    ]


def test_a_switch_of_protocols_is_refused() -> None:
    with pytest.raises(OriginBadReply, match="protocol switch"):
        final(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")


def test_trailers_are_apart_from_the_head() -> None:
    (head,), trailers = heads(OK + b"X: 1\r\n\r\nX: 2\r\nDigest: z\r\n\r\n")
    assert head.fields.lines == ((b"X", b"1"),)
    assert trailers.lines == ((b"X", b"2"), (b"Digest", b"z"))


def test_a_second_final_head_is_no_trailer() -> None:
    with pytest.raises(OriginBadReply, match="not a field line"):
        heads(OK + b"\r\n" + OK + b"\r\n")


def test_a_head_at_once_has_so_many_fields_and_no_more() -> None:
    assert len(final(OK + b"X: y\r\n" * FIELDS_MAX + b"\r\n").fields.lines) == FIELDS_MAX
    with pytest.raises(OriginBadReply, match=f"more than {FIELDS_MAX} fields"):
        heads(OK + b"X: y\r\n" * (FIELDS_MAX + 1) + b"\r\n")


@pytest.mark.parametrize("before", [b"", OK + b"\r\n"], ids=["head", "trailers"])
def test_so_many_fields_and_no_more(before: bytes) -> None:
    reader = HeadReader("http://h/x", b"GET")
    for line in (before or OK).splitlines(keepends=True):
        reader.take(line)
    for _ in range(FIELDS_MAX):
        reader.take(b"X: y\r\n")
    with pytest.raises(OriginBadReply, match=f"more than {FIELDS_MAX} fields"):
        reader.take(b"X: y\r\n")


def test_so_many_bytes_and_no_more() -> None:
    reader = HeadReader("http://h/x", b"GET")
    reader.take(OK)
    reader.take(b"X:" + b"y" * (HEADER_BYTES_MAX - len(OK) - 4) + b"\r\n")
    with pytest.raises(OriginBadReply, match="bytes"):
        reader.take(b"\r\n")


def test_interim_heads_count_too() -> None:
    with pytest.raises(OriginBadReply, match="bytes"):
        heads(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000)
