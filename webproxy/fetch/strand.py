"""Crew and Strand: threads for what has to wait for the cache, and the order of one fetch's tasks among them.

A strand's tasks run one after the other, in the order in which they were posted, each on any thread of the crew; those
of different strands run side by side. A task that waits for the cache occupies a thread of the crew, never a worker and
never the thread that drives the origins.

What is over in a moment need not wake a thread of the crew: it can be lent as an Errand to a worker that is about to
run anyway. There `is_lent` tells a task that it may wait a moment only, and move() leaves the rest to the crew.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol, TypeAlias

from shmchannel.daemonkit.logs import about, subject

log = logging.getLogger(__name__)

Task: TypeAlias = Callable[[], None]


class Crew:
    """A few threads, started as they are needed; any thread may call run()."""

    def __init__(self, threads_max: int) -> None:
        self._change = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._threads_max = threads_max
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = False

    def is_manned(self) -> bool:
        """Whether there is a thread at all, started now if need be: without one no task would ever be run."""
        with self._change:
            if not self._threads:
                self._grow()
            return bool(self._threads)

    def run(self, task: Task) -> None:
        """Run the task soon; never blocks."""
        with self._change:
            self._tasks.append(task)
            if self._idle < len(self._tasks) and len(self._threads) < self._threads_max:
                self._grow()
            self._change.notify()

    def _grow(self) -> None:
        thread = threading.Thread(target=self._work, name=f"fetch-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # out of threads: the others do it
            log.warning("no thread for fetches", extra={"reason": str(error), "threads": len(self._threads)})
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while True:
            with self._change:
                self._idle += 1
                self._change.wait_for(lambda: self._tasks or self._stopping)
                self._idle -= 1
                if not self._tasks:
                    return
                task = self._tasks.popleft()
            try:
                task()
            except Exception:
                log.exception("task of a fetch broken")

    def stop(self, seconds: float) -> None:
        """Run what has been posted, and wait for the threads, for at most that long in total."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        give_up = monotonic() + seconds
        for thread in tuple(self._threads):
            thread.join(max(0.0, give_up - monotonic()))


class Errand(Protocol):
    """Tasks that are lent: whoever takes them calls one of these, once."""

    def run(self) -> None:
        """Run them here; takes a moment at most, and never raises."""

    def hand_over(self) -> None:
        """Have a thread of the crew run them; never blocks."""


class Strand:
    """Runs tasks in their order, one at a time; their log lines are about the request during which it was made."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._subject = subject()
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._is_scheduled = False
        self._is_moving = False
        self.is_lent = False
        """The tasks are run by a worker, which may wait a moment only."""

    def post(self, task: Task, lend: Callable[[Errand], bool] | None = None) -> None:
        """Run the task after those that were posted before; never blocks, and any thread may call it.

        `lend` offers it to somebody who runs it soon, and says whether it was taken.
        """
        with self._lock:
            self._tasks.append(task)
            if self._is_scheduled:
                return
            self._is_scheduled = True
        if lend is None or not lend(self):
            self.hand_over()

    def run(self) -> None:
        """As Errand.run()."""
        self.is_lent = True
        self._run()

    def hand_over(self) -> None:
        """As Errand.hand_over()."""
        self._crew.run(self._run)

    def move(self, task: Task) -> None:
        """For a task that was lent: let the crew run this one next, and then the others."""
        with self._lock:
            self._tasks.appendleft(task)
        self._is_moving = True

    def _run(self) -> None:
        with about(self._subject):
            while (task := self._next()) is not None:
                try:
                    task()
                except Exception:
                    log.exception("task of a fetch broken")
                if self._is_moving:
                    self._is_moving = self.is_lent = False
                    self.hand_over()
                    return

    def _next(self) -> Task | None:
        """The next task; without one the strand is to be scheduled anew."""
        with self._lock:
            if self._tasks:
                return self._tasks.popleft()
            self._is_scheduled = self.is_lent = False
            return None
