"""IdleConnections: HTTP connections between two requests, or in the head of one. They cost no thread and no wake-up.

Their descriptors are in one epoll, armed one-shot. An idle worker polls it, and the worker that finds a connection
serves it: no thread stands between a client's next request and the worker that answers.
"""

from __future__ import annotations

import select
from time import monotonic

from webproxy.transport import sockets
from webproxy.transport.http1_connection import HttpConnection


class IdleConnections:
    """Thread-safe set; owns its connections until they are taken or have expired."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._connections: dict[int, HttpConnection] = {}

    def fileno(self) -> int:
        """Readable while there is a connection to take."""
        return self._epoll_fd

    def put(self, connection: HttpConnection, seconds: float) -> None:
        """Keep a connection until its client sends something, closes it, or `seconds` have passed; never blocks."""
        connection.expires = monotonic() + seconds
        fd = connection.fd
        again, connection.is_watched = connection.is_watched, True
        self._connections[fd] = connection  # first: after the next line another thread may take it and put it back
        try:
            sockets.watch_once(self._epoll_fd, fd, again=again)
        except OSError:
            if self._connections.pop(fd, None) is not None:
                sockets.close(fd)

    def take(self) -> HttpConnection | None:
        """A connection on which something has arrived, or None; never blocks."""
        if not self._connections:
            return None
        fd = sockets.take_ready(self._epoll_fd)
        return None if fd is None else self._connections.pop(fd, None)

    def expire(self, *, quiet_too: bool = False) -> list[HttpConnection]:
        """Remove expired connections; the caller answers and closes them.

        With `quiet_too` also those on which no request has begun to arrive.
        """
        now = monotonic()
        connections = list(self._connections.values())
        late = [connection for connection in connections if connection.expires <= now]
        if quiet_too:
            late += [connection for connection in connections if connection.expires > now and _is_quiet(connection)]
        return [connection for connection in late if self._take_out(connection)]

    def _take_out(self, connection: HttpConnection) -> bool:
        fd = connection.fd
        if self._connections.get(fd) is not connection:  # a worker was faster
            return False
        if self._connections.pop(fd, None) is not connection:
            return False
        sockets.unwatch(self._epoll_fd, fd)  # data that arrives now must not wake a worker
        connection.is_watched = False
        return True

    @property
    def count(self) -> int:
        """The number of idle connections."""
        return len(self._connections)

    def close(self) -> None:
        """Close all of them."""
        while self._connections:
            sockets.close(self._connections.popitem()[0])
        self._epoll.close()


def _is_quiet(connection: HttpConnection) -> bool:
    return not connection.in_head and not sockets.has_arrived(connection.fd)
