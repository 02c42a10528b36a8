"""Exit codes of the programs, and the table of them in `docs/operations.md`. PURE.

The values follow `sysexits.h` where it has one, so that a service manager's log shows the right name.
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
        """What the code tells the operator, in one line."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "success: stopped on request, or the settings were only checked",
    ExitCode.FAILED: "part of the requested work failed; the rest was done",
    ExitCode.USAGE: "a flag, variable, settings file, or a path in one of them was refused: correct it and start again",
    ExitCode.CANNOT_START: "a resource needed at the start is not available: a port, the store, shared memory",
    ExitCode.SOFTWARE: "internal error; the log has the details",
    ExitCode.LOCK_HELD: "the queue name is taken by a live process, which the message names, or by another user",
    ExitCode.INTERRUPTED: "stopped before running requests had finished: a second signal, or the drain limit",
}


def exit_code_of(error: BaseException, codes: Mapping[type[Exception], ExitCode]) -> ExitCode:
    """Return the code listed for the error's class or its nearest base class; SOFTWARE if none is listed."""
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), ExitCode.SOFTWARE)


def exit_codes_table() -> str:
    """Return a Markdown table of the exit codes."""
    rows = [f"| {code.value} | {code.name} | {code.meaning} |\n" for code in ExitCode]
    return "".join(["| code | name | meaning |\n", "| --- | --- | --- |\n", *rows])
