"""`webproxy install-units DIR`: units of systemd, man pages and completions, generated from what the commands declare.

The commands of all installed packages declare themselves by an entry point of the group `gfcache.command_lines`, a
function that returns their parsers; so this package knows of the others only what it is told.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import sysconfig
import tempfile
from typing import TYPE_CHECKING

from shmchannel.daemonkit import completion
from shmchannel.daemonkit.command_line import command_line_of
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.man_page import man_page
from shmchannel.daemonkit.output import put_out
from webproxy import version
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.systemd_units import Place, units

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shmchannel.daemonkit.command_line import CommandLine

PROG = "webproxy install-units"
_GROUP = "gfcache.command_lines"
_DAEMONS = ("simplecached", "webproxy")
_DESCRIPTION = """\
Write units of systemd, man pages, and completions for bash, zsh and fish below a directory, such as /usr/local, and
print what was written. If a file is there that differs, nothing is written, unless --force is given."""


class CannotInstall(Exception):
    """Nothing was written; the text says why, and what helps."""


def main(arguments: Sequence[str]) -> int:
    """Write the files, print their paths, and return the exit code: FAILED if nothing was written.

    Raises SystemExit with 2 for invalid arguments.
    """
    given = parser().parse_args(arguments)
    try:
        place = place_for(given.bin_dir or command_directory(), given.user)
        done = install(files_for(place, installed_commands()), given.directory, force=given.force)
    except CannotInstall as error:
        sys.stderr.write(f"{PROG}: {error}\n")
        return int(ExitCode.FAILED)
    except OSError as error:
        sys.stderr.write(f"{PROG}: {error.filename}: {error.strerror}\n")
        return int(ExitCode.FAILED)
    is_written = put_out(PROG, "".join(f"{state} {path}\n" for path, state in done))
    return int(ExitCode.OK if is_written else ExitCode.FAILED)


def parser() -> argparse.ArgumentParser:
    """The command line after `install-units`."""
    found = argparse.ArgumentParser(prog=PROG, description=_DESCRIPTION, allow_abbrev=False)
    found.add_argument("directory", metavar="DIR", help="where lib/systemd/system and share/ are, or are made")
    found.add_argument("--force", action="store_true", help="replace files that differ")
    found.add_argument("--user", metavar="NAME", default="gfcache", help="user that the services run as (%(default)s)")
    found.add_argument(
        "--bin-dir", metavar="DIR", help="directory of the commands that the units start, if not that of this command"
    )
    return found


def command_directory() -> str:
    """The directory of the installed daemons: that of this command, else that of this Python's scripts.

    Raises:
        CannotInstall: they are in neither.
    """
    candidates = [os.path.dirname(os.path.abspath(sys.argv[0])), sysconfig.get_path("scripts")]
    for directory in candidates:
        if all(os.access(os.path.join(directory, name), os.X_OK) for name in _DAEMONS):
            return directory
    raise CannotInstall(f"simplecached and webproxy are not in {' or '.join(candidates)}: say --bin-dir DIR")


def place_for(directory: str, user: str) -> Place:
    """The place that the units are written for.

    Raises:
        CannotInstall: no unit can name this directory or user.
    """
    if not os.path.isabs(directory) or not directory.isprintable():
        raise CannotInstall(f"--bin-dir {directory!r}: a unit needs an absolute path of printable characters")
    if not user or not user.isascii() or not all(one.isalnum() or one in "-_." for one in user):
        raise CannotInstall(f"--user {user!r}: a name of letters, digits, -, _ and . is needed")
    config = ProxyConfig()
    return Place(command_directory=directory, user=user, listen=f"{config.host}:{config.port}", drain_s=config.drain_s)


def installed_commands() -> list[CommandLine]:
    """The commands of all installed packages, by name.

    Raises:
        CannotInstall: there are none.
    """
    points = sorted(importlib.metadata.entry_points(group=_GROUP), key=lambda point: point.name)
    if not points:
        raise CannotInstall("gfcache is not installed for this Python: pip install it, then run the installed webproxy")
    return [command_line_of(point.load()()) for point in points]


def files_for(place: Place, commands: Sequence[CommandLine]) -> Mapping[str, str]:
    """The text of every file by its path below the directory."""
    files = {f"lib/systemd/system/{name}": text for name, text in units(place).items()}
    for command in commands:
        others = [other.name for other in commands if other is not command]
        name = command.name
        files[f"share/man/man1/{name}.1"] = man_page(command, version=version(), see_also=others)
        files[f"share/bash-completion/completions/{name}"] = completion.bash(command)
        files[f"share/zsh/site-functions/_{name}"] = completion.zsh(command)
        files[f"share/fish/vendor_completions.d/{name}.fish"] = completion.fish(command)
    return files


def install(files: Mapping[str, str], directory: str, *, force: bool) -> Iterable[tuple[str, str]]:
    """Write the files below a directory; returns their paths, and "wrote" or "unchanged" for each.

    A file is whole or as it was, also if this is killed.

    Raises:
        CannotInstall: files differ, and `force` is not given. Nothing has been written.
        OSError: a file cannot be read or written; some may have been written.
    """
    states = {os.path.join(directory, path): text for path, text in files.items()}
    found = {path: _read(path) for path in states}
    differing = [path for path, text in found.items() if text is not None and text != states[path].encode()]
    if differing and not force:
        listed = "".join(f"\n  {path}" for path in differing)
        raise CannotInstall(f"these files differ; --force replaces them, and nothing was written:{listed}")
    done = []
    for path, text in states.items():
        is_new = found[path] != text.encode()
        if is_new:
            _write(path, text.encode())
        done.append((path, "wrote" if is_new else "unchanged"))
    return done


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: str, content: bytes) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    fd, unfinished = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, 0o644)  # what everybody may read
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
