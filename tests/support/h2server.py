"""As much of an HTTP/2 server as one client over TLS needs: each request gets the scripted answer.

The head of an answer is in HPACK's plainest form (literals, no table), so there is no state to keep (RFC 7541 6.2.2).
"""

from __future__ import annotations

import socket
import ssl
import threading
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1

Pairs = list[tuple[bytes, bytes]]


class H2Server:
    """Answers every request with `head`, `body` and `trailers`; a body of a request is read and kept in `received`."""

    def __init__(self, tls: ssl.SSLContext, head: Pairs, body: bytes = b"", trailers: Pairs | None = None) -> None:
        self._tls = tls
        self._head = head
        self._body = body
        self._trailers = trailers or []
        self.received = bytearray()
        self.streams: list[int] = []
        self.protocols: list[str | None] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[ssl.SSLSocket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it ended before
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            connection = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._converse, args=(connection,)))
            self._threads[-1].start()

    def _converse(self, connection: ssl.SSLSocket) -> None:
        with connection:
            try:
                connection.do_handshake()
                self._serve(connection)
            except OSError:
                pass  # the client went, or the test has ended

    def _serve(self, connection: ssl.SSLSocket) -> None:
        self.protocols.append(connection.selected_alpn_protocol())
        if _exactly(connection, len(_PREFACE)) != _PREFACE:
            return
        connection.sendall(_frame(_SETTINGS, 0, 0, b""))
        while header := _exactly(connection, 9):
            kind, flags, stream = header[3], header[4], int.from_bytes(header[5:], "big")
            payload = _exactly(connection, int.from_bytes(header[:3], "big"))
            if kind == _SETTINGS and not flags & _ACK:
                connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            if kind == _DATA:
                self.received += payload
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                self.streams.append(stream)
                self._answer(connection, stream)

    def _answer(self, connection: ssl.SSLSocket, stream: int) -> None:
        last = 0 if self._trailers else _END_STREAM
        connection.sendall(_frame(_HEADERS, _END_HEADERS, stream, _packed(self._head)))
        connection.sendall(_frame(_DATA, last, stream, self._body))
        if self._trailers:
            connection.sendall(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _packed(self._trailers)))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _packed(pairs: Pairs) -> bytes:
    return b"".join(bytes((0, len(name))) + name + bytes((len(value),)) + value for name, value in pairs)


def _exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data
