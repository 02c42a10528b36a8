"""Measures several workers: against nginx at its best with as many, varnish, and one worker; start and memory."""

import http.client
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from math import prod
from statistics import median

from scripts.benchmark.http_measure import (
    Contest,
    Round,
    fill,
    make_http_objects,
    measure_rounds,
    pair_options,
    paths_of,
    running_contest,
)
from scripts.benchmark.http_rows import KIB8, NGINX, OURS, PACKAGES, VARNISH, HttpRow
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.measure import Pace, say
from scripts.benchmark.peer_servers import Accepting, NginxTuning, find_server, free_ports, running_nginx
from scripts.benchmark.process_trees import pss_mb
from scripts.benchmark.stats import Target, compare
from scripts.benchmark.worker_rows import (
    CPU_UNIT,
    LOG_ROWS,
    LOG_TARGET,
    LOGGED,
    MEMORY_TITLE,
    ONE_WORKER,
    START_TITLE,
    START_WORKERS,
    WORKER_ROWS,
    Line,
    WorkerResults,
    cpu_target_of,
    target_of,
)
from scripts.benchmark.wrk import Wrk
from scripts.daemons import DaemonFailed, PairOptions, running_daemon, running_pair

_LOGGING = "ours with access log and admin server"
_TRIAL_KEYS = ("http_1m", "http_8k_8", "http_8k_new")
_START_TIMEOUT_S = 30.0
_LOOK_INTERVAL_S = 0.002
_CROWD = 64
_FEW_WORKERS = 2
"""Memory is compared with that of so many, which have a supervisor already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What measures, and what is measured beside ours."""

    nginx: str
    varnish: str | None
    load: Wrk


def measure_workers(
    directory: str, pace: Pace, workers: int, rows: Sequence[HttpRow] = WORKER_ROWS
) -> WorkerResults | None:
    """Measure these rows, start and memory; None if nginx or wrk is missing. Blocks for minutes.

    Raises:
        DaemonFailed, LoadFailed: a server did not start, or a reply was wrong.
    """
    nginx, varnish, wrk = find_server("nginx"), find_server("varnishd"), shutil.which("wrk")
    if nginx is None or wrk is None:
        return None
    programs = Programs(nginx=nginx, varnish=varnish, load=Wrk(wrk, directory))
    return measure_with(programs, directory, pace, workers, rows)


def missing_programs() -> list[str]:
    """The names of programs that are not installed, as in PACKAGES."""
    found = {NGINX: find_server("nginx"), VARNISH: find_server("varnishd"), "wrk": shutil.which("wrk")}
    return [name for name in PACKAGES if found[name] is None]


def measure_with(
    programs: Programs, directory: str, pace: Pace, workers: int, rows: Sequence[HttpRow] = WORKER_ROWS
) -> WorkerResults:
    """As measure_workers(), with these programs and rows."""
    say("nginx's ways to share connections")
    accepting = fastest_accepting(programs, _folder(directory, "trial"), pace, workers)
    tuning = NginxTuning(workers=workers, caches_open_files=True, accepting=accepting)
    contest_folder = _folder(directory, "contest")
    many = {"WEBPROXY_WORKERS": str(workers)}
    logging = {
        "WEBPROXY_ACCESS_LOG": os.path.join(contest_folder, "access.log"),
        "WEBPROXY_ADMIN": os.path.join(contest_folder, "admin"),
    }
    ours = {OURS: many, ONE_WORKER: {}, _LOGGING: many | logging}
    lines: list[Line] = []
    with running_contest(contest_folder, programs.nginx, programs.varnish, ours=ours, tuning=tuning) as contest:
        peers = [name for name in contest.ports if name != _LOGGING]
        for row in rows:
            say(row.title)
            lines += _lines(row, measure_rounds(contest.between(*peers), programs.load, row, pace))
        for row in LOG_ROWS:
            say(f"{row.title}, {_LOGGING}")
            rounds = measure_rounds(contest.between(_LOGGING, OURS), programs.load, row, pace)
            lines.append(_line(row, LOGGED, rounds[_LOGGING], rounds[OURS], LOG_TARGET))
    say(START_TITLE)
    start_s, memory_mb = _measure_start_and_memory(programs, _folder(directory, "start"), pace)
    return WorkerResults(
        workers=workers,
        accepting=accepting.value,
        lines=lines,
        start_s=start_s,
        memory_mb=memory_mb,
        missing=[] if programs.varnish is not None else [VARNISH],
    )


