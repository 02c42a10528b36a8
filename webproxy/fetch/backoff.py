"""PURE: when to retry an origin."""

from __future__ import annotations

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


def pause_before_try(number: int, jitter: float) -> float:
    """Seconds to wait before try `number` (the first try is 0): doubled each time, up to a ceiling, with jitter.

    `jitter` in [0, 1) spreads it between half and the whole, so that many clients do not return at the same time.
    """
    if number <= 0:
        return 0.0
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(number - 1, 32))
    return pause * (0.5 + jitter / 2)
