"""Measures the rows with sets of objects: caches are filled and checked, then measured in turn, round by round.

The rows go through in batches (set_rows.py says why), each with caches of its own, whose files are removed at its end.
In a row every cache is filled by a pass over the set that compares every byte, and warmed up; then come the rounds, in
each of which every cache has its turn, and at last a run in which its waits are counted. For hits the origin must not
be asked after the warm-up; for misses it must be asked for each object, and no object is asked for twice.
"""

import http.client
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

import psutil

from scripts.benchmark.http_load import Draws, HttpFigures, HttpLoad
from scripts.benchmark.http_rows import NGINX, VARNISH
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.measure import say
from scripts.benchmark.native import build
from scripts.benchmark.nginx_cache import running_nginx_cache
from scripts.benchmark.peer_servers import Accepting, find_server, server_home
from scripts.benchmark.process_trees import cpu_time_s
from scripts.benchmark.set_contest import Programs, SetContest, running_origin, running_set_contest
from scripts.benchmark.set_results import SetResult, SetResults, SetRound
from scripts.benchmark.set_rows import (
    SET_ROWS,
    Room,
    SetRow,
    batches,
    is_chosen,
    stored_bytes_of,
    why_left_out,
)
from scripts.benchmark.stats import rotations
from scripts.benchmark.wait_counts import WaitCounter, usable_counter

_FILL_CONNECTIONS = 8
_FILL_S = 600.0
_TWICE_MAX = 10_000
"""Larger sets are asked for once before they are measured: a second pass would take longer than the rounds."""
_TRIED = 1_000
_FILL_MAX_S = 150.0
"""A set that would take a cache longer is left out."""
_MISSES_APART = 10_000_000
_MISSES_LONGER = 2
"""They are few, and so would be the requests above the 99th percentile."""
_TRIAL_KEYS = ("hits_300_8", "hits_300_64")
_COMPILER = "a C compiler"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPace:
    """How long and how often to measure each cache in each row."""

    rounds: int
    warm_up_s: float
    round_s: float
    count_s: float


