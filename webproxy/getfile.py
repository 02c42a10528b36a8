"""PURE: the GETFILE protocol, both roles, without any I/O; the normative text is docs/protocol.md, section 1.

A server turns the bytes of a request into its path, and writes the headers of replies. `parse_request` is called again
with everything received so far, so a call must be cheap: a complete request costs one regular expression. A client
writes requests and reads the header of a reply from left to right; its parser decides at the first byte that settles
it, so that a reply gives the same header or the same error no matter how it is split. Content passes through neither.

`LocalProtocolError` is a bug in our own code, `RemoteProtocolError` an error of the peer.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SCHEME: Final = b"GETFILE "
REQUEST_PREFIX: Final = b"GETFILE GET "
TERMINATOR: Final = b"\r\n\r\n"

PATH_BYTES_MAX: Final = 4096
"""Longest path, including its leading slash."""

REQUEST_BYTES_MAX: Final = len(REQUEST_PREFIX) + PATH_BYTES_MAX + len(TERMINATOR)
"""Longest valid request: a server never has to buffer more."""

LENGTH_MAX: Final = 2**64 - 1
LENGTH_DIGITS_MAX: Final = len(str(LENGTH_MAX))

PATH_BYTE: Final = rb"[\x21-\x7e\x80-\xff]"
"""Any byte but a control character, space or DEL; UTF-8 is passed through."""
PATH_PATTERN: Final = rb"/%s{0,%d}" % (PATH_BYTE, PATH_BYTES_MAX - 1)


class Status(StrEnum):
    """The status of a reply; only OK is followed by a length and content."""

    OK = "OK"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    ERROR = "ERROR"
    INVALID = "INVALID"


class Wire(StrEnum):
    """The two forms of a reply in use; the request is the same in both."""

    CRLF = "crlf"
    SPACE = "space"


class Violation(StrEnum):
    """Every way in which the peer can violate the protocol; the values appear in reports and metrics."""

    BAD_SCHEME = "bad-scheme"
    # in a request
    BAD_METHOD = "bad-method"
    BAD_PATH = "bad-path"
    PATH_TOO_LONG = "path-too-long"
    BAD_TERMINATOR = "bad-terminator"
    EXCESS_BYTES = "excess-bytes"
    # in a reply
    UNKNOWN_STATUS = "unknown-status"
    MISSING_LENGTH = "missing-length"
    NEGATIVE_LENGTH = "negative-length"
    ALPHABETIC_LENGTH = "alphabetic-length"
    LENGTH_TOO_LARGE = "length-too-large"
    UNEXPECTED_LENGTH = "unexpected-length"
    HEADER_TOO_LONG = "header-too-long"
    EMPTY_REPLY = "empty-reply"
    # in either
    INCOMPLETE_HEADER = "incomplete-header"


_EXPLANATIONS = {
    Violation.BAD_SCHEME: "the message does not begin with 'GETFILE '",
    Violation.BAD_METHOD: "the method is not 'GET' followed by one space",
    Violation.BAD_PATH: "the path must begin with '/' and hold no space or control character",
    Violation.PATH_TOO_LONG: f"the path is longer than {PATH_BYTES_MAX} bytes",
    Violation.BAD_TERMINATOR: "the header must end with CR LF CR LF",
    Violation.EXCESS_BYTES: "bytes follow the end of the message",
    Violation.UNKNOWN_STATUS: "the status is not one of OK, FILE_NOT_FOUND, ERROR, INVALID",
    Violation.MISSING_LENGTH: "OK is not followed by a length",
    Violation.NEGATIVE_LENGTH: "the length is negative",
    Violation.ALPHABETIC_LENGTH: "the length is not a decimal number",
    Violation.LENGTH_TOO_LARGE: "the length exceeds 64 bits",
    Violation.UNEXPECTED_LENGTH: "a status other than OK carries a length",
    Violation.HEADER_TOO_LONG: "the header does not end where it should",
    Violation.EMPTY_REPLY: "the peer closed without sending a byte",
    Violation.INCOMPLETE_HEADER: "the peer closed within the header",
}


_SHOWN_BYTES_MAX = 48


class LocalProtocolError(Exception):
    """Our own caller asked for something the protocol cannot express: a bug, or input that should be refused early."""


class RemoteProtocolError(Exception):
    """The peer sent something that is not GETFILE.

    `kind` is the violation, `seen` the bytes received up to it, and `status` what a server answers.
    """

    status = Status.INVALID

    def __init__(self, kind: Violation, seen: bytes = b"") -> None:
        super().__init__(kind, seen)
        self.kind = kind
        self.seen = seen

    def __str__(self) -> str:
        if not self.seen:
            return _EXPLANATIONS[self.kind]
        shown = self.seen if len(self.seen) <= _SHOWN_BYTES_MAX else self.seen[:_SHOWN_BYTES_MAX] + b"..."
        return f"{_EXPLANATIONS[self.kind]}: {shown!r}"


# -- the server ------------------------------------------------------------------------------------------------------
_match_request = re.compile(REQUEST_PREFIX + rb"(" + PATH_PATTERN + rb")" + TERMINATOR).fullmatch
_match_path_bytes = re.compile(PATH_BYTE + rb"*").match
_PATH_START = len(REQUEST_PREFIX)
_OK_HEADERS = {Wire.CRLF: b"GETFILE OK %d\r\n\r\n", Wire.SPACE: b"GETFILE OK %d "}
_REFUSALS: dict[tuple[Status, Wire], bytes] = {
    (status, wire): b"GETFILE %s" % status.encode() + (TERMINATOR if wire is Wire.CRLF else b" 0\n")
    for status in Status
    if status is not Status.OK
    for wire in Wire
}


def parse_request(data: bytes) -> bytes | None:
    """Return the path if `data` is one complete request, None while it is a prefix of one.

    Raises RemoteProtocolError at the first byte after which `data` can no longer become a request; that includes any
    byte after the terminator. The result does not depend on how the bytes were split.
    """
    if whole := _match_request(data):
        return whole[1]
    _check_beginning(data)
    return None


def ok_header(length: int, wire: Wire) -> bytes:
    """Return the header for content of `length` bytes; raises LocalProtocolError unless that fits in 64 bits."""
    if not 0 <= length <= LENGTH_MAX:
        raise LocalProtocolError(f"content length {length} is outside 0..{LENGTH_MAX}")
    return _OK_HEADERS[wire] % length


def refusal(status: Status, wire: Wire) -> bytes:
    """Return the complete reply for any status but OK; raises LocalProtocolError for OK."""
    try:
        return _REFUSALS[status, wire]
    except KeyError:
        raise LocalProtocolError(f"status {status} is not a refusal: it needs a length") from None


def _check_beginning(data: bytes) -> None:
    """Raise RemoteProtocolError unless `data` is a prefix of a valid request."""
    if not data.startswith(REQUEST_PREFIX):
        if REQUEST_PREFIX.startswith(data):
            return
        in_scheme = not data.startswith(SCHEME)
        agreed = _common_prefix_length(data, REQUEST_PREFIX)
        raise RemoteProtocolError(Violation.BAD_SCHEME if in_scheme else Violation.BAD_METHOD, data[: agreed + 1])
    if len(data) == _PATH_START:
        return
    if data[_PATH_START : _PATH_START + 1] != b"/":
        raise RemoteProtocolError(Violation.BAD_PATH, data[: _PATH_START + 1])
    run = _match_path_bytes(data, _PATH_START)
    path_end = run.end() if run else _PATH_START
    if path_end - _PATH_START > PATH_BYTES_MAX:
        raise RemoteProtocolError(Violation.PATH_TOO_LONG, data[: _PATH_START + PATH_BYTES_MAX + 1])
    tail = data[path_end:]
    if TERMINATOR.startswith(tail):
        return
    agreed = _common_prefix_length(tail, TERMINATOR)
    if agreed == len(TERMINATOR):
        kind = Violation.EXCESS_BYTES
    elif agreed == 0 and tail[:1] != b"\n":
        kind = Violation.BAD_PATH
    else:
        kind = Violation.BAD_TERMINATOR
    raise RemoteProtocolError(kind, data[: path_end + agreed + 1])


def _common_prefix_length(data: bytes, expected: bytes) -> int:
    """The length of the common prefix."""
    for index, (byte, wanted) in enumerate(zip(data, expected, strict=False)):
        if byte != wanted:
            return index
    return min(len(data), len(expected))


# -- the client ------------------------------------------------------------------------------------------------------
_match_path = re.compile(PATH_PATTERN).fullmatch
_match_digits = re.compile(rb"[0-9]*").match
_STATUSES = {status.encode(): status for status in Status}
_STATUS_BYTES_MAX = max(map(len, _STATUSES))
_SPACE_REFUSAL_END = b" 0\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """The header of a reply; `length` is the number of content bytes that follow, 0 for every refusal."""

    status: Status
    length: int
    wire: Wire


def request_bytes(path: bytes) -> bytes:
    """Return the request for `path`; raises LocalProtocolError if the path cannot be sent."""
    if _match_path(path):
        return REQUEST_PREFIX + path + TERMINATOR
    if not path.startswith(b"/"):
        raise LocalProtocolError(f"path {path[:64]!r} does not begin with '/'")
    if len(path) > PATH_BYTES_MAX:
        raise LocalProtocolError(f"path of {len(path)} bytes is longer than {PATH_BYTES_MAX}")
    raise LocalProtocolError(f"path {path[:64]!r} holds a space or a control character: percent-encode it")


class ReplyParser:
    """One reply: feed bytes until `receive_data` returns the header; `rest` is the content received so far."""

    def __init__(self) -> None:
        self._buffer = b""
        self._reply: Reply | None = None

    @property
    def rest(self) -> bytes:
        """The bytes received after the header; empty until the header is complete."""
        return self._buffer if self._reply else b""

    def receive_data(self, data: bytes) -> Reply | None:
        """Add received bytes; returns the header if it is complete now, else None.

        Raises RemoteProtocolError at the first byte that no reply can have there, LocalProtocolError after the header.
        """
        if self._reply:
            raise LocalProtocolError("the header is complete: what follows is content")
        self._buffer += data
        found = _parse_header(self._buffer)
        if found is None:
            return None
        self._reply, header_bytes = found
        self._buffer = self._buffer[header_bytes:]
        return self._reply

    def receive_end(self) -> None:
        """The peer has closed: raises RemoteProtocolError (EMPTY_REPLY, INCOMPLETE_HEADER) without a header."""
        if self._reply is None:
            raise RemoteProtocolError(
                Violation.INCOMPLETE_HEADER if self._buffer else Violation.EMPTY_REPLY, self._buffer
            )


def _parse_header(data: bytes) -> tuple[Reply, int] | None:
    """The header and its size in bytes; None while more bytes are needed."""
    if not data.startswith(SCHEME):
        if SCHEME.startswith(data):
            return None
        raise RemoteProtocolError(Violation.BAD_SCHEME, data[: len(SCHEME)])
    status = _parse_status(data)
    if status is None:
        return None
    after_status = len(SCHEME) + len(status)
    if status is Status.OK:
        return _parse_ok(data, after_status)
    return _parse_refusal(data, after_status, status)


def _parse_status(data: bytes) -> Status | None:
    """The status, once the byte after it has arrived; None while more bytes are needed."""
    start = len(SCHEME)
    for end in range(start, min(len(data), start + _STATUS_BYTES_MAX) + 1):
        token = data[start:end]
        if token in _STATUSES:  # no status is a prefix of another
            following = data[end : end + 1]
            if not following:
                return None
            if following in b" \r\n":
                return _STATUSES[token]
            raise RemoteProtocolError(Violation.UNKNOWN_STATUS, data[: end + 1])
        if not any(status.startswith(token) for status in _STATUSES):
            raise RemoteProtocolError(Violation.UNKNOWN_STATUS, data[:end])
    return None


def _parse_ok(data: bytes, after_status: int) -> tuple[Reply, int] | None:
    if data[after_status : after_status + 1] != b" ":
        raise RemoteProtocolError(Violation.MISSING_LENGTH, data[: after_status + 1])
    start = after_status + 1
    found = _match_digits(data, start)
    end = found.end() if found else start
    digits = data[start : min(end, start + LENGTH_DIGITS_MAX)]
    if digits and int(digits) > LENGTH_MAX:
        raise RemoteProtocolError(Violation.LENGTH_TOO_LARGE, data[: start + LENGTH_DIGITS_MAX])
    if end - start > LENGTH_DIGITS_MAX:
        padded = digits.startswith(b"0")
        kind = Violation.HEADER_TOO_LONG if padded else Violation.LENGTH_TOO_LARGE
        raise RemoteProtocolError(kind, data[: start + LENGTH_DIGITS_MAX + 1])
    following = data[end : end + 1]
    if not following:
        return None
    if not digits or following not in b" \r":
        raise RemoteProtocolError(_length_violation(digits, following), data[: end + 1])
    if following == b" ":
        return Reply(Status.OK, int(digits), Wire.SPACE), end + 1
    if not _terminated(data, end, TERMINATOR):
        return None
    return Reply(Status.OK, int(digits), Wire.CRLF), end + len(TERMINATOR)


def _length_violation(digits: bytes, following: bytes) -> Violation:
    """What is wrong with a length that ends, after `digits`, with the byte `following`."""
    if following == b"\n" and digits:
        return Violation.BAD_TERMINATOR
    if following in b" \r\n":
        return Violation.MISSING_LENGTH
    if following == b"-" and not digits:
        return Violation.NEGATIVE_LENGTH
    return Violation.ALPHABETIC_LENGTH


def _parse_refusal(data: bytes, after_status: int, status: Status) -> tuple[Reply, int] | None:
    if data[after_status : after_status + 1] == b" ":
        # Only the space form has a length here, and only "<status> 0\n".
        wire, ending, kind = Wire.SPACE, _SPACE_REFUSAL_END, Violation.UNEXPECTED_LENGTH
    else:
        wire, ending, kind = Wire.CRLF, TERMINATOR, Violation.BAD_TERMINATOR
    if not _terminated(data, after_status, ending, kind):
        return None
    return Reply(status, 0, wire), after_status + len(ending)


def _terminated(data: bytes, start: int, ending: bytes, kind: Violation = Violation.BAD_TERMINATOR) -> bool:
    """Whether `ending` is complete at `start`; raises RemoteProtocolError of `kind` for any other byte in it."""
    tail = data[start : start + len(ending)]
    if not ending.startswith(tail):
        raise RemoteProtocolError(kind, data[: start + len(tail)])
    return len(tail) == len(ending)
