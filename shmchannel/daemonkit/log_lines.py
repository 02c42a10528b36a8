"""Formats the fields of a log event, and a whole event as one line of text for people. PURE.

No value can start a new line, colour a terminal or imitate another event: non-printable characters are escaped.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# The fields that every event has, in this order; a fact of the same name is renamed.
HEAD_NAMES = ("timestamp", "level", "prog", "pid", "logger", "event")
RESERVED_NAMES = frozenset((*HEAD_NAMES, "exception", "stack"))

TEXT_MAX = 500
"""Characters of a field's text that are written."""
_NO_WORD = re.compile(r"\W+", re.ASCII)
_NEEDS_QUOTES = frozenset(' "=\\')
_is_word = re.compile(rb"[!-~]+").fullmatch
_QUERY = re.compile(r"""(/[^\s?]*\?)\S+?(?=[:,)'"]*(?:\s|$))""")


def field_name(name: str) -> str:
    """Return the name of a fact as one word that log queries can use: `not found` becomes `not_found`."""
    return _NO_WORD.sub("_", name)


def field_value(value: object) -> object:
    """Return the value of a fact with bytes, and numbers that JSON cannot express, turned into text without queries.

    Text is cut: of a URL of some kilobytes its beginning tells enough.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return _cut(without_queries(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [field_value(item) for item in value]
    return value


def id_text(name: bytes) -> str:
    """Return the id of a request as it is written: a word, whose NULs at the end are left out, or anything in hex."""
    word = name.rstrip(b"\0")
    return word.decode("ascii") if _is_word(word) else name.hex()


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}... ({len(text)} characters)"


def without_queries(text: str) -> str:
    """Return the text with the query of each URL or path in it shown as `?...`: it may be a credential."""
    return _QUERY.sub(r"\1...", text) if "?" in text else text


def escaped(text: str) -> str:
    r"""Return the text with non-printable characters and backslashes escaped: `\n`, `\x1b`."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def value_text(value: object) -> str:
    """Return a value as it is written after `name=`: bare if that is unambiguous, else in double quotes."""
    text = "none" if value is None else str(value)
    if text and text.isprintable() and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + escaped(text).replace('"', '\\"') + '"'


def console_line(event: Mapping[str, Any]) -> str:
    """Return `time level prog[pid] logger: event name=value ...` for an event that has the fields of `HEAD_NAMES`."""
    head = {name: escaped(str(event.get(name, ""))) for name in HEAD_NAMES}
    line = "{timestamp} {level:<8} {prog}[{pid}] {logger}: {event}".format(**head)
    facts = [f"{escaped(name)}={value_text(value)}" for name, value in event.items() if name not in HEAD_NAMES]
    return " ".join([line, *facts])
