"""Sets up the log of a daemon: standard `logging`, one line per event, facts as fields.

    log.info("exchange done", extra={"outcome": "hit", "sent_bytes": 8192})

Modules log through `logging.getLogger(__name__)` and know nothing of this file; `run_daemon` calls `configure` once.
How an event looks is decided here and in `log_lines`, whatever the modules pass.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Any, TextIO

from shmchannel.daemonkit.log_limit import TRACEBACKS, LineLimit
from shmchannel.daemonkit.log_lines import (
    RESERVED_NAMES,
    console_line,
    field_name,
    field_value,
    id_text,
    without_queries,
)

_PLAIN_RECORD_NAMES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogLevel(StrEnum):
    """The lowest level of events that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogForm(StrEnum):
    """The format of an event: text for people, or one JSON object."""

    CONSOLE = "console"
    JSON = "json"


class _Subject(threading.local):
    request = b""


_subject = _Subject()


class About:
    """Have each event that this thread logs in the block say in `request` which request it is about.

    Entered for each request and each command, whether anything is logged or not: so it keeps bytes, which become text
    when there is an event (log_lines.id_text).
    """

    __slots__ = ("_before", "_request")

    def __init__(self, request: bytes) -> None:
        """None if it is empty."""
        self._request = request
        self._before = b""

    def __enter__(self) -> None:
        self._before, _subject.request = _subject.request, self._request

    def __exit__(self, *_: object) -> None:
        _subject.request = self._before


about = About
"""Reads better: `with about(request_id): ...`."""


def subject() -> bytes:
    """The request that events of this thread are about now, for who continues it in another thread; empty if none."""
    return _subject.request


class _DaemonHandler(logging.StreamHandler[TextIO]):
    """The handler that `configure` installs; its type lets the next call find and replace it."""


class _LimitFilter(logging.Filter):
    """Leaves out what a LineLimit does not admit; debug events, and changes of state, are not limited."""

    def __init__(self, period_s: float, unlimited: AbstractSet[str]) -> None:
        super().__init__()
        self._limit = LineLimit(period_s)
        self._unlimited = unlimited
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """As logging.Filter.filter(): the line of an event tells how many like it were left out before."""
        if record.levelno <= logging.DEBUG or record.msg in self._unlimited:
            return True
        lines = TRACEBACKS if record.exc_info else 1
        with self._lock:
            suppressed = self._limit.admit(record.msg, getattr(record, "kind", None), monotonic(), lines=lines)
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None

    def rest(self) -> dict[str, int]:
        """As LineLimit.rest()."""
        with self._lock:
            return self._limit.rest()


def configure(
    level: str,
    *,
    prog: str,
    form: str = LogForm.CONSOLE,
    stream: TextIO | None = None,
    limit_s: float = 0.0,
    unlimited: AbstractSet[str] = frozenset(),
) -> logging.Handler:
    """Write all events of the process at or above `level` to a stream, and return the handler.

    `level` and `form` are values of `LogLevel` and `LogForm`; anything else raises `ValueError`. The stream defaults
    to the error stream and is never closed here. Of equal events one is written in `limit_s` seconds, and all of those
    in `unlimited`. May be called again to change all this. Other handlers on the root logger are left alone.
    """
    number = logging.getLevelNamesMapping()[LogLevel(level).name]
    handler = _DaemonHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_LineFormatter(prog, LogForm(form)))
    handler.addFilter(_LimitFilter(limit_s, unlimited))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _DaemonHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(number)
    return handler


def suppressed() -> dict[str, int]:
    """How many lines of each event were left out since a line said so."""
    filters = [one for handler in logging.getLogger().handlers for one in handler.filters]
    return {event: count for one in filters if isinstance(one, _LimitFilter) for event, count in one.rest().items()}


class _LineFormatter(logging.Formatter):
    """Formats an event as one line, as text or JSON."""

    def __init__(self, prog: str, form: LogForm) -> None:
        super().__init__()
        self._prog = prog
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return the event as one line."""
        event = describe(record, self._prog, record.getMessage())
        return json.dumps(event, default=str) if self._form is LogForm.JSON else console_line(event)


def describe(record: logging.LogRecord, prog: str, text: str) -> dict[str, Any]:
    """Return the fields of an event in the order they are written: head, facts, exception."""
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    event: dict[str, Any] = {
        "timestamp": moment.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "prog": prog,
        "pid": record.process or os.getpid(),
        "logger": record.name,
        "event": without_queries(text),
    }
    if _subject.request:
        event["request"] = id_text(_subject.request)
    for name, value in vars(record).items():
        if name not in _PLAIN_RECORD_NAMES:
            event[f"{name}_" if name in RESERVED_NAMES else field_name(name)] = field_value(value)
    if record.exc_info and record.exc_info[0] is not None:
        event["exception"] = without_queries(logging.Formatter().formatException(record.exc_info))
    if record.stack_info:
        event["stack"] = record.stack_info
    return event
