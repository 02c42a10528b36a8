"""Handlers of requests for unit tests, with patience for a busy machine and in a process that does not stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from shmchannel.objects.commands import FetchLease
from tests.support.scripted_origin import ScriptedOrigin
from tests.support.streams import NO_LIMIT, source_of
from tests.support.waiting import WATCHDOG_S
from webproxy.exchange.getfile_request import GetfileRequestHandler
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.fetch.spool import SpoolReader
from webproxy.getfile import Wire
from webproxy.origin.routing import OriginRule, Target
from webproxy.serving.http1_server import ConnectionLimits
from webproxy.store.getfile_objects import GetfileVariants
from webproxy.store.lookup import StoredHit
from webproxy.store.store import NoStore, Store
from webproxy.telemetry.requests import RequestObserver
from webproxy.telemetry.step_times import LatencyBreakdown

LIMITS = ConnectionLimits(
    head_bytes=8192, request_s=WATCHDOG_S, keepalive_s=WATCHDOG_S, client=NO_LIMIT, connections=10, staying=0
)
"""No worker waits for a connection's next request: the test is the worker."""


class OneVariant:
    """Finds this one for every key; `expected`: it is looked for before the key is."""

    def __init__(self, found: Callable[[], StoredHit | None], *, expected: bool) -> None:
        self._found = found
        self._expected = expected

    def expects(self, key: bytes) -> bool:
        """As GetfileVariants.expects()."""
        return self._expected

    def find(self, key: bytes, wait_s: float) -> StoredHit | None:
        """As GetfileVariants.find()."""
        return self._found()


class ScriptedFetches:
    """As GetfileFetches: each open() does the next of what the test says."""

    def __init__(self, *opens: Callable[[], SpoolReader | None], nobody_has: bytes | None = None) -> None:
        self._opens = list(opens)
        self._nobody_has = nobody_has
        self.asked: list[bytes] = []

    def target(self, key: bytes) -> Target:
        """As GetfileFetches.target()."""
        rule = OriginRule(url="http://o") if self.has_origin(key) else None
        return Target(key, rule, "http://o", key, key)

    def has_origin(self, key: bytes) -> bool:
        """As GetfileFetches.has_origin(): for all keys but the one that nobody has."""
        return key != self._nobody_has

    def asking(self, _key: bytes) -> None:
        """Nobody else fetches."""

    def open(self, key: bytes, missed_at: float = math.inf, lease: FetchLease | None = None) -> SpoolReader | None:
        """As GetfileFetches.open()."""
        self.asked.append(key)
        return self._opens.pop(0)()


class NoOrigin:
    """As GetfileFetches: there is nobody to ask."""

    def target(self, key: bytes) -> Target:
        """As GetfileFetches.target()."""
        return Target(key, None, "", key, key)

    def has_origin(self, key: bytes) -> bool:
        """For no key."""
        return False

    def asking(self, _key: bytes) -> None:
        """Nobody else fetches."""

    def open(self, key: bytes, missed_at: float = math.inf, lease: FetchLease | None = None) -> SpoolReader | None:
        """Nobody asks for what has no origin."""
        raise AssertionError(key)


def getfile_handler(
    store: Store | None = None,
    fetches: ScriptedFetches | None = None,
    *,
    wire: Wire = Wire.CRLF,
    variants: OneVariant | None = None,
    origin: ScriptedOrigin | None = None,
    observers: Sequence[RequestObserver] = (),
) -> GetfileRequestHandler:
    """One without anybody who waits for its workers; nobody has anything unless the test says so."""
    return GetfileRequestHandler(
        source_of(store or NoStore()),
        cast("GetfileVariants", variants or OneVariant(lambda: None, expected=False)),
        cast("GetfileFetches", fetches or NoOrigin()),
        (origin or ScriptedOrigin()).rest(),
        wire,
        NO_LIMIT,
        LatencyBreakdown(enabled=False),
        observers,
    )
