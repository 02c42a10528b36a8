"""Jobs that do what the test says, and the parts that hand them to each other."""

from __future__ import annotations

from shmchannel.streams.admission import Ticket
from tests.support.streams import NO_LIMIT, client_stream
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Done, Outcome


class FakeJob:
    """A connection about which somebody else knows everything."""

    path = b"/path"
    request_id = b"named-1"

    def __init__(self, fd: int, limit: RateLimit = NO_LIMIT) -> None:
        self.fd = fd
        self.ticket: Ticket | None = None
        self.expires = 0.0
        self.is_watched = False
        self.in_head = False
        self.has_left = False
        self._stream = client_stream(fd, limit)

    @property
    def stream(self) -> ClientStream:
        return self._stream

    def run(self) -> Outcome:
        return Done(self)

    def expire(self) -> Outcome:
        sockets.send(self.fd, b"too late")
        return Done(self)

    def close(self) -> None:
        sockets.close(self.fd)
