"""open_beneath: open a file below a directory so that no name, link or race leads out of it.

The kernel decides (``openat2``), because a check of the string sees neither symbolic links nor later changes. If the
kernel lacks the call, or a sandbox forbids it, the path is walked component by component, each opened relative to the
one before without following links.
"""

from __future__ import annotations

import ctypes
import errno
import os

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

# O_NONBLOCK: opening a named pipe must not wait for its writer. O_NOCTTY: a terminal must not become ours.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_EAGAIN_RETRIES = 32


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(READ_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS)
# CDLL instead of PyDLL: resolving a path may wait for a disk, so the GIL is released.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def open_beneath(root_fd: int, path: bytes) -> int:
    """Open a path relative to the directory ``root_fd`` for reading and return the descriptor, which the caller owns.

    Neither ``..`` nor symbolic links are allowed in any component, so that each file has exactly one name. The result
    may be anything (a directory, a pipe), which the caller checks. Raises OSError; EXDEV or ELOOP means that the path
    tried to leave.
    """
    if b"\0" in path:
        raise OSError(errno.EINVAL, "NUL in the path")  # ctypes would cut the string there
    if b".." in path.split(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    for _ in range(_EAGAIN_RETRIES):
        try:
            return openat2(root_fd, path)
        except OSError as error:
            if error.errno in {errno.ENOSYS, errno.EPERM}:  # EPERM: older sandboxes; the walk does not need the call
                return walk_beneath(root_fd, path)
            if error.errno != errno.EAGAIN:  # EAGAIN: something was renamed during the lookup
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def openat2(root_fd: int, path: bytes) -> int:
    """Do it by the kernel's own call, once; raises OSError, EAGAIN when something was renamed while it looked."""
    fd: int = _syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(root_fd),
        ctypes.c_char_p(path),
        ctypes.byref(_HOW),
        ctypes.c_size_t(ctypes.sizeof(_HOW)),
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def walk_beneath(root_fd: int, path: bytes) -> int:
    """open_beneath without ``openat2``: same rules, same errors, one system call per component."""
    if path.startswith(b"/") or b".." in path.split(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    names = [name for name in path.split(b"/") if name not in {b"", b"."}]
    last = names.pop() if names else b"."
    flags = READ_FLAGS | os.O_NOFOLLOW
    if path.endswith((b"/", b"/.")):
        flags |= os.O_DIRECTORY
    folder_fd = root_fd
    try:
        for name in names:
            next_fd = os.open(name, _FOLDER_FLAGS, dir_fd=folder_fd)
            if folder_fd != root_fd:
                os.close(folder_fd)
            folder_fd = next_fd
        return os.open(last, flags, dir_fd=folder_fd)
    finally:
        if folder_fd != root_fd:
            os.close(folder_fd)
