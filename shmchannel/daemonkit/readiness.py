"""Tells the service manager about readiness and shutdown, with the datagrams of `sd_notify`.

Without a service manager (no `NOTIFY_SOCKET`) nothing happens. Errors are never raised: a manager that cannot be
reached is no reason to stop serving.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"

SEND_TIMEOUT_S = 1.0


def notify(*messages: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send messages (`READY`, `STOPPING`) to the service manager; return whether they were sent.

    Never raises; blocks for at most a second. `environ` defaults to the process's own environment.
    """
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or not messages:
        return False
    try:
        name = os.fsencode(address)
        if name.startswith(b"@"):
            name = b"\0" + name[1:]  # an abstract socket: a name without a file
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            # A manager that reads slowly must not miss READY, and one that hangs must not block the daemon.
            manager.settimeout(SEND_TIMEOUT_S)
            manager.sendto("\n".join(messages).encode("utf-8", "replace"), name)
    except (OSError, ValueError):
        return False
    return True
