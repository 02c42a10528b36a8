"""One log event as one line of text, for people. PURE.

Whatever a value holds, it cannot begin a new line, colour a terminal or imitate another event: every character
that does not print is written as an escape.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What every line tells by itself, in this order; a fact of the same name gives way.
HEAD_NAMES = ("timestamp", "level", "prog", "pid", "logger", "event")
RESERVED_NAMES = frozenset((*HEAD_NAMES, "exception", "stack"))

_NO_WORD = re.compile(r"\W+", re.ASCII)
_NEEDS_QUOTES = frozenset(' "=\\')


def field_name(name: str) -> str:
    """Return the name of a fact as one word, which a query of the log can use: `not found` is `not_found`."""
    return _NO_WORD.sub("_", name)


def field_value(value: object) -> object:
    """Return the value of a fact with text in place of bytes, and of the numbers that JSON has no word for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [field_value(item) for item in value]
    return value


def escaped(text: str) -> str:
    r"""Return the text with each character that does not print, and the backslash, as an escape: `\n`, `\x1b`."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def value_text(value: object) -> str:
    """Return a value as it stands behind `name=`: bare where that is clear, else in double quotes."""
    text = "none" if value is None else str(value)
    if text and text.isprintable() and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + escaped(text).replace('"', '\\"') + '"'


def console_line(event: Mapping[str, Any]) -> str:
    """Return `time level prog[pid] logger: event name=value ...` for an event with the names of `HEAD_NAMES`."""
    head = {name: escaped(str(event.get(name, ""))) for name in HEAD_NAMES}
    line = "{timestamp} {level:<8} {prog}[{pid}] {logger}: {event}".format(**head)
    facts = [f"{escaped(name)}={value_text(value)}" for name, value in event.items() if name not in HEAD_NAMES]
    return " ".join([line, *facts])
