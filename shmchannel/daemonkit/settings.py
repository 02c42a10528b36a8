"""Settings: the `option()` of a dataclass field holds everything there is to know about one. PURE.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ProxyConfig:
        port: int = option(25362, "TCP port to listen on", flags=("-p", "--port"), low=0, high=65535)

        def __post_init__(self) -> None:
            check_bounds(self)

Flags, environment variables, file keys, help texts and the tables in the documents are derived from it, and it is the
one place that knows which values are allowed. `sources` collects the values.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from _typeshed import DataclassInstance

T = TypeVar("T")

Value: TypeAlias = int | float | str | bool | tuple[object, ...] | None

HIDDEN = "***"
_DECLARED = "daemonkit.option"
_UNITS = {"bytes": "bytes", "s": "seconds", "us": "microseconds"}
_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]{1,19})(?:([kmgt])(?:ib)?)?")
_DECIMAL_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})(?:[eE][+-]?[0-9]{1,3})?")
_SHIFT_BY_SUFFIX = {None: 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SWITCH_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_SHOWN_CHARACTERS = 100
_QUERY = re.compile(r"(//[^?]*\?).+?(?=['\"]|$)", re.DOTALL)


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


class Given(NamedTuple):
    """A raw value for a setting, with the name of its source and what the operator can do about it."""

    value: object
    source: str = ""
    hint: str = ""

    def read(self, setting: Setting) -> Value:
        """Return the value of the setting. Raises `SettingError`, with the source."""
        try:
            return setting.read(self.value)
        except SettingError as refused:
            refused.source, refused.hint = self.source, self.hint
            raise


class _Declared(TypedDict, total=False):
    flags: tuple[str, ...]
    metavar: str
    low: float
    high: float
    secret: bool
    formerly: tuple[str, ...]
    words: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its name, its type and the arguments of `option()`.

    For a list (`many`), `kind` is the type of an item.
    """

    name: str
    kind: Any
    many: bool
    optional: bool
    default: Any
    meaning: str
    flags: tuple[str, ...] = ()
    metavar: str = ""
    low: float | None = None
    high: float | None = None
    secret: bool = False
    formerly: tuple[str, ...] = ()
    words: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values if they can be listed, else an empty tuple."""
        return tuple(member.value for member in self.kind) if issubclass(self.kind, StrEnum) else ()

    @property
    def columns(self) -> tuple[Setting, ...]:
        """The settings of the items if they are tables, else an empty tuple."""
        return settings_of(self.kind) if isinstance(self.kind, type) and dataclasses.is_dataclass(self.kind) else ()

    @property
    def unit(self) -> str:
        """The unit of a number, which ends its name, also before `_max` and `_per_s`: `bytes`, `seconds`, or none."""
        stem = self.name.removesuffix("_max").removesuffix("_per_s")
        return _UNITS.get(stem.rpartition("_")[2], "") if self.kind in (int, float) else ""

    @property
    def allowed(self) -> str:
        """The allowed values in words: `0 to 65535`, `0.05 to 3600 seconds`, `crlf or space`."""
        if self.columns:
            text = f"[[{self.name}]] tables in the file"
        elif self.many:
            items = f"some of {', '.join(self.choices)}" if self.choices else "texts"
            text = f"{items}, separated by commas{'' if self.low else '; or empty for none'}"
        elif self.choices or self.kind is bool:
            text = " or ".join(self.choices) or "true or false"
        elif self.kind is str:
            text = "text" if self.high is None else f"text of {self.low} to {self.high} characters"
        else:
            text = " or ".join((f"{self.low} to {self.high} {self.unit}".rstrip(), *self.words))
        return f"{text}, or empty for none" if self.optional else text

    @property
    def placeholder(self) -> str:
        """What stands for the value in `--help`."""
        plain = ("TEXT,..." if self.many else "TEXT") if self.kind is str else self.unit.upper() or "N"
        return self.metavar or ("," if self.many else "|").join(self.choices) or plain

    def environment_name(self, prefix: str) -> str:
        """Return the name of its environment variable; `prefix` is `environment_prefix(prog)`."""
        return prefix + self.name.upper()

    def read(self, given: object) -> Value:
        """Return the value for text from any source, or for a value from the file; tables become dataclasses.

        Raises `SettingError` for anything that is not allowed, and nothing else.
        """
        parsed = self._parsed(given)
        if type(parsed) is int and parsed in self.words.values() and not self._is_word(given):
            raise self._refusal(given)  # the number that stands for a word is nothing that anybody may write
        return self._checked(parsed, self._refusal(given))

    def _is_word(self, given: object) -> bool:
        return isinstance(given, str) and given.strip().lower() in self.words

    def check(self, value: object) -> Value:
        """Return a value unchanged if its type and bounds are right; a whole number is accepted for a decimal one.

        Raises `SettingError`.
        """
        return self._checked(value, self._refusal(value))

    def shown(self, value: object) -> object:
        """Return the part of a value that may be shown; for a secret only the name before a colon."""
        if any(column.secret for column in self.columns):
            return _shown_unknown(value)
        if not self.secret:
            return value
        if isinstance(value, (list, tuple)):
            return [self.shown(item) for item in value]
        name, colon, _ = str(value).partition(":")
        return f"{name}{colon} {HIDDEN}" if colon else HIDDEN

    def format(self, value: Value) -> str:
        """Format a value as an operator would type it; byte counts with their short form: `262144 (256k)`."""
        if value is None or value == ():
            return "none"
        if isinstance(value, tuple):
            return ", ".join(self._format_table(item) if self.columns else str(self.shown(item)) for item in value)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return f"{value:g}"
        if self.unit == "bytes" and isinstance(value, int):
            return _format_bytes(value)
        return next((word for word, number in self.words.items() if number == value), str(value))

    def _format_table(self, table: object) -> str:
        """Format a table as `{key=value key=value}`, without the keys that have their default."""
        values = {column: getattr(table, column.name) for column in self.columns}
        given = [f"{column.name}={column.format(value)}" for column, value in values.items() if value != column.default]
        return f"{{{' '.join(given)}}}"

    def _parsed(self, given: object) -> Any:
        """Return the value that text means; what means nothing is returned as it is, and has the wrong type."""
        if self.columns and isinstance(given, list):
            return [self._table(number, item) for number, item in enumerate(given, start=1)]
        if not isinstance(given, str):
            return given
        if self.optional and not given:
            return None
        if self.many:
            return [item.strip() for item in given.split(",")] if given.strip() else []
        word = given.strip().lower()
        if word in self.words:
            return self.words[word]
        if self.kind is bool:
            return _SWITCH_WORDS.get(word, given)
        if self.choices:
            return next((member for member in self.kind if member.value.lower() == word), given)
        if self.kind is float and _DECIMAL_NUMBER.fullmatch(word):
            return float(word)
        number = _WHOLE_NUMBER.fullmatch(word) if self.kind is int else None
        if number and (number[2] is None or self.unit == "bytes"):
            return int(number[1]) << _SHIFT_BY_SUFFIX[number[2]]
        return given

    def _table(self, number: int, table: object) -> object:
        """Return the dataclass of one table; a refusal names the key and the table."""
        if not isinstance(table, dict):
            return table
        try:
            names = ", ".join(column.name for column in self.columns)
            given = {key: Given(value) for key, value in table.items()}
            check_names(self.columns, given, f"the name of a key: {names}")
            return self.kind(**{key.name: given[key.name].read(key) for key in self.columns if key.name in given})
        except SettingError as refused:
            refused.name += f" in [[{self.name}]] table {number}"
            raise

    def _checked(self, value: Any, refusal: SettingError) -> Value:
        if value is None and self.optional:
            return None
        if self.many:
            if not isinstance(value, (list, tuple)):
                raise refusal
            single = dataclasses.replace(self, many=False, low=None if self.columns else 1, high=None)
            value = tuple(single._checked(single._parsed(item), refusal) for item in value)
        elif self.secret and isinstance(value, str) and value.rpartition(" ")[2] == HIDDEN:
            text = f"the value itself: {HIDDEN} stands for one that was hidden, --print-config=secrets shows it"
            raise SettingError(self.name, value, text)
        # By its very type: a bool is no number here.
        elif type(value) is not self.kind and not (self.kind is float and type(value) is int):
            raise refusal
        if value in self.words.values():
            return int(value)
        size = len(value) if isinstance(value, (str, tuple)) else value
        # Nan compares false.
        in_bounds = (self.low is None or size >= self.low) and (self.high is None or size <= self.high)
        if not in_bounds or (isinstance(value, str) and "\0" in value):
            raise refusal
        return float(value) if self.kind is float else value

    def _refusal(self, given: object) -> SettingError:
        sizes = ", also as 64k, 1m or 2g" if self.unit == "bytes" else ""
        return SettingError(self.name, self.shown(given), self.allowed + sizes)


def option(default: T, meaning: str, **declared: Unpack[_Declared]) -> T:
    """Declare one setting: the default of a dataclass field, with its meaning, flags and bounds.

    The type of the field decides which values are accepted: `int`, `float`, `str`, `bool`, a `StrEnum` (its values
    are the choices), or one of these `| None`. `low` and `high` are inclusive; a number has both. For text they bound
    the length, which is at least 1 unless `low` says otherwise. The name of a number says its unit: `_s`, `_us`, or
    `_bytes`, which also accepts `64k`, `1m`, `2g` (powers of 1024). The flag of a `bool` inverts the default, and
    begins with `--no-` if and only if the default is true. A setting without flags comes from the environment or the
    file only.

    `tuple[X, ...]` is a list, and `low` and `high` bound the number of items. If X is `str` or a `StrEnum`, the list
    is written as text with commas, or as an array in the file. If X is a dataclass, itself declared with `option()`,
    the list is an array of tables, `[[name]]`, and comes from the file only.

    `metavar`: what stands for the value in `--help`. `secret`: values may contain credentials and are never shown.
    `words`: texts that stand for numbers, which may be out of bounds.
    `formerly`: earlier names of the setting; each is refused with the new name in the message.
    """
    return dataclasses.field(default=default, metadata={_DECLARED: {"meaning": meaning, **declared}})


@functools.cache
def settings_of(config_type: type[DataclassInstance]) -> tuple[Setting, ...]:
    """Return the settings that a dataclass declares, in the order of its fields, and then those of its base classes.

    Raises `TypeError` for a field that is not declared with `option()`, has a type that settings cannot have, lacks a
    bound, or has a flag that says the opposite of what it does.
    """
    types_by_name = typing.get_type_hints(config_type)
    fields = sorted(dataclasses.fields(config_type), key=lambda field: field.name not in config_type.__annotations__)
    return tuple(_setting(field, types_by_name[field.name]) for field in fields)


def _setting(field: dataclasses.Field[Any], annotation: object) -> Setting:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    many = origin is tuple and arguments[1:] == (Ellipsis,)
    optional = origin in (types.UnionType, typing.Union) and types.NoneType in arguments
    kinds = [kind for kind in arguments if kind not in (Ellipsis, types.NoneType)] if many or optional else [annotation]
    kind = kinds[0]
    declared = field.metadata.get(_DECLARED)
    if declared is None:
        raise TypeError(f"field {field.name} is not declared with option()")
    allowed = isinstance(kind, type) and (
        issubclass(kind, StrEnum)
        or kind in ((str,) if many else (int, float, str, bool))
        or (many and dataclasses.is_dataclass(kind))
    )
    if not allowed or len(kinds) > 1:
        raise TypeError(f"field {field.name}: a setting cannot have the type {annotation!r}")
    if kind is str and not many:
        declared = {"low": 1, **declared}
    setting = Setting(name=field.name, kind=kind, many=many, optional=optional, default=field.default, **declared)
    if setting.unit == "bytes" and kind is not int:
        raise TypeError(f"field {field.name} counts bytes, so its type must be int")
    if kind in (int, float) and None in (setting.low, setting.high):
        raise TypeError(f"field {field.name} is a number, so it must have low and high")
    if setting.columns and setting.flags:
        raise TypeError(f"field {field.name}: tables have no flag")
    for flag in setting.flags if kind is bool else ():
        if flag.startswith("--") and flag.startswith("--no-") is not setting.default:
            raise TypeError(f"field {field.name}: flag {flag} does not say that it inverts {setting.default}")
    return setting


def check_bounds(config: DataclassInstance) -> None:
    """Check every field of a configuration against its declaration; to be called from `__post_init__`.

    A configuration built by the program is then as valid as one that was loaded. Raises `SettingError`.
    """
    for setting in settings_of(type(config)):
        setting.check(getattr(config, setting.name))


def check_names(settings: Iterable[Setting], given: Mapping[str, Given], allowed: str) -> None:
    """Raise `SettingError` for a former name of a setting, and for a name that none has."""
    names = [setting.name for setting in settings]
    former = {name: setting for setting in settings for name in setting.formerly}
    for name, (value, source, hint) in given.items():
        if name in former:
            setting = former[name]
            text = ", or ".join((f"{setting.name}, the new name of this setting", *setting.flags[-1:]))
            raise SettingError(name, setting.shown(value), text, source, hint)
        if name not in names:
            # It may have been meant for a secret.
            raise SettingError(name, _shown_unknown(value), allowed + did_you_mean(name, names), source, hint)


def did_you_mean(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Return `; did you mean X?` with the most similar known name after `prefix`, or an empty text."""
    import difflib  # needed only for a refusal or a warning

    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {prefix}{found[0]}?" if found else ""


