"""Cancelling a run: a flag, and the sockets that threads are blocked on."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from workloads.gfclient.outcome import Failure, RequestError


class Canceller:
    """Lets one thread cancel what the others wait for; nothing is closed here, each socket remains its owner's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Shut down every watched socket, so that the threads waiting on them return; may be called twice."""
        with self._lock:
            self._cancelled.set()
            for watched in self._sockets:
                with suppress(OSError):  # not connected yet, or already at its end
                    watched.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> bool:
        """Sleep for that long, or until cancelled; returns whether it was."""
        return self._cancelled.wait(seconds)

    @contextmanager
    def watching(self, opened: socket.socket) -> Iterator[None]:
        """Have `opened` shut down by `cancel` while inside; RequestError(CANCELLED) if it is too late already."""
        with self._lock:
            if self._cancelled.is_set():
                raise RequestError(Failure.CANCELLED, "the run was ended")
            self._sockets.add(opened)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(opened)
