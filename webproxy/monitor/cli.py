"""The command line of gfmon: a screen that is renewed, or one reading for a person or a script."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import threading
from collections.abc import Callable
from time import monotonic_ns

from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.output import put_out
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.registry import Registry
from webproxy import version
from webproxy.admin.overview import Overview, take
from webproxy.monitor.blocks import as_text
from webproxy.monitor.figures import Figures, as_plain
from webproxy.monitor.history import History
from webproxy.monitor.owner import owner_pid
from webproxy.monitor.views import NO_DAEMON, Frame, overview

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.1, 3600.0
_NOBODY_PID = 0
NO_OWNER = "No proxy of this user has the pid {0}, or listens on port {0}."


def main(argv: list[str] | None = None) -> int:
    """Run gfmon; returns the exit code. argparse exits by itself with 2 on bad arguments."""
    parser = command_lines()[0]
    given = parser.parse_args(argv)
    if given.json and not given.once:
        parser.error("--json prints one reading: give --once with it")
    history = History(_look_at(given.owner), monotonic_ns)
    nobody = NO_DAEMON if given.owner is None else NO_OWNER.format(given.owner)
    if given.once:
        return _print_once(history, given.interval, nobody, is_json=given.json)
    what = "all daemons" if given.owner is None else f"proxy {given.owner}"
    return _show(history, given.interval, what, nobody)


def _look_at(owner: int | None) -> Callable[[], Overview]:
    """Look at everything, or at the proxy that is the owner at that moment."""
    if owner is None:
        return take

    def look() -> Overview:
        pid = owner_pid(owner, Registry().find())
        return take(owner_pid=_NOBODY_PID if pid is None else pid)

    return look


def _print_once(history: History, interval_s: float, nobody: str, *, is_json: bool) -> int:
    """Print the figures between two readings; exit code 1 if there is no daemon, or they cannot be written."""
    try:
        history.look()
        threading.Event().wait(interval_s)
        figures = history.look()
    except OSError as error:
        sys.stderr.write(f"gfmon: cannot read shared memory: {error}; is {SHM_DIRECTORY} mounted?\n")
        return int(ExitCode.CANNOT_START)
    text = json.dumps(as_plain(figures)) + "\n" if is_json else as_text(overview(Frame(figures, nobody=nobody)))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars, in an encoding that has none
    if not put_out("gfmon", text):
        return int(ExitCode.FAILED)
    return int(_code(figures))


def _code(figures: Figures) -> ExitCode:
    return ExitCode.OK if figures.overview.processes else ExitCode.FAILED


def _show(history: History, interval_s: float, what: str, nobody: str) -> int:
    try:
        from webproxy.monitor.screen import MonitorApp
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        return _refuse("the screen needs the package textual: pip install 'gfcache[monitor]', or use --once")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _refuse("standard input or output is no terminal: use --once, or --once --json in scripts")
    app = MonitorApp(history, interval_s, what, nobody)
    app.run()
    return app.return_code or 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"gfmon: {reason}\n")
    return int(ExitCode.USAGE)


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(f"{parser.prog} {version()}\n")
        parser.exit()


def command_lines() -> tuple[argparse.ArgumentParser]:
    """The command line, for the command itself and for what is generated from it."""
    parser = argparse.ArgumentParser(
        prog="gfmon",
        description="Show what proxies and caches of this user do, from shared memory: throughput, hit ratio, queues,"
        " segments, latency, origins, processes. A daemon that hangs is shown, and said to hang.",
        epilog="Exit codes: 0; 1 no daemon runs, or the output cannot be written (with --once); 2 it cannot be done as"
        " written, or textual is missing; 69 shared memory cannot be read; 130 after Ctrl-C.",
        allow_abbrev=False,
    )
    parser.add_argument("--once", action="store_true", help="print the overview as text, from two readings, and end")
    parser.add_argument("--json", action="store_true", help="with --once: all figures as JSON, as /stats has them")
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="S",
        help=f"seconds between readings, {INTERVAL_MIN_S:g} to {INTERVAL_MAX_S:g} (default: 1)",
    )
    parser.add_argument(
        "--owner", type=_number, metavar="PID|PORT", help="one proxy, its workers and the caches that it uses"
    )
    parser.add_argument("--version", nargs=0, action=_Version, help="print the version and end")
    return (parser,)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds from {INTERVAL_MIN_S:g} to {INTERVAL_MAX_S:g}")
    return seconds


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r}: give the pid of a proxy, or the port that it listens on")
    return int(text)
