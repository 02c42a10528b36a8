"""The command line of gfclient: arguments to settings, outcomes to exit codes.

Exit codes: 0 everything was served, 1 something failed, 2 the command cannot be run as written, 130 and 143 ended by
SIGINT and SIGTERM.
"""

import argparse
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import TypeVar

from workloads.gfclient.cancel import Canceller
from workloads.gfclient.connection import Endpoint
from workloads.gfclient.destination import Destination
from workloads.gfclient.download import FetchOne, TransferSettings, download_one, fetch_all, warm_one
from workloads.gfclient.measure import OnRow, measure_all
from workloads.gfclient.outcome import Outcome, RequestError, remedy_for
from workloads.gfclient.reporters import OutcomeReporter, RowWriter, print_json, print_report, progress_bar
from workloads.gfclient.workload import WorkList, WorkloadError, check_path, read_workload

EXIT_OK = 0
EXIT_FAILURES = 1
EXIT_USAGE = 2
DEFAULT_PORT = 25362
_EXIT_SIGNAL_BASE = 128

_N = TypeVar("_N", int, float)


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('gfcache')}")
        parser.exit()


class _Ended(BaseException):
    """A signal asked the run to end; like KeyboardInterrupt it must pass every `except Exception`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def main(argv: Sequence[str] | None = None) -> int:
    """Run gfclient and return its exit code; argparse exits by itself with 2 on bad arguments."""
    arguments = command_lines()[0].parse_args(argv)
    try:
        with _ending_signals():
            return int(arguments.run(arguments))
    except (WorkloadError, OSError) as error:
        print(f"gfclient: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RequestError as error:
        print(f"gfclient: {error}; {remedy_for(error.kind)}", file=sys.stderr)
        return EXIT_FAILURES
    except _Ended as ended:
        print("gfclient: ended by a signal; no partial file is left", file=sys.stderr)
        return _EXIT_SIGNAL_BASE + ended.signum


def _run_download(arguments: argparse.Namespace) -> int:
    work = _work_list(arguments)
    settings = _transfer_settings(arguments)
    with _named("-o", arguments.output, "not a directory for the files"):
        destination = Destination(arguments.output)
    return _fetch("downloaded", work, settings, partial(download_one, destination=destination))


def _run_warm(arguments: argparse.Namespace) -> int:
    work = WorkList(list(dict.fromkeys(_paths(arguments))))  # each path once, in the order of first mention
    return _fetch("warmed", work, _transfer_settings(arguments), warm_one)


def _fetch(done: str, work: WorkList, settings: TransferSettings, fetch_one: FetchOne) -> int:
    """Do the work, show progress and results, and return the exit code."""
    start = time.monotonic()
    with progress_bar() as progress:
        reporter = OutcomeReporter(progress, work.request_count, done)
        fetch_all(work, settings, fetch_one, reporter.on_outcome, Canceller())
    print(reporter.summary(time.monotonic() - start))
    return EXIT_OK if reporter.all_served else EXIT_FAILURES


def _run_measure(arguments: argparse.Namespace) -> int:
    work = _work_list(arguments)
    settings = _transfer_settings(arguments)
    with ExitStack() as stack:
        on_row: OnRow = _ignore_row
        if arguments.metrics is not None:
            with _named("-m", arguments.metrics, "not a writable file"):
                file = open(  # noqa: SIM115
                    arguments.metrics, "w", encoding="utf-8", errors="surrogateescape", newline=""
                )
            on_row = RowWriter(stack.enter_context(file)).on_row
        report = measure_all(work, settings, arguments.rate, on_row, Canceller())
    (print_json if arguments.json else print_report)(report)
    return EXIT_OK if report.served == work.request_count else EXIT_FAILURES


def _ignore_row(_elapsed_s: float, _outcome: Outcome) -> None:
    """Stands in for the CSV if none is requested."""


def _work_list(arguments: argparse.Namespace) -> WorkList:
    return WorkList(_paths(arguments), arguments.requests)


def _paths(arguments: argparse.Namespace) -> list[bytes]:
    paths = read_workload(arguments.workload) if arguments.workload is not None else []
    paths += [check_path(os.fsencode(path), "argument") for path in arguments.paths]
    if not paths:
        raise WorkloadError("nothing to ask for: name a workload file with -w, or give paths after the options")
    return paths


def _transfer_settings(arguments: argparse.Namespace) -> TransferSettings:
    endpoint = Endpoint.resolve(arguments.server, arguments.port)
    return TransferSettings(endpoint=endpoint, thread_count=arguments.threads, timeout_s=arguments.timeout)


@contextmanager
def _named(flag: str, path: str, what: str) -> Iterator[None]:
    """Turn an OSError of the body into one that names flag and path as they were given."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{flag} {path} is {what}: {error.strerror or error}") from error


