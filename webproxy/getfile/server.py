"""The server side of GETFILE: the bytes of a request → its path, and the headers of replies.

PURE: values in, values out, no connection. `parse_request` is called again with everything received so far, so a call
must be cheap: a complete request costs one regular expression.
"""

import re

from webproxy.getfile.errors import LocalProtocolError, RemoteProtocolError, Violation
from webproxy.getfile.messages import (
    LENGTH_MAX,
    PATH_BYTE,
    PATH_BYTES_MAX,
    PATH_PATTERN,
    REQUEST_PREFIX,
    SCHEME,
    TERMINATOR,
    Status,
    Wire,
)

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
