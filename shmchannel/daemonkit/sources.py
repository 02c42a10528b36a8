"""Collects the settings in the environment and the file, and picks the source that takes precedence for each.

Deals with names and where they were found; `parsing` decides what a value means.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shmchannel.daemonkit.declaration import renamed
from shmchannel.daemonkit.parsing import (
    HIDDEN,
    SettingError,
    ValueRefused,
    allowed_text,
    read_value,
    renamed_error,
    shown_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from shmchannel.daemonkit.declaration import Setting, Value


@dataclass(frozen=True, slots=True)
class Given:
    """A raw value for a setting, with the name of its source and what the operator can do about it."""

    value: object
    source: str
    hint: str = ""


def from_environment(
    settings: Sequence[Setting], prefix: str, environ: Mapping[str, str], *, reserved: Collection[str] = ()
) -> tuple[dict[str, Given], list[str]]:
    """Collect the settings in an environment, and a warning for each unknown variable with the prefix.

    `reserved` are variables with the prefix that are not settings but are used elsewhere. Raises `SettingError` for
    a former name of a setting.
    """
    names = {setting.environment_name(prefix): setting.name for setting in settings if not setting.columns}
    former = {prefix + name.upper(): (name, setting) for name, setting in renamed(settings).items()}
    given: dict[str, Given] = {}
    warnings: list[str] = []
    for variable, text in environ.items():
        if variable in names:
            given[names[variable]] = Given(text, f"environment {variable}", f"change or unset {variable}")
        elif variable in former:
            name, setting = former[variable]
            hint = f"set {setting.environment_name(prefix)} instead"
            raise renamed_error(name, text, setting, f"environment {variable}", hint)
        elif variable.startswith(prefix) and variable not in reserved:
            # Without the prefix, which all of them have: with it, any two would be similar.
            near = did_you_mean(variable.removeprefix(prefix), [name.removeprefix(prefix) for name in names], prefix)
            warnings.append(f"environment variable {variable} is not a setting and is ignored{near}")
    return given, warnings


def from_file(settings: Sequence[Setting], path: str, named_by: str) -> dict[str, Given]:
    """Collect the settings in a TOML file; `named_by` is the source that named the file, for the error.

    Raises `SettingError` if the file cannot be read, is not TOML, or has a key that is not a setting or is a former
    name of one. Blocks on reading the file.
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError) as error:  # ValueError: not TOML, not UTF-8, or a NUL in the path
        raise SettingError("config", path, "a readable TOML file", named_by, _reason(error)) from error
    names = [setting.name for setting in settings]
    source = f"file {path}"
    former = renamed(settings)
    for key, value in table.items():
        if key in former:
            raise renamed_error(key, value, former[key], source, f"rename {key} to {former[key].name} in {path}")
        if key not in names:
            allowed = "the name of a setting" + did_you_mean(key, names)
            raise SettingError(key, _shown_unknown(value), allowed, source, f"correct or remove {key} in {path}")
    return {key: Given(value, source, f"correct or remove {key} in {path}") for key, value in table.items()}


def resolve(
    settings: Iterable[Setting], layers: Sequence[Mapping[str, Given]]
) -> tuple[dict[str, Value], dict[str, Given]]:
    """Return the value of every setting and the raw value it was made from; the first layer that has one wins.

    Later layers are not parsed, so a flag can override an invalid entry in the file. Raises `SettingError` for the
    first value that is not allowed.
    """
    values: dict[str, Value] = {}
    origins: dict[str, Given] = {}
    for setting in settings:
        default = Given(setting.default, "default")
        given = next((layer[setting.name] for layer in layers if setting.name in layer), default)
        try:
            if setting.columns and given is not default:
                values[setting.name] = read_tables(setting, given.value)
            else:
                values[setting.name] = read_value(setting, given.value)
        except ValueRefused as refused:
            shown = shown_value(setting, given.value)
            raise SettingError(setting.name, shown, refused.allowed, given.source, given.hint) from None
        except SettingError as refused:
            raise SettingError(refused.name, refused.value, refused.allowed, given.source, given.hint) from None
        origins[setting.name] = given
    return values, origins


def read_tables(setting: Setting, given: object) -> tuple[object, ...]:
    """Return the dataclasses built from an array of tables in the file.

    Raises `ValueRefused` if it is not one, and `SettingError` with table and key for an entry that is not allowed.
    """
    if not isinstance(given, list) or not all(isinstance(table, dict) for table in given):
        raise ValueRefused(allowed_text(setting))
    return tuple(_read_table(setting, number, table) for number, table in enumerate(given, start=1))


def _read_table(setting: Setting, number: int, table: Mapping[str, object]) -> object:
    columns = {column.name: column for column in setting.columns}
    former = renamed(setting.columns)
    where = f"in [[{setting.name}]] table {number}"
    values: dict[str, Value] = {}
    for key, value in table.items():
        if key in former:
            raise renamed_error(f"{key} {where}", value, former[key], "", "")
        if key not in columns:
            suggestion = did_you_mean(key, columns) or f": {', '.join(columns)}"
            raise SettingError(f"{key} {where}", _shown_unknown(value), f"the name of a key{suggestion}")
        try:
            values[key] = read_value(columns[key], value)
        except ValueRefused as refused:
            shown = shown_value(columns[key], value)
            raise SettingError(f"{key} {where}", shown, refused.allowed) from None
    make: Callable[..., object] = setting.kind
    try:
        return make(**values)
    except SettingError as refused:
        raise SettingError(f"{refused.name} {where}", refused.value, refused.allowed) from None


def _shown_unknown(value: object) -> object:
    """Return the value of a key that does not exist as far as it may be shown: it may have been meant for a secret."""
    return value if isinstance(value, (int, float)) else HIDDEN


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean X?` with the most similar known name after `prefix`, or an empty text."""
    import difflib  # needed only for a refusal or a warning

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{found[0]}?" if found else ""


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
