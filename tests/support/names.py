"""Which OS names belong to a test: only those whose owner is this process or one that it started.

Other daemons may run on the same machine at the same time, so what exists is never compared as a whole.
"""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress

import posix_ipc

from shmchannel.naming import SHM_DIRECTORY
from shmchannel.reaper import FoundName, survey, unlink_queue

_living_on: set[int] = set()
_ended: set[int] = set()


def note_started(pid: int) -> None:
    """A process that may own names was started; until note_ended() its names are no leak."""
    _living_on.add(pid)
    _ended.discard(pid)


def note_ended(pid: int) -> None:
    """The process is gone and its names should be: from now on each one is a leak."""
    _living_on.discard(pid)
    _ended.add(pid)


def listing() -> frozenset[str]:
    """The file names of ours in the shared-memory directory, whoever owns them."""
    return frozenset(name for name in os.listdir(SHM_DIRECTORY) if name.startswith("gf-"))


def names_of(pids: Collection[int]) -> list[FoundName]:
    """What there is of these owners."""
    return [found for found in survey() if found.owner_pid in pids]


def leaked_since(before: frozenset[str]) -> list[str]:
    """The paths that appeared since `before` and belong to this process or to one of ours that has ended."""
    if listing() <= before:
        return []
    found = names_of({os.getpid(), *_ended})
    return sorted(row.path for row in found if os.path.basename(row.path) not in before)


def remove(found: Iterable[FoundName]) -> None:
    """Remove names whose owner is dead; what is gone already is no error."""
    for row in found:
        if row.kind == "queue":
            unlink_queue(row.name)
        elif row.kind == "segment":
            with suppress(posix_ipc.ExistentialError):
                posix_ipc.unlink_shared_memory(row.name)
        else:
            with suppress(FileNotFoundError):
                os.unlink(row.path)