SET_FULL = SetPace(rounds=5, warm_up_s=0.5, round_s=0.4, count_s=0.2)
SET_QUICK = SetPace(rounds=3, warm_up_s=0.3, round_s=0.25, count_s=0.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    programs: Programs
    load: HttpLoad
    counter: WaitCounter
    pace: SetPace
    directory: str
    workers: int


def measure_sets(directory: str, pace: SetPace, workers: int, prefixes: Sequence[str], *, quick: bool) -> SetResults:
    """Measure the rows whose keys have one of these prefixes. Blocks for minutes. Raises BuildFailed, DaemonFailed."""
    chosen = [row for row in SET_ROWS if is_chosen(row.key, prefixes)]
    nginx, varnish = find_server("nginx"), find_server("varnishd")
    load, origin = HttpLoad.built_in(directory), build(directory, "origin", ["origin.c"])
    missing = [name for name, path in {NGINX: nginx, VARNISH: varnish, _COMPILER: load}.items() if path is None]
    accepting, counter = Accepting.SHARED, usable_counter(directory)
    found = _Found()
    if nginx is None or load is None or origin is None:
        reason = f"needs {' and '.join(name for name in missing if name != VARNISH)}"
        found.left_out.extend((row, reason) for row in chosen)
    else:
        programs = Programs(nginx=nginx, varnish=varnish, origin=origin)
        bench = _Bench(programs=programs, load=load, counter=counter, pace=pace, directory=directory, workers=workers)
        judged = [(row, why_left_out(row, _room(directory), quick=quick)) for row in chosen]
        found.left_out.extend((row, reason) for row, reason in judged if reason is not None)
        if workers > 1:
            say("nginx's ways to share connections")
            accepting = _fastest_accepting(bench)
        for rows in batches(row for row, reason in judged if reason is None):
            _measure_batch(bench, accepting, rows, found)
    return SetResults(
        workers=workers,
        accepting=accepting.value,
        results=found.results,
        left_out=found.left_out,
        failed=found.failed,
        wait_unit=counter.unit,
        missing=missing,
    )


def _room(directory: str) -> Room:
    return Room(disk_bytes=shutil.disk_usage(directory).free, memory_bytes=psutil.virtual_memory().available)


@contextmanager
def _folder(directory: str, name: str) -> Iterator[str]:
    path = server_home(directory, name)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class TooSlow(Exception):
    """To fill a cache would take too long; the text is the reason for which the row is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    results: list[SetResult] = field(default_factory=list)
    left_out: list[tuple[SetRow, str]] = field(default_factory=list)
    failed: list[tuple[SetRow, str]] = field(default_factory=list)


def _measure_batch(bench: _Bench, accepting: Accepting, rows: Sequence[SetRow], found: _Found) -> None:
    with (
        _folder(bench.directory, "sets") as folder,
        running_set_contest(
            bench.programs, folder, workers=bench.workers, accepting=accepting, stored_bytes=stored_bytes_of(rows)
        ) as contest,
    ):
        filled: set[tuple[str, int]] = set()
        too_slow: dict[tuple[str, int], str] = {}
        for row in rows:
            say(row.title)
            objects = row.set_name, row.object_bytes
            try:
                if objects in too_slow:
                    raise TooSlow(too_slow[objects])  # its first objects would be hits now
                if not row.is_misses and objects not in filled:
                    fill_set(contest, bench.load, row)
                    filled.add(objects)
                found.results.append(measure_set_row(contest, bench.load, bench.counter, row, bench.pace))
            except TooSlow as error:
                too_slow[objects] = str(error)
                found.left_out.append((row, str(error)))
            except (LoadFailed, OSError, http.client.HTTPException) as error:
                found.failed.append((row, str(error)))
                for line in (f"wrong: {error}", *contest.complaints()):
                    say(line)


def fill_set(contest: SetContest, load: HttpLoad, row: SetRow, limit_s: float = _FILL_MAX_S) -> None:
    """Ask every cache for every object of a row, twice if they are few, and compare every byte. Blocks.

    Raises:
        LoadFailed: a reply was wrong.
        TooSlow: the first objects took so long that all would take one cache longer than `limit_s`.
    """
    whole = Draws(set_name=row.set_name, object_bytes=row.object_bytes, objects=row.objects, first=0, compares_all=True)
    first = replace(whole, objects=min(row.objects, _TRIED))
    for name, port in contest.ports.items():
        found = _run(load, name, port, first)
        fill_s = row.objects / found.requests_per_s
        if fill_s > limit_s:
            raise TooSlow(f"to fill {name} would take {fill_s:.0f} s")
    for name, port in contest.ports.items():
        for number in range(2 if row.objects <= _TWICE_MAX else 1):
            found = _run(load, name, port, whole)
            if found.answered != row.objects:
                raise LoadFailed(f"{name}: pass {number + 1} ended after {found.answered} of {row.objects} objects")


def _run(
    load: HttpLoad,
    name: str,
    port: int,
    draws: Draws,
    seconds: float = _FILL_S,
    *,
    connections: int = _FILL_CONNECTIONS,
    under: Sequence[str] = (),
) -> HttpFigures:
    """As HttpLoad.run(); a complaint names the cache."""
    try:
        return load.run(port, draws, seconds, connections=connections, under=under)
    except LoadFailed as error:
        raise LoadFailed(f"{name}: {error}") from error


class _Asker:
    """Runs the load for one row; of misses it asks each cache for objects that it was not asked for before."""

    def __init__(self, load: HttpLoad, row: SetRow) -> None:
        self._load = load
        self._row = row
        self._next: dict[str, int] = {}
        self.answered = 0

    def ask(self, name: str, port: int, seconds: float, under: Sequence[str] = ()) -> HttpFigures:
        """Ask one cache for that many seconds. Blocks. Raises LoadFailed."""
        row = self._row
        if row.is_misses:
            # The row's connections are part of the numbers: another row asks for other objects.
            first = self._next.get(name, row.connections * _MISSES_APART)
            draws = Draws(set_name=row.set_name, object_bytes=row.object_bytes, objects=_MISSES_APART, first=first)
        else:
            draws = Draws(set_name=row.set_name, object_bytes=row.object_bytes, objects=row.objects, alpha=row.alpha)
        figures = _run(self._load, name, port, draws, seconds, connections=row.connections, under=under)
        if draws.first is not None:
            self._next[name] = draws.first + figures.answered
        self.answered += figures.answered
        return figures

    def count(self, name: str, port: int, seconds: float, under: Sequence[str]) -> int:
        """As ask(); the number of requests that were answered."""
        return self.ask(name, port, seconds, under).answered


def measure_set_row(contest: SetContest, load: HttpLoad, counter: WaitCounter, row: SetRow, pace: SetPace) -> SetResult:
    """Warm every cache up, measure them in turn, count their waits. Blocks.

    Raises:
        LoadFailed: a reply was wrong; a hit came from the origin, or a miss did not.
    """
    asker = _Asker(load, row)
    for name, port in contest.ports.items():
        asker.ask(name, port, pace.warm_up_s)
    asked_before, answered_before = contest.origin_requests(), asker.answered
    rounds: dict[str, list[SetRound]] = {name: [] for name in contest.ports}
    round_s = pace.round_s * (_MISSES_LONGER if row.is_misses else 1)
    for order in rotations(tuple(contest.ports), pace.rounds):
        for name in order:
            cpu_before_s = cpu_time_s(contest.pids[name])
            figures = asker.ask(name, contest.ports[name], round_s)
            rounds[name].append(_round(figures, cpu_time_s(contest.pids[name]) - cpu_before_s))
    waits: dict[str, float | None] = {}
    for name, port in contest.ports.items():
        waits[name] = counter.count(contest.pids[name], partial(asker.count, name, port, pace.count_s))
    asked, answered = contest.origin_requests() - asked_before, asker.answered - answered_before
    if row.is_misses and asked < answered:
        raise LoadFailed(f"{answered} misses were answered, but the origin was asked {asked} times")
    if not row.is_misses and asked:
        raise LoadFailed(f"the origin was asked {asked} times while hits were measured")
    return SetResult(row=row, rounds=rounds, waits=waits)


def _round(figures: HttpFigures, cpu_s: float) -> SetRound:
    return SetRound(
        requests_per_s=figures.requests_per_s,
        p50_us=figures.p50_us,
        p99_us=figures.p99_us,
        max_us=figures.max_us,
        cpu_us=cpu_s / figures.answered * 1e6,
        client_cpu_us=figures.client_cpu_us,
    )


def _fastest_accepting(bench: _Bench) -> Accepting:
    """The way of nginx to share connections that is the fastest over the trial rows, by geometric mean. Blocks."""
    rows = [row for row in SET_ROWS if row.key in _TRIAL_KEYS]
    rates: dict[Accepting, list[float]] = {way: [] for way in Accepting}
    with _folder(bench.directory, "set-trial") as folder, ExitStack() as started:
        origin_port = started.enter_context(running_origin(bench.programs.origin, folder))
        caches = {
            way: started.enter_context(
                running_nginx_cache(bench.programs.nginx, origin_port, folder, workers=bench.workers, accepting=way)
            )
            for way in Accepting
        }
        contest = SetContest(
            ports={way.name: cache.port for way, cache in caches.items()},
            pids={way.name: [cache.pid] for way, cache in caches.items()},
            origin_port=origin_port,
        )
        for row in rows:
            fill_set(contest, bench.load, row)
            for order in rotations([way.name for way in Accepting], bench.pace.rounds):
                for name in order:
                    figures = _Asker(bench.load, row).ask(name, contest.ports[name], bench.pace.round_s)
                    rates[Accepting[name]].append(figures.requests_per_s)
    return max(rates, key=lambda way: prod(rates[way]))
