"""`python -m webproxy.admin`: the admin server of a proxy, which starts it with a socket that listens already.

It ends with the proxy, and by SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from functools import partial

from shmchannel.daemonkit import parent
from webproxy.admin.address import own_names
from webproxy.admin.overview import take
from webproxy.admin.server import AdminServer, Pages


def main() -> int:
    """Serve until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="webproxy.admin", description=__doc__)
    parser.add_argument("--listener-fd", type=int, required=True)
    parser.add_argument("--owner", type=int, required=True, help="the pid of the proxy's main process")
    parser.add_argument("--address", help="the address of the socket, as it was configured")
    given = parser.parse_args()
    parent.name_process("webproxy:admin")
    if not parent.end_with(given.owner):
        return 0
    names = None if given.address is None else own_names(given.address)
    pages = Pages(partial(take, owner_pid=given.owner))
    server = AdminServer(socket.socket(fileno=given.listener_fd), pages, names)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _end)
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=pages.keep_fresh, args=(threading.Event(),), daemon=True).start()  # until the process ends
    server.serve_forever()
    return 0


def _end(_signum: int, _frame: object) -> None:
    """End at once: nothing is kept, and whoever waits for this process shall not wait for its next look at sockets."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
