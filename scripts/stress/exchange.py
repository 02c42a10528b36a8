"""One request over HTTP or getfile, blocking, whose body may be read in parts; every byte of it is kept."""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Self

from webproxy.getfile import RemoteProtocolError, ReplyParser, request_bytes

_BLOCK_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 18  # what is under way when a client pauses: little of a body of megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request. Over getfile only the target counts."""

    target: str
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes | Iterable[bytes] = b""
    """Pieces are sent as they come: chunked, unless the fields say the length."""
    getfile: bool = False


class Exchange:
    """One request on a connection of its own; a context manager. Its errors are OSError and EOFError.

    All of it must be over within `timeout_s`, or there is a TimeoutError.

    `status` is that of HTTP; OK, FILE_NOT_FOUND and the others of getfile are 200, 404 and 503.
    """

    def __init__(self, port: int, asked: Asked, timeout_s: float) -> None:
        """Send the request and block until the head of the answer."""
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = bytearray()
        self.length: int | None = None
        """Bytes that the body should have; None if its head does not say."""
        self._http: HTTPConnection | None = None
        self._response: HTTPResponse | None = None
        self._give_up = time.monotonic() + timeout_s
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._begin(asked)
        except BaseException:
            self.close()
            raise

    def _begin(self, asked: Asked) -> None:
        if asked.getfile:
            self._begin_getfile(asked.target)
            return
        self._http = HTTPConnection("127.0.0.1")
        self._http.sock = self._socket
        try:
            self._http.request(asked.method, asked.target, body=asked.body or None, headers=dict(asked.fields))
            self._response = self._http.getresponse()
        except HTTPException as error:
            raise EOFError(repr(error)) from error
        self.status = self._response.status
        self.fields = {name.lower(): value for name, value in self._response.getheaders()}
        self.length = self._response.length

    def _begin_getfile(self, target: str) -> None:
        self._socket.sendall(request_bytes(target.encode()))
        parser, reply = ReplyParser(), None
        while reply is None:
            piece = self._piece()
            if not piece:
                raise EOFError("closed without an answer")
            try:
                reply = parser.receive_data(piece)
            except RemoteProtocolError as error:
                raise EOFError(repr(error)) from error
        self.status = {"OK": 200, "FILE_NOT_FOUND": 404, "INVALID": 400}.get(reply.status, 503)
        self.length = reply.length
        self.body += parser.rest

    def read(self, size: int | None = None) -> bool:
        """Block until the body has `size` bytes or ends; returns whether it is complete. Raises EOFError, OSError."""
        while size is None or len(self.body) < size:
            piece = self._piece()
            if not piece:
                break
            self.body += piece
        return self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether all bytes have come that the head announces; chunked bodies end with an error otherwise."""
        return self.length is None or len(self.body) == self.length

    def _piece(self) -> bytes:
        left_s = self._give_up - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer did not end in time")
        self._socket.settimeout(left_s)
        if self._response is None:
            return self._socket.recv(_BLOCK_BYTES)
        try:
            return self._response.read1(_BLOCK_BYTES)
        except HTTPException as error:
            raise EOFError(repr(error)) from error

    def close(self) -> None:
        """Close the connection; may be called twice."""
        with suppress(OSError):
            if self._response is not None:
                self._response.close()
            if self._http is not None:
                self._http.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
