"""FetchTable: one origin fetch for each missing key, whoever and however many ask for it.

A fetch runs in a thread of its own small pool and writes into a spool; who asked, and all who ask for the same key
until the object is in the cache, read from that spool in workers of theirs.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from time import monotonic

from shmchannel.deadline import Deadline
from webproxy.errors import FetchAborted, OriginError, OriginUnreachable, Overloaded
from webproxy.fetch.backoff import pause_before_try
from webproxy.fetch.job import FetchJob
from webproxy.fetch.spool import Spool, SpoolReader

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
"""So often a fetch that pauses between two tries looks whether anybody still wants it."""
FILLED_MAX = 1024
"""So many of the last filled keys are remembered: more than there can be requests on their way from cache to origin."""


class FetchTable:
    """The running fetches and the threads that run them."""

    def __init__(self, *, threads: int, spool_directory: str | None) -> None:
        self._spool_directory = spool_directory
        self._change = threading.Condition()
        self._running: dict[bytes, FetchJob] = {}
        self._living: set[FetchJob] = set()
        """With those that nobody joins: another one runs under their key, or they were withdrawn."""
        self._filled: OrderedDict[bytes, float] = OrderedDict()
        self._pending: deque[FetchJob] = deque()
        self._threads_max = threads
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = threading.Event()
        self.fetched_total = 0
        self.joined_total = 0
        self.failed_total = 0

    @property
    def stopping(self) -> threading.Event:
        """Set once the daemon stops."""
        return self._stopping

    def open(
        self, key: bytes, make: Callable[[Spool], FetchJob], missed_at: float = math.inf, *, join: bool = True
    ) -> tuple[SpoolReader, bool] | None:
        """A reader of the fetch that runs under `key` already (True), unless `join` is off, or of a new one (False).

        `missed_at` is the moment (monotonic) before the cache was asked: None when the cache was filled with the key
        since then, so that it should be asked again.

        Raises:
            Overloaded: too many fetches at once.
            OriginUnreachable: the daemon stops.
        """
        with self._change:
            if self._stopping.is_set():
                raise OriginUnreachable("the daemon stops")
            if self._filled.get(key, -math.inf) >= missed_at:
                return None
            running = self._running.get(key)
            reader = running.spool.join() if running is not None and join else None
            if reader is not None:
                self.joined_total += 1
                return reader, True
            if len(self._pending) >= self._threads_max:
                raise Overloaded(f"{self._threads_max} fetches run and as many wait")
            return self._enter(key, make), False

    def _enter(self, key: bytes, make: Callable[[Spool], FetchJob]) -> SpoolReader:
        spool = Spool(self._spool_directory)
        reader = spool.join()
        assert reader is not None
        fetch = make(spool)
        self._pending.append(fetch)
        if self._idle < len(self._pending) and len(self._threads) < self._threads_max:
            thread = threading.Thread(target=self._run, name=f"fetch-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not self._threads:
                    self._pending.remove(fetch)
                    raise Overloaded(f"no thread for a fetch: {error}") from error
            else:
                self._threads.append(thread)
        self._running[key] = fetch
        self._living.add(fetch)
        self.fetched_total += 1
        self._change.notify()
        return reader

    def _run(self) -> None:
        while True:
            with self._change:
                self._idle += 1
                self._change.wait_for(lambda: self._pending or self._stopping.is_set())
                self._idle -= 1
                if not self._pending:
                    return
                fetch = self._pending.popleft()
            self._fetch(fetch)

    def _fetch(self, fetch: FetchJob) -> None:
        failure = self._try_to_the_end(fetch)
        with self._change:
            for key in [key for key, running in self._running.items() if running is fetch]:
                del self._running[key]
            self._living.discard(fetch)
            if fetch.stored:
                self._filled[fetch.key] = monotonic()
                self._filled.move_to_end(fetch.key)
                if len(self._filled) > FILLED_MAX:
                    self._filled.popitem(last=False)
            self.failed_total += failure is not None
        fetch.end(failure)
        if failure is not None:
            log.info("fetch failed", extra={"url": fetch.name, "reason": str(failure)})

    def _try_to_the_end(self, fetch: FetchJob) -> OriginError | None:
        """Fetch, again where that may help; never raises, so that every reader hears of the end."""
        try:
            self._try_repeatedly(fetch)
        except OriginError as failure:
            return failure
        except Exception as failure:
            log.exception("fetch broken", extra={"url": fetch.name})
            return OriginUnreachable(f"broken: {failure!r}")
        return None

    def _try_repeatedly(self, fetch: FetchJob) -> None:
        for number in range(fetch.tries):
            self._pause(fetch, pause_before_try(number, random.random()))
            try:
                fetch.attempt()
            except OriginError as error:
                if not error.retryable or not fetch.can_go_on or number == fetch.tries - 1:
                    raise
                log.debug("trying again", extra={"url": fetch.name, "number": number + 1, "reason": str(error)})
            except OSError as error:
                raise OriginUnreachable(f"the body cannot be spooled: {error}") from error
            else:
                return

    def _pause(self, fetch: FetchJob, seconds: float) -> None:
        """Wait before a try; meanwhile its readers may leave, and a hit may need the segments of its fill."""
        deadline = Deadline.after(seconds)
        while True:
            if self._stopping.wait(deadline.slice(LOOK_SECONDS)):
                raise OriginUnreachable("the daemon stops")
            if fetch.idle():
                raise FetchAborted(f"{fetch.name}: nobody waits for it any more")
            if deadline.expired:
                return

    def withdraw(self, object_key: bytes, deadline: Deadline) -> bool:
        """What is fetched for the key goes to those only who wait for it by now: it is neither joined nor stored.

        Returns when nothing of it is stored any more; False when that was not certain in time.
        """
        with self._change:
            fetches = [fetch for fetch in self._living if fetch.object_key == object_key]
            for key in [key for key, running in self._running.items() if running in fetches]:
                del self._running[key]
        in_time = [fetch.token.withdraw(deadline.remaining()) for fetch in fetches]
        return all(in_time)

    def stop(self) -> None:
        """End every fetch soon and let the threads go; readers see their fetch fail."""
        self._stopping.set()
        with self._change:
            self._change.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the threads after stop(), all in all so long."""
        give_up = monotonic() + seconds
        for thread in list(self._threads):
            thread.join(max(0.0, give_up - monotonic()))
