"""`scripts/clean-shm`: remove the names that dead owners left. A living owner's names cannot be touched by it."""

import argparse
import sys
from collections.abc import Sequence

from shmchannel.process.reaper import survey, sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep and print what was removed.

    Exit status 0; 1: a dead owner's name could not be removed; 2: the names cannot be listed.
    """
    parser = argparse.ArgumentParser(prog="clean-shm", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    arguments = parser.parse_args(argv)
    try:
        rows = sweep(dry_run=arguments.dry_run)
    except PermissionError as error:
        print(f"clean-shm: {error.filename}: {error.strerror}; run it as a user who may read it", file=sys.stderr)
        return 2
    verb = "would remove" if arguments.dry_run else "removed"
    for row in rows:
        owner = f"dead pid {row.owner_pid}" if row.owner_pid is not None else "an unknown dead owner"
        print(f"{verb} {row.path} ({row.kind}, left by {owner})")
    if not rows:
        print("nothing to remove: dead owners left no names")
    if arguments.dry_run:
        return 0
    left = [row for row in survey() if not row.alive]
    for row in left:
        print(
            f"clean-shm: {row.path} still exists; it belongs to another user or to a running sweep",
            file=sys.stderr,
        )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
