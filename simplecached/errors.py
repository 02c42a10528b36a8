"""Exceptions of the cache daemon.

Each keeps its details as fields and builds its text from them, so that log lines, tests and the command line agree.
``hint`` says what the operator can do. A miss is a value (``None``), never an exception.
"""

from __future__ import annotations

import errno as errno_codes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINTS = {
    errno_codes.ENOSPC: "free some space there, or give the store a smaller byte budget",
    errno_codes.EDQUOT: "the disk quota is used up: raise it, or give the store a smaller byte budget",
    errno_codes.EFBIG: "the file size limit is reached: raise it (ulimit -f, LimitFSIZE=)",
    errno_codes.EROFS: "the file system is read-only: remount it, or name another directory",
    errno_codes.EACCES: "the user of this process needs read and write access there",
    errno_codes.EPERM: "the user of this process needs read and write access there",
    errno_codes.EIO: "the device reports errors: check the kernel log",
    errno_codes.EMFILE: "this process has no descriptor left: raise the limit (ulimit -n, LimitNOFILE=)",
    errno_codes.ENFILE: "the system has no descriptor left: raise fs.file-max",
    errno_codes.ENOMEM: "the system is out of memory: give the store a smaller byte budget",
    errno_codes.ESHUTDOWN: "the store is closed; the next start serves later requests",
}


class SimpleCachedError(Exception):
    """Base of all errors of the daemon."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(f"{text}; {hint}" if hint else text)
        self.hint = hint


class ConfigError(SimpleCachedError):
    """The operator's setting cannot be used."""


class StartupError(SimpleCachedError):
    """The daemon cannot start, although its settings are well formed."""


class NotStored(SimpleCachedError):
    """The store refuses an object: too large, no room beside what is pinned, or another length than announced."""


class StoreUnavailable(SimpleCachedError):
    """The medium fails: full, read-only, broken, or out of descriptors. Stored objects may still be readable."""

    def __init__(self, action: str, path: str, errno: int) -> None:
        name = errno_codes.errorcode.get(errno, str(errno))
        super().__init__(f"cannot {action} {path}: {os.strerror(errno)} ({name})", hint=_HINTS.get(errno, ""))
        self.action = action
        self.path = path
        self.errno = errno


@contextmanager
def store_errors(action: str, path: str) -> Iterator[None]:
    """Translate an OSError of the body into StoreUnavailable, naming operation and path."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(action, path, error.errno or errno_codes.EIO) from error


@contextmanager
def startup_errors(action: str, path: str) -> Iterator[None]:
    """Translate an OSError of the body into StartupError, naming operation and path."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise StartupError(f"cannot {action} {path}: {error.strerror or error}", hint=hint) from error
