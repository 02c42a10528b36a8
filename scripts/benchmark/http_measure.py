"""Measures the HTTP rows: fills our pair and its peers from one origin, then measures their hits in turn."""

import http.client
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

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
from scripts.benchmark.load import Figures, LoadFailed
from scripts.benchmark.measure import Pace, say
from scripts.benchmark.peer_servers import DEFAULT_TUNING, NginxTuning, find_server, running_nginx, running_varnish
from scripts.benchmark.policy import decision_us
from scripts.benchmark.process_trees import cpu_time_s
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
    asked: Sequence[HttpRow] = HTTP_ROWS
    """The rows that were to be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The ports of all caches, in front of one origin that serves `root` and logs its requests."""

    ports: Mapping[str, int]
    root: str
    origin_log: str
    pids: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The processes of each cache, which may have others below them; without any its CPU time is not measured."""

    def between(self, *names: str) -> "Contest":
        """The same with these caches only."""
        return replace(self, ports={name: self.ports[name] for name in names})

    def origin_requests(self) -> int:
        """The number of requests the origin has answered."""
        with open(self.origin_log, "rb") as log:
            return sum(1 for _ in log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one cache did in one round: the row's figure, and the CPU time of its processes for each request."""

    figure: float
    cpu_us: float


def measure_http(directory: str, pace: Pace, rows: Sequence[HttpRow] = HTTP_ROWS) -> HttpResults:
    """Measure these rows if their programs are installed. Blocks for minutes. Raises DaemonFailed, LoadFailed."""
    nginx, varnish, wrk = find_server("nginx"), find_server("varnishd"), shutil.which("wrk")
    found = {NGINX: nginx, VARNISH: varnish, "wrk": wrk}
    measured: list[tuple[HttpRow, Mapping[str, Comparison]]] = []
    if nginx is not None and wrk is not None:
        load = Wrk(wrk, directory)
        with running_contest(directory, nginx, varnish) as contest:
            for row in rows:
                say(row.title)
                measured.append((row, measure_row(contest, load, row, pace)))
    say("pure policy decision")
    missing = [name for name in PACKAGES if found[name] is None]
    return HttpResults(rows=measured, asked=rows, decision_us=decision_us(), missing=missing)


def measure_row(contest: Contest, load: Wrk, row: HttpRow, pace: Pace) -> dict[str, Comparison]:
    """As measure_rounds(); our figure against each of the others'."""
    results = {
        name: [one.figure for one in rounds] for name, rounds in measure_rounds(contest, load, row, pace).items()
    }
    ours = results.pop(OURS)
    return {name: compare(ours, other) for name, other in results.items()}


def measure_rounds(contest: Contest, load: Wrk, row: HttpRow, pace: Pace) -> dict[str, list[Round]]:
    """Fill and check every cache, then measure them in turn. Blocks.

    Raises:
        LoadFailed: a body was wrong, or the origin was asked while only hits were to be measured.
    """
    paths = paths_of(row.object_bytes)
    for name, port in contest.ports.items():
        fill(name, port, contest.root, paths)
        _run(load, port, paths, row, _WARM_UP_S)
    asked_before = contest.origin_requests()
    results: dict[str, list[Round]] = {name: [] for name in contest.ports}
    for order in rotations(tuple(contest.ports), pace.rounds):
        for name in order:
            pids = contest.pids.get(name, ())
            cpu_before_s = cpu_time_s(pids)
            figures = _run(load, contest.ports[name], paths, row, pace.round_s)
            cpu_us = (cpu_time_s(pids) - cpu_before_s) / figures.requests * 1e6
            figure = figures.requests_per_s if row.figure == REQUESTS else figures.megabytes_per_s
            results[name].append(Round(figure=figure, cpu_us=cpu_us))
    asked = contest.origin_requests() - asked_before
    if asked:
        raise LoadFailed(f"{row.title}: the origin was asked {asked} times while hits were measured")
    return results


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


_ONE_OF_OURS: Mapping[str, Mapping[str, str]] = {OURS: {}}


@contextmanager
def running_contest(
    directory: str,
    nginx: str,
    varnish: str | None,
    *,
    ours: Mapping[str, Mapping[str, str]] = _ONE_OF_OURS,
    tuning: NginxTuning = DEFAULT_TUNING,
) -> Iterator[Contest]:
    """Run all caches in front of one origin: a pair of ours for each name with these settings, nginx, varnish.

    Raises:
        DaemonFailed: one of them did not start.
    """
    root, origin_log = os.path.join(directory, "objects"), os.path.join(directory, "origin.log")
    make_http_objects(root)
    ports: dict[str, int] = {}
    pids: dict[str, Sequence[int]] = {}
    with ExitStack() as servers:
        peers = servers.enter_context(running_nginx(nginx, root, directory, origin_log=origin_log, tuning=tuning))
        for number, (name, settings) in enumerate(ours.items()):
            options = pair_options(directory, peers.origin, f"store-{number}", settings)
            pair = servers.enter_context(running_pair(options, directory, f"gfbench-http-{number}"))
            ports[name], pids[name] = pair.port, pair.pids
        ports[NGINX], pids[NGINX] = peers.cache, [peers.pid]
        if varnish is not None:
            found = servers.enter_context(running_varnish(varnish, peers.origin, directory))
            ports[VARNISH], pids[VARNISH] = found.port, [found.pid]
        yield Contest(ports=ports, root=root, origin_log=origin_log, pids=pids)


def pair_options(directory: str, origin_port: int, store: str, settings: Mapping[str, str]) -> PairOptions:
    """A pair of ours whose store is a new folder, on disk as nginx's cache is; `settings` as in the environment."""
    place = os.path.join(directory, store)
    os.mkdir(place)
    return PairOptions(
        origin_url=f"http://127.0.0.1:{origin_port}",
        proxy_threads=PROXY_THREADS,
        segment_count=SEGMENT_COUNT,
        environ=(("SIMPLECACHED_STORE", place), *settings.items()),
    )


def fill(name: str, port: int, root: str, paths: Sequence[str]) -> None:
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


def _run(load: Wrk, port: int, paths: Sequence[str], row: HttpRow, seconds: float) -> Figures:
    return load.run(port, paths, seconds, connections=row.connections, new_connections=row.new_connections)
