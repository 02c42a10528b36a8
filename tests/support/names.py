"""Which OS names belong to a test: only those whose owner is this process or one that it started.

Other daemons may run on the same machine at the same time, other workers of this very suite among them, so what exists
is never compared as a whole (docs/decisions/0026-tests-beside-other-pairs.md).
"""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress

import posix_ipc

from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.process.reaper import FoundName, survey, unlink_queue

_ended: set[int] = set()


def note_ended(pid: int) -> None:
    """The process is gone and its names should be: each one that is there now is a leak."""
    _ended.add(pid)


def forget_ended() -> None:
    """A test begins: what ended before is another's, and its pid may come back as that of a foreign daemon."""
    _ended.clear()


def listing() -> frozenset[str]:
    """The file names of ours in the shared-memory directory, whoever owns them."""
    return frozenset(name for name in os.listdir(SHM_DIRECTORY) if name.startswith("gf-"))


def names_of(pids: Collection[int]) -> list[FoundName]:
    """The existing names of these owners."""
    return [found for found in survey() if found.owner_pid in pids]


def leaked_since(before: frozenset[str]) -> list[str]:
    """The paths that appeared since `before` and belong to this process or to one of this test that has ended."""
    if listing() <= before:
        return []
    own = names_of([os.getpid()]) + [row for row in names_of(_ended) if not row.alive]
    return sorted(row.path for row in own if os.path.basename(row.path) not in before)


def remove(found: Iterable[FoundName]) -> None:
    """Remove those whose owner is dead, not what has its pid now; what is gone already is no error."""
    for row in (row for row in found if not row.alive):
        if row.kind == "queue":
            unlink_queue(row.name)
        elif row.kind == "segment":
            with suppress(posix_ipc.ExistentialError):
                posix_ipc.unlink_shared_memory(row.name)
        else:
            with suppress(FileNotFoundError):
                os.unlink(row.path)
