"""A process that belongs to another: it ends with it, and has a name of its own in `ps` and `top`."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


def end_with(parent_pid: int) -> bool:
    """Have the kernel send SIGTERM to this process when its parent ends; return False if it has ended already.

    The parent is the thread that started this process: it must be one that lives as long as its process.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent_pid


def name_process(name: str) -> None:
    """Name this process, at most 15 octets of it, where `ps -o comm` and `top` show one."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
