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
from webproxy.admin.overview import take
from webproxy.admin.server import AdminServer, Pages


def main() -> int:
    """Serve until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="webproxy.admin", description=__doc__)
    parser.add_argument("--listener-fd", type=int, required=True)
    parser.add_argument("--owner", type=int, required=True, help="the pid of the proxy's main process")
    given = parser.parse_args()
    parent.name_process("webproxy:admin")
    if not parent.end_with(given.owner):
        return 0
    server = AdminServer(socket.socket(fileno=given.listener_fd), Pages(partial(take, owner_pid=given.owner)))
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: threading.Thread(target=server.shutdown).start())
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    server.serve_forever()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
