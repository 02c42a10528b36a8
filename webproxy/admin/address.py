"""The address of the admin server: `HOST:PORT`, or the path of a Unix socket, and what the server is called there.

For the daemons too, which serve none.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from contextlib import suppress

_BACKLOG = 1024
"""Who finds no place is heard again by the kernel after a second, when a probe has given up: the default is 128."""


def is_address(text: str) -> bool:
    """Return whether it says where to listen: `HOST:PORT`, or a path with a slash."""
    host, colon, port = text.rpartition(":")
    return "/" in text or (bool(host and colon) and port.isdecimal() and int(port) < 1 << 16)


def own_names(address: str) -> frozenset[str] | None:
    """The host names by which clients may call a server at this address; None: any, because browsers cannot reach it.

    Numbers need no name. A name that a stranger has made point here is not among them: his pages, in a browser that can
    connect, would otherwise read what only that browser's user may (DNS rebinding).
    """
    if "/" in address:
        return None
    host = address.rpartition(":")[0]
    return frozenset(name.lower() for name in ("localhost", socket.gethostname(), host) if name)


def is_own(host: str, names: frozenset[str]) -> bool:
    """Whether the value of a Host field is a number, or one of the names."""
    name, colon, port = host.strip().rpartition(":")
    if not colon or not port.isdecimal():
        name = host.strip()
    name = name.lower().removesuffix(".")
    with suppress(ValueError):
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        return True
    return name in names


def open_admin_listener(address: str) -> socket.socket:
    """Listen on `HOST:PORT`, or on the path of a Unix socket (mode 0600), of which a left one is replaced.

    Raises:
        OSError: the address cannot be listened on.
    """
    if "/" in address:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(address).st_mode) and not _is_served(address):
                os.unlink(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        return listener
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        host.encode("idna")
    except UnicodeError as error:  # bind() would say so by a TypeError
        raise socket.gaierror(socket.EAI_NONAME, "a part of the name is empty, too long or not allowed") from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True
