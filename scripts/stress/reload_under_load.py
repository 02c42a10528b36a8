"""`scripts/reload_under_load`: reloads, upgrades and kills worker processes under clients that check every byte.

The load is 200 requests a second, over new and kept connections, HTTP and getfile, and 20 downloads that run all the
time. Exit status 1 if a reload or an upgrade fails a request or cuts a download, if the end of a worker fails what was
not inside it, if a connection is refused, if a name is left, or if start or memory are beyond their bounds.
"""

import argparse
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from scripts.benchmark.report import aligned
from scripts.daemons import Daemon, DaemonFailed, PairOptions, interrupt_on_ending_signals, running_daemon
from scripts.stress.checked import WHOLE, outcome_of, whole_object
from scripts.stress.exchange import Asked
from scripts.stress.helper import HelperFailed
from scripts.stress.processes import Kill, NotInTime, Proxy, is_running, kill_and_look, pss_bytes
from scripts.stress.rig import Rig, raise_descriptor_limit, running_rig
from scripts.stress.steady import DOWNLOAD_S, Failure, Seen, running_load
from shmchannel.tools.leaks import leaks_of

_EXIT_INTERRUPTED = 130
_SETTINGS = (
    ("WEBPROXY_DRAIN_S", str(int(3 * DOWNLOAD_S))),
    ("WEBPROXY_LOG_FORMAT", "json"),
    ("WEBPROXY_LOG_LIMIT_S", "0"),
)
_STEP_TIMEOUT_S = 60.0
START_MAX_S = 1.5
WORKER_MAX_BYTES = 30_000_000
_STARTS = 5
_FEW_WORKERS, _WARMING_REQUESTS = 2, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is done under load, and how often."""

    workers: int = 4
    requests_per_s: float = 200.0
    downloads: int = 20
    reloads: int = 20
    reload_interval_s: float = 3.0
    kills: int = 60
    kill_interval_s: float = 1.0
    upgrades: int = 3
    upgrade_interval_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, and what must not be."""

    what: str
    found: str
    holds: bool
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    rows: list[Row] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    tracebacks: int = 0

    @property
    def holds(self) -> bool:
        """Whether all rows hold, and nothing is left."""
        return all(row.holds for row in self.rows) and not (self.left or self.tracebacks)


def _seen_as_text(seen: Seen) -> str:
    cut = sum(failure.kind == "download" for failure in seen.failures)
    return (
        f"{len(seen.failures) - cut} failed, {cut} cut of {seen.requests} answered ({seen.requests_per_s:.0f}/s, "
        f"{seen.whole['download']} downloads, {seen.reopened} kept connections reopened, {seen.resent} sent again), "
        f"slowest {seen.slowest_s:.2f} s"
    )


def reload_row(rig: Rig, proxy: Proxy, pace: Pace) -> Row:
    """Reload again and again. Raises NotInTime."""
    began_s = time.monotonic()
    with running_load(rig.port, requests_per_s=pace.requests_per_s, downloads=pace.downloads) as load:
        for number in range(pace.reloads):
            os.kill(proxy.supervisors[-1], signal.SIGHUP)
            _wait_until(began_s + (number + 1) * pace.reload_interval_s)
    # A signal during a reload is heard after it, once: a slow machine makes fewer of them.
    done = len(proxy.events("reloading"))
    proxy.wait_for("reloaded", done, _STEP_TIMEOUT_S)
    refused = len(proxy.events("reload refused"))
    seen = load.seen
    return Row(
        f"SIGHUP {pace.reloads} times: 0 failed, 0 cut",
        f"{_seen_as_text(seen)}; {done} reloads, {refused} refused",
        not seen.failures and done > 0 and not refused,
        tuple(failure.as_text for failure in seen.failures),
    )


