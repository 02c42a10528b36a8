"""Handlers of requests for unit tests, with patience for a busy machine and in a process that does not stop."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.streams import NO_LIMIT, source_of
from tests.support.waiting import WATCHDOG_S
from webproxy.exchange.context import Timeouts
from webproxy.exchange.getfile_request import GetfileRequestHandler
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.getfile import Wire
from webproxy.store.getfile_variants import GetfileVariants
from webproxy.store.lookup import StoredHit
from webproxy.store.store import NoStore, Store
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport.shutdown import Shutdown

TIMEOUTS = Timeouts(
    cache_s=WATCHDOG_S, cache_first_byte_s=2.0, request_s=WATCHDOG_S, keepalive_s=WATCHDOG_S, client=NO_LIMIT
)


class OneVariant(GetfileVariants):
    """Finds this one for every key; `expected`: it is looked for before the key is."""

    def __init__(self, found: Callable[[], StoredHit | None], *, expected: bool) -> None:
        self._found = found
        self._expected = expected

    def expects(self, key: bytes) -> bool:
        return self._expected

    def find(self, key: bytes, wait_s: float) -> StoredHit | None:
        return self._found()


class NoOrigin(GetfileFetches):
    """Fetches of which no origin has anything."""

    def __init__(self) -> None:
        pass

    def has_origin(self, key: bytes) -> bool:
        return False


def getfile_handler(
    store: Store | None = None,
    fetches: GetfileFetches | None = None,
    *,
    wire: Wire = Wire.CRLF,
    variants: GetfileVariants | None = None,
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