def environment_prefix(prog: str) -> str:
    """Return the prefix of a program's environment variables: `webproxy` → `WEBPROXY_`."""
    return prog.upper().replace("-", "_") + "_"


def described(setting: Setting, prefix: str) -> str:
    """Describe a setting for `--help`: meaning, default, what is allowed, the environment variable."""
    variable = setting.environment_name(prefix)
    if setting.kind is bool and setting.flags:
        # The meaning describes the setting when it is on.
        meaning, turned = (f"do not {setting.meaning}", "false") if setting.default else (setting.meaning, "true")
        return f"{meaning} ({variable}={turned})"
    source = "" if setting.columns else f"; {variable}"
    return f"{setting.meaning} (default {setting.format(setting.default)}; {setting.allowed}{source})"


def settings_table(config_type: type[DataclassInstance], prefix: str | None) -> str:
    """Return a Markdown table with one row per setting, for `docs/operations.md`.

    `prefix` is `environment_prefix(prog)`, or None for the keys of a table in the file, which have no other source.
    """
    sources = () if prefix is None else ("flag", "environment")
    columns = ("key" if prefix is None else "name", *sources, "default", "allowed", "meaning")
    lines = [columns, ("---",) * len(columns)]
    for setting in settings_of(config_type):
        if prefix is not None:
            variable = "" if setting.columns else f"`{setting.environment_name(prefix)}`"
            sources = (", ".join(f"`{flag}`" for flag in setting.flags), variable)
        meaning = setting.meaning.replace("|", "\\|")
        lines.append((f"`{setting.name}`", *sources, setting.format(setting.default), setting.allowed, meaning))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _shown_unknown(value: object) -> object:
    return value if isinstance(value, (int, float)) else HIDDEN


def _without_credentials(text: str) -> str:
    """Hide what may be a user and a password, also of a URL that is none for its scheme or slashes, and a query."""
    before, at, after = text.rpartition("@")
    if at:
        scheme = re.match(r"\W*(?:https?:/*)?", before, re.IGNORECASE)
        assert scheme is not None  # it may be empty
        text = f"{scheme[0]}{HIDDEN}@{after}"
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def _format_bytes(count: int) -> str:
    for suffix, shift in reversed(_SHIFT_BY_SUFFIX.items()):
        if shift and count and count % (1 << shift) == 0:
            return f"{count} ({count >> shift}{suffix})"
    return str(count)
