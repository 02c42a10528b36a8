"""A raw HTTP client for tests: bytes out, answers in, nothing forgiven: each answer is framed in exactly one way."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.client import connect

_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True)
class HttpAnswer:
    """One answer; names of fields in lower case."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    framing: str
    """How its end was told: "none", "length", "chunked" or "close"."""

    def get(self, name: bytes) -> bytes | None:
        """The field's value; fails when it comes twice."""
        values = [value for known, value in self.fields if known == name]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends."""
        return self.get(b"connection") == b"close"


def request(target: str | bytes, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request without a body; Host is said."""
    path = target.encode() if isinstance(target, str) else target
    return b"\r\n".join([method + b" " + path + b" HTTP/" + version, b"Host: h", *lines, b"", b""])


class HttpClient:
    """One connection; a context manager. Every call fails at the watchdog."""

    def __init__(self, port: int, *, receive_buffer_bytes: int = 0) -> None:
        self.socket = connect(port, receive_buffer_bytes=receive_buffer_bytes)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, *pieces: bytes) -> Self:
        """Send the pieces one by one."""
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def ask(self, target: str | bytes, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> HttpAnswer:
        """Ask for something without a body, and take the answer."""
        return self.send(request(target, *lines, method=method, version=version)).answer(method)

    def answer(self, method: bytes = b"GET") -> HttpAnswer:
        """The next answer, whole; one of 1xx is an answer too."""
        head = self._until(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        version, status, _reason = line.split(b" ", 2)
        assert version == b"HTTP/1.1", line
        fields = tuple((name.lower(), value.strip()) for name, value in (line.split(b":", 1) for line in lines))
        answer = HttpAnswer(int(status), fields, b"", "none")
        length, coding = answer.get(b"content-length"), answer.get(b"transfer-encoding")
        assert length is None or coding is None, fields
        if method == b"HEAD" or answer.status < 200 or answer.status in (204, 304):
            assert answer.status == 304 or method == b"HEAD" or (length, coding) == (None, None), fields
            return answer
        if length is not None:
            return HttpAnswer(answer.status, fields, self._exactly(int(length)), "length")
        if coding is not None:
            assert coding == b"chunked"
            return HttpAnswer(answer.status, fields, b"".join(self._chunks()), "chunked")
        assert answer.closes, "without any framing the body ends with the connection"
        return HttpAnswer(answer.status, fields, self.rest(), "close")

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._exactly(size)
            assert self._exactly(2) == b"\r\n"
        assert self._until(b"\r\n") == b"\r\n", "no trailers are sent"

    def rest(self) -> bytes:
        """All that comes until the server closes its side."""
        while piece := self.socket.recv(_RECEIVE_BYTES):
            self._buffer += piece
        buffer, self._buffer = self._buffer, b""
        return buffer

    def wait_for_beginning(self) -> None:
        """Wait until an answer begins, and take as little as possible of it."""
        self._buffer += self.socket.recv(1)
        assert self._buffer, "the connection ended"

    def end(self) -> None:
        """Close our side."""
        self.socket.shutdown(socket.SHUT_WR)

    def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            self._more()
        end += len(mark)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def _exactly(self, count: int) -> bytes:
        pieces, missing = [self._buffer[:count]], count - len(self._buffer)
        self._buffer = self._buffer[count:]
        while missing > 0:
            piece = self.socket.recv(min(missing, _RECEIVE_BYTES))
            assert piece, f"the connection ended {missing} bytes too early"
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _more(self) -> None:
        piece = self.socket.recv(_RECEIVE_BYTES)
        assert piece, f"the connection ended behind {self._buffer!r}"
        self._buffer += piece
