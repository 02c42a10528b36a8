"""Renders a command line as a man page: troff with the macros of man(7). PURE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.settings import described

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from shmchannel.daemonkit.command_line import CommandLine, Option

# Typed as they are, these are shown as other characters, or are commands of troff (groff_char(7)).
_ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def man_page(command: CommandLine, *, version: str, see_also: Sequence[str] = ()) -> str:
    """Return the page of a command, section 1; `see_also` names other pages of that section.

    It bears no date, so that the same declarations make the same file.
    """
    name = command.name
    lines = [
        ".\\\" Generated from the command's own declarations by `webproxy install-units`.",
        f'.TH {quoted(name.upper())} 1 "" {quoted(f"gfcache {version}")} "User Commands"',
        ".nh",  # names of variables are not to be broken
        ".ad l",
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(_lowered(command.short))}",
        ".SH SYNOPSIS",
        *_synopsis(command),
        *(line for one in command.commands for line in (".br", *_synopsis(one))),
        ".SH DESCRIPTION",
        *_paragraph(command.description),
    ]
    if command.options or command.arguments:
        lines += [".SH OPTIONS", *_options((*command.arguments, *command.options))]
    if command.commands:
        lines.append(".SH COMMANDS")
    for one in command.commands:
        lines += [f".SS {quoted(one.name)}", *_paragraph(one.description), *_options((*one.arguments, *one.options))]
        lines += _notes(one)
    lines += _notes(command)
    if command.prefix:
        lines += [*_settings(command), ".SH EXIT STATUS", *_exit_statuses()]
    if see_also:
        pages = [f"\\fB{escaped(other)}\\fR(1)" for other in see_also]
        lines += [".SH SEE ALSO", ", ".join(pages)]
    return "".join(f"{line}\n" for line in lines)


def escaped(text: str) -> str:
    """Return text that troff shows as it is, on one line; what is between backticks is bold."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:  # one has no partner
        parts = ["`".join(parts)]
    shown = [_literal(part) if number % 2 == 0 else f"\\fB{_literal(part)}\\fR" for number, part in enumerate(parts)]
    line = "".join(shown)
    return f"\\&{line}" if line.startswith(".") else line


def quoted(text: str) -> str:
    """Return text as one argument of a macro."""
    return f'"{escaped(text)}"'


def _literal(text: str) -> str:
    escapes = (_ESCAPES.get(one, one) for one in text)
    return "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in escapes)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _synopsis(command: CommandLine) -> Iterator[str]:
    arguments = [_argument(one) for one in command.arguments]
    yield " ".join([f"\\fB{_literal(command.name)}\\fR", "[\\fIOPTION\\fR]...", *arguments])


def _argument(one: Option) -> str:
    text = f"\\fI{_literal(one.placeholder)}\\fR"
    return f"{f'[{text}]' if one.is_optional else text}{'...' if one.is_repeated else ''}"


def _paragraph(text: str) -> Iterator[str]:
    for number, part in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield escaped(part)


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        yield ".TP"
        yield _tag(option)
        yield escaped(option.meaning) or "\\&"


def _tag(option: Option) -> str:
    if not option.flags:
        return _argument(option)
    flags = ", ".join(f"\\fB{_literal(flag)}\\fR" for flag in option.flags)
    if not option.placeholder:
        return flags
    value = f"\\fI{_literal(option.placeholder)}\\fR"
    return f"{flags}[={value}]" if option.is_optional else f"{flags} {value}"


def _notes(command: CommandLine) -> Iterator[str]:
    if command.notes:
        yield ".PP"
        yield from _paragraph(command.notes)


def _settings(command: CommandLine) -> Iterator[str]:
    prefix = command.prefix
    yield ".SH ENVIRONMENT AND FILE"
    yield from _paragraph(
        "Each setting can also be given as a variable of the environment, named in the text of its flag, or in the"
        f" TOML file of `--config` or `{prefix}CONFIG`, where its name is that of the variable in lower case without"
        f" `{prefix}`. A flag comes before the environment, the environment before the file, the file before the"
        " default."
    )
    if command.settings:
        yield ".PP"
        yield "These have no flag:"
    for setting in command.settings:
        yield ".TP"
        yield f"\\fB{_literal(setting.name)}\\fR"
        yield escaped(described(setting, prefix))


def _exit_statuses() -> Iterator[str]:
    for code in ExitCode:
        yield from (".TP", f"\\fB{code.value}\\fR", escaped(code.meaning))
