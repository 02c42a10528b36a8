"""Waiting for conditions: tests never sleep for a fixed time and never judge how long something took."""

import time
from collections.abc import Callable
from typing import TypeVar

WATCHDOG_S = 30.0
WATCHDOG_MS = 30_000
"""Far above what anything here takes: it only ends a test that would hang."""

_LOOK_AGAIN_S = 0.005
_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], watchdog_s: float = WATCHDOG_S, *, what: str = "the condition") -> _T:
    """Return the first true value of `condition()`; fail the test when none came before the watchdog."""
    give_up = time.monotonic() + watchdog_s
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come true within {watchdog_s:.0f} s")
        time.sleep(_LOOK_AGAIN_S)
    return value
