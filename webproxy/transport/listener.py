"""Listener: the listening socket, and the options that every accepted connection inherits."""

from __future__ import annotations

import errno
import os
import socket
import struct

from webproxy.errors import StartupError

BACKLOG = 1024
STAY_MICROSECONDS = 20_000
"""How long a worker waits for more data on a connection before it idles without a worker."""
SEND_MICROSECONDS = 20_000
"""How long one send() waits for the client: the longest time a slow client delays others."""

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: choose another -p",
    errno.EACCES: "a port this low needs a privilege: give the process CAP_NET_BIND_SERVICE (systemd:"
    " AmbientCapabilities=CAP_NET_BIND_SERVICE), lower net.ipv4.ip_unprivileged_port_start by sysctl,"
    " or choose -p 1024 or above",
}


def open_listener(host: str, port: int) -> socket.socket:
    """A non-blocking listening socket on an IPv4 or IPv6 address or name.

    Accepted sockets inherit TCP_NODELAY and a kernel send timeout of SEND_MICROSECONDS. TCP_DEFER_ACCEPT makes the
    kernel hold a connection until its request arrives, so the worker that accepts it can read the request at once
    (tcp(7)). A silent connection is handed over after a second anyway.

    Raises:
        StartupError: the address cannot be listened on.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"host {host!r} is not an address to listen on: {error.strerror or error}") from error
    except UnicodeError as error:
        raise StartupError(
            f"host {host!r} is not an address to listen on: a part of it is empty or too long"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, SEND_MICROSECONDS))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, STAY_MICROSECONDS))
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        remedy = _REMEDIES.get(error.errno or 0, "check --host and -p")
        raise StartupError(
            f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)} ({remedy})"
        ) from error
    return listener
