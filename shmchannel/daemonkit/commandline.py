"""The command line of a daemon, derived from its settings: turns flags into raw values, and writes `--help`.

Values are kept as typed, together with their flag; `parsing` decides what they mean.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from shmchannel.daemonkit.declaration import environment_prefix
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.parsing import allowed_text, format_value, renamed_error
from shmchannel.daemonkit.sources import Given, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shmchannel.daemonkit.declaration import Setting

CONFIG_NAME = "config"
"""The setting that names the file with the others: `--config FILE`, `WEBPROXY_CONFIG`."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The result of the command line: settings by field name, the settings file, and whether to check only."""

    given: dict[str, Given]
    config_file: Given | None
    check_only: bool


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


class _Renamed(argparse.Action):
    """Refuse a flag that has the former name of a setting."""

    def __init__(self, *, replacement: Setting, **keywords: Any) -> None:
        super().__init__(nargs="?", help=argparse.SUPPRESS, **keywords)
        self._replacement = replacement

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse hands it over
        namespace: argparse.Namespace,  # noqa: ARG002 - the same
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setting = self._replacement
        raise renamed_error(self.dest, values, setting, f"flag {option_string}", f"give {setting.flags[-1]} instead")


class _Version(argparse.Action):
    """Print the version; the constant is a function that is called only now."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse hands it over
        values: Any,  # noqa: ARG002 - the same
        option_string: str | None = None,  # noqa: ARG002 - the same
    ) -> None:
        parser._print_message(f"{parser.prog} {self.const()}\n", sys.stdout)
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, as for a refused setting."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message} (try {self.prog} --help)\n")


def read_command_line(
    settings: Sequence[Setting], *, prog: str, description: str, version: Callable[[], str], argv: Sequence[str]
) -> CommandLine:
    """Read the arguments that follow the program's name.

    Raises `SettingError` for a flag with a former name of a setting. Raises `SystemExit` with code 0 after `--help`
    and `--version`, and with code 2 after one line on the error stream for an unknown flag or a missing value.
    """
    parser = _parser(settings, prog, description, version)
    namespace, unknown = parser.parse_known_args(list(argv))
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(f"unknown argument {unknown[0]!r}{did_you_mean(unknown[0].partition('=')[0], known)}")
    found: dict[str, Any] = vars(namespace)
    config_file = found.pop(CONFIG_NAME, None)
    check_only = found.pop("check_only")
    return CommandLine(given=found, config_file=config_file, check_only=check_only)


def _parser(settings: Sequence[Setting], prog: str, description: str, version: Callable[[], str]) -> _Parser:
    prefix = environment_prefix(prog)
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=_epilog([setting for setting in settings if not setting.flags], prefix),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # a flag that was not given leaves no trace: the next source is asked
        allow_abbrev=False,
    )
    for setting in settings:
        if setting.flags:
            _add_flags(parser, setting, prefix)
            _add_former_flags(parser, setting)
    parser.add_argument(
        "--config",
        dest=CONFIG_NAME,
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
    parser.add_argument("--version", action=_Version, const=version, nargs=0, help="print the version and exit")
    return parser


def _add_flags(parser: argparse.ArgumentParser, setting: Setting, prefix: str) -> None:
    if setting.kind is bool:
        # The meaning describes the setting when it is on.
        meaning, turned = (f"do not {setting.meaning}", "false") if setting.default else (setting.meaning, "true")
        text = f"{meaning} ({setting.environment_name(prefix)}={turned})".replace("%", "%%")
        parser.add_argument(
            *setting.flags, dest=setting.name, action=_Keep, nargs=0, const=not setting.default, help=text
        )
    else:
        text = _described(setting, prefix).replace("%", "%%")
        parser.add_argument(*setting.flags, dest=setting.name, action=_Keep, metavar=setting.metavar, help=text)


def _add_former_flags(parser: argparse.ArgumentParser, setting: Setting) -> None:
    for name in setting.formerly:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, action=_Renamed, replacement=setting)


def _described(setting: Setting, prefix: str) -> str:
    default = format_value(setting, setting.default)
    variable = "" if setting.columns else f"; {setting.environment_name(prefix)}"
    return f"{setting.meaning} (default {default}; {allowed_text(setting)}{variable})"


def _epilog(settings: Sequence[Setting], prefix: str) -> str:
    """Describe the settings that have no flag."""
    if not settings:
        return ""
    lines = ["settings without a flag, for the environment or the file:"]
    for setting in settings:
        lines.append(f"  {setting.name}")
        lines += textwrap.wrap(_described(setting, prefix), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
