"""Handlers of requests for unit tests, with patience for a busy machine and in a process that does not stop."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.support.streams import NO_LIMIT, source_of
from tests.support.waiting import WATCHDOG_S
from webproxy.exchange.context import Timeouts
from webproxy.exchange.getfile_request import Fetches, GetfileRequestHandler, Variants
from webproxy.fetch.spool import SpoolReader
from webproxy.getfile import Wire
from webproxy.store.cache_client import NoStore, Store
from webproxy.store.lookup import StoredHit
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport.client_stream import Shutdown

TIMEOUTS = Timeouts(
    cache_s=WATCHDOG_S, cache_first_byte_s=2.0, request_s=WATCHDOG_S, keepalive_s=WATCHDOG_S, client=NO_LIMIT
)


class OneVariant:
    """Finds this one for every key; `expected`: it is looked for before the key is."""

    def __init__(self, found: Callable[[], StoredHit | None], *, expected: bool) -> None:
        self._found = found
        self._expected = expected

    def expects(self, key: bytes) -> bool:
        """As Variants.expects()."""
        return self._expected

    def find(self, key: bytes, wait_s: float) -> StoredHit | None:
        """As Variants.find()."""
        return self._found()


class ScriptedFetches:
    """As Fetches: each open() does the next of what the test says."""

    def __init__(self, *opens: Callable[[], SpoolReader | None], nobody_has: bytes | None = None) -> None:
        self._opens = list(opens)
        self._nobody_has = nobody_has
        self.asked: list[bytes] = []

    def has_origin(self, key: bytes) -> bool:
        """As Fetches.has_origin(): for all keys but the one that nobody has."""
        return key != self._nobody_has

    def open(self, key: bytes, missed_at: float = math.inf) -> SpoolReader | None:
        """As Fetches.open()."""
        self.asked.append(key)
        return self._opens.pop(0)()


class NoOrigin:
    """As Fetches: there is nobody to ask."""

    def has_origin(self, key: bytes) -> bool:
        """For no key."""
        return False

    def open(self, key: bytes, missed_at: float = math.inf) -> SpoolReader | None:
        """Nobody asks for what has no origin."""
        raise AssertionError(key)


def getfile_handler(
    store: Store | None = None,
    fetches: Fetches | None = None,
    *,
    wire: Wire = Wire.CRLF,
    variants: Variants | None = None,
) -> GetfileRequestHandler:
    """One without anybody who waits for its workers; nobody has anything unless the test says so."""
    return GetfileRequestHandler(
        source_of(store or NoStore()),
        variants or OneVariant(lambda: None, expected=False),
        fetches or NoOrigin(),
        wire,
        NO_LIMIT,
        Shutdown(),
        LatencyBreakdown(enabled=False),
    )
