"""A TCP server that follows a script byte for byte: what a real server must never do, and more slowly."""

import socket
import struct
import threading
from types import TracebackType
from typing import Final, Self

_LOOK_AGAIN_S = 0.02


class _Reset:
    """The step that resets the connection."""


RESET: Final = _Reset()
Step = bytes | threading.Event | _Reset


class RawServer:
    """Reads a request on each connection, performs the steps, and closes.

    A step is bytes to send as they are, an event to wait for (which sets `reached`), or RESET. Scripts follow
    each other connection by connection; the last one repeats. Leaving the context ends everything.
    """

    def __init__(
        self, *scripts: list[Step], host: str = "127.0.0.1", port: int = 0, reads_request: bool = True
    ) -> None:
        self._scripts = scripts or ([],)
        self._reads_request = reads_request
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self.reached = threading.Event()
        self.requests: list[bytes] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(number, len(self._scripts) - 1)]
            number += 1
            with self._lock:
                self._connections.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection, script))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, script: list[Step]) -> None:
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._reads_request:
                    self._read_request(connection)
                for step in script:
                    self._perform(connection, step)
        except OSError:
            pass  # the client left in the middle of the script
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _read_request(self, connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n") and (data := connection.recv(8192)):
            request += data
        with self._lock:
            self.requests.append(request)

    def _perform(self, connection: socket.socket, step: Step) -> None:
        if isinstance(step, bytes):
            connection.sendall(step)
        elif isinstance(step, threading.Event):
            self.reached.set()
            while not step.wait(_LOOK_AGAIN_S) and not self._closing.is_set():
                pass
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def byte_by_byte(data: bytes) -> list[Step]:
    """Return the steps that send `data` one byte at a time."""
    return [data[index : index + 1] for index in range(len(data))]
