"""Unique identity of a process: pid, start time and boot id (a pid alone is reused after 32,768 others)."""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple
from uuid import UUID

_STARTTIME_FIELD = 22  # proc_pid_stat(5)


class ProcessIdentity(NamedTuple):
    """A process for good: a pid alone comes back."""

    pid: int
    start_time: int
    boot_id: int


def start_time_in(stat: bytes) -> int:
    """The start time in clock ticks since boot, from the text of /proc/PID/stat (field 22)."""
    # The command name may contain spaces and parentheses: count fields after the last parenthesis.
    return int(stat[stat.rindex(b")") + 2 :].split()[_STARTTIME_FIELD - 3])


def own_identity() -> ProcessIdentity:
    """The identity of this process, read anew at each call (a fork changes it)."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = UUID(file.read().strip())
    return ProcessIdentity(os.getpid(), start_time_in(stat), boot_id.int)


def user_text(uid: int) -> str:
    """A user for messages: `alice (uid 1000)`, or `uid 1000` for one without a name."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
