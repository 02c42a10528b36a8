"""Turns a raw value into the value of a setting, or refuses it.

PURE. The one place that knows what each type of setting accepts and what its bounds mean; used for flags,
environment, file, defaults and values made by the program.
"""

from __future__ import annotations

import dataclasses
import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmchannel.daemonkit.declaration import Setting, Value

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})(?:[eE][+-]?[0-9]{1,3})?")
_BYTE_COUNT = re.compile(r"([0-9]{1,19})([kmgt])(?:ib)?", re.IGNORECASE)
_SHIFT_BY_SUFFIX = {"k": 10, "m": 20, "g": 30, "t": 40}
_INTEGER_MAX = 2**63 - 1
_SWITCH_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_SHOWN_CHARACTERS = 100
HIDDEN = "***"
_QUERY = re.compile(r"(//[^?]*\?).+?(?=['\"]|$)", re.DOTALL)


class ValueRefused(ValueError):
    """A value is not allowed for its setting; `allowed` says what is."""

    def __init__(self, allowed: str) -> None:
        super().__init__(allowed)
        self.allowed = allowed


class SettingError(Exception):
    """A setting is refused: its name, the value, what is allowed, the source, and what to do.

    A `__post_init__` that compares settings raises it with the first three; `load` adds source and hint.
    """

    def __init__(self, name: str, value: object, allowed: str, source: str = "", hint: str = "") -> None:
        super().__init__(name, value, allowed, source, hint)
        self.name = name
        self.value = value
        self.allowed = allowed
        self.source = source
        self.hint = hint

    def __str__(self) -> str:
        shown = _without_credentials(repr(self.value))
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        source = f" from {self.source}" if self.source else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.name}: {shown}{source} is refused; allowed: {self.allowed}{hint}"


def _without_credentials(text: str) -> str:
    """Hide what may be a user and a password, also of a URL that is none for its scheme or slashes, and a query."""
    before, at, after = text.rpartition("@")
    if at:
        scheme = re.match(r"\W*(?:https?:/*)?", before, re.IGNORECASE)
        assert scheme is not None  # it may be empty
        text = f"{scheme[0]}{HIDDEN}@{after}"
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def renamed_error(name: str, value: object, setting: Setting, source: str, hint: str) -> SettingError:
    """Return the refusal of a former name of `setting`."""
    return SettingError(
        name, shown_value(setting, value), f"{setting.name}, the new name of this setting", source, hint
    )


def shown_value(setting: Setting, value: object) -> object:
    """Return the part of a value that may be shown; for a secret only the name before a colon."""
    if any(column.secret for column in setting.columns):
        return value if isinstance(value, (int, float)) else HIDDEN
    if not setting.secret:
        return value
    if isinstance(value, (list, tuple)):
        return [shown_value(setting, item) for item in value]
    name, colon, _ = str(value).partition(":")
    return f"{name}{colon} {HIDDEN}" if colon else HIDDEN


def read_value(setting: Setting, given: object) -> Value:
    """Return the setting's value for text from any source, or for a value that already has its type.

    Raises `ValueRefused` for anything the setting does not allow, and nothing else.
    """
    if isinstance(given, str):
        return parse_text(setting, given)
    return check_value(setting, given)


def parse_text(setting: Setting, text: str) -> Value:
    """Parse text as the setting's type and check its bounds; empty text means None if None is allowed.

    Raises `ValueRefused`.
    """
    if setting.optional and not text:
        return None
    if setting.many:
        return check_value(setting, [item.strip() for item in text.split(",")] if text.strip() else [])
    return check_value(setting, _convert(setting, text))


def check_value(setting: Setting, value: object) -> Value:
    """Return a value unchanged if its type and bounds are right; a whole number is accepted for a decimal one.

    Raises `ValueRefused`.
    """
    if value is None and setting.optional:
        return None
    if setting.many:
        return _check_list(setting, value)
    kind = setting.kind
    if kind is float and type(value) is int:
        # Beyond the range of a double the conversion itself would fail.
        value = float(value) if abs(value) <= _INTEGER_MAX else math.inf
    # To isinstance() a bool is an int, but in a setting it is not a number.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _refused(setting)
    if isinstance(value, (bool, StrEnum)):
        return value
    if isinstance(value, str):
        _check_string(setting, value)
        return value
    assert isinstance(value, (int, float))
    _check_number(setting, value)
    return value


