"""StoreKeeper: the thread that does a store's work behind.

There is work that others wait for, and work that can take its time. After a piece of the latter the thread pauses three
times as long as that took, because it shares the interpreter with the threads that serve. Who wakes it goes on at once.
It waits a moment before it begins, so that what several ask for becomes one transaction.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

from simplecached.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_GATHER_S = 0.01
_AFTER_FAILURE_S = 1.0
_PAUSES = 3


class StoreKeeper:
    """Calls `urgent` and `patient` from its own thread until both return False, when it was woken. Thread-safe."""

    def __init__(self, name: str, *, urgent: Callable[[], bool], patient: Callable[[], bool]) -> None:
        self._urgent = urgent
        self._patient = patient
        self._changed = threading.Condition()
        self._asked = 1  # it looks once by itself
        self._done = 0
        self._settling = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have a turn made soon; never blocks."""
        if self._asked > self._done + 1:
            return  # somebody has asked for one after the present one
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def settle(self) -> None:
        """Block until there is nothing left to do of what was asked for before the call."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._settling += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done >= wanted or self._stopping)
            self._settling -= 1

    def stop(self) -> None:
        """End the thread after its turn; may be called twice, or without a start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (asked := self._next()) is not None:
            failed = False
            try:
                self._work()
            except StoreUnavailable as error:
                failed = True
                log.warning("store not written", extra={"reason": str(error)})
            except Exception:
                failed = True
                log.exception("work on the store failed")
            with self._changed:
                self._done = max(self._done, asked)
                self._changed.notify_all()
                if failed:
                    self._changed.wait_for(lambda: self._stopping or self._settling > 0, _AFTER_FAILURE_S)
                    self._asked += 1

    def _work(self) -> None:
        patient_at = 0.0
        while not self._stopping:
            if self._urgent():
                continue
            began = monotonic()
            if self._settling or began >= patient_at:
                if not self._patient():
                    return
                patient_at = monotonic() + _PAUSES * (monotonic() - began)
            else:
                with self._changed:  # rows that come meanwhile are written after this moment
                    self._changed.wait_for(
                        lambda: self._stopping or self._settling > 0, min(patient_at - began, _GATHER_S)
                    )

    def _next(self) -> int | None:
        """Wait until it is asked for something; None if it is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked > self._done or self._stopping)
            if not self._settling:
                self._changed.wait_for(lambda: self._settling > 0 or self._stopping, _GATHER_S)
            return None if self._stopping else self._asked
