"""Exit codes of the programs: one list, from which the table in `docs/operations.md` is made. PURE.

The values are those of `sysexits.h` where one fits, so that a service manager's log reads right.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(IntEnum):
    """How a program ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_START = 69
    SOFTWARE = 70
    LOCK_HELD = 73
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """What it tells the operator, in one line."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done: stopped when asked, or the settings were only checked",
    ExitCode.FAILED: "some of the work asked for failed; the rest was done",
    ExitCode.USAGE: "a flag, a variable, the file or a path that one names was refused: correct it, then start again",
    ExitCode.CANNOT_START: "something needed at the start is not to be had: a port, the store, shared memory",
    ExitCode.SOFTWARE: "an error of the program itself; the log has the details",
    ExitCode.LOCK_HELD: "another live process, which the message names, or another user's queue has the queue name",
    ExitCode.INTERRUPTED: "stopped before the running requests had ended: a second signal, or the drain limit",
}


def exit_code_of(error: BaseException, codes: Mapping[type[Exception], ExitCode]) -> ExitCode:
    """Return the code that `codes` has for the error or its nearest base class, SOFTWARE when it has none."""
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), ExitCode.SOFTWARE)


def exit_codes_table() -> str:
    """Return a Markdown table of the exit codes."""
    rows = [f"| {code.value} | {code.name} | {code.meaning} |\n" for code in ExitCode]
    return "".join(["| code | name | meaning |\n", "| --- | --- | --- |\n", *rows])
