"""Measures the HTTP rows: fills our pair and its peers from one origin, then measures their hits in turn."""

import http.client
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from scripts.benchmark.http_rows import (
    HTTP_ROWS,
    NGINX,
    OBJECT_COUNTS,
    OURS,
    PACKAGES,
    PROXY_THREADS,
    SEGMENT_COUNT,
    VARNISH,
    HttpRow,
)
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.measure import Pace, say
from scripts.benchmark.peer_servers import find_server, running_nginx, running_varnish
from scripts.benchmark.policy import decision_us
from scripts.benchmark.rows import REQUESTS
from scripts.benchmark.stats import Comparison, compare, rotations
from scripts.benchmark.wrk import Wrk
from scripts.daemons import PairOptions, running_pair

_WARM_UP_S = 1.0
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResults:
    """The results of one run. Without nginx or wrk there are no rows; `missing` names what is not installed."""

    rows: Sequence[tuple[HttpRow, Mapping[str, Comparison]]]
    """For each row our figure against each peer's, by the peer's name."""
    decision_us: float
    missing: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The ports of all caches, in front of one origin that serves `root` and logs its requests."""

    ports: Mapping[str, int]
    root: str
    origin_log: str

    def origin_requests(self) -> int:
        """The number of requests the origin has answered."""
        with open(self.origin_log, "rb") as log:
            return sum(1 for _ in log)


def measure_http(directory: str, pace: Pace) -> HttpResults:
    """Measure every row whose programs are installed. Blocks for minutes. Raises DaemonFailed, LoadFailed."""
    nginx, varnish, wrk = find_server("nginx"), find_server("varnishd"), shutil.which("wrk")
    found = {NGINX: nginx, VARNISH: varnish, "wrk": wrk}
    rows: list[tuple[HttpRow, Mapping[str, Comparison]]] = []
    if nginx is not None and wrk is not None:
        load = Wrk(wrk, directory)
        with _running(directory, nginx, varnish) as contest:
            for row in HTTP_ROWS:
                say(row.title)
                rows.append((row, measure_row(contest, load, row, pace)))
    say("pure policy decision")
    missing = [name for name in PACKAGES if found[name] is None]
    return HttpResults(rows=rows, decision_us=decision_us(), missing=missing)


def measure_row(contest: Contest, load: Wrk, row: HttpRow, pace: Pace) -> dict[str, Comparison]:
    """Fill and check every cache, then measure them in turn; ours against each of the others. Blocks.

    Raises:
        LoadFailed: a body was wrong, or the origin was asked while only hits were to be measured.
    """
    paths = paths_of(row.object_bytes)
    for name, port in contest.ports.items():
        _fill(name, port, contest.root, paths)
        _run(load, port, paths, row, _WARM_UP_S)
    asked_before = contest.origin_requests()
    results: dict[str, list[float]] = {name: [] for name in contest.ports}
    for order in rotations(tuple(contest.ports), pace.rounds):
        for name in order:
            results[name].append(_run(load, contest.ports[name], paths, row, pace.round_s))
    asked = contest.origin_requests() - asked_before
    if asked:
        raise LoadFailed(f"{row.title}: the origin was asked {asked} times while hits were measured")
    ours = results.pop(OURS)
    return {name: compare(ours, other) for name, other in results.items()}


def make_http_objects(root: str) -> None:
    """Write the objects of all rows, of random bytes, into a new folder."""
    os.mkdir(root)
    for size in OBJECT_COUNTS:
        for path in paths_of(size):
            with open(root + path, "wb") as file:
                file.write(os.urandom(size))


def paths_of(object_bytes: int) -> tuple[str, ...]:
    """The paths of the objects of one size."""
    return tuple(f"/{object_bytes}-{number}.bin" for number in range(OBJECT_COUNTS[object_bytes]))


@contextmanager
def _running(directory: str, nginx: str, varnish: str | None) -> Iterator[Contest]:
    root, origin_log = os.path.join(directory, "objects"), os.path.join(directory, "origin.log")
    make_http_objects(root)
    with ExitStack() as servers:
        peers = servers.enter_context(running_nginx(nginx, root, directory, origin_log=origin_log))
        store = os.path.join(directory, "store")  # on disk, as nginx's cache is
        os.mkdir(store)
        options = PairOptions(
            origin_url=f"http://127.0.0.1:{peers.origin}",
            proxy_threads=PROXY_THREADS,
            segment_count=SEGMENT_COUNT,
            environ=(("SIMPLECACHED_STORE", store),),
        )
        pair = servers.enter_context(running_pair(options, directory, "gfbench-http"))
        ports = {OURS: pair.port, NGINX: peers.cache}
        if varnish is not None:
            ports[VARNISH] = servers.enter_context(running_varnish(varnish, peers.origin, directory))
        yield Contest(ports=ports, root=root, origin_log=origin_log)


def _fill(name: str, port: int, root: str, paths: Sequence[str]) -> None:
    """Request each path twice on one connection, and compare both bodies with the file."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        for path in [path for path in paths for _ in range(2)]:
            connection.request("GET", path)
            response = connection.getresponse()
            with open(root + path, "rb") as file:
                if response.read() != file.read() or response.status != 200:
                    raise LoadFailed(f"{name}: {path} came with status {response.status} and a wrong body")
    except (OSError, http.client.HTTPException) as error:
        raise LoadFailed(f"{name}: {error!r} in the first pass") from error
    finally:
        connection.close()


def _run(load: Wrk, port: int, paths: Sequence[str], row: HttpRow, seconds: float) -> float:
    figures = load.run(port, paths, seconds, connections=row.connections, new_connections=row.new_connections)
    return figures.requests_per_s if row.figure == REQUESTS else figures.megabytes_per_s
