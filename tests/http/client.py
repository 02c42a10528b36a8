"""A plain HTTP/1.1 client for tests: bytes out, bytes in, nothing added and nothing forgiven."""

from __future__ import annotations

import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from tests.support.client import connect

_RECEIVE_BYTES = 1 << 16

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reply:
    """One answer; `body` is without its chunks, `whole` says whether it came to the end that its head announced."""

    status: int
    lines: Lines
    body: bytes = b""
    whole: bool = True
    interims: tuple[tuple[int, Lines], ...] = field(default=())
    trailers: Lines = ()

    def all(self, name: str) -> list[str]:
        """The values of a field's lines."""
        return [value for found, value in self.lines if found.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field, joined; None without one."""
        values = self.all(name)
        return ", ".join(values) if values else None

    @property
    def age(self) -> int | None:
        """Age as a number."""
        value = self.get("age")
        return None if value is None else int(value)

    @property
    def cache(self) -> dict[str, str]:
        """The parameters of the last member of Cache-Status; a bare one has an empty value."""
        member = (self.get("cache-status") or "").split(", ")[-1]
        pairs = [parameter.partition("=") for parameter in member.split("; ")[1:]]
        return {name: value for name, _, value in pairs}

    @property
    def is_hit(self) -> bool:
        """Whether the proxy says that it came from the cache."""
        return "hit" in self.cache


class HttpClient:
    """One connection; a context manager."""

    def __init__(self, port: int, *, receive_buffer_bytes: int = 0) -> None:
        self._socket = connect(port, receive_buffer_bytes=receive_buffer_bytes)
        self._received = b""

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def send(
        self, target: str, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1", host: str = "h"
    ) -> None:
        """Send a request. Each field is `Name: value`; an empty host leaves Host out."""
        lines = [f"{method} {target} HTTP/{version}", *([f"Host: {host}"] if host else []), *fields, "", ""]
        with suppress(BrokenPipeError, ConnectionResetError):  # it answered before all was said
            self._socket.sendall("\r\n".join(lines).encode("latin-1") + body)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def receive(self, *, bodiless: bool = False) -> Reply:
        """The next answer, its interim ones before it; `bodiless` after a HEAD."""
        interims: list[tuple[int, Lines]] = []
        while True:
            status, lines = self._head()
            if status >= 200:
                break
            interims.append((status, lines))
        reply = Reply(status, lines, interims=tuple(interims))
        if bodiless or status in (204, 304):
            return reply
        body, whole, trailers = self._body(reply)
        return Reply(status, lines, body, whole, tuple(interims), trailers)

    def head(self) -> Reply:
        """The next head, interim or final, without waiting for its body."""
        status, lines = self._head()
        return Reply(status, lines)

    def some(self) -> bytes:
        """The next bytes of a body, at least one unless it has ended."""
        data, self._received = self._received or self._more(), b""
        return data

    def rest(self, length: int) -> bytes:
        """`length` bytes of a body, or fewer when it ends before that."""
        return self._exactly(length)

    def ended(self) -> bool:
        """Whether the server has closed; waits for that or for a byte."""
        return not (self._received or self._more())

    def ask(self, target: str, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> Reply:
        """Send and receive."""
        self.send(target, *fields, method=method, body=body, version=version)
        return self.receive(bodiless=method == "HEAD")

    def _more(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            return b""

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            data = self._more()
            assert data, f"the connection ended in a head: {self._received!r}"
            self._received += data
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _head(self) -> tuple[int, Lines]:
        first = self._line().decode("latin-1")
        version, status = first.split(" ")[:2]
        assert version == "HTTP/1.1", first
        return int(status), self._fields()

    def _fields(self) -> Lines:
        lines = []
        while line := self._line().decode("latin-1"):
            name, colon, value = line.partition(":")
            assert colon, line
            lines.append((name, value.strip()))
        return tuple(lines)

    def _exactly(self, length: int) -> bytes:
        pieces, missing = [], length
        while missing:
            data = self.some()
            if not data:
                break
            pieces.append(data[:missing])
            self._received = data[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _body(self, reply: Reply) -> tuple[bytes, bool, Lines]:
        if reply.get("transfer-encoding") is not None:
            assert reply.get("transfer-encoding") == "chunked"
            assert reply.get("content-length") is None
            return self._chunks()
        length = reply.get("content-length")
        if length is None:
            assert reply.get("connection") == "close"
            return b"".join(iter(self.some, b"")), True, ()
        body = self._exactly(int(length))
        return body, len(body) == int(length), ()

    def _chunks(self) -> tuple[bytes, bool, Lines]:
        body = b""
        while True:
            if b"\r\n" not in self._received:
                data = self._more()
                if not data:
                    return body, False, ()
                self._received += data
                continue
            size = int(self._line(), 16)
            if not size:
                return body, True, self._fields()
            piece = self._exactly(size + 2)
            body += piece[:size]
            if len(piece) < size + 2:
                return body, False, ()
            assert piece[size:] == b"\r\n"


def fetch(
    port: int,
    target: str,
    *fields: str,
    method: str = "GET",
    body: bytes = b"",
    version: str = "1.1",
    host: str = "h",
) -> Reply:
    """One request on a connection of its own, which ends with it."""
    with HttpClient(port) as client:
        client.send(target, *fields, "Connection: close", method=method, body=body, version=version, host=host)
        reply = client.receive(bodiless=method == "HEAD")
        assert not reply.whole or client.ended()
        return reply


def fetch_all(port: int, requests: list[tuple[str, ...]], *, clients: int) -> list[Reply]:
    """A request for each (target, *fields), so many at a time; the answers in their order."""
    with ThreadPoolExecutor(clients) as crew:
        return list(crew.map(lambda request: fetch(port, *request), requests))


def free_port() -> int:
    """A port that nobody listens on now, and that the kernel gives to nobody who asks for any port or connects."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as range_file:
        lowest, highest = map(int, range_file.read().split())
    candidates = [*range(10_000, lowest), *range(highest + 1, 1 << 16)] or [0]
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", secrets.choice(candidates))) as listener:
            port: int = listener.getsockname()[1]
            return port
