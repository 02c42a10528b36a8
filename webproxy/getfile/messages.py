"""The keywords and limits of the GETFILE protocol, shared by client and server.

PURE: constants only. The normative text is docs/protocol.md, section 1.
"""

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
