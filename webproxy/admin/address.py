"""The address of the admin server: `HOST:PORT`, or the path of a Unix socket; for the daemons, which serve none."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress


def is_address(text: str) -> bool:
    """Return whether it says where to listen: `HOST:PORT`, or a path with a slash."""
    host, colon, port = text.rpartition(":")
    return "/" in text or (bool(host and colon) and port.isdecimal() and int(port) < 1 << 16)


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
        listener.listen()
        return listener
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True
