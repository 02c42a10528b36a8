"""What a command can be told, as values: read from its parsers, for its man page and its completion. PURE.

Everything there is to know is declared once, in the `option()` of a setting or the `add_argument()` of a parser, and
`--help`, `man_page` and `completion` are views of it. The placeholder of a value, which `--help` shows, also says how
it is completed: `crlf|space` are words, FILE and PATH are files, DIR is a directory, a comma separates items.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shmchannel.daemonkit.settings import Setting

_KIND_OF_PLACE = {"FILE": "files", "PATH": "files", "DIR": "directories"}
_SHORT_CHARACTERS = 70


class SettingsParser(argparse.ArgumentParser):
    """A parser whose options stand for settings: these, and the prefix of their environment variables."""

    settings: tuple[Setting, ...] = ()
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A flag with its spellings, or an argument, which has none.

    `placeholder` stands for its value, and is empty for a switch. The value is one of the `words`, or several with
    commas (`is_list`), or one of the `places`: "files", "directories". `is_optional`: the flag may stand without one.
    """

    flags: tuple[str, ...] = ()
    placeholder: str = ""
    meaning: str = ""
    words: tuple[str, ...] = ()
    places: frozenset[str] = frozenset()
    is_list: bool = False
    is_optional: bool = False
    is_repeated: bool = False

    @property
    def short(self) -> str:
        """The beginning of the meaning, for a line beside others."""
        text = re.split(r"; | \(|: ", self.meaning.replace("`", ""), maxsplit=1)[0]
        return text if len(text) <= _SHORT_CHARACTERS else text[: _SHORT_CHARACTERS - 3].rstrip() + "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command: its options, its arguments, and the commands that may follow its name.

    `settings` are those that have no flag, with the `prefix` of their variables; `notes` is what `--help` ends with.
    """

    name: str
    description: str
    options: tuple[Option, ...] = ()
    arguments: tuple[Option, ...] = ()
    commands: tuple[CommandLine, ...] = ()
    settings: tuple[Setting, ...] = ()
    prefix: str = ""
    notes: str = ""

    @property
    def word(self) -> str:
        """The last word of the name: what is typed after the words before it."""
        return self.name.rpartition(" ")[2]

    @property
    def short(self) -> str:
        """The first sentence of the description, without its full stop."""
        return re.split(r"\.(?:\s|$)", " ".join(self.description.split()), maxsplit=1)[0]


def command_line_of(parsers: Sequence[argparse.ArgumentParser]) -> CommandLine:
    """Return the command of the first parser; the others are those of commands beside it (`webproxy purge`)."""
    first, *others = parsers
    described: dict[str, str] = {}
    found = []
    for action in first._actions:
        if isinstance(action, argparse._SubParsersAction):
            described = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found += list(action.choices.values())
    commands = tuple(_one(parser, described.get(parser.prog.rpartition(" ")[2], "")) for parser in (*found, *others))
    return _one(first, "", commands)


def _one(parser: argparse.ArgumentParser, described: str, commands: tuple[CommandLine, ...] = ()) -> CommandLine:
    settings = parser.settings if isinstance(parser, SettingsParser) else ()
    by_flag = {flag: setting for setting in settings for flag in setting.flags}
    shown = [
        _option(action, parser.prog, by_flag)
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]
    return CommandLine(
        name=parser.prog,
        description=parser.description or f"{described[:1].upper()}{described[1:]}.",
        options=tuple(option for option in shown if option.flags),
        arguments=tuple(option for option in shown if not option.flags),
        commands=commands,
        settings=tuple(setting for setting in settings if not setting.flags),
        prefix=parser.prefix if isinstance(parser, SettingsParser) else "",
        notes="" if settings else parser.epilog or "",
    )


def _option(action: argparse.Action, prog: str, by_flag: Mapping[str, Setting]) -> Option:
    placeholder = ""
    if action.nargs != 0:
        placeholder = str(action.metavar or action.dest.upper())
    setting = next((by_flag[flag] for flag in action.option_strings if flag in by_flag), None)
    declared = (*setting.choices, *setting.words) if setting is not None else tuple(map(str, action.choices or ()))
    parts = [part for part in re.split(r"[|,]", placeholder) if part.strip(".")]
    literals = [part for part in parts if not part.isupper() and not re.search(r"[ {}]", part)]
    return Option(
        flags=tuple(action.option_strings),
        placeholder=placeholder,
        meaning=(action.help or "") % {**vars(action), "prog": prog},
        words=tuple(dict.fromkeys((*declared, *literals))),
        places=frozenset(_KIND_OF_PLACE[part] for part in parts if part in _KIND_OF_PLACE),
        is_list="," in placeholder,
        is_optional=action.nargs in ("?", "*"),
        is_repeated=action.nargs in ("*", "+"),
    )
