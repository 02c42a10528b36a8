"""A plain getfile client for tests: bytes out, bytes in, nothing forgiven."""

import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.waiting import WATCHDOG_S
from webproxy.getfile import ReplyParser, Status, request_bytes

_RECEIVE_BYTES = 1 << 16
_PACE_S = 0.005
_PACED_BYTES = 1 << 16


class Answer(NamedTuple):
    """A whole reply; `length` is what its header declared."""

    status: Status
    body: bytes
    length: int

    @property
    def whole(self) -> bool:
        """Whether the body has the declared length."""
        return len(self.body) == self.length


def connect(port: int, host: str = "127.0.0.1", *, receive_buffer_bytes: int = 0) -> socket.socket:
    """A connection that sends each piece at once; every call on it fails at the watchdog. The caller closes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        client.settimeout(WATCHDOG_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect((host, port))
    except BaseException:
        client.close()
        raise
    return client


def refuses_connections(port: int) -> bool:
    """Whether the port is no longer listened on; a listener that closes during the handshake resets it."""
    try:
        connect(port).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def receive_to_end(client: socket.socket) -> bytes:
    """Everything up to the server's end of stream; a reset is an error."""
    pieces = []
    while piece := client.recv(_RECEIVE_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


class PacedDownload:
    """A client that takes a few kilobytes at a time, so that its transfer keeps running, until it is let go.

    It is fast enough not to count as slow, and too slow to finish before that. A context manager.
    """

    def __init__(self, port: int, path: bytes) -> None:
        self._go = threading.Event()
        self._client = connect(port, receive_buffer_bytes=_PACED_BYTES)
        self._crew = ThreadPoolExecutor(1)
        self._client.sendall(request_bytes(path))
        self._beginning = self._client.recv(4096)
        self._rest = self._crew.submit(self._take)

    def _take(self) -> bytes:
        pieces = [self._beginning]
        while not self._go.wait(_PACE_S) and (piece := self._client.recv(_PACED_BYTES)):
            pieces.append(piece)
        return b"".join([*pieces, receive_to_end(self._client)])

    def finish(self) -> Answer:
        """Take all the rest as fast as it comes."""
        self._go.set()
        return parse_answer(self._rest.result())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._go.set()
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._crew.shutdown()
        self._client.close()


def parse_answer(reply: bytes) -> Answer:
    """Take a whole reply apart. Raises RemoteProtocolError when it is none; a short or long body shows in `whole`."""
    parser = ReplyParser()
    header = parser.receive_data(reply)
    if header is None:
        parser.receive_end()
        raise AssertionError("unreachable: receive_end() raises without a header")
    return Answer(header.status, parser.rest, header.length)


def ask(port: int, path: str | bytes, host: str = "127.0.0.1") -> Answer:
    """Ask for one path and take all of the reply."""
    with connect(port, host) as client:
        client.sendall(request_bytes(path.encode() if isinstance(path, str) else path))
        return parse_answer(receive_to_end(client))


def ask_all(port: int, paths: Iterable[str], *, clients: int) -> list[Answer]:
    """Ask for each path, with so many clients at once; the answers in the order of the paths."""
    with ThreadPoolExecutor(clients) as crew:
        return list(crew.map(lambda path: ask(port, path), paths))


def raw(port: int, *pieces: bytes, end: bool = False, host: str = "127.0.0.1") -> bytes:
    """Send the pieces one by one, close our side when `end`, and return all that comes back."""
    with connect(port, host) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):  # it answered before we had said all
            pass
        if end:
            client.shutdown(socket.SHUT_WR)
        return receive_to_end(client)
