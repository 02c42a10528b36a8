"""Fetches: one origin fetch for each missing key, whoever and however many ask for it.

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

from webproxy.errors import FetchAborted, OriginBadReply, OriginError, OriginUnreachable, Overloaded
from webproxy.fill import Fill
from webproxy.origin import ABSENT_STATUSES, OriginClient, OriginResponse, Sink
from webproxy.paths import origin_url
from webproxy.retry import pause_before_try
from webproxy.spool import Found, NotFound, Spool, SpoolReader

log = logging.getLogger(__name__)

MakeFill = Callable[[bytes, Spool], Fill]

FILLED_MAX = 1024
"""So many of the last filled keys are remembered: more than there can be requests on their way from cache to origin."""


class _Fetch(Sink):
    """One key's fetch: the sink of its tries."""

    def __init__(
        self, key: bytes, spool: Spool, fill: Fill | None, window_bytes: int, stopping: threading.Event
    ) -> None:
        self.key = key
        self.spool = spool
        self.fill = fill
        self._window_bytes = window_bytes if fill is None else max(window_bytes, fill.chunk_bytes)
        self._stopping = stopping
        self._response: OriginResponse | None = None
        self._length: int | None = None

    def begin(self, response: OriginResponse) -> bool:
        """Answer the readers as soon as status and length are known."""
        self._response = response
        if response.status in ABSENT_STATUSES:
            self.spool.answer(NotFound())
        if response.status != 200:
            return False
        self.spool.restart()
        if response.length is not None:
            self._found(response.length)
        return True

    def _found(self, length: int) -> None:
        self._length = length
        self.spool.answer(Found(length))
        if self.fill is not None:
            self.fill.set_size(length)

    def write(self, data: bytes) -> None:
        """Spool, fill, and wait when no reader follows."""
        self.spool.write(data)
        while True:
            if self.fill is not None:
                self.fill.pump()
            if not self.spool.answered:
                return
            if self.fill is None or self.fill.given_up:  # otherwise the fill may begin anew from the first byte
                self.spool.forget_read()
            position = self.fill.position if self.fill is not None else None
            if self.spool.lead(position) <= self._window_bytes or self._stopping.is_set() or self._idle_spool():
                return
            self.spool.wait_reader()

    def _idle_spool(self) -> bool:
        """True when neither a client nor the cache takes the body."""
        return not self.spool.wanted and not self._filling()

    def _filling(self) -> bool:
        return self.fill is not None and self.fill.position is not None

    def idle(self) -> bool:
        """End the fetch when nobody wants it; a complete body is for the cache, also when its readers have left."""
        if self.fill is not None:
            self.fill.give_way()
        if self._stopping.is_set():
            return True
        return self.spool.written != self._length and not self._filling() and self.spool.abandon()

    def finish(self, response: OriginResponse) -> None:
        """A try came to its end with this header: settle what the readers are told.

        Raises:
            OriginBadReply: the status is no answer to a GET; 5xx may be tried again.
        """
        if response.status in ABSENT_STATUSES:
            self.spool.answer(NotFound())
            return
        if response.status != 200:
            raise OriginBadReply(
                f"status {response.status}",
                status=response.status,
                retryable=response.status >= 500 or response.status in (408, 429),
            )
        if self._response is not response:  # an empty body: begin() was never called
            self.begin(response)
        if not self.spool.answered:
            self._found(self.spool.written)
        if self.fill is not None:
            self.fill.finish()

    @property
    def stored(self) -> bool:
        """True once the cache has the object."""
        return self.fill is not None and self.fill.stored

    def end(self, error: OriginError | None) -> None:
        """Leave the spool, first of all, so that who reads is told; then the cache."""
        self.spool.end(error)
        if self.fill is not None:
            self.fill.cancel()


class Fetches:
    """The table of running fetches and the threads that run them."""

    def __init__(
        self,
        origin: OriginClient,
        base_url: str,
        *,
        threads: int,
        tries: int,
        window_bytes: int,
        spool_directory: str | None,
        make_fill: MakeFill | None,
    ) -> None:
        self._origin = origin
        self._base_url = base_url
        self._tries = tries
        self._window_bytes = window_bytes
        self._spool_directory = spool_directory
        self._make_fill = make_fill
        self._change = threading.Condition()
        self._running: dict[bytes, _Fetch] = {}
        self._filled: OrderedDict[bytes, float] = OrderedDict()
        self._pending: deque[_Fetch] = deque()
        self._threads_max = threads
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = threading.Event()
        self.fetched_total = 0
        self.joined_total = 0
        self.failed_total = 0

    def open(self, key: bytes, missed_at: float = math.inf) -> SpoolReader | None:
        """A reader of the key's body: of the fetch that runs already, or of a new one.

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
            reader = running.spool.join() if running is not None else None
            if reader is not None:
                self.joined_total += 1
                return reader
            if len(self._pending) >= self._threads_max:
                raise Overloaded(f"{self._threads_max} fetches run and as many wait")
            return self._enter(key)

    def _enter(self, key: bytes) -> SpoolReader:
        spool = Spool(self._spool_directory)
        reader = spool.join()
        assert reader is not None
        fill = self._make_fill(key, spool) if self._make_fill is not None else None
        fetch = _Fetch(key, spool, fill, self._window_bytes, self._stopping)
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

    def _fetch(self, fetch: _Fetch) -> None:
        failure = self._try_to_the_end(fetch)
        with self._change:
            if self._running.get(fetch.key) is fetch:
                del self._running[fetch.key]
            if fetch.stored:
                self._filled[fetch.key] = monotonic()
                self._filled.move_to_end(fetch.key)
                if len(self._filled) > FILLED_MAX:
                    self._filled.popitem(last=False)
            self.failed_total += failure is not None
        fetch.end(failure)
        if failure is not None:
            log.info("fetch failed", extra={"key": fetch.key, "reason": str(failure)})

    def _try_to_the_end(self, fetch: _Fetch) -> OriginError | None:
        """Fetch, again where that may help; never raises, so that every reader hears of the end."""
        try:
            self._try_repeatedly(fetch)
        except OriginError as failure:
            return failure
        except Exception as failure:
            log.exception("fetch broken", extra={"key": fetch.key})
            return OriginUnreachable(f"broken: {failure!r}")
        return None

    def _try_repeatedly(self, fetch: _Fetch) -> None:
        url = origin_url(self._base_url, fetch.key)
        for number in range(self._tries):
            if self._stopping.wait(pause_before_try(number, random.random())):
                raise OriginUnreachable("the daemon stops")
            if fetch.spool.abandon():
                raise FetchAborted(f"{url}: nobody waits for it any more")
            try:
                fetch.finish(self._origin.fetch(url, fetch))
            except OriginError as error:
                if not error.retryable or fetch.spool.answered or number == self._tries - 1:
                    raise
                log.debug("trying again", extra={"url": url, "number": number + 1, "reason": str(error)})
            except OSError as error:
                raise OriginUnreachable(f"the body cannot be spooled: {error}") from error
            else:
                return

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
