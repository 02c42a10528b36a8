"""How much memory there is to take, compared with what is asked for before a page of it is touched.

/dev/shm is memory: blocks there count against its own size and against what the machine has left. Neither limit shows
when a block is made. Past the first one the next touch is a SIGBUS; past the second one the kernel kills processes, and
not always the one that asked. So whoever takes much says how much, and is refused with the numbers.
"""

from __future__ import annotations

import errno
import os

from shmchannel.errors import LimitReached, os_errors
from shmchannel.process.naming import SHM_DIRECTORY

_MEMINFO = "/proc/meminfo"


def shared_memory_room() -> int | None:
    """How many bytes are free in /dev/shm; None when it has no size of its own."""
    with os_errors(f"look at {SHM_DIRECTORY}"):
        facts = os.statvfs(SHM_DIRECTORY)
    return facts.f_bavail * facts.f_frsize if facts.f_blocks else None


def available_memory() -> int | None:
    """How many bytes the kernel can give without swapping (MemAvailable); None when it does not say."""
    try:
        with open(_MEMINFO, encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def require_memory(what: str, wanted_bytes: int, *, hint: str, shared: bool = True) -> None:
    """Refuse what does not fit; `shared`: it will lie in /dev/shm, so that room there counts too.

    Raises:
        LimitReached: there is less; the text has both numbers.
    """
    if shared:
        _compare(what, wanted_bytes, shared_memory_room(), f"free in {SHM_DIRECTORY}", errno.ENOSPC, hint)
    _compare(what, wanted_bytes, available_memory(), "bytes of memory available", errno.ENOMEM, hint)


def _compare(what: str, wanted_bytes: int, have_bytes: int | None, where: str, code: int, hint: str) -> None:
    if have_bytes is not None and wanted_bytes > have_bytes:
        raise LimitReached(f"{what}: {wanted_bytes:,} bytes wanted, {have_bytes:,} {where}", code, hint=hint)
