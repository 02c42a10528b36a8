"""Checks requests for memory against what is available, before a page is touched.

/dev/shm is memory: blocks there count against its own size and against what the machine has left. Neither limit shows
when a block is created. Beyond the first the next touch is a SIGBUS; beyond the second the kernel kills processes, and
not always the one that asked. So large requests are checked here, and refused with the numbers.
"""

from __future__ import annotations

import errno
import os

from shmchannel.errors import LimitReached, os_errors
from shmchannel.process.naming import SHM_DIRECTORY

MEMINFO = "/proc/meminfo"
SPARE_BYTES = 64 << 20
"""What can_spare() leaves."""


def shared_memory_room() -> int | None:
    """Free bytes in /dev/shm; None if it has no size of its own."""
    with os_errors(f"look at {SHM_DIRECTORY}"):
        facts = os.statvfs(SHM_DIRECTORY)
    return facts.f_bavail * facts.f_frsize if facts.f_blocks else None


def available_memory() -> int | None:
    """Bytes the kernel can provide without swapping (MemAvailable); None if it does not report them."""
    try:
        with open(MEMINFO, encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def require_memory(what: str, wanted_bytes: int, *, hint: str, shared: bool = True) -> None:
    """Refuse a request that does not fit; `shared`: it is for /dev/shm, so its free space counts too.

    Raises:
        LimitReached: there is less; the text has both numbers.
    """
    if shared:
        _compare(what, wanted_bytes, shared_memory_room(), f"free in {SHM_DIRECTORY}", errno.ENOSPC, hint)
    _compare(what, wanted_bytes, available_memory(), "bytes of memory available", errno.ENOMEM, hint)


def _compare(what: str, wanted_bytes: int, have_bytes: int | None, where: str, code: int, hint: str) -> None:
    if have_bytes is not None and wanted_bytes > have_bytes:
        raise LimitReached(f"{what}: {wanted_bytes:,} bytes wanted, {have_bytes:,} {where}", code, hint=hint)


def can_spare(more_bytes: int) -> bool:
    """Whether the system can spare memory in /dev/shm for something that can do without it.

    A quarter of /dev/shm, and SPARE_BYTES of memory, stay free for those that cannot.
    """
    with os_errors(f"look at {SHM_DIRECTORY}"):
        facts = os.statvfs(SHM_DIRECTORY)
    if facts.f_blocks and facts.f_bavail * facts.f_frsize - more_bytes < facts.f_blocks * facts.f_frsize // 4:
        return False
    available_bytes = available_memory()
    return available_bytes is None or available_bytes - more_bytes >= SPARE_BYTES
