"""PURE: the grammar shared by everything that reads or writes messages (RFC 9110 section 5, RFC 9112 sections 5 and 6).

Names in capitals are regular expressions for use in others. The `is_...` and `match_...` are bound `fullmatch` methods:
they return a match or None, and cost no Python call of their own.
"""

from __future__ import annotations

import re
from typing import Final

BLANKS: Final = b" \t"
"""Optional white space (RFC 9110 section 5.6.3)."""
LENGTH_MAX: Final = 2**63 - 1
"""The longest body: the largest file offset."""
FRAMING_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))
"""Fields that delimit the body; every sender sets them for its own connection (RFC 9112 section 6)."""
BODILESS_STATUSES: Final = frozenset((204, 304))
"""Final statuses whose responses have no body, whatever the fields say (RFC 9112 section 6.3)."""

_TCHAR: Final = rb"[!#-'*+\-.0-9A-Z^-z|~]"
TOKEN: Final = _TCHAR + rb"++"
METHOD: Final = _TCHAR + rb"{1,32}+"
FIELD_LINE: Final = rb"%s:[\t -~\x80-\xff]*+\r\n" % TOKEN
"""A field line as a client may send it: the only control character in its value is the tab (RFC 9110 section 5.5)."""
STRUCTURED_TOKEN: Final = rb"[A-Za-z*][!#-'*+\-./0-:A-Z^-z|~]*+"
"""A token of structured fields (RFC 8941 section 3.3.4)."""
_UNCLOSED: Final = rb'"(?:[^"\\]++|\\.)*'
_QUOTED_STRING: Final = _UNCLOSED + b'"'

is_token = re.compile(TOKEN).fullmatch
"""A token (RFC 9110 section 5.6.2): a field name, a method, a directive's name."""
is_structured_token = re.compile(STRUCTURED_TOKEN).fullmatch
is_line_text = re.compile(rb"[^\0\r\n]*+").fullmatch
"""Text within a line: anything but CR, LF and NUL (RFC 9110 section 5.5)."""
is_field_block = re.compile(rb"(?:%s: [^\0\r\n]*+\r\n)*" % TOKEN).fullmatch
"""Field lines in the form that we write: one space after the colon, CR LF at the end of each."""
match_http_url = re.compile(rb"(https?)://([^/?#]*+)([/?#].*)?", re.IGNORECASE | re.DOTALL).fullmatch
"""Scheme, authority and the rest of an absolute URL, without any further check."""

_elements = re.compile(rb'(?:[^,"]++|%s"?)+' % _UNCLOSED, re.DOTALL).findall
_is_quoted = re.compile(_QUOTED_STRING, re.DOTALL).fullmatch
_without_quoted = re.compile(_QUOTED_STRING, re.DOTALL).sub
_without_escapes = re.compile(rb"\\(.)", re.DOTALL).sub


def split_list(value: bytes) -> list[bytes]:
    """The elements of a comma-separated list, without surrounding blanks and without the empty ones.

    A comma in a quoted string separates nothing (RFC 9110 section 5.6.1.2); an unclosed string extends to the end.
    """
    parts = _elements(value) if b'"' in value else value.split(b",")
    return [element for part in parts if (element := part.strip(BLANKS))]


def has_unclosed_quote(value: bytes) -> bool:
    """Whether a quoted string begins in the value and does not end."""
    return b'"' in value and b'"' in _without_quoted(b"", value)


def unquote(value: bytes) -> bytes:
    """The text of a quoted string (RFC 9110 section 5.6.4); anything else is returned unchanged."""
    if _is_quoted(value) is None:
        return value
    text = value[1:-1]
    return _without_escapes(rb"\1", text) if b"\\" in text else text