@contextmanager
def _ending_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `_Ended` while inside, so that unfinished files are removed.

    A second signal during that is ignored: an interrupted clean-up would leave files behind.
    """

    def on_signal(signum: int, _frame: FrameType | None) -> None:
        for ending in previous:
            signal.signal(ending, signal.SIG_IGN)
        raise _Ended(signum)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        for signum in previous:
            signal.signal(signum, on_signal)
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def command_lines() -> tuple[argparse.ArgumentParser]:
    """The command line, for the command itself and for what is generated from it."""
    parser = argparse.ArgumentParser(
        prog="gfclient", description="Download from a GETFILE server, measure it, or warm its cache."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{download,measure,warm}")
    download = commands.add_parser("download", help="write each path of the workload to a file")
    _add_common(download)
    _add_requests(download)
    download.add_argument("-o", "--output", metavar="DIR", default=".", help="directory for the files (default: .)")
    download.set_defaults(run=_run_download)
    measure = commands.add_parser("measure", help="time the requests, keep nothing")
    _add_common(measure)
    _add_requests(measure)
    measure.add_argument(
        "-m",
        "--metrics",
        metavar="FILE",
        help="write a CSV with a row for each request: seconds since the start, bytes received, served, failed, path",
    )
    measure.add_argument(
        "--rate",
        metavar="R",
        type=_number(float, "requests per second", above=0.0001, highest=1_000_000.0),
        help="send R requests per second, and count latency from the planned time (default: as fast as answered)",
    )
    measure.add_argument("--json", action="store_true", help="print JSON instead of a table")
    measure.set_defaults(run=_run_measure)
    warm = commands.add_parser("warm", help="request each path once and discard the content, to fill the cache")
    _add_common(warm)
    warm.set_defaults(run=_run_warm)
    return (parser,)


def _add_common(command: argparse.ArgumentParser) -> None:
    port = _number(int, "port", above=0, highest=65_535)
    threads = _number(int, "threads", above=0, highest=1_024)
    seconds = _number(float, "seconds", above=0.0, highest=86_400.0)
    command.add_argument("-s", "--server", metavar="HOST", default="127.0.0.1", help="default: %(default)s")
    command.add_argument("-p", "--port", type=port, default=DEFAULT_PORT, help="default: %(default)s")
    command.add_argument("-w", "--workload", metavar="FILE", help="file with one path per line")
    command.add_argument(
        "-t", "--threads", metavar="N", type=threads, default=8, help="at a time (default: %(default)s)"
    )
    command.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default=30.0,
        help="seconds for the connection, for the header, and for each pause in the content (default: %(default)g)",
    )
    command.add_argument("paths", nargs="*", metavar="PATH", help="further paths to ask for, such as /folder/file.bin")


def _add_requests(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-r",
        "--requests",
        metavar="N",
        type=_number(int, "requests", above=0),
        help="how many, round-robin through the paths (default: each path once)",
    )


def _number(convert: Callable[[str], _N], what: str, *, above: float, highest: float = math.inf) -> Callable[[str], _N]:
    """Return an argparse type for a number in (above, highest]."""

    def parse(text: str) -> _N:
        wanted = f"more than {above:g}" + ("" if highest == math.inf else f" and at most {highest:g}")
        try:
            value = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}; give one {wanted}") from None
        if not above < value <= highest or math.isinf(value):
            raise argparse.ArgumentTypeError(f"{text} {what} is out of range; give {wanted}")
        return value

    return parse