def kill_row(rig: Rig, proxy: Proxy, pace: Pace) -> Row:
    """Kill one worker after the other: those that are ready, in turn."""
    began_s, kills = time.monotonic(), list[Kill]()
    with running_load(rig.port, requests_per_s=pace.requests_per_s, downloads=pace.downloads) as load:
        for number in range(pace.kills):
            ready = [pid for pid in proxy.workers(ready=True) if is_running(pid)]
            if ready:  # otherwise all of them are being replaced
                kills.append(kill_and_look(ready[number % len(ready)], rig.port))
            _wait_until(began_s + (number + 1) * pace.kill_interval_s)
    seen, inside = load.seen, sum(len(kill.inside) for kill in kills)
    refused = sum(failure.port == 0 for failure in seen.failures)
    others = [failure for failure in seen.failures if not was_inside(failure, kills)]
    replaced = len(proxy.events("worker ended"))
    return Row(
        "a worker killed each second: fails only what was inside it",
        f"{len(kills)} killed with {inside} connections inside, {replaced} replaced; "
        f"{_seen_as_text(seen)}; {refused} refused, {len(others)} not inside",
        bool(kills) and not others and not refused,
        tuple(failure.as_text for failure in others),
    )


def was_inside(failure: Failure, kills: Sequence[Kill]) -> bool:
    """Whether the connection of a failure was in a worker that was killed while that was open."""
    return any(
        failure.port in kill.inside and failure.began_s <= kill.ended_s and failure.ended_s >= kill.began_s
        for kill in kills
    )


def upgrade_row(rig: Rig, proxy: Proxy, pace: Pace) -> Row:
    """Have one supervisor after the other take over. Raises NotInTime."""
    began_s, seen_both = time.monotonic(), 0
    with running_load(rig.port, requests_per_s=pace.requests_per_s, downloads=pace.downloads) as load:
        for number in range(pace.upgrades):
            old = proxy.supervisors[-1]
            os.kill(old, signal.SIGUSR2)
            new = int(proxy.wait_for("successor started", number + 1, _STEP_TIMEOUT_S)["successor"])
            proxy.supervisors.append(new)
            proxy.wait_for("successor ready", number + 1, _STEP_TIMEOUT_S)
            seen_both += is_running(old) and is_running(new) and bool(proxy.workers())
            _wait_until(began_s + (number + 1) * pace.upgrade_interval_s)
    seen = load.seen
    return Row(
        "upgrade in place, both supervisors seen: 0 failed",
        f"{_seen_as_text(seen)}; {pace.upgrades} upgrades, both seen in {seen_both}",
        not seen.failures and seen_both == pace.upgrades,
        tuple(failure.as_text for failure in seen.failures),
    )


def _wait_until(due_s: float) -> None:
    time.sleep(max(0.0, due_s - time.monotonic()))


def start_row(rig: Rig, directory: str, workers: int) -> Row:
    """From the start of the program to the first answer, of a proxy beside that of the rig. Raises DaemonFailed."""
    took_s = []
    for number in range(_STARTS):
        began_s = time.monotonic()
        with _another(rig, directory, f"start-{number}", workers) as (daemon, port):
            while not _answers(port):
                if not daemon.running or time.monotonic() > began_s + _STEP_TIMEOUT_S:
                    raise DaemonFailed(f"the proxy does not answer:\n{daemon.log_text()}")
                time.sleep(0.005)
            took_s.append(time.monotonic() - began_s)
            daemon.wait_for_port()
    median_s = statistics.median(took_s)
    found = f"median {median_s:.2f} s of {_STARTS} ({min(took_s):.2f}-{max(took_s):.2f})"
    return Row(f"start to first answer, {workers} workers: <= {START_MAX_S:g} s", found, median_s <= START_MAX_S)


def memory_row(rig: Rig, directory: str, workers: int) -> Row:
    """What each worker adds. Raises DaemonFailed."""
    total_bytes = {}
    for count in (_FEW_WORKERS, workers):
        with _another(rig, directory, f"memory-{count}", count) as (daemon, port):
            daemon.wait_for_port()
            if not all(_answers(port) for _ in range(_WARMING_REQUESTS)):
                raise DaemonFailed(f"the proxy does not answer:\n{daemon.log_text()}")
            total_bytes[count] = sum(pss_bytes(pid) for pid in (daemon.pid, *Proxy(daemon).workers()))
    each = (total_bytes[workers] - total_bytes[_FEW_WORKERS]) / (workers - _FEW_WORKERS)
    texts = ", ".join(f"{count} workers {total / 1e6:.0f} MB" for count, total in total_bytes.items())
    what = f"memory of each further worker (PSS): <= {WORKER_MAX_BYTES / 1e6:.0f} MB"
    return Row(what, f"{each / 1e6:.1f} MB ({texts})", each <= WORKER_MAX_BYTES)


