"""Loads the settings of a daemon from flags, environment, TOML file and defaults, which take precedence in this order.

    loaded = load(ProxyConfig, prog="webproxy", description="...", version=lambda: "1.0")

Deals with names and where they were found; `settings` decides what a value means.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from shmchannel.daemonkit.command_line import SettingsParser
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.settings import (
    Given,
    Setting,
    SettingError,
    check_names,
    described,
    did_you_mean,
    environment_prefix,
    settings_of,
)
from shmchannel.daemonkit.toml_text import render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance

    from shmchannel.daemonkit.settings import Value

C = TypeVar("C", bound="DataclassInstance")

_CONFIG = "config"
"""The setting that names the file with the others: `--config FILE`, `WEBPROXY_CONFIG`."""

_DEFAULT = "default"
_PRINTS = ("settings", "secrets")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[C]):
    """A configuration and where it came from.

    `sources` holds the source of each field's value: `flag -z`, `environment WEBPROXY_WIRE`,
    `file /etc/webproxy.toml`, `default`. `warnings` should be logged once the log is set up.
    """

    config: C
    check_only: bool
    print_only: bool
    with_secrets: bool
    """Secrets are printed too."""
    sources: Mapping[str, str]
    warnings: tuple[str, ...]

    def describe(self) -> str:
        """List every setting with its value and source, one per line, as `--check-config` prints them."""
        return "\n".join(
            f"{setting.name} = {setting.format(getattr(self.config, setting.name))}  [{self.sources[setting.name]}]"
            for setting in settings_of(type(self.config))
        )

    def toml(self) -> str:
        """Return the settings as `--print-config` prints them. Raises `SettingError` for text that TOML cannot have."""
        notes = {name: source for name, source in self.sources.items() if source != _DEFAULT}
        return render(self.config, hide_secrets=not self.with_secrets, notes=notes)


def load(
    config_type: type[C],
    *,
    prog: str,
    description: str,
    version: Callable[[], str],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    is_again: bool = False,
) -> Loaded[C]:
    """Build a configuration; a value that another source overrides is not looked at, so it may be invalid.

    With `is_again` this process has read them before, and a file that can be read only once is refused.

    `argv` (the arguments after the program's name) and `environ` default to those of the process. Raises `SettingError`
    for a value that is not allowed, a former name of a setting, a file that cannot be used, or a key in the file that
    is not a setting. Raises `SystemExit` with code 0 after `--help` and `--version`, and with code 2 after one line on
    the error stream for an unknown flag or a missing value. Blocks on reading the file.
    """
    settings = settings_of(config_type)
    prefix = environment_prefix(prog)
    parser = settings_parser(config_type, prog=prog, description=description)
    flags = _parsed(parser, sys.argv[1:] if argv is None else argv)
    if flags.pop("version"):
        sys.stdout.write(f"{prog} {version()}\n")
        raise SystemExit(int(ExitCode.OK))
    check_only = flags.pop("check_only")
    printed = flags.pop("print_config")
    environment, warnings = _from_environment(settings, prefix, os.environ if environ is None else environ)
    config_file, config_variable = flags.pop(_CONFIG, None), environment.pop(_CONFIG, None)
    if config_file is None and config_variable is not None and config_variable.value:
        config_file = config_variable
    file = {} if config_file is None else _from_file(config_file, is_again)
    layers = (flags, environment, file)
    for layer in layers:
        check_names(settings, layer, "the name of a setting")
    origins = {
        setting.name: next(
            (layer[setting.name] for layer in layers if setting.name in layer), Given(setting.default, _DEFAULT)
        )
        for setting in settings
    }
    values = {setting.name: origins[setting.name].read(setting) for setting in settings}
    return Loaded(
        config=_construct(config_type, values, origins),
        check_only=check_only,
        print_only=printed is not None,
        with_secrets=printed == "secrets",
        sources={name: given.source for name, given in origins.items()},
        warnings=warnings,
    )


def refuse(prog: str, error: Exception) -> NoReturn:
    """Write in one line to the error stream what is wrong with the settings, and exit with code 2."""
    line = "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(error))
    sys.stderr.write(f"{prog}: {line}\n")
    raise SystemExit(int(ExitCode.USAGE))


class _Keep(argparse.Action):
    """Store the value together with its flag as typed; a switch, which has no value, stores its constant."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse hands it over
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        value = self.const if self.nargs == 0 else values
        setattr(namespace, self.dest, Given(value, f"flag {option_string}", f"change or leave out {option_string}"))


class _Parser(SettingsParser):
    """A parser that reports errors in one line, as for a refused setting."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message} (try {self.prog} --help)\n")


def settings_parser(config_type: type[DataclassInstance], *, prog: str, description: str) -> SettingsParser:
    """Return the parser of a daemon's flags; also what its man page and its completion are made from."""
    settings = settings_of(config_type)
    prefix = environment_prefix(prog)
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=_epilog([setting for setting in settings if not setting.flags], prefix),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # a flag that was not given leaves no trace: the next source is asked
        allow_abbrev=False,
    )
    parser.settings, parser.prefix = settings, prefix
    for setting in settings:
        if setting.flags:
            switch: dict[str, Any] = {"nargs": 0, "const": not setting.default} if setting.kind is bool else {}
            text = described(setting, prefix).replace("%", "%%")
            parser.add_argument(
                *setting.flags, dest=setting.name, action=_Keep, metavar=setting.placeholder, help=text, **switch
            )
            for name in setting.formerly:
                flag = f"--{name.replace('_', '-')}"
                parser.add_argument(flag, dest=name, action=_Keep, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument(
        "--config",
        dest=_CONFIG,
        action=_Keep,
        metavar="FILE",
        help=f"TOML file of settings; keys are variable names in lower case without {prefix} ({prefix}CONFIG)",
    )
    parser.add_argument(
        "--check-config",
        dest="check_only",
        action="store_true",
        default=False,
        help="print the effective settings with their sources and exit: 0, or 2 if one is refused",
    )
    parser.add_argument(
        "--print-config",
        dest="print_config",
        nargs="?",
        choices=_PRINTS,
        const=_PRINTS[0],
        default=None,
        metavar="secrets",
        help="print the effective settings as TOML for --config and exit: 0, or 2 if one is refused;"
        " secrets are shown as ***, which no start accepts, unless --print-config=secrets is asked for",
    )
    parser.add_argument("--version", action="store_true", default=False, help="print the version and exit")
    return parser


def _parsed(parser: SettingsParser, argv: Sequence[str]) -> dict[str, Any]:
    namespace, unknown = parser.parse_known_args(list(argv))
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(f"unknown argument {unknown[0]!r}{did_you_mean(unknown[0].partition('=')[0], known)}")
    return vars(namespace)


def _epilog(settings: Sequence[Setting], prefix: str) -> str:
    """Describe the settings that have no flag."""
    if not settings:
        return ""
    lines = ["settings without a flag, for the environment or the file:"]
    for setting in settings:
        lines.append(f"  {setting.name}")
        lines += textwrap.wrap(described(setting, prefix), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _from_environment(
    settings: Sequence[Setting], prefix: str, environ: Mapping[str, str]
) -> tuple[dict[str, Given], tuple[str, ...]]:
    """Collect the settings in an environment, and a warning for each unknown variable with the prefix."""
    names = [setting.name for setting in settings if not setting.columns]
    former = [name for setting in settings for name in setting.formerly]
    names_by_variable = {prefix + name.upper(): name for name in (*names, *former, _CONFIG)}
    given: dict[str, Given] = {}
    warnings: list[str] = []
    for variable, text in environ.items():
        if variable in names_by_variable:
            source, hint = f"environment {variable}", f"change or unset {variable}"
            given[names_by_variable[variable]] = Given(text, source, hint)
        elif variable.startswith(prefix):
            # Without the prefix, which all of them have: with it, any two would be similar.
            near = did_you_mean(variable.removeprefix(prefix), [name.upper() for name in names], prefix)
            warnings.append(f"environment variable {variable} is not a setting and is ignored{near}")
    return given, tuple(warnings)


def _from_file(path: Given, is_again: bool) -> dict[str, Given]:
    try:
        # What was in a pipe is gone: to read it again would give all settings their defaults, or wait for a writer.
        if is_again and stat.S_ISFIFO(os.stat(str(path.value)).st_mode):
            raise SettingError("config", path.value, "a file, not a pipe, to be read again", path.source)
        with open(str(path.value), "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError) as error:  # ValueError: not TOML, not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else None
        raise SettingError("config", path.value, "a readable TOML file", path.source, reason or str(error)) from error
    source = f"file {path.value}"
    return {key: Given(value, source, f"correct or remove {key} in {path.value}") for key, value in table.items()}


def _construct(config_type: type[C], values: Mapping[str, Value], origins: Mapping[str, Given]) -> C:
    """Build the dataclass; add the source, which `__post_init__` cannot know, to its refusal."""
    try:
        return config_type(**values)
    except SettingError as refused:
        if refused.name in origins:
            _, refused.source, hint = origins[refused.name]
            refused.hint = "; ".join(filter(None, (refused.hint, hint)))
        raise
