"""RunQueue: what workers take over from the boss and from each other, pollable beside the listener."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import NamedTuple, TypeVar

from webproxy.exchange.body_transfer import BodyTransfer, LongRequest
from webproxy.transport import sockets
from webproxy.transport.http1_connection import HttpConnection

Request = tuple[int, bytes]
"""The descriptor of a client's connection, and the path it asked for."""


class HttpStart(NamedTuple):
    """The descriptor of a new connection that speaks HTTP, and its first bytes."""

    fd: int
    data: bytes
    refused: int = 0
    """No more comes, and this is the status to say so: the client has ended, or was too slow."""


Entry = TypeVar("Entry")


class RunQueue:
    """Two lines, of whole requests and of paused responses that may go on; bounded by the number of connections.

    They share one descriptor that is readable once for each entry. It is made readable first: who took an entry that
    is not counted yet would leave the descriptor readable for ever, and every idle worker awake.
    """

    def __init__(self) -> None:
        self._requests: deque[Request | LongRequest | HttpStart | HttpConnection] = deque()
        self._paused: deque[BodyTransfer] = deque()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def put(self, request: Request | LongRequest | HttpStart | HttpConnection) -> None:
        """Add a request and wake one worker; never blocks."""
        os.eventfd_write(self._fd, 1)
        self._requests.append(request)

    def put_paused(self, response: BodyTransfer) -> None:
        """Add a response that may go on and wake one worker; never blocks."""
        os.eventfd_write(self._fd, 1)
        self._paused.append(response)

    def take(self) -> Request | LongRequest | HttpStart | HttpConnection | None:
        """The oldest request, or None; never blocks."""
        return self._take(self._requests) if self._requests else None

    def take_paused(self) -> BodyTransfer | None:
        """The response that waits longest, or None; never blocks."""
        return self._take(self._paused) if self._paused else None

    def _take(self, line: deque[Entry]) -> Entry | None:
        try:
            entry = line.popleft()
        except IndexError:  # another worker was faster
            return None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        return entry

    def wake(self, workers: int) -> None:
        """Wake so many workers though there is nothing to take, to see that they shall end; it stays readable."""
        for _ in range(workers):  # each write wakes one of those that wait exclusively
            os.eventfd_write(self._fd, 1)

    @property
    def waiting(self) -> int:
        """How many entries no worker has taken yet."""
        return len(self._requests) + len(self._paused)

    def close(self) -> None:
        """Close the descriptor and what still waits."""
        while self._requests:
            job = self._requests.popleft()
            sockets.close(job.fd if isinstance(job, HttpConnection) else job[0])
        while self._paused:
            sockets.close(self._paused.popleft().stream.fd)
        os.close(self._fd)