def allowed_text(setting: Setting) -> str:
    """Say in words what a setting allows: `0 to 65535`, `512 bytes or more`, `crlf or space`."""
    return f"{_allowed(setting)}, or empty for none" if setting.optional else _allowed(setting)


def _refused(setting: Setting) -> ValueRefused:
    """Return the refusal of a value, with the other notations that are accepted."""
    sizes = ", also as 64k, 1m or 2g" if setting.unit == "bytes" else ""
    return ValueRefused(allowed_text(setting) + sizes)


def format_value(setting: Setting, value: Value) -> str:
    """Format a value as an operator would type it; byte counts with their short form: `262144 (256k)`."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(
            _format_table(setting, item) if setting.columns else str(shown_value(setting, item)) for item in value
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if setting.unit == "bytes" and isinstance(value, int):
        return _format_bytes(value)
    return str(value)


def _convert(setting: Setting, text: str) -> Value:
    kind = setting.kind
    if kind is str:
        return text
    word = text.strip().lower()
    if issubclass(kind, StrEnum):
        found = [member for member in kind if member.value.lower() == word]
        if found:
            return found[0]
    elif kind is bool:
        if word in _SWITCH_WORDS:
            return _SWITCH_WORDS[word]
    elif kind is float:
        if _DECIMAL_NUMBER.fullmatch(word):
            return float(word)
    elif _WHOLE_NUMBER.fullmatch(word):
        return int(word)
    elif setting.unit == "bytes" and (match := _BYTE_COUNT.fullmatch(word)):
        return int(match[1]) << _SHIFT_BY_SUFFIX[match[2]]
    raise _refused(setting)


def _check_list(setting: Setting, value: object) -> Value:
    if not isinstance(value, (list, tuple)):
        raise _refused(setting)
    items: list[object] = list(value)
    if setting.columns:
        if not all(isinstance(item, setting.kind) for item in items):
            raise _refused(setting)
    else:
        single = dataclasses.replace(setting, many=False, low=1, high=None)
        try:
            items = [read_value(single, item) for item in items]
        except ValueRefused:
            raise _refused(setting) from None
    if not (setting.low or 0) <= len(items) <= (math.inf if setting.high is None else setting.high):
        raise _refused(setting)
    return tuple(items)


def _check_string(setting: Setting, text: str) -> None:
    low = setting.low or 0
    if not low <= len(text) <= (math.inf if setting.high is None else setting.high) or "\0" in text:
        raise _refused(setting)


def _check_number(setting: Setting, number: float) -> None:
    if not abs(number) <= _INTEGER_MAX:  # nan too: it compares false
        raise ValueRefused(f"{allowed_text(setting)}, at most {_INTEGER_MAX}")
    if (setting.low is not None and number < setting.low) or (setting.high is not None and number > setting.high):
        raise _refused(setting)


def _allowed(setting: Setting) -> str:
    if setting.many:
        return _allowed_list(setting)
    if setting.choices:
        return " or ".join(setting.choices)
    if setting.kind is bool:
        return "true or false"
    if setting.kind is str:
        length = "" if setting.high is None else f" of {setting.low or 0:g} to {setting.high:g} characters"
        return f"text{length}"
    number = "a whole number" if setting.kind is int else "a number"
    unit = f" {setting.unit}" if setting.unit else ""
    low, high = (None if bound is None else _format_bound(bound) for bound in (setting.low, setting.high))
    if low is not None and high is not None:
        return f"{low} to {high}{unit}"
    if low is not None:
        return f"{low}{unit} or more"
    return f"{high}{unit} or less" if high is not None else f"{number}{f' of{unit}' if unit else ''}"


def _allowed_list(setting: Setting) -> str:
    if setting.columns:
        return f"[[{setting.name}]] tables in the file"
    items = f"some of {', '.join(setting.choices)}" if setting.choices else "texts"
    return f"{items}, separated by commas{'' if setting.low else '; or empty for none'}"


def _format_table(setting: Setting, table: object) -> str:
    """Format a table as `{key=value key=value}`, without the keys that have their default."""
    values = {column: getattr(table, column.name) for column in setting.columns}
    given = [
        f"{column.name}={format_value(column, value)}" for column, value in values.items() if value != column.default
    ]
    return f"{{{' '.join(given)}}}"


def _format_bound(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _format_bytes(count: int) -> str:
    for suffix, shift in reversed(_SHIFT_BY_SUFFIX.items()):
        if count and count % (1 << shift) == 0:
            return f"{count} ({count >> shift}{suffix})"
    return str(count)
