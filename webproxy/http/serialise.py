"""PURE: responses → the bytes sent to clients (RFC 9112 sections 4, 5, 7.1).

Requests to an origin are serialised by libcurl.
"""

from __future__ import annotations

import functools
from http import HTTPStatus

from webproxy.http.fields import Fields
from webproxy.http.syntax import is_field_block, is_line_text

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNK_END = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}
"""The standard reason phrases; those that RFC 9110 renamed are older in some versions of Python."""


@functools.lru_cache(maxsize=128)
def status_line(status: int, reason: bytes = b"") -> bytes:
    """The first line of a response; an empty `reason` means the standard one. Raises ValueError as response_head()."""
    if not 100 <= status <= 999 or is_line_text(reason) is None:
        raise ValueError(f"not a status line: {status} {reason!r}")
    return b"HTTP/1.1 %d %s\r\n" % (status, reason or REASONS.get(status, b""))


def response_head(status: int, reason: bytes, fields: Fields) -> bytes:
    """A response's head, including the empty line.

    Raises ValueError if the status does not have three digits, a name is not a token, or a value or the reason contains
    CR, LF or NUL (RFC 9110 section 5.5): nothing an origin sent may start a second response.
    """
    block = fields.block
    # A line end inside a value can make two valid lines out of one; only their number gives it away.
    if is_field_block(block) is None or block.count(b"\n") != len(fields):
        raise ValueError(f"not fields: {fields!r}")
    return b"%s%s\r\n" % (status_line(status, reason), block)


def error_response(
    status: int, *, close: bool, text: str, date: bytes, fields: Fields | None = None, with_body: bool = True
) -> bytes:
    """A complete response of our own with one line of text; `date` is its Date, `fields` what else the status requires.

    `close`: the connection ends with it (RFC 9112 section 9.6). Without the body it answers a HEAD.
    """
    body = text.encode() + b"\n"
    lines = [
        (b"Date", date),
        *(fields or ()),
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
    ]
    if close:
        lines.append((b"Connection", b"close"))
    head = response_head(status, b"", Fields(lines))
    return head + body if with_body else head


def chunk_head(size: int) -> bytes:
    """What precedes a chunk of `size` bytes, at least 1; CHUNK_END follows it (RFC 9112 section 7.1)."""
    assert size > 0, "an empty chunk would end the body"
    return b"%x\r\n" % size
