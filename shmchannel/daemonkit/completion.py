"""Renders a command line as completions for shells: bash, zsh and fish. PURE.

A word after the name may be a command (`webproxy purge`), which has options of its own; it is looked for in the first
place only, where the programs expect it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shmchannel.daemonkit.command_line import CommandLine, Option

_HEAD = "completion of {name}, generated from its declarations by `webproxy install-units`"


def _function(command: CommandLine) -> str:
    return "_" + re.sub(r"\W", "_", command.name)


def _quoted(text: str) -> str:
    """Return text as one word of a shell, in single quotes: of bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


# -- bash -----------------------------------------------------------------------------------------------------------
def bash(command: CommandLine) -> str:
    """Return the file `share/bash-completion/completions/NAME`. It needs bash 4.4, and nothing else."""
    function = _function(command)
    lines = [
        f"# bash {_HEAD.format(name=command.name)}",
        f"{function}() {{",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path= words= places= list=",
        "    # --flag=value is three words here.",
        "    if [[ $word == = ]]; then",
        "        word= before+==",
        "    elif [[ $before == = ]] && ((COMP_CWORD > 1)); then",
        "        before=${COMP_WORDS[COMP_CWORD-2]}=",
        "    fi",
        "    COMPREPLY=()",
        *_bash_path(command),
        "    case $path/$before in",
        *(line for one in (command, *command.commands) for line in _bash_values(one, command)),
        "        *) case $path in",
        *(line for one in (command, *command.commands) for line in _bash_words(one, command)),
        "        esac ;;",
        "    esac",
        "    local head=",
        "    if [[ $list && $word == *,* ]]; then",
        "        head=${word%,*},",
        "        word=${word##*,}",
        "    fi",
        '    mapfile -t COMPREPLY < <(compgen -W "$words" -P "$head" -- "$word")',
        "    local found",
        "    if [[ $places ]]; then",
        '        mapfile -t found < <(compgen "$places" -- "$word")',
        '        COMPREPLY+=("${found[@]}")',
        "        compopt -o filenames 2>/dev/null",
        "    fi",
        "}",
        f"complete -F {function} {command.name}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _bash_path(command: CommandLine) -> Iterator[str]:
    if command.commands:
        yield "    if ((COMP_CWORD > 1)); then"
        yield "        case ${COMP_WORDS[1]} in"
        yield f"            {'|'.join(one.word for one in command.commands)}) path=${{COMP_WORDS[1]}} ;;"
        yield "        esac"
        yield "    fi"


def _path(one: CommandLine, whole: CommandLine) -> str:
    return "" if one is whole else one.word


def _bash_values(one: CommandLine, whole: CommandLine) -> Iterator[str]:
    for option in one.options:
        if option.placeholder:
            endings = ("=",) if option.is_optional else ("", "=")
            patterns = "|".join(f"{_path(one, whole)}/{flag}{end}" for flag in option.flags for end in endings)
            yield f"        {patterns}) {_bash_reply(option)} ;;"


def _bash_reply(option: Option) -> str:
    parts = []
    if option.words:
        parts.append(f"words={_quoted(' '.join(option.words))}")
    if option.places:
        parts.append(f"places={'-f' if 'files' in option.places else '-d'}")
    if option.is_list:
        parts.append("list=1")
    return " ".join(parts) or "return"


def _bash_words(one: CommandLine, whole: CommandLine) -> Iterator[str]:
    flags = " ".join(flag for option in one.options for flag in option.flags)
    yield f"            {_quoted(_path(one, whole))})"
    yield "                if [[ $word == -* ]]; then"
    yield f"                    words={_quoted(flags)}"
    others = []
    if one is whole and one.commands:
        commands = _quoted(" ".join(command.word for command in one.commands))
        others.append(f"((COMP_CWORD > 1)) || words={commands}")
    others += [_bash_reply(argument) for argument in one.arguments if argument.words or argument.places]
    if others:
        yield "                else"
        yield from (f"                    {other}" for other in others)
    yield "                fi ;;"


# -- zsh ------------------------------------------------------------------------------------------------------------
def zsh(command: CommandLine) -> str:
    """Return the file `share/zsh/site-functions/_NAME`."""
    function = _function(command)
    lines = [f"#compdef {command.name}", f"# zsh {_HEAD.format(name=command.name)}", f"{function}() {{"]
    if command.commands:
        lines += ["    if (( CURRENT > 2 )); then", "        case $words[2] in"]
        for one in command.commands:
            lines += [f"            {one.word})", "                shift words", "                (( CURRENT-- ))"]
            lines += [*_zsh_arguments(one, "                "), "                return ;;"]
        lines += ["        esac", "    fi"]
    lines += [*_zsh_arguments(command, "    "), "}", f'{function} "$@"']
    return "".join(f"{line}\n" for line in lines)


def _zsh_arguments(one: CommandLine, indent: str) -> Iterator[str]:
    specs = [spec for option in one.options for spec in _zsh_specs(option)]
    if one.commands:
        texts = (f"{command.word}\\:{_zsh_nested(command.short)}" for command in one.commands)
        specs.append(_quoted(f"1:command:(({' '.join(texts)}))"))
    for argument in one.arguments:
        place = "*" if argument.is_repeated else ""
        specs.append(_quoted(f"{place}:{_zsh_text(argument.placeholder)}:{_zsh_action(argument, nothing='()')}"))
    yield f"{indent}_arguments" + "".join(f" \\\n{indent}    {spec}" for spec in specs)


def _zsh_specs(option: Option) -> Iterator[str]:
    others = f"({' '.join(option.flags)})" if len(option.flags) > 1 else ""
    for flag in option.flags:
        value = ""
        if option.placeholder:
            colons = "::" if option.is_optional else ":"
            value = f"{colons}{_zsh_text(option.placeholder)}:{_zsh_action(option)}"
        attached = ("=-" if option.is_optional else "=") if option.placeholder and flag.startswith("--") else ""
        yield _quoted(f"{others}{flag}{attached}[{_zsh_text(option.short)}]{value}")


def _zsh_text(text: str) -> str:
    return re.sub(r"([\\:\[\]])", r"\\\1", text.replace("`", ""))


def _zsh_nested(text: str) -> str:
    """Return text as one word within a word."""
    return '"' + re.sub(r'["$]', "", _zsh_text(text)) + '"'


def _zsh_action(option: Option, *, nothing: str = " ") -> str:
    """Return what completes a value; `nothing` if that cannot be listed."""
    files = "_files" if "files" in option.places else "_files -/" if option.places else ""
    if option.words and option.is_list:
        return f"_values -s , value {' '.join(option.words)}"
    if option.words and files:
        return f'_alternative "words\\:word\\:({" ".join(option.words)})" "files\\:file\\:{files}"'
    return f"({' '.join(option.words)})" if option.words else files or nothing


# -- fish -----------------------------------------------------------------------------------------------------------
def fish(command: CommandLine) -> str:
    """Return the file `share/fish/vendor_completions.d/NAME.fish`."""
    name, words = command.name, " ".join(one.word for one in command.commands)
    alone = f" -n 'not __fish_seen_subcommand_from {words}'" if words else ""
    lines = [f"# fish {_HEAD.format(name=name)}", f"complete -c {name} -f"]
    lines += [f"complete -c {name}{alone} -a {one.word} -d {_fish_quoted(one.short)}" for one in command.commands]
    lines += _fish_options(name, command, alone)
    for one in command.commands:
        lines += _fish_options(name, one, f" -n '__fish_seen_subcommand_from {one.word}'")
    return "".join(f"{line}\n" for line in lines)


def _fish_options(name: str, one: CommandLine, condition: str) -> Iterator[str]:
    for option in one.options:
        flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
        value = _fish_value(option) if option.placeholder else ""
        yield f"complete -c {name}{condition} {flags}{value} -d {_fish_quoted(option.short)}"
    for argument in one.arguments:
        if argument.words or argument.places:
            yield f"complete -c {name}{condition}{_fish_value(argument).removeprefix(' -r').removeprefix(' -x')}"


def _fish_value(option: Option) -> str:
    required = "" if option.is_optional else " -r"
    offered = [f"(__fish_append , {' '.join(option.words)})"] if option.is_list else [*option.words]
    if "directories" in option.places and "files" not in option.places:
        offered.append("(__fish_complete_directories)")
    files = " -F" if "files" in option.places else "" if option.is_optional else " -f"
    words = f" -a {_fish_quoted(' '.join(offered))}" if offered else ""
    return f"{required}{files}{words}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
