"""Making data durable: of one file, or of a whole file system at once, for which Python has no function."""

import ctypes
import os

_syncfs = ctypes.CDLL(None, use_errno=True).syncfs


def sync_all(directory: str) -> None:
    """Make durable all that was written to the file system of a directory; blocks for the disk, raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        if _syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)


def sync_file(path: str) -> None:
    """Make the data of one file durable, if it is still there; blocks for the disk, raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
