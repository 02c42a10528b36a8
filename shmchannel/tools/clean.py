"""Removes the names that dead owners left: `gfcache-clean`. A living owner's names cannot be touched by it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from shmchannel.daemonkit.output import put_out
from shmchannel.process.reaper import survey, sweep
from shmchannel.tools.version import VersionAction

if TYPE_CHECKING:
    from collections.abc import Sequence


def command_lines(prog: str = "gfcache-clean") -> tuple[argparse.ArgumentParser]:
    """The command line, for the command itself and for what is generated from it."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Remove the shared-memory and queue names that dead owners left. Those of a living owner cannot be"
        " touched. Exit status 0; 1: a dead owner's name could not be removed; 2: the names cannot"
        " be listed, or the output cannot be written.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument("--version", action=VersionAction, help="print the version and exit")
    return (parser,)


def main(argv: Sequence[str] | None = None, *, prog: str = "gfcache-clean") -> int:
    """Sweep and print what was removed.

    Exit status 0; 1: a dead owner's name could not be removed; 2: the names cannot be listed.
    """
    arguments = command_lines(prog)[0].parse_args(argv)
    try:
        rows = sweep(dry_run=arguments.dry_run)
    except PermissionError as error:
        sys.stderr.write(f"{prog}: {error.filename}: {error.strerror}; run it as a user who may read it\n")
        return 2
    verb = "would remove" if arguments.dry_run else "removed"
    lines = []
    for row in rows:
        owner = f"dead pid {row.owner_pid}" if row.owner_pid is not None else "an unknown dead owner"
        lines.append(f"{verb} {row.path} ({row.kind}, left by {owner})\n")
    is_written = put_out(prog, "".join(lines) or "nothing to remove: dead owners left no names\n")
    if arguments.dry_run:
        return 0 if is_written else 2
    left = [row for row in survey() if not row.alive]
    for row in left:
        sys.stderr.write(f"{prog}: {row.path} still exists; it belongs to another user or to a running sweep\n")
    return 1 if left else 0
