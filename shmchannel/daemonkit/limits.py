"""The limits the kernel sets for this process, and what the process uses."""

from __future__ import annotations

import resource
from typing import NamedTuple


class FileLimit(NamedTuple):
    """The limit on open descriptors before and after `raise_file_limit`."""

    before: int
    after: int


def raise_file_limit() -> FileLimit:
    """Raise the soft limit on open descriptors to the hard limit, and return both; if refused, it stays as it was.

    Every connection and every segment needs a descriptor. The usual soft limit of 1,024 protects programs that use
    `select`, which these do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return FileLimit(before=soft, after=soft)
    return FileLimit(before=soft, after=hard)
