"""A sink that remembers what a driver of origin transfers gives it, and a client that waits for transfers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.waiting import WATCHDOG_S
from webproxy.errors import FetchAborted
from webproxy.http.fields import Fields
from webproxy.origin.driver import OriginDriver, Transfer
from webproxy.origin.health import HealthSettings
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.shares import ShareSettings


class CollectingSink:
    """Takes every body unless `wanted` says no."""

    def __init__(self, *, wanted: bool = True, break_with: Exception | None = None) -> None:
        self.interims: list[tuple[int, Fields]] = []
        self.responses: list[OriginResponse] = []
        self.body = b""
        self.transfer: Transfer | None = None
        self.outcome: OriginResponse | Exception | None = None
        self.has_ended = threading.Event()
        self._wanted = wanted
        self.break_with = break_with

    def interim(self, status: int, fields: Fields) -> None:
        """Note the early answer."""
        self.interims.append((status, fields))

    def begin(self, response: OriginResponse) -> bool:
        """Note the header."""
        self.responses.append(response)
        return self._wanted

    def write(self, data: bytes) -> bool:
        """Note the bytes, or break."""
        if self.break_with is not None:
            raise self.break_with
        self.body += data
        return True

    def tick(self) -> None:
        """As Sink.tick()."""

    def ended(self, outcome: OriginResponse | Exception) -> None:
        """Note the end."""
        self.outcome = outcome
        self.has_ended.set()

    def leave(self) -> None:
        """Nobody waits for it any longer."""
        assert self.transfer is not None
        self.transfer.cancel(FetchAborted("no reader left"))

    def wait(self) -> OriginResponse:
        """The head, once all of the response has come; raises what it ended with."""
        assert self.has_ended.wait(WATCHDOG_S)
        outcome, self.outcome = self.outcome, None
        self.has_ended.clear()
        if isinstance(outcome, Exception):
            try:
                raise outcome
            finally:
                del outcome
        assert outcome is not None
        return outcome


class WaitingClient:
    """Asks origins and waits for their answers."""

    def __init__(self, driver: OriginDriver, limits: OriginLimits) -> None:
        self.driver = driver
        self._limits = limits

    def begin(self, request: OriginRequest, sink: CollectingSink, limits: OriginLimits | None = None) -> Transfer:
        """A transfer under way."""
        sink.transfer = self.driver.transfer(request, sink, limits or self._limits)
        sink.transfer.begin()
        return sink.transfer

    def fetch(self, request: OriginRequest, sink: CollectingSink, limits: OriginLimits | None = None) -> OriginResponse:
        """The head, once all of the response has come; raises what the transfer ended with."""
        self.begin(request, sink, limits)
        return sink.wait()


@contextmanager
def running_driver(settings: ShareSettings | None = None) -> Iterator[OriginDriver]:
    """A driver that runs."""
    driver = OriginDriver(settings or ShareSettings())
    driver.start()
    try:
        yield driver
    finally:
        driver.close()


def limits(**settings: Any) -> OriginLimits:
    """Limits that no honest answer of a test reaches, but for these."""
    usual: dict[str, Any] = {"stall_s": 20.0, "object_bytes_max": 1 << 30}
    return OriginLimits(**(usual | settings))


def origin_limits(**settings: Any) -> OriginLimits:
    """As limits(), of an origin that is never taken for failing."""
    return limits(**({"health": HealthSettings(failures_to_open=0)} | settings))


@contextmanager
def origin_client(**settings: Any) -> Iterator[WaitingClient]:
    """A client with a driver of its own; the settings are those of origin_limits()."""
    with running_driver() as driver:
        yield WaitingClient(driver, origin_limits(**settings))


def fetch(request: OriginRequest, sink: CollectingSink, **settings: Any) -> OriginResponse:
    """As WaitingClient.fetch(), with a driver for this request alone."""
    with origin_client(**settings) as client:
        return client.fetch(request, sink)
