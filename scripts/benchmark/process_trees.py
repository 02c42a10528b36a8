"""CPU time and memory of processes together with all processes below them: what a program with workers takes."""

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psutil

_libc = ctypes.CDLL(None)


def cpu_time_s(pids: Sequence[int]) -> float:
    """The CPU time that these processes and those below them have used, to the nanosecond. Raises psutil.Error."""
    return sum(_cpu_time_s(process.pid) for process in _with_children(pids))


def pss_mb(pids: Sequence[int]) -> float:
    """Their proportional set size in megabytes (10^6 bytes): a page that n processes map counts 1/n for each.

    Raises:
        psutil.Error: one of the first is gone, or not this user's.
    """
    return sum(float(process.memory_full_info().pss) for process in _with_children(pids)) / 1e6


def _with_children(pids: Sequence[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)


def _cpu_time_s(pid: int) -> float:
    """By its clock: /proc/PID/stat counts in hundredths of a second. 0 for a process that has ended."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) == 0:
        with suppress(OSError):
            return time.clock_gettime(clock.value)
    return 0.0
