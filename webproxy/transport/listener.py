"""The listening socket: opened here, or handed over by a service manager or another process of this proxy.

Accepted connections inherit its options.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import MutableMapping

from webproxy.errors import StartupError
from webproxy.transport import sockets

BACKLOG = 1024
UNSENT_BYTES = 1 << 19
"""How much the kernel takes for a client beyond what its window allows to send, until it has been quick once.

Without this limit it takes some MB for each, and a thousand slow readers bring all connections of the host into memory
pressure (tcp_mem in tcp(7)).
"""

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: choose another -p",
    errno.EACCES: "a port this low needs a privilege: give the process CAP_NET_BIND_SERVICE (systemd:"
    " AmbientCapabilities=CAP_NET_BIND_SERVICE), lower net.ipv4.ip_unprivileged_port_start by sysctl,"
    " or choose -p 1024 or above",
}
_FIRST_ACTIVATED_FD = 3  # SD_LISTEN_FDS_START (sd_listen_fds(3))


def open_listener(host: str, port: int) -> socket.socket:
    """A non-blocking listening socket on an IPv4 or IPv6 address or name.

    Accepted sockets inherit TCP_NODELAY, the limit of UNSENT_BYTES and a receive timeout of STAY_MS. TCP_DEFER_ACCEPT
    makes the kernel hold a connection until its request arrives, so the worker that accepts it can read the request at
    once (tcp(7)). A silent connection is handed over after a second anyway.

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
        listener.bind(address)
        listener.listen(BACKLOG)
        _set_options(listener)
    except OSError as error:
        listener.close()
        remedy = _REMEDIES.get(error.errno or 0, "check --host and -p")
        raise StartupError(
            f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)} ({remedy})"
        ) from error
    return listener


def open_private_listener(name: str) -> socket.socket:
    """A non-blocking socket for other processes of this user, in the abstract namespace: no file is ever left.

    Whoever accepts checks whose connection it is (sockets.is_of_own_user).

    Raises:
        OSError: the name is taken, or the system refused.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind("\0" + name)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def adopt_listener(fd: int) -> socket.socket:
    """The listening socket that another process handed over under this descriptor, with our options.

    Raises:
        StartupError: the descriptor is none of a listening TCP socket.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise StartupError(f"descriptor {fd}, which was handed over, is not a socket")
        listener = socket.socket(fileno=fd)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listener.family not in (socket.AF_INET, socket.AF_INET6) or not is_listening:
            listener.detach()
            raise StartupError(f"descriptor {fd}, which was handed over, is not a listening TCP socket")
        os.set_inheritable(fd, False)
        _set_options(listener)
    except OSError as error:
        raise StartupError(f"descriptor {fd}, which was handed over, is of no use: {error.strerror}") from error
    return listener


def activated_listener(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket of a service manager that listens for us (sd_listen_fds(3)); None if there is none.

    Removes the variables that say so: a child of this process is not meant.

    Raises:
        StartupError: there is more than one, or it is of another kind.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or count == "0":
        return None
    if count != "1":
        raise StartupError(f"the service manager hands over {count} sockets; one ListenStream= is supported")
    return adopt_listener(_FIRST_ACTIVATED_FD)


def _set_options(listener: socket.socket) -> None:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 1000 * sockets.STAY_MS))
    listener.setblocking(False)
