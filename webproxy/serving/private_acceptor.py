"""PrivateAcceptor: accepts the connections of other processes of this user that follow a fetch of this one.

Their requests are rare and never the first of a client: the parking thread accepts them, so that no worker looks at a
second listener before it sleeps. From there on they are jobs like those of clients.
"""

from __future__ import annotations

import logging
import socket

from webproxy.serving.http1_server import Http1Server
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit

log = logging.getLogger(__name__)

_AT_ONCE_MAX = 64
FOLLOWER_RATE = RateLimit(1, 120.0)
"""A follower is as slow as its own clients, whose rate it measures itself, but it makes some progress."""


class PrivateAcceptor:
    """Owns the private socket. accept() is for the parking thread."""

    def __init__(
        self,
        listener: socket.socket | None,
        run_queue: RunQueue,
        parking: ParkingLot,
        server: Http1Server,
        connections_max: int,
    ) -> None:
        """Without a `listener` nothing is shared with other processes."""
        self._listener = listener
        self._run_queue = run_queue
        self._parking = parking
        self._server = server
        self._connections_max = connections_max

    def start(self) -> None:
        """Accept connections from now on."""
        if self._listener is not None:
            self._parking.listen(self._listener.fileno(), self.accept)

    def accept(self) -> bool:
        """Take the connections that wait; False if there is no room for more now. Never blocks or raises.

        One that is not taken is closed: its process asks the cache again.
        """
        listener = self._listener
        if listener is None:
            return True
        for _ in range(_AT_ONCE_MAX):
            try:
                fd = sockets.accept(listener.fileno())
            except OSError as error:
                log.info("follower not accepted", extra={"reason": str(error)})
                return False
            if fd is None:
                return True
            if self._parking.connections < self._connections_max and sockets.is_of_own_user(fd):
                self._run_queue.put_back(self._server.connect(fd, b""))
            else:
                sockets.close(fd)
        return True

    def close(self) -> None:
        """Nobody can follow from now on who does not yet; may be called twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._parking.unlisten()
            listener.close()