def fastest_accepting(programs: Programs, directory: str, pace: Pace, workers: int) -> Accepting:
    """The way of nginx to share connections that is the fastest over the trial rows, by geometric mean. Blocks."""
    root, origin_log = os.path.join(directory, "objects"), os.path.join(directory, "origin.log")
    make_http_objects(root)
    ways = list(Accepting)
    with ExitStack() as servers:
        ports = {}
        for way in ways:
            tuning = NginxTuning(workers=workers, caches_open_files=True, accepting=way)
            ports[way.value] = servers.enter_context(
                running_nginx(
                    programs.nginx, root, directory, origin_log=origin_log, tuning=tuning, name=f"nginx-{way.name}"
                )
            ).cache
        contest = Contest(ports=ports, root=root, origin_log=origin_log)
        trials = [measure_rounds(contest, programs.load, row, pace) for row in WORKER_ROWS if row.key in _TRIAL_KEYS]
    return max(ways, key=lambda way: prod(median(one.figure for one in trial[way.value]) for trial in trials))


def _folder(directory: str, name: str) -> str:
    """A new folder. Servers started by root become another user, which must be able to enter it."""
    path = os.path.join(directory, name)
    os.mkdir(path)
    if os.geteuid() == 0:
        os.chmod(directory, 0o755)
    return path


def _lines(row: HttpRow, rounds: dict[str, list[Round]]) -> list[Line]:
    """Our figure against each other's, and our CPU time against nginx's."""
    ours = rounds[OURS]
    found = [_line(row, name, ours, other, target_of(row, name)) for name, other in rounds.items() if name != OURS]
    cpu = compare([one.cpu_us for one in ours], [one.cpu_us for one in rounds[NGINX]])
    title = f"{NGINX}, CPU time"
    cpu_line = Line(
        key=f"{row.key}_cpu", load=row.title, against=title, unit=CPU_UNIT, comparison=cpu, target=cpu_target_of(row)
    )
    return [*found, cpu_line]


def _line(row: HttpRow, against: str, ours: list[Round], other: list[Round], target: Target | None) -> Line:
    comparison = compare([one.figure for one in ours], [one.figure for one in other])
    return Line(key=row.key, load=row.title, against=against, unit=row.figure, comparison=comparison, target=target)


# -- start and memory ------------------------------------------------------------------------------------------------
def _measure_start_and_memory(programs: Programs, directory: str, pace: Pace) -> tuple[float, float]:
    """Seconds from the start of a proxy of START_WORKERS to its first answer; megabytes for each further worker."""
    root = os.path.join(directory, "objects")
    make_http_objects(root)
    with running_nginx(programs.nginx, root, directory) as peers:
        options = pair_options(directory, peers.origin, "store", {"WEBPROXY_WORKERS": str(START_WORKERS)})
        starts = _starts_s(options, directory, pace.rounds)
        say(MEMORY_TITLE)
        memory = {
            count: _memory_mb(programs.load, pair_options(directory, peers.origin, f"store-{count}", settings), root)
            for count in (_FEW_WORKERS, START_WORKERS)
            for settings in ({"WEBPROXY_WORKERS": str(count)},)
        }
    further = START_WORKERS - _FEW_WORKERS
    return median(starts), (memory[START_WORKERS] - memory[_FEW_WORKERS]) / further


def _starts_s(options: PairOptions, directory: str, rounds: int) -> list[float]:
    """Of one start after the other beside the same cache; the first is not counted: it fetches, and warms the disk."""
    queue_name = f"/gfbench-start-{os.getpid()}"
    environ = dict(options.environ)
    log = os.path.join(directory, "start-cache.log")
    found = []
    with running_daemon("simplecached", options.cache_command(queue_name), log, environ) as cache:
        cache.wait_for_event("ready")
        for number in range(rounds + 1):
            (port,) = free_ports(1)
            log = os.path.join(directory, f"start-proxy-{number}.log")
            began = time.monotonic()
            with running_daemon("webproxy", replace(options, port=port).proxy_command(queue_name), log, environ):
                _wait_for_answer(port, began + _START_TIMEOUT_S)
                found.append(time.monotonic() - began)
    return found[1:]


def _wait_for_answer(port: int, give_up: float) -> None:
    path = paths_of(KIB8)[0]
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_TIMEOUT_S)
        try:
            with suppress(ConnectionRefusedError):
                connection.request("GET", path)
                response = connection.getresponse()
                if response.status != 200 or len(response.read()) != KIB8:
                    raise LoadFailed(f"the first answer has status {response.status}")
                return
        finally:
            connection.close()
        time.sleep(_LOOK_INTERVAL_S)
    raise DaemonFailed(f"webproxy did not answer within {_START_TIMEOUT_S:.0f} s")


def _memory_mb(load: Wrk, options: PairOptions, root: str) -> float:
    """PSS of all processes of a pair, the cache's too, once all workers have served."""
    paths = paths_of(KIB8)
    with running_pair(options, os.path.dirname(root), "gfbench-memory") as pair:
        fill(OURS, pair.port, root, paths)
        load.run(pair.port, paths, 1.0, connections=_CROWD)
        return pss_mb(pair.pids)
