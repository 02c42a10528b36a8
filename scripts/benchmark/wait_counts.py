"""Counts how often processes wait or wake each other: futex calls by perf, context switches where it may not count.

perf counts in the kernel, and slows what it counts by little; a counted run is still one of its own, beside the rounds
that are timed.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

_EVENT = "syscalls:sys_enter_futex"
_SWITCHES = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")


@dataclass(frozen=True, slots=True)
class WaitCounter:
    """`perf` is the program, None if it is missing or may not count futex calls here; `output` its report's path."""

    perf: str | None
    output: str

    @property
    def unit(self) -> str:
        """What is counted."""
        return "futex calls" if self.perf else "context switches"

    def count(self, pids: Sequence[int], run: Callable[[Sequence[str]], int]) -> float | None:
        """The count for each request while `run` works; it gets a command to work under, and returns its requests.

        The processes below `pids` count too. None: perf could not count. Blocks as `run` does, and raises its errors.
        """
        everyone = family(pids)
        if self.perf is None:
            before = _switches(everyone)
            requests = run(())
            return (_switches(everyone) - before) / requests
        requests = run(_perf_command(self.perf, self.output, everyone))
        with suppress(OSError), open(self.output, encoding="utf-8") as file:
            counted = count_in(file.read())
            return None if counted is None else counted / requests
        return None


def usable_counter(directory: str) -> WaitCounter:
    """Find out whether perf may count futex calls of processes of this user. Blocks for a moment."""
    perf, output = shutil.which("perf"), os.path.join(directory, "perf.csv")
    if perf is not None:
        # A process that sleeps would not be counted, so it is asked about its own child.
        command = [*_perf_command(perf, output), "true"]
        with suppress(OSError, subprocess.TimeoutExpired):
            result = subprocess.run(command, check=False, capture_output=True, timeout=30)
            with open(output, encoding="utf-8") as file:
                if result.returncode == 0 and count_in(file.read()) is not None:
                    return WaitCounter(perf, output)
    return WaitCounter(None, output)


def count_in(csv: str) -> int | None:
    """PURE: the count in what `perf stat -x,` writes; None if there is none."""
    for line in csv.splitlines():
        cells = line.split(",")
        if len(cells) > 2 and cells[2].startswith(_EVENT) and cells[0].isdigit():
            return int(cells[0])
    return None


def switches_in(status: str) -> int:
    """PURE: the context switches of one thread, from its /proc/.../status."""
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(_SWITCHES))


def family(pids: Sequence[int]) -> list[int]:
    """These processes and all below them. Raises psutil.Error if one of the first is gone."""
    below = (child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True))
    return [*pids, *below]


def _perf_command(perf: str, output: str, pids: Sequence[int] = ()) -> list[str]:
    of = ["-p", ",".join(map(str, pids))] if pids else []
    return [perf, "stat", "-x", ",", "-o", output, "-e", _EVENT, *of, "--"]


def _switches(pids: Sequence[int]) -> int:
    """Of all threads that live now; one that ends takes its own along."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8") as file:
                    total += switches_in(file.read())
    return total
