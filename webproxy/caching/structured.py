"""PURE: structured field dictionaries (RFC 8941 sections 3.2 and 4.2.2), parsed strictly: completely or not at all.

Parameters and inner lists are checked but not returned: no cache directive has any.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from webproxy.http.syntax import STRUCTURED_TOKEN, unquote

_KEY = rb"[a-z*][a-z0-9_.*-]*+"
_NUMBER = rb"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})"
_STRING = rb'"(?:[ !#-\[\]-~]++|\\["\\])*"'
_BYTES = rb":[A-Za-z0-9+/]*+={0,2}:"
_BOOLEAN = rb"\?[01]"
_BARE = rb"(?:%s|%s|%s|%s|%s)" % (_NUMBER, _STRING, STRUCTURED_TOKEN, _BYTES, _BOOLEAN)
_PARAMETERS = rb"(?:; *+%s(?:=%s)?)*" % (_KEY, _BARE)
_INNER_LIST = rb"\( *+(?:%s%s(?: ++|(?=\))))*\)" % (_BARE, _PARAMETERS)
_member = re.compile(rb"(%s)(?:=(?:(%s)|%s))?%s" % (_KEY, _BARE, _INNER_LIST, _PARAMETERS)).match
_separator = re.compile(rb"[ \t]*+,[ \t]*+").match
_is_integer = re.compile(rb"-?[0-9]++").fullmatch


class FieldType(Enum):
    """The types that the value of a cache directive can have; all others are OTHER."""

    TRUE = "no value, or ?1"
    INTEGER = "an Integer"
    STRING = "a String, without its quotes and escapes"
    TOKEN = "a Token"  # noqa: S105 - a type
    OTHER = "a type that no directive has"


class Item(NamedTuple):
    """The value of a dictionary member."""

    kind: FieldType
    text: bytes = b""


def parse_dictionary(value: bytes) -> dict[bytes, Item] | None:
    """The members in order; the last of equal keys counts (section 4.2.2). None if any part is malformed."""
    value = value.strip(b" ")
    members: dict[bytes, Item] = {}
    at = 0
    while at < len(value):
        found = _member(value, at)
        if found is None:
            return None
        is_bare_key = value[found.end(1) : found.end(1) + 1] != b"="
        members[found[1]] = Item(FieldType.TRUE) if is_bare_key else _item(found[2])
        at = found.end()
        if at < len(value):
            comma = _separator(value, at)
            if comma is None or comma.end() == len(value):
                return None
            at = comma.end()
    return members


def _item(text: bytes | None) -> Item:
    if text is None:
        return Item(FieldType.OTHER)
    if text.startswith(b'"'):
        return Item(FieldType.STRING, unquote(text))
    if text == b"?1":
        return Item(FieldType.TRUE)
    if _is_integer(text):
        return Item(FieldType.INTEGER, text)
    return Item(FieldType.TOKEN, text) if text[:1].isalpha() or text[:1] == b"*" else Item(FieldType.OTHER)
