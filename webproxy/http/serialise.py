"""PURE: responses → the bytes sent to clients (RFC 9112 sections 4, 5, 7.1).

Requests to an origin are serialised by libcurl.
"""

from __future__ import annotations

import functools

from webproxy.http.fields import Fields
from webproxy.http.syntax import is_field_block, is_line_text

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNK_END = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

REASONS = {
    100: b"Continue",
    101: b"Switching Protocols",
    103: b"Early Hints",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    203: b"Non-Authoritative Information",
    204: b"No Content",
    205: b"Reset Content",
    206: b"Partial Content",
    300: b"Multiple Choices",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    305: b"Use Proxy",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    411: b"Length Required",
    412: b"Precondition Failed",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    416: b"Range Not Satisfiable",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    425: b"Too Early",
    426: b"Upgrade Required",
    428: b"Precondition Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    451: b"Unavailable For Legal Reasons",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    508: b"Loop Detected",
    511: b"Network Authentication Required",
}
"""The standard reason phrases (RFC 9110 section 15, RFC 5842, RFC 6585, RFC 7725, RFC 8297, RFC 8470)."""


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
