"""create_block(): a new block of shared memory under a name, with all of its memory taken at once.

create_sparse_block(): one whose memory is taken bit by bit. What was not taken must not be touched, not even read: the
system would take it then, and end the process (SIGBUS) if there is none.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import ExitStack

import posix_ipc

from shmchannel.errors import os_errors
from shmchannel.process.reaper import unlink_memory


def create_block(what: str, ipc_name: str, block_bytes: int, undo: ExitStack) -> mmap.mmap:
    """Make and map a block of zeros that nobody has yet, mode 0600; `undo` gets the removal of its name.

    `what` it is goes into the error.

    Raises:
        NameTaken, LimitReached, AccessDenied: the system refused; the name is removed by `undo` if it was made.
    """
    with os_errors(f"create {what}", existential=errno.EEXIST):
        memory = posix_ipc.SharedMemory(ipc_name, posix_ipc.O_CREX, mode=0o600, size=0)
        undo.callback(unlink_memory, ipc_name)
        try:
            os.posix_fallocate(memory.fd, 0, block_bytes)  # a full /dev/shm says so here, not by SIGBUS later
            return mmap.mmap(memory.fd, block_bytes)
        finally:
            memory.close_fd()


def create_sparse_block(
    what: str, ipc_name: str, block_bytes: int, taken_bytes: int, undo: ExitStack
) -> tuple[mmap.mmap, int]:
    """As create_block(), but only the first `taken_bytes` are taken; returns the block and a descriptor for take().

    The descriptor is the caller's.
    """
    with os_errors(f"create {what}", existential=errno.EEXIST):
        memory = posix_ipc.SharedMemory(ipc_name, posix_ipc.O_CREX, mode=0o600, size=0)
        undo.callback(unlink_memory, ipc_name)
        try:
            os.posix_fallocate(memory.fd, 0, taken_bytes)
            os.ftruncate(memory.fd, block_bytes)
            return mmap.mmap(memory.fd, block_bytes), os.dup(memory.fd)
        finally:
            memory.close_fd()


def take(fd: int, start: int, size_bytes: int) -> bool:
    """Take more of the memory of a sparse block; False if the system has none."""
    try:
        os.posix_fallocate(fd, start, size_bytes)
    except OSError:
        return False
    return True
