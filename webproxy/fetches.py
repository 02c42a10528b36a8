"""Fetches: one origin fetch for each missing key, whoever and however many ask for it.

A fetch runs in a thread of its own small pool and writes into a spool; who asked, and everyone who asks for the same key
until the object is in the cache, reads from that spool in a worker of theirs.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable

from webproxy.errors import OriginBadReply, OriginError, OriginUnreachable, Overloaded
from webproxy.fill import Fill
from webproxy.origin import ABSENT_STATUSES, OriginClient, OriginResponse, Sink
from webproxy.paths import origin_url
from webproxy.retry import pause_before_try
from webproxy.spool import Found, NotFound, Spool, SpoolReader

log = logging.getLogger(__name__)

MakeFill = Callable[[bytes, Spool], Fill]
_IDLE_SECONDS = 0.25


class _Fetch(Sink):
    """One key's fetch: the sink of its tries."""

    def __init__(
        self, key: bytes, spool: Spool, fill: Fill | None, window_bytes: int, stopping: threading.Event
    ) -> None:
        self.key = key
        self.spool = spool
        self.fill = fill
        self._window_bytes = window_bytes
        self._stopping = stopping
        self._response: OriginResponse | None = None

    def begin(self, response: OriginResponse) -> bool:
        """Answer the readers as soon as the length is known."""
        self._response = response
        if response.status != 200:
            return False
        self.spool.restart()
        if response.length is not None:
            self._found(response.length)
        return True

    def _found(self, length: int) -> None:
        self.spool.answer(Found(length))
        if self.fill is not None:
            self.fill.set_size(length)

    def write(self, data: bytes) -> None:
        """Spool, fill, and wait when no reader follows."""
        self.spool.write(data)
        while True:
            if self.fill is not None:
                self.fill.pump()
            position = self.fill.position if self.fill is not None else None
            if position is None and self.spool.answered:
                self._forget_what_was_read()
            if self.spool.lead(position) <= self._window_bytes or not self.spool.answered or self._unwanted():
                return
            self.spool.wait_reader()

    def _forget_what_was_read(self) -> None:
        if self.fill is None:  # a fill may begin anew from the first byte
            self.spool.forget_read()

    def idle(self) -> bool:
        """End the fetch when nobody wants it."""
        if self.fill is not None:
            self.fill.give_way()
        return self._unwanted()

    def _unwanted(self) -> bool:
        return self._stopping.is_set() or not (
            self.spool.wanted or (self.fill is not None and self.fill.position is not None)
        )

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
        self._lock = threading.Lock()
        self._running: dict[bytes, _Fetch] = {}
        self._jobs: queue.Queue[_Fetch | None] = queue.Queue(maxsize=threads)
        self._threads_max = threads
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = threading.Event()
        self.fetched_total = 0
        self.joined_total = 0
        self.failed_total = 0

    def open(self, key: bytes) -> SpoolReader:
        """A reader of the key's body: of the fetch that runs already, or of a new one.

        Raises:
            Overloaded: too many fetches at once.
            OriginUnreachable: no room for the body.
        """
        with self._lock:
            running = self._running.get(key)
            reader = running.spool.join() if running is not None else None
            if reader is not None:
                self.joined_total += 1
                return reader
            try:
                spool = Spool(self._spool_directory)
            except OSError as error:
                raise OriginUnreachable(f"no temporary file for a body: {error}") from error
            reader = spool.join()
            assert reader is not None
            fill = self._make_fill(key, spool) if self._make_fill is not None else None
            fetch = _Fetch(key, spool, fill, self._window_bytes, self._stopping)
            try:
                self._jobs.put_nowait(fetch)
            except queue.Full:
                reader.close()
                spool.end()
                raise Overloaded(f"{self._threads_max} fetches run and as many wait") from None
            self._running[key] = fetch
            self.fetched_total += 1
            self._start_thread_if_needed()
            return reader

    def _start_thread_if_needed(self) -> None:
        if self._idle < self._jobs.qsize() and len(self._threads) < self._threads_max:
            thread = threading.Thread(target=self._run, name=f"fetch-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                fetch = self._jobs.get()
            finally:
                with self._lock:
                    self._idle -= 1
            if fetch is None:
                return
            self._fetch(fetch)

    def _fetch(self, fetch: _Fetch) -> None:
        error: OriginError | None = None
        try:
            self._try_repeatedly(fetch)
        except OriginError as failure:
            error = failure
        except Exception as failure:
            log.exception("fetch failed")
            error = OriginUnreachable(f"{failure}")
        finally:
            if error is not None:
                self.failed_total += 1
                log.info("fetch failed", extra={"key": fetch.key, "reason": str(error)})
            with self._lock:
                if self._running.get(fetch.key) is fetch:
                    del self._running[fetch.key]
            if fetch.fill is not None:
                fetch.fill.cancel()
            fetch.spool.end(error)

    def _try_repeatedly(self, fetch: _Fetch) -> None:
        url = origin_url(self._base_url, fetch.key)
        for number in range(self._tries):
            if self._stopping.wait(pause_before_try(number, random.random())):
                raise OriginUnreachable("the daemon stops")
            try:
                fetch.finish(self._origin.fetch(url, fetch))
            except OriginError as error:
                if not error.retryable or fetch.spool.answered or number == self._tries - 1 or not fetch.spool.wanted:
                    raise
                log.debug("trying again", extra={"url": url, "number": number + 1, "reason": str(error)})
            except OSError as error:
                raise OriginUnreachable(f"the body cannot be spooled: {error}") from error
            else:
                return

    def stop(self) -> None:
        """End every fetch soon and let the threads go; readers see their fetch fail."""
        self._stopping.set()
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            try:
                self._jobs.put_nowait(None)
            except queue.Full:
                break

    def join(self, seconds: float) -> None:
        """Wait for the threads after stop()."""
        for thread in list(self._threads):
            thread.join(seconds)
