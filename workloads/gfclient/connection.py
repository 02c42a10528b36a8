"""One GETFILE request over one TCP connection: the socket driver of `webproxy.getfile.ReplyParser`.

Content goes through one buffer that is reused for every request, to a sink that keeps or drops it.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from webproxy.getfile import (
    LocalProtocolError,
    RemoteProtocolError,
    Reply,
    ReplyParser,
    Status,
    Violation,
    request_bytes,
)
from workloads.gfclient.cancel import Canceller
from workloads.gfclient.outcome import REFUSALS, Failure, Outcome, RequestError

BUFFER_BYTES = 256 * 1024
_HEADER_WINDOW_BYTES = 16 * 1024  # a small object then arrives with its header, in one call


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's addresses, resolved once for the whole run."""

    label: str
    addresses: tuple[tuple[socket.AddressFamily, Any], ...]

    @classmethod
    def resolve(cls, host: str, port: int) -> Self:
        """Look `host` up (IPv4 and IPv6); RequestError(CONNECT) when it has no address. Blocks on the resolver."""
        label = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise RequestError(Failure.CONNECT, f"{label}: {error.strerror}") from error
        except UnicodeError as error:
            raise RequestError(Failure.CONNECT, f"{label}: a part of the name is empty or too long") from error
        return cls(label, tuple((family, address) for family, _, _, _, address in found))


class Sink(Protocol):
    """Receives content. Both methods may raise RequestError."""

    def begin(self, length: int) -> None:
        """Content of `length` bytes follows."""
        ...

    def write(self, piece: memoryview) -> None:
        """Take the next bytes; `piece` is overwritten after the return."""
        ...


class CountOnly:
    """A sink that keeps nothing; the fetcher counts."""

    def begin(self, length: int) -> None:
        """Accept any length."""

    def write(self, piece: memoryview) -> None:
        """Drop the bytes."""


class _Progress:
    """What is known of a request so far, including one that fails half way."""

    __slots__ = ("received_bytes", "status")

    def __init__(self) -> None:
        self.status: Status | None = None
        self.received_bytes = 0


class Fetcher:
    """Makes requests one after the other for one thread; owns its buffer, uses a new socket for each request."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, canceller: Canceller) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._canceller = canceller
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def fetch(self, path: bytes, sink: Sink) -> Outcome:
        """Request `path` and pass its content to `sink`; every failure is in the outcome, none is raised.

        Blocks for at most one timeout for each address, for the whole header, and for each piece of content.
        """
        progress = _Progress()
        try:
            self._exchange(path, sink, progress)
        except RequestError as error:
            cancelled = self._canceller.cancelled
            kind = Failure.CANCELLED if cancelled else error.kind
            return Outcome(path, progress.status, progress.received_bytes, kind, error.detail)
        return Outcome(path, progress.status, progress.received_bytes)

    def _exchange(self, path: bytes, sink: Sink, progress: _Progress) -> None:
        try:
            request = request_bytes(path)
        except LocalProtocolError as error:
            raise RequestError(Failure.UNUSABLE_NAME, str(error)) from error
        with self._connected() as connection:
            try:
                connection.sendall(request)
            except OSError as error:
                raise RequestError(Failure.CONNECTION_LOST, f"while sending the request: {error}") from error
            reply, rest = self._receive_header(connection)
            progress.status = reply.status
            if reply.status is not Status.OK:
                if rest:
                    raise RequestError(Violation.EXCESS_BYTES, f"{len(rest)} bytes follow {reply.status}")
                raise RequestError(REFUSALS[reply.status], f"the server answered {reply.status}")
            sink.begin(reply.length)
            self._receive_content(connection, reply.length, rest, sink, progress)

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        """Connect to the first address that accepts; closes on the way out."""
        refusal = f"{self._endpoint.label}: no address"
        for family, address in self._endpoint.addresses:
            try:
                connection = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # out of descriptors, or an address family the kernel does not support
                refusal = f"{self._endpoint.label}: {error.strerror or error}"
                continue
            with connection, self._canceller.watching(connection):
                connection.settimeout(self._timeout_s)
                try:
                    connection.connect(address)
                except OSError as error:
                    refusal = f"{self._endpoint.label}: {error.strerror or error}"
                    continue
                yield connection
                return
        raise RequestError(Failure.CONNECT, refusal)

    def _receive_header(self, connection: socket.socket) -> tuple[Reply, bytes]:
        """Read until the header is complete; all its pieces together get one timeout."""
        parser = ReplyParser()
        window = self._buffer[:_HEADER_WINDOW_BYTES]
        give_up_at = time.monotonic() + self._timeout_s
        try:
            while True:
                count = self._receive_into(connection, window, "the header")
                if not count:
                    parser.receive_end()
                if reply := parser.receive_data(bytes(window[:count])):
                    connection.settimeout(self._timeout_s)
                    return reply, parser.rest
                connection.settimeout(max(give_up_at - time.monotonic(), 0.001))
        except RemoteProtocolError as error:
            raise RequestError(error.kind, str(error)) from error

    def _receive_content(
        self, connection: socket.socket, length: int, rest: bytes, sink: Sink, progress: _Progress
    ) -> None:
        """Pass on exactly `length` bytes; asks for one byte more than is due, so that excess is noticed."""
        piece = memoryview(rest)
        while True:
            due = length - progress.received_bytes
            if len(piece) > due:
                raise RequestError(Violation.EXCESS_BYTES, f"more than the declared {length} bytes")
            if piece:
                sink.write(piece)
                progress.received_bytes += len(piece)
            if progress.received_bytes == length:
                return
            window = self._buffer[: due - len(piece) + 1]
            count = self._receive_into(connection, window, "the content")
            if not count:
                raise RequestError(Failure.SHORT_BODY, f"{progress.received_bytes} of {length} bytes")
            piece = window[:count]

    def _receive_into(self, connection: socket.socket, window: memoryview, what: str) -> int:
        try:
            return connection.recv_into(window)
        except TimeoutError as error:
            raise RequestError(Failure.TIMEOUT, f"{what} stalled for {self._timeout_s:g} s") from error
        except OSError as error:
            raise RequestError(Failure.CONNECTION_LOST, f"within {what}: {error.strerror or error}") from error
