"""The heads of HTTP messages as values; HttpError, for a message that violates HTTP.

Responses are written here and in exchange/response_heads.py; requests to an origin are serialised by libcurl.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from webproxy.http.fields import Fields
from webproxy.http.syntax import is_field_block

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}
"""The standard reason phrases; those that RFC 9110 renamed are older in some versions of Python."""


class Framing(Enum):
    """How the length of a message body is determined (RFC 9112 section 6.3)."""

    NONE = "no body"
    LENGTH = "content-length"
    CHUNKED = "chunked"


@dataclass(slots=True, unsafe_hash=True)
class RequestHead:
    """One request without its body. `target` is as received; `version` is (1, 0) or (1, 1).

    Never modified, but not declared frozen: constructing a frozen one takes four times as long, once per request.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: Fields
    framing: Framing = Framing.NONE
    content_length: int = 0
    keep_alive: bool = True
    """The client allows the connection to persist after the response (RFC 9112 section 9.3)."""
    expects_continue: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """One response without its body; `fields` as received from an origin, or as to be sent to a client."""

    status: int
    fields: Fields
    reason: bytes = b""


class HttpError(Exception):
    """The request is refused with `status` and the connection closed: where the next request starts is unknown."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


def response_head(status: int, fields: Fields) -> bytes:
    """A response's head with the standard reason, including the empty line.

    Raises ValueError if the status does not have three digits, a name is not a token, or a value contains CR, LF or NUL
    (RFC 9110 section 5.5): nothing an origin sent may start a second response.
    """
    block = fields.block
    # A line end inside a value can make two valid lines out of one; only their number gives it away.
    if not 100 <= status <= 999 or is_field_block(block) is None or block.count(b"\n") != len(fields):
        raise ValueError(f"not a head: {status} {fields!r}")
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, REASONS.get(status, b""), block)
