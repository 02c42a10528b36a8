"""What the kernel allows this process, and what the process takes."""

from __future__ import annotations

import resource
from typing import NamedTuple


class FileLimit(NamedTuple):
    """How many descriptors the process may have open: before and after `raise_file_limit`."""

    before: int
    after: int


def raise_file_limit() -> FileLimit:
    """Raise the soft limit of open descriptors to the hard one, and return both; a refusal leaves it as it was.

    Every connection and every segment costs a descriptor, and the usual soft limit of 1,024 is there for programs
    that use `select`, which ours do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return FileLimit(before=soft, after=soft)
    return FileLimit(before=soft, after=hard)


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM now, shared pages included, in bytes.

    Raises `OSError` where `/proc` is not to be had.
    """
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
