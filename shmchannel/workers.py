"""WorkerPool: a fixed number of threads that repeat one step until told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shmchannel.deadline import Deadline

log = logging.getLogger(__name__)

STACK_BYTES = 512 * 1024
_LOOK_AGAIN_SECONDS = 0.05


class WorkerPool:
    """`step(index)` waits a short while for one piece of work, and does it; a worker survives failures of its job.

    A step may set `idle[index]` while it only waits for work: then join() does not count its worker as unfinished. If
    that wait may be long, `wake` ends the wait of one worker, without blocking itself.
    """

    def __init__(
        self,
        name: str,
        count: int,
        step: Callable[[int], object],
        *,
        wake: Callable[[], object] = lambda: None,
        idle: list[bool] | bytearray | None = None,
    ) -> None:
        """`idle` has an item for each worker, where others look at them too."""
        self._step = step
        self._wake = wake
        self._stopping = threading.Event()
        self.idle: list[bool] | bytearray = [False] * count if idle is None else idle
        # Daemon threads: one that is stuck past the drain limit must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name=f"{name}-{index}", daemon=True)
            for index in range(count)
        ]

    def start(self) -> None:
        """Start all threads; fork must have happened before."""
        previous = threading.stack_size(STACK_BYTES)
        try:
            for thread in self._threads:
                thread.start()
        finally:
            threading.stack_size(previous)

    def _run(self, index: int) -> None:
        step = self._step
        while not self._stopping.is_set():
            try:
                step(index)
            except Exception:
                log.exception("job failed")

    def request_stop(self) -> None:
        """Let each worker end after its current step; does not wait."""
        self._stopping.set()

    def join(self, deadline: Deadline, *, interrupted: Callable[[], bool] = lambda: False) -> int:
        """Wait for all workers up to the deadline or until `interrupted()`; returns how many still run.

        A worker that only waits for work is woken and ends at once, so it is always waited for.
        """
        for index, thread in enumerate(self._threads):
            while thread.ident is not None and thread.is_alive():
                if (deadline.expired or interrupted()) and not self.idle[index]:
                    break
                self._wake_idle()
                thread.join(_LOOK_AGAIN_SECONDS)
        return sum(thread.is_alive() for thread in self._threads)

    def _wake_idle(self) -> None:
        for thread, idle in zip(self._threads, self.idle, strict=True):
            if idle and thread.is_alive():
                self._wake()
