"""Stand-ins for calls that fail."""

import os
from collections.abc import Callable
from typing import Any


def failing(error: BaseException) -> Callable[..., Any]:
    """A function that takes any arguments and raises this error."""

    def fail(*_arguments: object, **_named: object) -> None:
        raise error.with_traceback(None)  # else each call would add its frames to those of the one before

    return fail


def refusing(code: int) -> Callable[..., Any]:
    """A system call that fails with this number of `errno`."""
    return failing(OSError(code, os.strerror(code)))
