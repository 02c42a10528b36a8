"""Kill points: named steps of the protocol at which a test can kill or stop the process.

Off unless the environment names one: GFCACHE_FAULT=<point>[:<n-th pass>][:kill|stop|exit]. When off, a kill point costs
one test of a module variable. docs/recovery.md has a row for each point; a test compares the two lists.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading

KILL_POINTS = (
    "proxy.leased",  # segments prepared, command not sent
    "proxy.sent",  # command sent, nothing received
    "proxy.received",  # first chunk taken, nothing sent to the client
    "proxy.posted",  # space given back in mid-stream
    "proxy.completed",  # last chunk taken, lease not yet given back
    "proxy.retired",  # old segment unlinked, its replacement not made
    "proxy.fill_chunk",  # a chunk of a fill handed over
    "proxy.fill_last",  # last chunk of a fill handed over, not acknowledged
    "cache.received",  # command taken from the queue
    "cache.attached",  # segments mapped and checked
    "cache.first_chunk",  # first chunk posted
    "cache.streaming",  # a later chunk filled, not posted
    "cache.last_chunk",  # last chunk posted
    "cache.publishing",  # an object half on the hot table
    "cache.withdrawing",  # an object half off the hot table
    "cache.put_begun",  # fill accepted, nothing stored
    "cache.put_chunk",  # a chunk of a fill stored
    "cache.put_uncommitted",  # all of a fill stored, not committed
    "cache.put_committed",  # committed, not acknowledged
    "cache.update_uncommitted",  # new metadata taken, not stored
)


def _parse(value: str) -> tuple[str, int, str]:
    point, _, rest = value.partition(":")
    number, _, action = rest.partition(":")
    return point, int(number or 1), action or "kill"


_point, _pass, _action = _parse(os.environ.get("GFCACHE_FAULT", ""))
ARMED = _point in KILL_POINTS
_passes = itertools.count(1)


def reach(point: str) -> None:
    """The process has reached `point`; call it only `if faults.ARMED`."""
    if point != _point or next(_passes) != _pass:
        return
    if _action == "exit":
        os._exit(99)
    # To this very thread: a signal to the process may stop another one first, and this one would take a few more steps.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if _action == "stop" else signal.SIGKILL)
