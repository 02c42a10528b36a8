"""The limits the kernel sets for this process."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_file_limit() -> None:
    """Raise the soft limit on open descriptors to the hard limit; if refused, it stays as it was.

    Every connection and every segment needs a descriptor. The usual soft limit of 1,024 protects programs that use
    `select`, which these do not.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
