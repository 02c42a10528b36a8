"""A real nginx as an origin: unprivileged, on a port of its own, its access log counted, ended by pid.

It gets its listening socket from the test, so that no port is guessed and its backlog holds early connections.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections import Counter
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.waiting import WATCHDOG_S, wait_until

LIFETIME_S = 3600
_SENTINEL = "/.sentinel"

# `gzip_proxied`: nginx sees our Via. Below /short/ an answer is stale at once, below /private/ nobody may keep it, and
# below /simple/ it says nothing of that, as a package index may.
_CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
    types {{ text/plain txt; text/html html; application/octet-stream bin; }}
    log_format lines '$request_method $request_uri $status $connection';
    access_log {home}/access.log lines;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    gzip on;
    gzip_vary on;
    gzip_proxied any;
    gzip_types text/plain;
    gzip_min_length 100;
    server {{
        listen {address}:{port};
        root {root};
        expires {lifetime_s}s;
        location /short/ {{ expires 0; }}
        location /private/ {{ expires off; add_header Cache-Control "private, max-age=60"; }}
        location /simple/ {{ expires off; gzip off; }}
    }}
}}
"""


class Logged(NamedTuple):
    """One line of the access log; `connection` is nginx's number for the client's connection."""

    method: str
    target: str
    status: int
    connection: int


class Nginx:
    """nginx over the files below `root`; a context manager. Its own files go below `home`, a folder made for it."""

    def __init__(self, program: str, root: str | os.PathLike[str], home: str | os.PathLike[str]) -> None:
        self._home = os.fspath(home)
        os.makedirs(self._home, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            address, self.port = listener.getsockname()
            configuration = os.path.join(self._home, "nginx.conf")
            with open(configuration, "w", encoding="utf-8") as file:
                file.write(
                    _CONFIGURATION.format(
                        home=self._home,
                        root=os.fspath(root),
                        user="user root root;" if os.geteuid() == 0 else "",  # a user who may read the test's folders
                        address=address,
                        port=self.port,
                        lifetime_s=LIFETIME_S,
                    )
                )
            with open(os.path.join(self._home, "printed"), "wb") as printed:
                self._process = subprocess.Popen(
                    [program, "-p", self._home, "-c", configuration, "-e", os.path.join(self._home, "error.log")],
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    pass_fds=(listener.fileno(),),
                    env={**os.environ, "NGINX": f"{listener.fileno()};"},
                )
        self.authority = f"{address}:{self.port}"
        self.url = f"http://{self.authority}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Stop it; may be called twice."""
        self._process.terminate()
        self._process.wait(WATCHDOG_S)

    def get(self, target: str, **fields: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Its answer to a direct request, which also appears in its log."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WATCHDOG_S)
        try:
            connection.request("GET", target, headers=fields)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def log(self) -> list[Logged]:
        """Every request it has answered so far, oldest first.

        It has one worker, which logs a request when the answer is out: what came before a request has its line before.
        """
        seen = len(self._lines_of_sentinel())
        self.get(_SENTINEL)
        wait_until(lambda: len(self._lines_of_sentinel()) > seen, what=f"nginx's log below {self._home}")
        return [line for line in self._lines() if line.target != _SENTINEL]

    def count(self, target: str) -> Counter[int]:
        """How often it answered `target`, by status."""
        return Counter(line.status for line in self.log() if line.target == target)

    def _lines_of_sentinel(self) -> list[Logged]:
        return [line for line in self._lines() if line.target == _SENTINEL]

    def _lines(self) -> list[Logged]:
        with open(os.path.join(self._home, "access.log"), encoding="ascii") as log:
            whole = [line.split() for line in log.read().split("\n")[:-1]]
        return [Logged(method, target, int(status), int(number)) for method, target, status, number in whole]