@contextmanager
def _another(rig: Rig, directory: str, name: str, workers: int) -> Iterator[tuple[Daemon, int]]:
    """Another proxy of the rig's cache and origin, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = int(chosen.getsockname()[1])
    options = PairOptions(origin_url=str(rig.origin.ask()["url"]), port=port)
    environ = dict(_SETTINGS) | {"WEBPROXY_WORKERS": str(workers)}
    log_path = os.path.join(directory, f"{name}.log")
    with running_daemon("webproxy", options.proxy_command(rig.queue_name), log_path, environ) as daemon:
        yield daemon, port
        pids = Proxy(daemon).all_pids()
        daemon.stop()
        rig.left += [found.path for found in leaks_of(list(pids), rig.queue_name) if not found.alive]


def _answers(port: int) -> bool:
    with suppress(OSError):
        checked = whole_object("answer", Asked(target="/small?0"))
        return outcome_of(port, checked, _STEP_TIMEOUT_S) == WHOLE
    return False


def run(pace: Pace, directory: str, *, measures: bool = True) -> Outcome:
    """Run all rows; without `measures` only those under load. Blocks. Raises DaemonFailed, HelperFailed, NotInTime."""
    outcome = Outcome()
    options = PairOptions(environ=(*_SETTINGS, ("WEBPROXY_WORKERS", str(pace.workers))))
    with running_rig(directory, options, "gfreload") as rig:
        proxy = Proxy(rig.proxy)
        try:
            if measures:
                outcome.rows += [start_row(rig, directory, pace.workers), memory_row(rig, directory, pace.workers)]
            outcome.rows += [row(rig, proxy, pace) for row in (reload_row, kill_row, upgrade_row)]
        finally:
            rig.proxy.stop()
            proxy.end()
        pids = proxy.all_pids()
        outcome.left = [found.path for found in leaks_of(list(pids), rig.queue_name) if found.owner_pid in pids]
    outcome.left += rig.left
    outcome.tracebacks = rig.logs().count("Traceback (most recent call last)")
    return outcome


def as_text(outcome: Outcome) -> str:
    """The table and the verdict."""
    rows = [(row.what, row.found, "ok" if row.holds else "FAILED") for row in outcome.rows]
    lines = aligned([("row", "found", ""), *rows])
    lines += [f"MUST NOT BE: {detail}" for row in outcome.rows for detail in row.details[:20]]
    lines += [f"LEFT: {path}" for path in outcome.left]
    lines.append(f"names left: {len(outcome.left)}, tracebacks in logs: {outcome.tracebacks}")
    return "\n".join([*lines, "ok" if outcome.holds else "FAILED"])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Exit status: 0 all rows hold, 1 one does not, 130 interrupted."""
    usual = Pace()
    parser = argparse.ArgumentParser(prog="reload_under_load", description=__doc__)
    parser.add_argument("--workers", type=int, default=usual.workers, help="at least 3 (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.workers <= _FEW_WORKERS:
        parser.error(f"--workers is at least {_FEW_WORKERS + 1}: memory is compared with that of {_FEW_WORKERS}")
    raise_descriptor_limit()
    interrupt_on_ending_signals()
    print(f"reload_under_load: {arguments.workers} workers", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="gfreload-") as directory:
            outcome = run(Pace(workers=arguments.workers), directory)
    except (DaemonFailed, HelperFailed, NotInTime) as error:
        print(f"reload_under_load: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("reload_under_load: interrupted; its daemons are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    print(as_text(outcome))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
