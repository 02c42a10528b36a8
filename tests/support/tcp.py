"""Connected TCP sockets as the proxy has them: the server's side by descriptor, the client's as a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.waiting import WATCHDOG_S
from webproxy.transport import sockets
from webproxy.transport.listener import open_listener


@contextmanager
def connected(
    *, client_buffer_bytes: int = 0, server_buffer_bytes: int = 0, closing: bool = False
) -> Iterator[tuple[int, socket.socket]]:
    """A connection: the descriptor of the server's side and the client's socket.

    The code under test closes the descriptor, or with `closing` the end of the block does.
    """
    with open_listener("127.0.0.1", 0) as listener, socket.socket() as client:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        if server_buffer_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, server_buffer_bytes)
        if client_buffer_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, client_buffer_bytes)
        client.settimeout(WATCHDOG_S)
        client.connect(listener.getsockname())
        fd = sockets.accept(listener.fileno())
        assert fd is not None
        try:
            yield fd, client
        finally:
            if closing:
                sockets.close(fd)


def at_end(client: socket.socket) -> bytes:
    """All that comes until the server closes its side; the test fails when it does not."""
    return b"".join(iter(lambda: client.recv(65_536), b""))
