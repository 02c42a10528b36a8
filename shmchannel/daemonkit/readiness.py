"""Tells the service manager how far the daemon is: the datagrams of `sd_notify`.

Without a service manager (no `NOTIFY_SOCKET`) nothing happens. Nothing here can fail a daemon: a manager that
cannot be told is no reason to stop serving.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"

_SEND_TIMEOUT_S = 1.0


def notify(*messages: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send messages (`READY`, `STOPPING`) to the service manager; tell whether they went out.

    Never raises; blocks for at most a second. `environ` is the process's own unless given.
    """
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or not messages:
        return False
    try:
        name = os.fsencode(address)
        if name.startswith(b"@"):
            name = b"\0" + name[1:]  # a name without a file, in the kernel's own name space
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            # A manager that is slow to read must not miss READY, and one that hangs must not hold us.
            manager.settimeout(_SEND_TIMEOUT_S)
            manager.sendto("\n".join(messages).encode("utf-8", "replace"), name)
    except (OSError, ValueError):
        return False
    return True
