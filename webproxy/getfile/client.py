"""The client side of GETFILE: a path → the bytes of a request, and the bytes of a reply → its header.

PURE. The parser reads the header from left to right and decides at the first byte that settles it, so that a reply
gives the same header or the same error no matter how it is split. Content does not pass through it.
"""

import re
from dataclasses import dataclass

from webproxy.getfile.errors import LocalProtocolError, RemoteProtocolError, Violation
from webproxy.getfile.messages import (
    LENGTH_DIGITS_MAX,
    LENGTH_MAX,
    PATH_BYTES_MAX,
    PATH_PATTERN,
    REQUEST_PREFIX,
    SCHEME,
    TERMINATOR,
    Status,
    Wire,
)

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
