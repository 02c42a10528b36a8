"""Exceptions of the GETFILE protocol: whose fault it is, and what exactly is wrong.

PURE. `LocalProtocolError` is a bug in our own code, `RemoteProtocolError` an error of the peer.
"""

from enum import StrEnum

from webproxy.getfile.messages import PATH_BYTES_MAX, Status

_SHOWN_BYTES_MAX = 48


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


class ProtocolError(Exception):
    """A violation of the GETFILE protocol. Abstract: raise one of the two below."""

    def __init__(self, *args: object) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is abstract: raise LocalProtocolError or RemoteProtocolError")
        super().__init__(*args)


class LocalProtocolError(ProtocolError):
    """Our own caller asked for something the protocol cannot express: a bug, or input that should be refused early."""


class RemoteProtocolError(ProtocolError):
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
