"""NewConnection: a client's connection until it is known what it asks for; Protocols says who serves that then.

A worker that accepts a connection mostly finds the whole request there, and no NewConnection is made. One that has sent
too little to tell idles like any other connection, for as long as the head of a request may take to come, from its
first byte on; one that has sent nothing yet, as long as between two requests.
"""

from __future__ import annotations

import contextlib
import re
from enum import Enum
from time import monotonic

from shmchannel.streams.admission import Ticket
from webproxy.errors import ClientGone
from webproxy.exchange.fast_path import Unsent
from webproxy.exchange.getfile_request import GetfileRequest, GetfileRequestHandler
from webproxy.getfile import SCHEME, RemoteProtocolError, Status, Wire, parse_request, refusal
from webproxy.http.syntax import METHOD
from webproxy.serving.http1_server import ConnectionLimits, Http1Server
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Done, Idles, Job, Outcome

_RETRY_AFTER = b"Retry-After: 1\r\n"
UNDECIDED_BYTES_MAX = 8192
"""A longer first line is not a getfile request, and HTTP has a response for it."""

# Some clients send a line end before a request (RFC 9112 section 2.2).
_is_http_line = re.compile(rb"(?:\r\n)?[^ \r\n]+ [^\r\n]* HTTP/[0-9]+\.[0-9]+\r?\n").match
_begins_http_line = re.compile(rb"(?:\r\n)?%s [/*h]" % METHOD).match


class Spoken(Enum):
    """The protocol of a connection."""

    GETFILE = "getfile"
    HTTP = "http"
    UNDECIDED = "undecided"


def spoken_by(data: bytes) -> Spoken:
    """The protocol of these first bytes. Anything that is neither is treated as getfile, whose refusal is shorter.

    Undecided only while the first line is incomplete: it is HTTP if it ends in a version (RFC 9112 section 3).
    """
    if data.startswith(SCHEME):
        return Spoken.GETFILE
    if _is_http_line(data):
        return Spoken.HTTP
    if b"\n" in data[2 if data.startswith(b"\r\n") else 0 : UNDECIDED_BYTES_MAX]:
        return Spoken.GETFILE
    return Spoken.UNDECIDED if len(data) < UNDECIDED_BYTES_MAX else Spoken.HTTP


def leans_to_http(data: bytes) -> bool:
    """Whether an incomplete first line looks like HTTP: a method, and the first byte of a target."""
    return _begins_http_line(data) is not None and not data.startswith(SCHEME)


class Protocols:
    """The protocols spoken on the port: getfile, HTTP or both. Shared by all workers."""

    def __init__(
        self,
        getfile: GetfileRequestHandler | None,
        http: Http1Server | None,
        wire: Wire,
        limits: ConnectionLimits,
    ) -> None:
        self._getfile = getfile
        self._http = http
        self._wire = wire
        self.limits = limits
        self.invalid_total = 0

    def job_for(self, fd: int, data: bytes, since: float = 0.0) -> Job | None:
        """The job for a connection with these first bytes, which began to arrive then if they came in parts.

        None while undecided, or while the request is incomplete.

        Raises:
            RemoteProtocolError: no protocol matches.
        """
        spoken = self._spoken_by(data)
        if spoken is Spoken.HTTP and self._http is not None:
            return self._http.connect(fd, data, since)
        if spoken is Spoken.GETFILE and self._getfile is not None:
            path = parse_request(data)
            return None if path is None else GetfileRequest(self._getfile, fd, path)
        return None

    def go_on_with(self, fd: int, unsent: Unsent) -> Job | None:
        """The job of a new connection of which the hit loop has answered the first request in part."""
        assert self._http is not None  # whose loop it is
        connection = self._http.connect(fd, b"")
        connection.stream.never_waits = unsent.file_fd >= 0
        connection.stream.sent_bytes = max(0, unsent.sent)
        self._http.go_on_with(connection, unsent)
        if connection.paused is None:  # its client has gone
            sockets.close(fd)
            return None
        return connection

    def _spoken_by(self, data: bytes) -> Spoken:
        if self._http is None:
            return Spoken.GETFILE
        return spoken_by(data) if self._getfile is not None else Spoken.HTTP

    def refuse(self, fd: int, data: bytes, status: int) -> None:
        """The rest of the request does not come; `status` says why to a client of HTTP. Never blocks."""
        if self._http is not None and leans_to_http(data):
            self._http.refuse(fd, status)
        elif self._getfile is not None:
            self.refuse_invalid(fd)

    def refuse_invalid(self, fd: int) -> None:
        """The bytes are not a request of any protocol. Never blocks."""
        self.invalid_total += 1
        self._refuse(fd, Status.INVALID, 400)

    def refuse_overload(self, fd: int, data: bytes, text: str = "too many connections") -> None:
        """A limit is reached; `text` says which to a client of HTTP. Never blocks."""
        if self._http is not None and (self._spoken_by(data) is Spoken.HTTP or leans_to_http(data)):
            self._http.refuse(fd, 503, text, _RETRY_AFTER)
        elif self._getfile is not None:
            self._refuse(fd, Status.ERROR, 503)

    def _refuse(self, fd: int, said: Status, status: int) -> None:
        with contextlib.suppress(ClientGone):
            sockets.send(fd, refusal(said, self._wire))
        if self._getfile is not None:
            self._getfile.note_refused(fd, status)


class NewConnection:
    """A job that becomes another one as soon as its first bytes tell which."""

    __slots__ = ("_data", "_protocols", "_since", "expires", "fd", "has_left", "is_watched", "ticket")

    def __init__(self, protocols: Protocols, fd: int, data: bytes) -> None:
        self._protocols = protocols
        self.fd = fd
        self._data = data
        self._since = monotonic()
        self.expires = 0.0
        self.is_watched = False
        self.ticket: Ticket | None = None
        self.has_left = False

    @property
    def path(self) -> bytes:
        """Not known yet."""
        return b""

    @property
    def request_id(self) -> bytes:
        """It has none yet."""
        return b""

    @property
    def stream(self) -> ClientStream:
        """Never waits for its client to read."""
        raise NotImplementedError

    @property
    def in_head(self) -> bool:
        """A request has begun to arrive."""
        return bool(self._data)

    def run(self) -> Outcome:
        """See what has come, and be the request that it is."""
        protocols = self._protocols
        try:
            received = sockets.receive(self.fd)
            if received and not self._data:
                self._since = monotonic()
            self._data += received or b""
            job = protocols.job_for(self.fd, self._data, self._since) if self._data else None
        except ClientGone:
            return Done(self)
        except RemoteProtocolError:
            protocols.refuse_invalid(self.fd)
            return Done(self)
        if job is not None:
            return job.run()
        if received == b"":
            protocols.refuse(self.fd, self._data, 400)
            return Done(self)
        limits = protocols.limits
        limit_s = limits.request_s if self._data else limits.keepalive_s
        return Idles(self, self._since + limit_s - monotonic())

    def expire(self) -> Outcome:
        """The rest has not arrived in time."""
        self._protocols.refuse(self.fd, self._data, 408)
        return Done(self)

    def close(self) -> None:
        """The process ends."""
        sockets.close(self.fd)
