"""The output of the GETFILE builders, byte for byte, and the text of its errors."""

import pickle

import pytest

from webproxy.getfile import (
    LENGTH_MAX,
    PATH_BYTES_MAX,
    REQUEST_BYTES_MAX,
    LocalProtocolError,
    RemoteProtocolError,
    ReplyParser,
    Status,
    Violation,
    Wire,
    ok_header,
    refusal,
    request_bytes,
)


@pytest.mark.parametrize(
    ("length", "wire", "expected"),
    [
        (0, Wire.CRLF, b"GETFILE OK 0\r\n\r\n"),
        (12345, Wire.CRLF, b"GETFILE OK 12345\r\n\r\n"),
        (LENGTH_MAX, Wire.CRLF, b"GETFILE OK 18446744073709551615\r\n\r\n"),
        (0, Wire.SPACE, b"GETFILE OK 0 "),
        (12345, Wire.SPACE, b"GETFILE OK 12345 "),
    ],
)
def test_ok_header_bytes(length: int, wire: Wire, expected: bytes) -> None:
    assert ok_header(length, wire) == expected


@pytest.mark.parametrize(
    ("status", "crlf", "space"),
    [
        (Status.FILE_NOT_FOUND, b"GETFILE FILE_NOT_FOUND\r\n\r\n", b"GETFILE FILE_NOT_FOUND 0\n"),
        (Status.ERROR, b"GETFILE ERROR\r\n\r\n", b"GETFILE ERROR 0\n"),
        (Status.INVALID, b"GETFILE INVALID\r\n\r\n", b"GETFILE INVALID 0\n"),
    ],
)
def test_refusal_bytes(status: Status, crlf: bytes, space: bytes) -> None:
    assert refusal(status, Wire.CRLF) == crlf
    assert refusal(status, Wire.SPACE) == space


@pytest.mark.parametrize("length", [-1, LENGTH_MAX + 1])
def test_a_length_that_cannot_be_written_is_our_bug(length: int) -> None:
    with pytest.raises(LocalProtocolError, match="outside"):
        ok_header(length, Wire.CRLF)


def test_ok_is_no_refusal() -> None:
    with pytest.raises(LocalProtocolError, match="needs a length"):
        refusal(Status.OK, Wire.CRLF)


def test_request_bytes() -> None:
    assert request_bytes(b"/a/b") == b"GETFILE GET /a/b\r\n\r\n"
    assert len(request_bytes(b"/" + b"p" * (PATH_BYTES_MAX - 1))) == REQUEST_BYTES_MAX


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"", "does not begin"),
        (b"a", "does not begin"),
        (b"/a b", "percent-encode"),
        (b"/a\r\n", "percent-encode"),
        (b"/a\n", "percent-encode"),
        (b"/" + b"p" * PATH_BYTES_MAX, "longer than 4096"),
    ],
)
def test_a_path_that_cannot_be_sent_is_refused_with_the_reason(path: bytes, why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why):
        request_bytes(path)


def test_the_parser_takes_nothing_after_the_header() -> None:
    parser = ReplyParser()
    assert parser.rest == b""
    parser.receive_data(b"GETFILE OK 1\r\n\r\n")
    with pytest.raises(LocalProtocolError, match="content"):
        parser.receive_data(b"x")
    parser.receive_end()  # the end of the stream after the header is no violation: the caller counts the content


@pytest.mark.parametrize("kind", Violation)
def test_every_violation_explains_itself_and_shows_what_was_seen(kind: Violation) -> None:
    plain = RemoteProtocolError(kind)
    assert len(str(plain)) > 10
    assert str(RemoteProtocolError(kind, b"GETFOIL")) == f"{plain}: b'GETFOIL'"
    assert len(str(RemoteProtocolError(kind, b"x" * 5000))) < 200
    assert plain.status is Status.INVALID


def test_remote_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(RemoteProtocolError(Violation.BAD_PATH, b"seen")))
    assert (error.kind, error.seen) == (Violation.BAD_PATH, b"seen")
