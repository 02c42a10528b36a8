"""`scripts/soak`: a mixed load for minutes, and whether both daemons are as they were: memory, descriptors, names.

The load has hits, misses, ranges, uploads, purges, faulty and silent origins, slow readers and clients that leave;
every byte is checked. It pauses again and again: the same objects are stored, nothing else is under way, and what the
daemons hold is sampled. Exit status 1 if something has grown, or for any wrong byte, hang, or failure without a cause.
"""

import argparse
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import psutil

from scripts.benchmark.report import aligned
from scripts.daemons import DaemonFailed, PairOptions, interrupt_on_ending_signals
from scripts.stress.checked import WHOLE, outcome_of, whole_object
from scripts.stress.clients import Client, Performed, Record, running_clients
from scripts.stress.exchange import Asked
from scripts.stress.flatness import QUARTERS, Bounds, as_tables, is_settled, quarter, what_grew
from scripts.stress.helper import HelperFailed
from scripts.stress.mixed import is_fault, perform_any
from scripts.stress.resources import Sample, sample
from scripts.stress.rig import Rig, raise_descriptor_limit, running_rig
from scripts.stress.slow_clients import SlowClients

STORES = ("directory", "memory")
_EXIT_INTERRUPTED = 130
_HANG_S = 30.0
_LONG_S = 300.0
_STORE_BYTES = 24_000_000
_LEVEL_TARGETS = tuple(f"/middle?level-{number}" for number in range(84))
"""More than the store holds, so that nothing else is in it behind them."""
_ORIGIN_CONNECTIONS_MAX = 48
_LOOK_INTERVAL_S = 0.25
_WARM_UP_PATHS = ("/small", "/brief", "/uncached")
_DISTINCT_URLS = 2000
_WARM_UP_FACTOR = 5
"""So many times as many quick clients come in the first period: later ones need no more threads than that."""
_SETTINGS = (
    ("SIMPLECACHED_STORE_BYTES", str(_STORE_BYTES)),
    ("WEBPROXY_ORIGIN_CONNECTIONS_EACH_MAX", str(_ORIGIN_CONNECTIONS_MAX)),
    ("WEBPROXY_ORIGIN_STALL_S", "5"),
    ("WEBPROXY_ORIGIN_FAILURES_TO_OPEN", "0"),  # it fails on purpose; others must be served all the same
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a soak takes. A pause ends when all is settled; the last may take `last_settle_s`.

    The cache keeps what slow readers left for half a minute.
    """

    load_s: float
    """In which the periods of load begin."""
    period_s: float
    settle_s: float = 40.0
    last_settle_s: float = 40.0
    quick_clients: int = 8
    slow_clients: int = 10
    memory_allowed_mb: float = 2.0
    distinct_urls: int = 0
    """So many are requested first: the proxy remembers what it learned of the last few thousand."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a run."""

    record: Record
    samples: list[Sample] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    tracebacks: int = 0

    @property
    def holds(self) -> bool:
        """Whether all was flat, and nothing happened that must not."""
        return not (self.record.details or self.grown or self.left or self.tracebacks)


class _Soak:
    """One run on a rig."""

    def __init__(self, rig: Rig, seed: int, pace: Pace, store: str | None, outcome: Outcome) -> None:
        self._rig = rig
        self._seed = seed
        self._pace = pace
        self._store = store
        self._outcome = outcome
        self._began = time.monotonic()

    def run(self) -> None:
        """Load and pause in turn. Blocks. Raises HelperFailed, psutil.Error and OSError if a daemon has ended."""
        self._warm_up()
        period = 0
        while time.monotonic() < self._began + self._pace.load_s or period < QUARTERS:
            self._load(period)
            period += 1
            is_last = time.monotonic() >= self._began + self._pace.load_s and period >= QUARTERS
            self._outcome.samples.append(self._settle(is_last=is_last))

    def _warm_up(self) -> None:
        """Request distinct URLs once, stored and not stored ones, by as many clients as there are quick ones."""
        ending = threading.Event()
        targets = [f"{path}?warm-up-{number}" for number in range(self._pace.distinct_urls) for path in _WARM_UP_PATHS]

        def take(_: random.Random) -> Performed:
            try:
                checked = whole_object("warm-up", Asked(target=targets.pop()))
            except IndexError:
                ending.set()
                return Performed("warm-up", "", WHOLE)
            return Performed(checked.kind, checked.as_text, outcome_of(self._rig.port, checked, _HANG_S))

        numbers = range(self._pace.quick_clients)
        crew = [Client(f"warm-up-{number}", take, self._outcome.record, ending, is_fault) for number in numbers]
        with running_clients(crew, ending):
            ending.wait()

    def _load(self, period: int) -> None:
        """Let all clients come for some time."""
        pace, port, ending = self._pace, self._rig.port, threading.Event()
        slow = SlowClients(port, ending).perform

        def quick(choice: random.Random) -> Performed:
            return perform_any(port, choice, _HANG_S)

        quick_clients = pace.quick_clients * (1 if period else _WARM_UP_FACTOR)
        performs = [quick] * quick_clients + [slow] * pace.slow_clients
        crew = [
            Client(f"{self._seed}-{period}-{number}", perform, self._outcome.record, ending, is_fault)
            for number, perform in enumerate(performs)
        ]
        with running_clients(crew, ending):
            time.sleep(pace.period_s)

    def _settle(self, *, is_last: bool) -> Sample:
        """Fill the store with the same objects as always, and block until nothing is under way."""
        for target in _LEVEL_TARGETS:
            self._fill(target)
        self._rig.origin.ask(do="forget")
        give_up = time.monotonic() + (self._pace.last_settle_s if is_last else self._pace.settle_s)
        before: Sample | None = None
        while True:
            now = self._sample()
            samples = self._outcome.samples
            if (
                is_settled(now, before, quarter([*samples, now], 1) if is_last else samples)
                or time.monotonic() >= give_up
            ):
                return now
            before = now
            time.sleep(_LOOK_INTERVAL_S)

    def _fill(self, target: str) -> None:
        """Request an object until it has been a hit."""
        checked = whole_object("between the loads", Asked(target=target))
        for _ in range(2):
            began = time.monotonic()
            performed = Performed(checked.kind, checked.as_text, outcome_of(self._rig.port, checked, _HANG_S))
            self._outcome.record.note(performed, time.monotonic() - began, fault=performed.outcome != WHOLE)

    def _sample(self) -> Sample:
        requests = sum(self._outcome.record.all_counts.values())
        return sample(self._rig, self._store, time.monotonic() - self._began, requests)


def run(seed: int, pace: Pace, store: str, directory: str) -> Outcome:
    """Run a pair with a store of this kind under load.

    Blocks. Raises DaemonFailed, HelperFailed, psutil.Error or OSError if a process has ended.
    """
    path = os.path.join(directory, "store") if store == "directory" else None
    if path is not None:
        os.mkdir(path)
    options = PairOptions(environ=(*_SETTINGS, ("SIMPLECACHED_STORE", path or store)))
    outcome = Outcome(record=Record())
    with running_rig(directory, options, "gfsoak") as rig:
        _Soak(rig, seed, pace, path, outcome).run()
    bounds = Bounds(memory_allowed_mb=pace.memory_allowed_mb, origin_connections_max=_ORIGIN_CONNECTIONS_MAX)
    outcome.grown = what_grew(outcome.samples, bounds)
    outcome.left = rig.left
    outcome.tracebacks = rig.logs().count("Traceback (most recent call last)")
    return outcome


def as_text(outcome: Outcome) -> str:
    """The tables, the counts by kind of request, and the verdict."""
    rows = [("request", "count", "what became of them", "slowest")]
    for kind, counts in sorted(outcome.record.outcomes.items()):
        became = ", ".join(f"{what}: {count}" for what, count in sorted(counts.items()))
        rows.append((kind, str(counts.total()), became, f"{outcome.record.slowest_s[kind]:.1f} s"))
    lines = [as_tables(outcome.samples), *aligned(rows), ""]
    lines += [f"GREW: {grown}" for grown in outcome.grown]
    lines += [f"MUST NOT BE: {detail}" for detail in outcome.record.details[:20]]
    lines += [f"LEFT: {path}" for path in outcome.left]
    lines.append(
        f"grown: {len(outcome.grown)}, failures: {len(outcome.record.details)}, names left: {len(outcome.left)}, "
        f"tracebacks in logs: {outcome.tracebacks}"
    )
    return "\n".join([*lines, "ok" if outcome.holds else "FAILED"])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables. Exit status: 0 all is flat, 1 something grew or failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="default: %(default)s; the last pause comes on top")
    parser.add_argument("--seed", type=int, help="of what is requested (default: a random one, which is printed)")
    parser.add_argument("--store", choices=STORES, default=STORES[0], help="of the cache (default: %(default)s)")
    arguments = parser.parse_args(argv)
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    seconds = arguments.minutes * 60
    pace = Pace(load_s=seconds, period_s=max(2.0, seconds / 24), settle_s=max(2.0, min(40.0, seconds / 15)))
    if seconds >= _LONG_S:
        pace = replace(pace, distinct_urls=_DISTINCT_URLS)
    raise_descriptor_limit()
    interrupt_on_ending_signals()
    print(f"soak: seed {seed}, {arguments.minutes:g} minutes, store: {arguments.store}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="gfsoak-") as directory:
            outcome = run(seed, pace, arguments.store, directory)
    except (DaemonFailed, HelperFailed, psutil.Error, OSError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: interrupted; its daemons are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    print(as_text(outcome))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
