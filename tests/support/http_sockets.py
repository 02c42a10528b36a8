"""HTTP connections for unit tests: the server's side as the proxy has it, the client's as a socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.streams import client_stream
from tests.support.tcp import connected
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import Done, Outcome


class NoServer:
    """Answers nothing that comes on a connection: the test does."""

    def run(self, connection: HttpConnection) -> Outcome:
        """As ConnectionServer.run()."""
        return Done(connection)

    def expire(self, connection: HttpConnection) -> Outcome:
        """As ConnectionServer.expire()."""
        return Done(connection)

    def given_up(self, connection: HttpConnection) -> None:
        """As ConnectionServer.given_up()."""


def http_connection(fd: int, received: bytes = b"") -> HttpConnection:
    """The server's side of a connection that nobody serves but the test."""
    return HttpConnection(client_stream(fd), NoServer(), head_bytes_max=8192, received=received)


@contextmanager
def http_connected(
    **options: Any,
) -> Iterator[tuple[HttpConnection, socket.socket]]:
    """An HTTP connection and its client, with the options of connected()."""
    with connected(**options) as (fd, client):
        yield http_connection(fd), client


class OpenFile:
    """Tells whether a descriptor is still the same open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inode = os.fstat(fd).st_ino

    @property
    def is_open(self) -> bool:
        """Whether it is."""
        try:
            return os.fstat(self._fd).st_ino == self._inode
        except OSError:
            return False
