"""Unique identity of a process: pid, start time and boot id (a pid alone is reused after 32,768 others)."""

from __future__ import annotations

import os
from typing import NamedTuple

_STARTTIME_FIELD = 22  # proc_pid_stat(5)


class ProcessIdentity(NamedTuple):
    """A process for good: a pid alone comes back."""

    pid: int
    start_time: int
    boot_id: int


def start_time_of(pid: int) -> int | None:
    """Start time of `pid` in clock ticks since boot (field 22 of /proc/PID/stat); None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            text = stat.read()
    except OSError:
        return None
    # The command name may contain spaces and parentheses: count fields after the last parenthesis.
    return int(text[text.rindex(b")") + 2 :].split()[_STARTTIME_FIELD - 3])


def boot_id() -> int:
    """The kernel's random id of this boot, 128 bits."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return int(file.read().strip().replace("-", ""), 16)


def own_identity() -> ProcessIdentity:
    """The identity of this process, read anew at each call (a fork changes it)."""
    pid = os.getpid()
    return ProcessIdentity(pid, start_time_of(pid) or 0, boot_id())
