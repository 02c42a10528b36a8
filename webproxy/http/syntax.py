"""PURE: the small grammar that field values share: tokens, quoted strings, lists (RFC 9110 section 5.6)."""

from __future__ import annotations

import re

BLANKS = b" \t"
"""Optional white space (RFC 9110 section 5.6.3)."""

_is_token = re.compile(rb"[!#-'*+\-.0-9A-Z^-z|~]++").fullmatch
_elements = re.compile(rb'(?:[^,"]++|"(?:[^"\\]++|\\.)*+"?)++', re.DOTALL).findall
_is_quoted = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL).fullmatch
_quoted_pair = re.compile(rb"\\(.)", re.DOTALL)


def is_token(value: bytes) -> bool:
    """Whether this is a token (RFC 9110 section 5.6.2): a field name, a method, a directive's name."""
    return _is_token(value) is not None


def split_list(value: bytes) -> list[bytes]:
    """The elements of a comma-separated list, without the blanks around them and without the empty ones.

    A comma inside of a quoted string parts nothing (RFC 9110 section 5.6.1.2); an open quotation goes on to the end.
    """
    parts = _elements(value) if b'"' in value else value.split(b",")
    return [element for part in parts if (element := part.strip(BLANKS))]


def unquote(value: bytes) -> bytes:
    """What a quoted string says (RFC 9110 section 5.6.4); anything else comes back as it is."""
    quoted = _is_quoted(value)
    if quoted is None:
        return value
    text: bytes = quoted[1]
    return _quoted_pair.sub(rb"\1", text) if b"\\" in text else text
