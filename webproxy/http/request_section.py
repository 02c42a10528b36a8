"""PURE: what the header section of a request says about the request itself: its host, its body, its connection.

All recipients must agree on where a message ends, so anything ambiguous is refused, even where RFC 9112 allows a server
to repair it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from webproxy.http.fields import Field, Fields
from webproxy.http.messages import Framing, HttpError
from webproxy.http.syntax import BLANKS, FIELD_LINE, LENGTH_MAX, split_list

# A tab is white space like a space, but not every parser strips it from a length or a transfer coding.
_UNCLEAR = rb"(?i:content-length|transfer-encoding):[^\r]*\t"
_FIELD_LINE = rb"(?!%s)%s" % (_UNCLEAR, FIELD_LINE)
_is_block = re.compile(rb"(?:%s)*" % _FIELD_LINE).fullmatch
_names_and_values = re.compile(rb"([^:]++):([^\r]*+)\r\n").findall
is_field_line = re.compile(_FIELD_LINE).fullmatch
"""A field line, including its CR LF (RFC 9112 section 5).

White space is allowed neither before the colon nor before the name: old servers could take such a line for a
continuation of the previous one (sections 2.2, 5.1, 5.2). The only control character in values is the tab (RFC 9110
section 5.5).
"""
_is_length = re.compile(rb"[0-9]{1,19}").fullmatch
is_authority = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5}+)?").fullmatch
"""A host with an optional port and no userinfo (RFC 9110 sections 4.2.4, 7.2)."""


class RequestSection(NamedTuple):
    """The fields of a request and what they imply."""

    fields: Fields
    framing: Framing
    content_length: int
    keep_alive: bool
    expects_continue: bool


def split_block(block: bytes) -> tuple[Field, ...] | None:
    """The lines of a header section (without its empty line), white space stripped; None if one is invalid."""
    if _is_block(block) is None:
        return None
    return tuple([(name, value.strip(BLANKS)) for name, value in _names_and_values(block)])


def read_section(fields: Fields, version: tuple[int, int]) -> RequestSection:
    """Interpret the fields of a request of this version; raises HttpError 400, 417 or 501."""
    names = fields.names()
    _check_host(fields, version)
    if b"transfer-encoding" in names:
        _check_transfer_coding(fields, version)
        framing, length = Framing.CHUNKED, 0
    elif b"content-length" in names:
        framing, length = Framing.LENGTH, _content_length(fields)
    else:
        framing, length = Framing.NONE, 0
    has_body = length > 0 or framing is Framing.CHUNKED
    expects_continue = b"expect" in names and version == (1, 1) and _expects_continue(fields) and has_body
    keep_alive = version == (1, 1)
    if b"connection" in names:
        keep_alive = _keeps_alive(fields, version)
    return RequestSection(fields, framing, length, keep_alive, expects_continue)


def _check_host(fields: Fields, version: tuple[int, int]) -> None:
    """RFC 9112 section 3.2: exactly one in HTTP/1.1, even with an absolute-form target; optional in HTTP/1.0."""
    host = fields.get(b"host")  # multiple lines are joined by ", ", which no authority contains
    if host is None:
        if version == (1, 1):
            raise HttpError(400, "missing Host")
    elif is_authority(host) is None:
        raise HttpError(400, "invalid Host")


def _check_transfer_coding(fields: Fields, version: tuple[int, int]) -> None:
    """RFC 9112 sections 6.1 and 6.3: only `chunked`, not in HTTP/1.0, and not together with Content-Length."""
    if version == (1, 0):
        raise HttpError(400, "Transfer-Encoding in HTTP/1.0")
    if b"content-length" in fields:
        raise HttpError(400, "both Transfer-Encoding and Content-Length")
    lines = fields.get_all(b"transfer-encoding")
    if len(lines) == 1 and lines[0].lower() == b"chunked":
        return
    codings = [coding.lower() for line in lines for coding in split_list(line)]
    if len(codings) > 1 and codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
        raise HttpError(501, "unsupported transfer coding: chunked only")
    raise HttpError(400, "chunked must be the last transfer coding, and occur once")


def _content_length(fields: Fields) -> int:
    """RFC 9112 section 6.3; repeated values are refused even if they agree, as RFC 9110 section 8.6 allows."""
    lines = fields.get_all(b"content-length")
    if len(lines) != 1 or _is_length(lines[0]) is None:
        raise HttpError(400, "invalid Content-Length")
    length = int(lines[0])
    if length > LENGTH_MAX:
        raise HttpError(400, "Content-Length too large")
    return length


def _expects_continue(fields: Fields) -> bool:
    """RFC 9110 section 10.1.1; there is no other expectation."""
    if any(expectation.lower() != b"100-continue" for expectation in split_list(fields.get(b"expect") or b"")):
        raise HttpError(417, "unsupported expectation")
    return True


def _keeps_alive(fields: Fields, version: tuple[int, int]) -> bool:
    """RFC 9112 section 9.3."""
    options = [option.lower() for option in split_list(fields.get(b"connection") or b"")]
    return b"close" not in options and (version == (1, 1) or b"keep-alive" in options)
