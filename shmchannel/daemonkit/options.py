"""Settings of a daemon: declared once as a dataclass, read from flags, environment, TOML file and defaults.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ProxyConfig:
        port: int = option(25362, "TCP port to listen on", flags=("-p", "--port"), low=0, high=65535)

    loaded = load_or_exit(ProxyConfig, prog="webproxy", description="...", version=lambda: "1.0")

This module is the interface to `declaration` (what a setting is), `parsing` (what a value means), `commandline` and
`sources` (where values come from); daemons import from here only.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from shmchannel.daemonkit.commandline import CONFIG_NAME, read_command_line
from shmchannel.daemonkit.declaration import Setting, environment_prefix, option, settings_of
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.parsing import SettingError, ValueRefused, check_value, format_value, shown_value
from shmchannel.daemonkit.sources import Given, from_environment, from_file, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance

    from shmchannel.daemonkit.declaration import Value

__all__ = [
    "Loaded",
    "Setting",
    "SettingError",
    "check_bounds",
    "environment_prefix",
    "load",
    "load_or_exit",
    "option",
    "refuse",
    "settings_of",
]

C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[C]):
    """A configuration and where it came from.

    `sources` holds the source of each field's value: `flag -z`, `environment WEBPROXY_WIRE`,
    `file /etc/webproxy.toml`, `default`. `warnings` should be logged once the log is set up.
    """

    config: C
    check_only: bool
    sources: Mapping[str, str]
    warnings: tuple[str, ...]

    def describe(self) -> str:
        """List every setting with its value and source, one per line, as `--check-config` prints them."""
        lines = []
        for setting in settings_of(type(self.config)):
            value = format_value(setting, getattr(self.config, setting.name))
            lines.append(f"{setting.name} = {value}  [{self.sources[setting.name]}]")
        return "\n".join(lines)


def load(
    config_type: type[C],
    *,
    prog: str,
    description: str,
    version: Callable[[], str],
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> Loaded[C]:
    """Build a configuration; flags take precedence over the environment, the file and the defaults, in this order.

    `argv` are the arguments after the program's name. Raises `SettingError` for a value that is not allowed, a file
    that cannot be used, or a key in the file that is not a setting, and `SystemExit` as `read_command_line` does. May
    be called again to reload. Blocks on reading the file.
    """
    settings = settings_of(config_type)
    prefix = environment_prefix(prog)
    line = read_command_line(settings, prog=prog, description=description, version=version, argv=argv)
    config_variable = prefix + CONFIG_NAME.upper()
    environment, warnings = from_environment(settings, prefix, environ, reserved=(config_variable,))
    config_file = line.config_file
    if config_file is None and environ.get(config_variable):
        config_file = Given(environ[config_variable], f"environment {config_variable}")
    file = from_file(settings, str(config_file.value), config_file.source) if config_file else {}
    values, origins = resolve(settings, (line.given, environment, file))
    return Loaded(
        config=_construct(config_type, values, origins),
        check_only=line.check_only,
        sources={name: given.source for name, given in origins.items()},
        warnings=tuple(warnings),
    )


def load_or_exit(
    config_type: type[C],
    *,
    prog: str,
    description: str,
    version: Callable[[], str],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded[C]:
    """Do as `load`, but end the process with one line and exit code 2 if a setting is refused.

    `argv` and `environ` default to those of the process.
    """
    try:
        return load(
            config_type,
            prog=prog,
            description=description,
            version=version,
            argv=sys.argv[1:] if argv is None else argv,
            environ=os.environ if environ is None else environ,
        )
    except SettingError as error:
        refuse(prog, error)


def refuse(prog: str, error: Exception) -> NoReturn:
    """Write in one line to the error stream what is wrong with the settings, and exit with code 2."""
    line = "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(error))
    sys.stderr.write(f"{prog}: {line}\n")
    raise SystemExit(int(ExitCode.USAGE))


def check_bounds(config: DataclassInstance) -> None:
    """Check every field of a configuration against its declaration; to be called from `__post_init__`.

    A configuration built by the program is then as valid as one that was loaded. Raises `SettingError`.
    """
    for setting in settings_of(type(config)):
        value = getattr(config, setting.name)
        try:
            check_value(setting, value)
        except ValueRefused as refused:
            raise SettingError(setting.name, shown_value(setting, value), refused.allowed) from None


def _construct(config_type: type[C], values: Mapping[str, Value], origins: Mapping[str, Given]) -> C:
    """Build the dataclass; add the source, which `__post_init__` cannot know, to its refusal."""
    try:
        return config_type(**values)
    except SettingError as refused:
        origin = origins.get(refused.name)
        if refused.source or origin is None:
            raise
        hint = "; ".join(filter(None, (refused.hint, origin.hint)))
        # For a list, show the refused item only.
        value = refused.value if isinstance(origin.value, list) else origin.value
        raise SettingError(refused.name, value, refused.allowed, origin.source, hint) from None
