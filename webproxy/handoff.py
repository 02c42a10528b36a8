"""Handoff: the line of whole requests that the boss puts down and idle workers take, pollable beside the listener."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from webproxy import sockets

Request = tuple[int, bytes]
"""The descriptor of a client's connection, and the path it asked for."""


class Handoff:
    """A queue with a descriptor that is readable once for each entry. Bounded by the number of connections."""

    def __init__(self) -> None:
        self._entries: deque[Request] = deque()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def put(self, request: Request) -> None:
        """Add an entry and wake one worker; never blocks."""
        self._entries.append(request)
        os.eventfd_write(self._fd, 1)

    def take(self) -> Request | None:
        """The oldest entry, or None; never blocks."""
        if not self._entries:
            return None
        try:
            request = self._entries.popleft()
        except IndexError:  # another worker was faster
            return None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        return request

    def close(self) -> None:
        """Close the descriptor and what still waits."""
        while self._entries:
            sockets.close(self._entries.popleft()[0])
        os.close(self._fd)
