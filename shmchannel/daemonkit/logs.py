"""Sets up the log of a daemon: standard `logging`, one line an event, facts as fields.

    log.info("exchange done", extra={"outcome": "hit", "sent_bytes": 8192})

Modules log by `logging.getLogger(__name__)` and know nothing of this file; a daemon's `main` calls `configure`
once, and `RateLimited` is for events that could come with every request.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from shmchannel.daemonkit.log_lines import RESERVED_NAMES, console_line, field_name, field_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PLAIN_RECORD_NAMES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_EVENTS_MAX = 256
_OTHER_EVENTS = "other events"


class LogLevel(StrEnum):
    """From which importance on events are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogForm(StrEnum):
    """How an event is written: for people, or as one JSON object."""

    CONSOLE = "console"
    JSON = "json"


class _DaemonHandler(logging.StreamHandler[TextIO]):
    """The handler `configure` puts in place, known by its type so that the next call replaces it."""


def configure(level: str, *, prog: str, form: str = LogForm.CONSOLE, stream: TextIO | None = None) -> logging.Handler:
    """Send every event of the process from `level` on to a stream, and return the handler.

    `level` and `form` are values of `LogLevel` and `LogForm`; anything else is a `ValueError`. The stream is the
    error stream unless given, and stays its owner's. May be called again to change level and form. Handlers that
    others put on the root logger stay.
    """
    number = logging.getLevelNamesMapping()[LogLevel(level).name]
    handler = _DaemonHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_LineFormatter(prog, LogForm(form)))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _DaemonHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(number)
    return handler


class _LineFormatter(logging.Formatter):
    """Writes an event in one line, in the form that was asked for."""

    def __init__(self, prog: str, form: LogForm) -> None:
        super().__init__()
        self._prog = prog
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of an event."""
        event = describe(record, self._prog, record.getMessage())
        return json.dumps(event, default=str) if self._form is LogForm.JSON else console_line(event)


def describe(record: logging.LogRecord, prog: str, text: str) -> dict[str, Any]:
    """Return what there is to tell of an event, in the order it is told: its head, its facts, its exception."""
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    event: dict[str, Any] = {
        "timestamp": moment.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "prog": prog,
        "pid": record.process or os.getpid(),
        "logger": record.name,
        "event": text,
    }
    for name, value in vars(record).items():
        if name not in _PLAIN_RECORD_NAMES:
            event[f"{name}_" if name in RESERVED_NAMES else field_name(name)] = field_value(value)
    if record.exc_info and record.exc_info[0] is not None:
        event["exception"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        event["stack"] = record.stack_info
    return event


@dataclass(slots=True)
class _Allowance:
    """When an event may be logged again, and how often it was left out since it was."""

    level: int
    next_s: float
    suppressed_count: int = 0


class RateLimited:
    """Logs an event at most once in an interval; the next line then tells how many were left out.

    Events are told apart by their text, so what differs from one to the next belongs in `extra`. Thread-safe.
    """

    def __init__(
        self, logger: logging.Logger, interval_s: float = 60.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._allowances: dict[str, _Allowance] = {}

    def log(self, level: int, event: str, extra: Mapping[str, object] | None = None) -> bool:
        """Log the event unless it was logged within the interval; tell whether it was."""
        suppressed_count = self._admit(level, event, self._clock())
        if suppressed_count is None:
            return False
        counted = {"suppressed_count": suppressed_count} if suppressed_count else {}
        self._logger.log(level, event, extra={**(extra or {}), **counted}, stacklevel=2)
        return True

    def flush(self) -> None:
        """Log the count of each event that was left out and not told of yet: for the end of a daemon."""
        for event, level, suppressed_count in self._take_suppressed():
            self._logger.log(level, event, extra={"suppressed_count": suppressed_count}, stacklevel=2)

    def _admit(self, level: int, event: str, now_s: float) -> int | None:
        """Return how often the event was left out before, or None when it is to be left out now."""
        with self._lock:
            # A text that varies would fill the memory: past the bound all new texts share one allowance.
            key = event if event in self._allowances or len(self._allowances) < _EVENTS_MAX else _OTHER_EVENTS
            allowance = self._allowances.get(key)
            if allowance is not None and now_s < allowance.next_s:
                allowance.suppressed_count += 1
                return None
            self._allowances[key] = _Allowance(level, now_s + self._interval_s)
            return allowance.suppressed_count if allowance is not None else 0

    def _take_suppressed(self) -> list[tuple[str, int, int]]:
        taken = []
        with self._lock:
            for event, allowance in self._allowances.items():
                if allowance.suppressed_count:
                    taken.append((event, allowance.level, allowance.suppressed_count))
                    allowance.suppressed_count = 0
        return taken
