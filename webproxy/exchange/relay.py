"""Relay: one answer of an origin on its way to one client alone, through a spool as far as there is room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from webproxy.errors import FetchAborted, OriginError, OriginUnreachable, SpoolFailed
from webproxy.fetch.spool import Forwarded, Spool
from webproxy.fetch.spool_budget import NO_BUDGET, SpoolBudget
from webproxy.http.fields import Fields
from webproxy.origin.driver import OriginDriver
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """Where bodies in transit lie, and how far they may be ahead of their readers."""

    directory: str | None
    window_bytes: int
    budget: SpoolBudget = NO_BUDGET

    def new(self) -> Spool:
        """A spool within these limits."""
        return Spool(self.directory, budget=self.budget)


class Relay:
    """The client's steps use `reader`, whose answer is a Forwarded; begin the `transfer`, and close() the relay.

    The transfer's Sink is the relay itself.
    """

    def __init__(
        self,
        origin: OriginDriver,
        request: OriginRequest,
        limits: OriginLimits,
        spools: SpoolLimits,
        check: Callable[[OriginResponse], None],
    ) -> None:
        """`check` is called with the head, by the driver's thread; if it raises an OriginError, that is the answer."""
        self.spool = spools.new()
        self.reader = self.spool.reader()
        self.transfer = origin.transfer(request, self, limits)
        self.spool.on_room = self.transfer.resume
        self._window_bytes = spools.window_bytes
        self._check = check
        self.failure: OriginError | None = None
        """Why the answer ended early, once its reader has met that."""

    def close(self) -> None:
        """Its client has what it wanted, or has left."""
        self.transfer.cancel(FetchAborted("no reader left"))  # ended() closes the spool then, or has done so
        self.reader.close()

    # -- as Sink, in the driver's thread -------------------------------------------------------------------------
    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim()."""
        self.spool.interim(status, fields)

    def begin(self, response: OriginResponse) -> bool:
        """As Sink.begin()."""
        self._check(response)
        self.spool.answer(Forwarded(response))
        return True

    def write(self, data: bytes) -> bool:
        """As Sink.write()."""
        if not self.spool.has_room(self._window_bytes):
            return False
        self.spool.write(data)
        self.spool.forget_read()
        return True

    def tick(self) -> None:
        """As Sink.tick(): its reader sees to the client."""

    def ended(self, outcome: OriginResponse | Exception) -> None:
        """As Sink.ended()."""
        if isinstance(outcome, OriginResponse):
            self.spool.end()
        else:
            self.failure = _as_origin_error(outcome)
            self.spool.end(self.failure)


def _as_origin_error(error: Exception) -> OriginError:
    if isinstance(error, OriginError):
        return error
    if isinstance(error, OSError):
        return SpoolFailed(f"the body cannot be spooled: {error}")
    return OriginUnreachable(str(error))
