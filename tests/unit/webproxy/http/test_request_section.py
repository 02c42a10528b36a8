"""request_section: what a request's fields say of its body and its connection; refusals are in the wire corpus too."""

import pytest

from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, HttpError
from webproxy.http.request_section import (
    RequestSection,
    is_authority,
    is_field_line,
    read_section,
    split_block,
)
from webproxy.http.syntax import LENGTH_MAX

HTTP_1_0, HTTP_1_1 = (1, 0), (1, 1)


def section(*lines: tuple[bytes, bytes], version: tuple[int, int] = HTTP_1_1) -> RequestSection:
    return read_section(Fields([(b"Host", b"h"), *lines]), version)


@pytest.mark.parametrize(
    ("lines", "framing", "length"),
    [
        pytest.param([], Framing.NONE, 0, id="none"),
        pytest.param([(b"content-LENGTH", b"12")], Framing.LENGTH, 12, id="length"),
        pytest.param([(b"Content-Length", b"0")], Framing.LENGTH, 0, id="length-zero"),
        pytest.param([(b"Content-Length", b"%d" % LENGTH_MAX)], Framing.LENGTH, LENGTH_MAX, id="largest"),
        pytest.param([(b"Transfer-Encoding", b"CHUNKED")], Framing.CHUNKED, 0, id="chunked"),
    ],
)
def test_framing(lines: list[tuple[bytes, bytes]], framing: Framing, length: int) -> None:
    read = section(*lines)
    assert (read.framing, read.content_length) == (framing, length)


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        pytest.param(HTTP_1_1, [], True, id="1.1"),
        pytest.param(HTTP_1_1, [b"close"], False, id="1.1-close"),
        pytest.param(HTTP_1_1, [b"keep-alive"], True, id="1.1-keep-alive"),
        pytest.param(HTTP_1_1, [b"Upgrade, CLOSE"], False, id="1.1-close-in-a-list"),
        pytest.param(HTTP_1_1, [b"keep-alive", b"close"], False, id="1.1-close-on-a-second-line"),
        pytest.param(HTTP_1_1, [b"closed"], True, id="1.1-another-word"),
        pytest.param(HTTP_1_0, [], False, id="1.0"),
        pytest.param(HTTP_1_0, [b"Keep-Alive"], True, id="1.0-keep-alive"),
        pytest.param(HTTP_1_0, [b"x, keep-alive"], True, id="1.0-keep-alive-in-a-list"),
        pytest.param(HTTP_1_0, [b"keep-alive, close"], False, id="1.0-both"),
    ],
)
def test_keep_alive(version: tuple[int, int], connection: list[bytes], keep_alive: bool) -> None:
    assert section(*[(b"Connection", value) for value in connection], version=version).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("version", "lines", "expects"),
    [
        pytest.param(HTTP_1_1, [(b"Expect", b"100-Continue"), (b"Content-Length", b"1")], True, id="with-a-length"),
        pytest.param(HTTP_1_1, [(b"Expect", b"100-continue"), (b"Transfer-Encoding", b"chunked")], True, id="chunked"),
        pytest.param(HTTP_1_1, [(b"Expect", b"100-continue"), (b"Content-Length", b"0")], False, id="empty-body"),
        pytest.param(HTTP_1_1, [(b"Expect", b"100-continue")], False, id="no-body"),
        pytest.param(HTTP_1_1, [(b"Content-Length", b"1")], False, id="not-asked"),
        pytest.param(HTTP_1_0, [(b"Expect", b"100-continue"), (b"Content-Length", b"1")], False, id="1.0"),
        pytest.param(HTTP_1_0, [(b"Expect", b"x"), (b"Content-Length", b"1")], False, id="1.0-unknown"),
    ],
)
def test_expectation(version: tuple[int, int], lines: list[tuple[bytes, bytes]], expects: bool) -> None:
    assert section(*lines, version=version).expects_continue is expects


@pytest.mark.parametrize(
    ("lines", "version", "status"),
    [
        pytest.param([], HTTP_1_1, 400, id="no-host"),
        pytest.param([(b"Host", b"")], HTTP_1_0, 400, id="empty-host-on-1.0"),
        pytest.param([(b"Host", b"h"), (b"Host", b"h")], HTTP_1_0, 400, id="two-hosts"),
        pytest.param([(b"Host", b"h"), (b"Expect", b"100-continue, x")], HTTP_1_1, 417, id="one-expectation-unknown"),
        pytest.param([(b"Host", b"h"), (b"Transfer-Encoding", b"gzip, chunked")], HTTP_1_1, 501, id="unknown-coding"),
        pytest.param([(b"Host", b"h"), (b"Content-Length", b"0" * 19 + b"5")], HTTP_1_1, 400, id="twenty-digits"),
        pytest.param([(b"Host", b"h"), (b"Content-Length", b"%d" % (LENGTH_MAX + 1))], HTTP_1_1, 400, id="too-large"),
    ],
)
def test_refusals(lines: list[tuple[bytes, bytes]], version: tuple[int, int], status: int) -> None:
    with pytest.raises(HttpError) as refused:
        read_section(Fields(lines), version)
    assert refused.value.status == status


@pytest.mark.parametrize("value", [b"h", b"h.example:80", b"127.0.0.1:", b"[::1]:8080", b"a_b", b"a%20b", b"x:65535"])
def test_authority(value: bytes) -> None:
    assert is_authority(value)


@pytest.mark.parametrize(
    "value", [b"", b":80", b"u@h", b"h/", b"h?", b"h#", b"[::1", b"[h]", b"h:123456", b"h h", b"h\n"]
)
def test_no_authority(value: bytes) -> None:
    assert not is_authority(value)


def test_lines_of_a_block_lose_the_blanks_around_their_values() -> None:
    block = b"Host:h\r\nA: \t b c\t \r\nB:\r\nA::\r\n"
    assert split_block(block) == ((b"Host", b"h"), (b"A", b"b c"), (b"B", b""), (b"A", b":"))
    assert split_block(b"") == ()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"A: b",
        b"A: b\n",
        b"A: b\r",
        b"A b\r\n",
        b" A: b\r\n",
        b"A : b\r\n",
        b"A: \0\r\n",
        b"A: b\r\n ",
        b"Content-length: 1\t\r\n",
        b"TRANSFER-ENCODING:\tchunked\r\n",
    ],
)
def test_no_field_line(line: bytes) -> None:
    assert not is_field_line(line)
    assert split_block(b"Host: h\r\n" + line) is None or line == b""


@pytest.mark.parametrize("line", [b"A:\tb\r\n", b"A:\r\n", b"Content-Length-X:\t1\r\n", b"X-Content-Length: 1\t\r\n"])
def test_field_line(line: bytes) -> None:
    assert is_field_line(line)
