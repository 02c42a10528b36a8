"""Measures one row of the table: a pair and an origin of its own, hits idle and beside the row's parties."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from urllib.parse import urlsplit

from scripts.daemons import PairOptions
from scripts.stress import report
from scripts.stress.exchange import Asked, Exchange
from scripts.stress.helper import Answer, Helper
from scripts.stress.origin import DOWNLOAD_BYTES, content
from scripts.stress.report import HitTimes, Result
from scripts.stress.rig import Rig, kill, own_memory_kib, running_rig, send_signal
from scripts.stress.rows import ORIGIN_CONNECTIONS_MAX, RUNNERS, TRIES, Kind, Row

PROXY_THREADS = 8
HITS = tuple(f"/hit?{number}" for number in range(8))
_MANY_HITS = tuple(f"/hit?{number}" for number in range(64))
_HITS_PER_S = 200.0
_HIT_TIMEOUT_S = 3.0
_SETTLE_S = 1.0  # between the opening of the parties and the first hit beside them
_PATIENCE_S = 8.0
_MEASURED_MAX = 3
_OVERLOAD_FACTOR = 3.0
_OVERLOAD_CONNECTIONS = 4000
_MISS_S = 2.0
_CAPACITY_CLIENTS = 128
_CLIENTS_OF_A_SICK_CACHE = 8
_TRANSFER_TIMEOUT_S = 15.0
_KILLED_AT_BYTES = 1_000_000
_TRANSFERS_A_KILL = 5
_NO_HOT_TABLE = (("SIMPLECACHED_HOT_TABLE_BYTES", "0"),)
_MOST_OF_IT = ("Range", "bytes=2000000-19999999")


class RowFailed(Exception):
    """A row could not be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many parties, and for how long what is measured."""

    parties: int = 1000
    windows: int = 3
    idle_s: float = 0.8
    """Of each window."""
    beside_s: float = 1.5
    load_s: float = 8.0
    tries: int = TRIES


def measure_row(row: Row, directory: str, pace: Pace) -> Result:
    """Measure a row with daemons and helpers of its own. Blocks for less than half a minute, a killed cache's longer.

    A row that misses by the latency of hits alone is measured again, at most `_MEASURED_MAX` times in all: other load
    of the machine makes a few hits slow, now and then; a worker that is held, many and each time.

    Raises:
        DaemonFailed, HelperFailed, RowFailed: it could not be measured.
    """
    times = 1
    while report.only_latency_misses(result := _measure_once(row, directory, pace)) and times < _MEASURED_MAX:
        times += 1
    if times > 1:
        result.notes.append(f"measured {times} times")
    return result


def _measure_once(row: Row, directory: str, pace: Pace) -> Result:
    result = Result(name=row.name, title=row.title)
    measure = {
        Kind.CROWD: _measure_crowd,
        Kind.RUNNERS: _measure_runners,
        Kind.OVERLOAD: _measure_overload,
        Kind.STOPPED_CACHE: _measure_stopped_cache,
        Kind.KILLED_CACHE: _measure_killed_cache,
    }[row.kind]
    measure(row, directory, pace, result)
    return result


@contextmanager
def _rig(row: Row, directory: str, result: Result, *, hot: bool = True, store: str | None = None) -> Iterator[Rig]:
    environ = () if hot else _NO_HOT_TABLE
    if store is not None:
        environ = (*environ, ("SIMPLECACHED_STORE", store))
    options = PairOptions(proxy_threads=PROXY_THREADS, environ=environ)
    with running_rig(directory, options, "gfslow") as rig:
        _fill(rig.port, (*row.stored, *HITS))
        yield rig
    if rig.left:
        result.reasons.append(f"{len(rig.left)} names left")


def _fill(port: int, targets: Sequence[str]) -> None:
    """Request each target until it is a hit. Raises RowFailed."""
    for target in targets:
        for _ in range(10):
            with Exchange(port, Asked(target=target), _TRANSFER_TIMEOUT_S) as exchange:
                exchange.read()
                if exchange.body != content(target):
                    raise RowFailed(f"{target}: status {exchange.status} and a wrong body before anything was measured")
                if "; hit" in exchange.fields.get("cache-status", ""):
                    break
            time.sleep(0.05)
        else:
            raise RowFailed(f"{target} does not become a hit")


def _ask_hits(helper: Helper, port: int, windows: int, seconds: float) -> HitTimes:
    """Hits in several windows: the median of their figures, for a noisy machine; fewer when all fail in one."""
    limits = {"seconds": seconds, "timeout_s": _HIT_TIMEOUT_S}
    times: list[HitTimes] = []
    while len(times) < windows and not (times and times[-1].ok == 0):
        answer = helper.ask(loop="open", port=port, targets=HITS, rate=_HITS_PER_S, **limits)
        times.append(_hit_times(answer["paths"]["/hit"]))
    return HitTimes(
        count=sum(window.count for window in times),
        ok=sum(window.ok for window in times),
        p50_ms=median(window.p50_ms for window in times),
        p99_ms=median(window.p99_ms for window in times),
    )


def _hit_times(figures: Answer) -> HitTimes:
    return HitTimes(**{name: figures[name] for name in ("count", "ok", "p50_ms", "p99_ms")})


def _measure_crowd(row: Row, directory: str, pace: Pace, result: Result) -> None:
    parties = row.parties
    assert parties is not None
    count, rate = pace.parties, parties.arrivals_per_s
    if rate is not None:
        count = int(rate * (pace.windows * pace.beside_s + _SETTLE_S))
    with (
        _rig(row, directory, result) as rig,
        Helper("scripts.stress.hits") as hits,
        Helper("scripts.stress.crowd") as crowd,
    ):
        result.idle = _ask_hits(hits, rig.port, pace.windows, pace.idle_s)
        before_kib = own_memory_kib(rig.proxy.pid)
        crowd.ask(do="open", port=rig.port, count=count, parties=asdict(parties))
        time.sleep(_SETTLE_S)
        result.beside = _ask_hits(hits, rig.port, pace.windows, pace.beside_s)
        after_kib = own_memory_kib(rig.proxy.pid)
        _note_crowd(result, crowd.ask(do="report"), count)
        counts = rig.origin.ask()
        crowd.ask(do="close")
    result.reasons += report.judge_hits(result.idle, result.beside)
    if rate is None:
        result.party_kib = max(0.0, after_kib - before_kib) / count
        result.reasons += report.judge_memory(result.party_kib, count)
    if row.bounds_origin:
        asked = counts["requests"].get(urlsplit(parties.request.split()[1]).path, 0)
        result.notes.append(f"origin: {asked} requests, {counts['connections_peak']} at once")
        result.reasons += report.judge_origin(counts["connections_peak"])


def _note_crowd(result: Result, crowd: Answer, count: int) -> None:
    result.refused, result.refused_p95_ms = crowd["refused"], crowd["refused_p95_ms"]
    if crowd["asked"] < count:
        result.notes.append(f"{count - crowd['asked']} have not asked")
    result.notes += [f"{number} x {what}" for what, number in {**crowd["failures"], **crowd["answers"]}.items()]


def _measure_runners(row: Row, directory: str, pace: Pace, result: Result) -> None:
    target = "/slow24?one"
    with ExitStack() as stack:
        rig = stack.enter_context(_rig(row, directory, result))
        hits = stack.enter_context(Helper("scripts.stress.hits"))
        crew = stack.enter_context(ThreadPoolExecutor(RUNNERS))
        result.idle = _ask_hits(hits, rig.port, pace.windows, pace.idle_s)
        running = [crew.submit(_download, rig.port, target) for _ in range(RUNNERS)]
        time.sleep(_SETTLE_S)
        result.beside = _ask_hits(hits, rig.port, pace.windows, pace.beside_s)
        received = [download.result() for download in running]
    result.reasons += report.judge_hits(result.idle, result.beside)
    whole = sum(body == content(target) for body in received)
    result.notes.append(f"{whole} of {RUNNERS} whole")
    if whole < RUNNERS:
        result.reasons.append("downloads fail")


def _download(port: int, target: str) -> bytes:
    """What comes of a download, to its end."""
    seconds = DOWNLOAD_BYTES / 4e6 + _TRANSFER_TIMEOUT_S
    try:
        with Exchange(port, Asked(target=target), seconds) as exchange:
            exchange.read()
            return bytes(exchange.body)
    except (OSError, EOFError):
        return b""


def _measure_overload(row: Row, directory: str, pace: Pace, result: Result) -> None:
    """The capacity is what a closed loop gets of the same mix, and at least what the bound on connections allows."""
    mix = [HITS[0], "/late2?{n}"]
    limits = {"targets": mix, "seconds": pace.load_s}
    with _rig(row, directory, result) as rig, Helper("scripts.stress.hits") as hits:
        crowd = {"clients": _CAPACITY_CLIENTS, "timeout_s": _PATIENCE_S}
        closed = hits.ask(loop="closed", port=rig.port, **crowd, **limits)
    measured = 2 * closed["paths"].get("/late2", {"ok": 0})["ok"] / closed["seconds"]
    capacity = max(measured, 2 * ORIGIN_CONNECTIONS_MAX / _MISS_S)
    rate = _OVERLOAD_FACTOR * capacity
    with _rig(row, directory, result) as rig, Helper("scripts.stress.hits") as hits:
        crowd = {"connections": _OVERLOAD_CONNECTIONS, "timeout_s": _HIT_TIMEOUT_S}
        loaded = hits.ask(loop="open", port=rig.port, rate=rate, settle_s=_MISS_S, **crowd, **limits)
    goodput = loaded["ok_per_s"]
    misses = loaded["paths"]["/late2"]
    result.beside = _hit_times(loaded["paths"]["/hit"])
    result.refused, result.refused_p95_ms = misses["refused"], misses["refused_p95_ms"]
    result.notes.append(f"{goodput:.0f} good answers/s of {rate:.0f}/s asked, closed loop {measured:.0f}/s")
    result.reasons += report.judge_overload(goodput, capacity, result.refused_p95_ms)


def _measure_stopped_cache(row: Row, directory: str, pace: Pace, result: Result) -> None:
    """Without a hot table, which needs no cache to answer."""
    figures: dict[str, Answer] = {}
    for state in ("dead", "stopped"):
        with _rig(row, directory, result, hot=False) as rig, Helper("scripts.stress.hits") as hits:
            _fill(rig.port, _MANY_HITS)
            if state == "dead":
                kill(rig.cache)
            else:
                send_signal(rig.cache, signal.SIGSTOP)
            figures[state] = hits.ask(
                loop="closed",
                port=rig.port,
                targets=_MANY_HITS,
                clients=_CLIENTS_OF_A_SICK_CACHE,
                seconds=pace.load_s,
                timeout_s=_PATIENCE_S,
            )
            if not rig.cache.running:
                rig.start_cache()  # it sweeps what the dead one left
    dead, stopped = figures["dead"]["ok_per_s"], figures["stopped"]["ok_per_s"]
    result.beside = _hit_times(figures["stopped"]["paths"]["/hit"])
    result.notes.append(f"{stopped:.1f} answers/s, {dead:.0f}/s with a dead cache")
    result.reasons += report.judge_stopped_cache(stopped, dead, result.beside.failed)


def _measure_killed_cache(row: Row, directory: str, pace: Pace, result: Result) -> None:
    """Several clients have a part of the body when the cache is killed, and read the rest afterwards."""
    target = row.stored[0]
    fields = (_MOST_OF_IT,) if row.range else ()
    wanted = content(target)[2_000_000:] if row.range else content(target)
    asked = Asked(target=target, getfile=row.getfile, fields=fields)
    store = os.path.join(directory, row.name) if row.on_disk else None
    if store is not None:
        os.mkdir(store)
    whole = tries = wrong = 0
    with _rig(row, directory, result, hot=row.hot, store=store) as rig:
        while tries < pace.tries:
            _fill(rig.port, [target] * 3)  # in frequent use
            for body in _bodies_across_a_kill(rig, asked, min(_TRANSFERS_A_KILL, pace.tries - tries)):
                tries += 1
                whole += body == wanted
                wrong += not wanted.startswith(body)
            rig.start_cache()
    result.notes.append(f"{whole} of {tries} complete and exact")
    if whole < tries:
        result.reasons.append(f"{tries - whole} cut short")
    if wrong:
        result.reasons.append(f"{wrong} with WRONG BYTES")


def _bodies_across_a_kill(rig: Rig, asked: Asked, clients: int) -> list[bytes]:
    with ExitStack() as stack:
        exchanges = []
        for _ in range(clients):
            exchange = stack.enter_context(Exchange(rig.port, asked, _TRANSFER_TIMEOUT_S))
            exchange.read(_KILLED_AT_BYTES)
            exchanges.append(exchange)
        kill(rig.cache)
        with ThreadPoolExecutor(clients) as crew:
            return list(crew.map(_rest, exchanges))


def _rest(exchange: Exchange) -> bytes:
    try:
        exchange.read()
    except (OSError, EOFError):
        pass  # what has come is what counts
    return bytes(exchange.body)
