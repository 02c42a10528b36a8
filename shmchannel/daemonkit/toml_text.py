"""Writes a configuration as TOML text, and reads it back: `read(type(config), render(config)) == config`. PURE.

A supervisor hands its settings to its workers like this, and `--print-config` shows them. The text has every setting
with the value in effect, also where that is the default: a later version with other defaults reads the same from it.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from shmchannel.daemonkit.settings import Given, Setting, SettingError, check_names, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def render(config: DataclassInstance, *, hide_secrets: bool = False, notes: Mapping[str, str] | None = None) -> str:
    """Return a configuration declared with `option()` as TOML, ready for a file that `--config` names.

    None is left out where it is the default, and written as an empty text elsewhere. With `hide_secrets` the values of
    secret settings are replaced by `***`, which `read` and `load` refuse, so that what is hidden is not lost unnoticed.
    `notes` maps names of settings to a comment on their line.

    Raises `SettingError` for text that TOML cannot express: a path, say, whose name is not UTF-8.
    """
    return "".join(f"{line}\n" for line in _lines(config, "", hide_secrets, notes or {}))


def read(config_type: type[C], text: str, source: str = "") -> C:
    """Return the configuration that the text says, with defaults for what it does not mention.

    Neither flags nor environment variables are looked at. `source` names the text in refusals. Raises `SettingError`.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise SettingError("config", source, "TOML", source, str(error)) from error
    settings = settings_of(config_type)
    given = {name: Given(value, source) for name, value in table.items()}
    check_names(settings, given, "the name of a setting")
    return config_type(**{known.name: given[known.name].read(known) for known in settings if known.name in given})


def _lines(config: DataclassInstance, prefix: str, hide_secrets: bool, notes: Mapping[str, str]) -> Iterator[str]:
    """The keys of a table, then the tables in it, since TOML takes every later key for one of the last table."""
    tables: list[tuple[str, Any]] = []
    for setting in settings_of(type(config)):
        value = getattr(config, setting.name)
        if setting.columns and value:
            tables += [(f"{prefix}{setting.name}", table) for table in value]
        elif value not in (None, ()) or value != setting.default:
            shown = setting.shown(value) if hide_secrets else value
            note = notes.get(setting.name)
            comment = f"  # {''.join(_escaped(one) for one in note)}" if note else ""
            yield f"{setting.name} = {_value(setting, shown)}{comment}"
    for name, table in tables:
        yield ""
        yield f"[[{name}]]"
        yield from _lines(table, f"{name}.", hide_secrets, {})


def _value(setting: Setting, value: object) -> str:
    if value is None:
        return '""'  # which means none, for a setting that can be none
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(setting, item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        if (word := next((word for word, number in setting.words.items() if number == value), None)) is not None:
            return _text(setting, word)
        return repr(float(value) if setting.kind is float else value)
    return _text(setting, value)


def _text(setting: Setting, value: object) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SettingError(setting.name, setting.shown(value), "text in UTF-8") from error
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    """A character as it is written between double quotes; whatever is not printable by its number."""
    if character.isprintable() and character not in _ESCAPES:
        return character
    return _ESCAPES.get(character) or f"\\U{ord(character):08x}"
