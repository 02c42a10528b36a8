"""Exit codes of the programs, and the table of them in `docs/operations.md`. PURE.

The values follow `sysexits.h` where it has one, so that a service manager's log shows the right name.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(IntEnum):
    """How a program ended; `meaning` is what that tells the operator, in one line."""

    meaning: str

    OK = 0, "success: stopped on request, or the settings were only checked"
    FAILED = 1, "part of the requested work failed; the rest was done"
    USAGE = 2, "a flag, variable, settings file, or a path in one of them was refused: correct it and start again"
    CANNOT_START = 69, "a resource needed at the start is not available: a port, the store, shared memory"
    SOFTWARE = 70, "internal error; the log has the details"
    LOCK_HELD = 73, "the queue name is taken by a live process, which the message names, or by another user"
    INTERRUPTED = 130, "stopped before running requests had finished: a second signal, or the drain limit"

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make the number a member of the enumeration, with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


def exit_code_of(error: BaseException, codes: Mapping[type[Exception], ExitCode]) -> ExitCode:
    """Return the code listed for the error's class or its nearest base class; SOFTWARE if none is listed."""
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), ExitCode.SOFTWARE)


def exit_codes_table() -> str:
    """Return a Markdown table of the exit codes."""
    rows = [f"| {code.value} | {code.name} | {code.meaning} |\n" for code in ExitCode]
    return "".join(["| code | name | meaning |\n", "| --- | --- | --- |\n", *rows])


def shown_status(status: int | None) -> str:
    """How a process ended, as `Popen.returncode` says it: an exit code, or the name of the signal that killed it."""
    if status is not None and status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return str(status)
