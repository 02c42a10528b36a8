"""An origin without a thread: each transfer ends at once, as the test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from webproxy.errors import OriginError
from webproxy.exchange.origin_rest import OriginRest
from webproxy.exchange.relay import SpoolLimits
from webproxy.origin.driver import OriginDriver
from webproxy.origin.hop import Sink
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse

SPOOLS = SpoolLimits(directory=None, window_bytes=1 << 20)


@dataclass(frozen=True, slots=True)
class OriginAnswer:
    """A head, if there is one, the pieces of its body, and the error that it ends with, if any."""

    response: OriginResponse | None
    pieces: Sequence[bytes] = ()
    error: OriginError | None = None


class ScriptedOrigin:
    """As OriginDriver: each transfer gets the next of the answers. `asked` are the requests."""

    def __init__(self, *answers: OriginAnswer) -> None:
        self.asked: list[OriginRequest] = []
        self.pauses_s: list[float] = []
        """Before each of them."""
        self._answers = list(answers)

    def transfer(self, request: OriginRequest, sink: Sink, limits: OriginLimits) -> _ScriptedTransfer:
        """As OriginDriver.transfer()."""
        self.asked.append(request)
        return _ScriptedTransfer(self._answers.pop(0), sink, self.pauses_s)

    def afterwards(self, function: Callable[[], None]) -> None:
        """As OriginDriver.afterwards()."""
        function()

    def rest(self) -> OriginRest:
        """The rests of bodies, from this origin."""
        return OriginRest(cast("OriginDriver", self), SPOOLS)


class _ScriptedTransfer:
    def __init__(self, answer: OriginAnswer, sink: Sink, pauses_s: list[float]) -> None:
        self._pauses_s = pauses_s
        self._answer = answer
        self._sink = sink
        self._is_over = False

    def begin(self, after_s: float = 0.0) -> None:
        """As Transfer.begin()."""
        answer, sink = self._answer, self._sink
        self._pauses_s.append(after_s)
        self._is_over = True
        try:
            if answer.response is not None and sink.begin(answer.response):
                for piece in answer.pieces:
                    assert sink.write(piece), "the window is wide enough"
        except OriginError as error:
            sink.ended(error)
            return
        if answer.error is not None:
            sink.ended(answer.error)
        else:
            assert answer.response is not None
            sink.ended(answer.response)

    def resume(self) -> None:
        """As Transfer.resume()."""

    def cancel(self, error: OriginError) -> None:
        """As Transfer.cancel()."""
        if not self._is_over:
            self._is_over = True
            self._sink.ended(error)
