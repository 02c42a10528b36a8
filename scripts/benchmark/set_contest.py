"""The caches of the rows with sets of objects: ours, nginx and varnish, in front of one native origin."""

import http.client
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from scripts.benchmark.http_measure import pair_options
from scripts.benchmark.http_rows import NGINX, OURS, VARNISH
from scripts.benchmark.nginx_cache import running_nginx_cache
from scripts.benchmark.peer_servers import Accepting, running_varnish
from scripts.daemons import running_daemon, running_pair

VARNISH_BYTES_MAX = 1500 << 20
"""Sets with more are not measured with varnish, which keeps them in memory."""
_TIMEOUT_S = 30.0
_COMPLAINTS_MAX = 5
_LEVEL = re.compile(r"\S+ (warning|error|critical)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What is measured, and before what; the caller has found or compiled them."""

    nginx: str
    varnish: str | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetContest:
    """The ports and processes of all caches, by name."""

    ports: Mapping[str, int]
    pids: Mapping[str, Sequence[int]]
    """Of each cache; there may be others below them."""
    origin_port: int
    complaints: Callable[[], list[str]] = list
    """Gives the last lines in which our daemons warn or complain."""

    def origin_requests(self) -> int:
        """The number of objects that the origin was asked for. Blocks. Raises OSError, http.client.HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.origin_port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/requests")
            return int(connection.getresponse().read())
        finally:
            connection.close()


def complaints_in(log: str) -> list[str]:
    """PURE: the lines of a daemon's log that are at least warnings."""
    return [line for line in log.splitlines() if _LEVEL.match(line)]


@contextmanager
def running_origin(program: str, directory: str) -> Iterator[int]:
    """Run the native origin; its port. Raises DaemonFailed."""
    with running_daemon("origin", [program], os.path.join(directory, "origin.log")) as origin:
        yield origin.wait_for_port()


@contextmanager
def running_set_contest(
    programs: Programs, directory: str, *, workers: int, accepting: Accepting, stored_bytes: int
) -> Iterator[SetContest]:
    """Run all caches with room for that many bytes, ours and nginx with so many workers. Raises DaemonFailed."""
    room = 2 * stored_bytes + (1 << 30)
    settings = {"WEBPROXY_WORKERS": str(workers), "SIMPLECACHED_STORE_BYTES": str(room)}
    with ExitStack() as started:
        origin_port = started.enter_context(running_origin(programs.origin, directory))
        options = pair_options(directory, origin_port, "store", settings)
        pair = started.enter_context(running_pair(options, directory, "gfbench-sets"))
        nginx = started.enter_context(
            running_nginx_cache(programs.nginx, origin_port, directory, workers=workers, accepting=accepting)
        )
        ports, pids = {OURS: pair.port, NGINX: nginx.port}, {OURS: [*pair.pids], NGINX: [nginx.pid]}
        if programs.varnish is not None and stored_bytes <= VARNISH_BYTES_MAX:
            varnish = started.enter_context(running_varnish(programs.varnish, origin_port, directory, store_bytes=room))
            ports[VARNISH], pids[VARNISH] = varnish.port, [varnish.pid]

        def complaints() -> list[str]:
            logs = (pair.proxy.log_text(), pair.cache.log_text())
            return [line for log in logs for line in complaints_in(log)[-_COMPLAINTS_MAX:]]

        yield SetContest(ports=ports, pids=pids, origin_port=origin_port, complaints=complaints)
