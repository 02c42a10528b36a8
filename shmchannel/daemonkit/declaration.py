"""Declares settings: the `option()` of a dataclass field holds everything there is to know about a setting.

PURE. Flags, environment variables, file keys, help texts and the tables in the documents are derived from it. This
file does not know where values come from.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import DataclassInstance

T = TypeVar("T")

OptionType: TypeAlias = "type[int] | type[float] | type[str] | type[bool] | type[StrEnum] | type[DataclassInstance]"
Value: TypeAlias = int | float | str | bool | tuple[object, ...] | None
Unit: TypeAlias = Literal["bytes", "seconds", "microseconds"]

_METADATA_KEY = "daemonkit.option"
_NEGATIVE_FLAG = "--no-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """The arguments of `option()`; the field adds the name and the type."""

    meaning: str
    flags: tuple[str, ...]
    metavar: str | None
    low: float | None
    high: float | None
    unit: Unit | None
    secret: bool
    formerly: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One complete setting: its name, its type and the arguments of `option()`.

    For a list (`many`), `kind` is the type of an item. If the items are tables, `columns` are the tables' settings.
    """

    name: str
    kind: OptionType
    many: bool
    columns: tuple[Setting, ...]
    optional: bool
    default: Value
    meaning: str
    flags: tuple[str, ...]
    metavar: str
    low: float | None
    high: float | None
    unit: Unit | None
    secret: bool
    formerly: tuple[str, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values if they can be listed, else an empty tuple."""
        return tuple(member.value for member in self.kind) if issubclass(self.kind, StrEnum) else ()

    def environment_name(self, prefix: str) -> str:
        """Return the name of its environment variable; `prefix` is `environment_prefix(prog)`."""
        return prefix + self.name.upper()


def option(
    default: T,
    meaning: str,
    *,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    low: float | None = None,
    high: float | None = None,
    unit: Unit | None = None,
    secret: bool = False,
    formerly: tuple[str, ...] = (),
) -> T:
    """Declare one setting: the default of a dataclass field, with its meaning, flags, bounds and unit.

    The type of the field decides which values are accepted: `int`, `float`, `str`, `bool`, a `StrEnum` (its values
    are the choices), or one of these `| None`. `low` and `high` are inclusive; for text they bound the length, which
    is at least 1 unless `low` says otherwise. An `int` with `unit="bytes"` also accepts `64k`, `1m`, `2g` (powers of
    1024). The flag of a `bool` inverts the default, and begins with `--no-` if and only if the default is true. A
    setting without flags comes from the environment or the file only.

    `tuple[X, ...]` is a list, and `low` and `high` bound the number of items. If X is `str` or a `StrEnum`, the list
    is written as text with commas, or as an array in the file. If X is a dataclass, itself declared with `option()`,
    the list is an array of tables, `[[name]]`, and comes from the file only.

    `secret`: values may contain credentials and are never shown. `formerly`: earlier names of the setting; each is
    refused with the new name in the message.
    """
    declared = _Declared(
        meaning=meaning,
        flags=flags,
        metavar=metavar,
        low=low,
        high=high,
        unit=unit,
        secret=secret,
        formerly=formerly,
    )
    return dataclasses.field(default=default, metadata={_METADATA_KEY: declared})


@functools.cache
def settings_of(config_type: type[DataclassInstance]) -> tuple[Setting, ...]:
    """Return the settings that a dataclass declares, in the order of its fields.

    Raises `TypeError` for a field that is not declared with `option()`, has a type that settings cannot have, or has
    a flag that says the opposite of what it does.
    """
    types_by_name = typing.get_type_hints(config_type)
    return tuple(_setting(field, types_by_name[field.name]) for field in dataclasses.fields(config_type))


def renamed(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Map each former name to its setting."""
    return {name: setting for setting in settings for name in setting.formerly}


def environment_prefix(prog: str) -> str:
    """Return the prefix of a program's environment variables: `webproxy` → `WEBPROXY_`."""
    return prog.upper().replace("-", "_") + "_"


def _setting(field: dataclasses.Field[Any], annotation: object) -> Setting:
    declared = field.metadata.get(_METADATA_KEY)
    if not isinstance(declared, _Declared):
        raise TypeError(f"field {field.name} is not declared with option()")
    default: Any = field.default
    kind, optional, many = _kind_of(field.name, annotation)
    columns = settings_of(kind) if dataclasses.is_dataclass(kind) else ()
    if declared.unit == "bytes" and kind is not int:
        raise TypeError(f"field {field.name} counts bytes, so its type must be int")
    if kind is bool:
        _check_switch(field.name, declared.flags, default=bool(default))
    if columns and declared.flags:
        raise TypeError(f"field {field.name}: tables have no flag")
    return Setting(
        name=field.name,
        kind=kind,
        many=many,
        columns=columns,
        optional=optional,
        default=default,
        meaning=declared.meaning,
        flags=declared.flags,
        metavar=declared.metavar or _metavar(kind, declared.unit, many=many),
        low=1 if kind is str and not many and declared.low is None else declared.low,
        high=declared.high,
        unit=declared.unit,
        secret=declared.secret,
        formerly=declared.formerly,
    )


def _kind_of(name: str, annotation: object) -> tuple[OptionType, bool, bool]:
    """Return X of `X | None` or `tuple[X, ...]`, whether None is allowed, and whether it is a list."""
    item = _item_of(annotation)
    if item is not None:
        return item, False, True
    members = [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
    kind = members[0]
    if len(members) == 1 and isinstance(kind, type):
        if issubclass(kind, StrEnum):
            return kind, kind is not annotation, False
        if kind is int or kind is float or kind is str or kind is bool:
            return kind, kind is not annotation, False
    raise TypeError(f"field {name}: a setting cannot have the type {annotation!r}")


def _item_of(annotation: object) -> OptionType | None:
    """Return X of `tuple[X, ...]` if X can be the type of an item, else None."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is not tuple or len(arguments) != 2 or arguments[1] is not Ellipsis:
        return None
    item = arguments[0]
    if isinstance(item, type) and (item is str or issubclass(item, StrEnum) or dataclasses.is_dataclass(item)):
        return item
    return None


def _check_switch(name: str, flags: tuple[str, ...], *, default: bool) -> None:
    for flag in flags:
        if flag.startswith("--") and flag.startswith(_NEGATIVE_FLAG) is not default:
            raise TypeError(f"field {name}: flag {flag} does not say that it turns {default} into {not default}")


def _metavar(kind: OptionType, unit: Unit | None, *, many: bool) -> str:
    if unit is not None:
        return unit.upper()
    if issubclass(kind, StrEnum):
        return ("," if many else "|").join(member.value for member in kind)
    if many:
        return "TEXT,..."
    return "TEXT" if kind is str else "N"
