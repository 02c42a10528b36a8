"""`scripts/slow_parties`: hits beside a thousand slow parties of each kind, overload, and caches that hang or die.

Each row gets a pair and a scripted origin of its own, on the loopback address. Hits of 8 KiB are requested in open
loop, idle and beside the row's parties; a hit that did not come whole within 3 s has failed.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from scripts.daemons import DaemonFailed, interrupt_on_ending_signals
from scripts.stress.helper import HelperFailed
from scripts.stress.measure import PROXY_THREADS, Pace, RowFailed, measure_row
from scripts.stress.report import Result, as_json, as_text
from scripts.stress.rig import raise_descriptor_limit
from scripts.stress.rows import ROWS, Row

_QUICK = Pace(parties=24, idle_s=0.4, beside_s=0.7, load_s=5.0, tries=5)
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130
_DESCRIPTORS_SPARE = 500


def _chosen(names: str | None) -> list[Row]:
    """The rows whose name begins with one of these. Raises ValueError if there is none."""
    if names is None:
        return list(ROWS)
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if not any(row.name.startswith(name) for row in ROWS):
            raise ValueError(name)
    return [row for row in ROWS if row.name.startswith(tuple(wanted))]


def _pace(arguments: argparse.Namespace) -> Pace:
    pace = _QUICK if arguments.quick else Pace()
    return pace if arguments.parties is None else replace(pace, parties=arguments.parties)


def _measure(rows: Sequence[Row], pace: Pace) -> list[Result]:
    results = []
    for row in rows:
        print(f"slow_parties: {row.name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="gfslow-") as directory:
            try:
                results.append(measure_row(row, directory, pace))
            except (DaemonFailed, HelperFailed, RowFailed, OSError, EOFError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                results.append(Result(name=row.name, title=row.title, reasons=[f"not measured: {reason}"]))
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Exit status: 0 every row holds, 1 one does not, 2 usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="slow_parties",
        description=__doc__,
        epilog="rows: " + ", ".join(row.name for row in ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--parties", type=int, metavar="N", help="parties of each kind (default: 1000, with --quick 24)"
    )
    parser.add_argument("--rows", metavar="NAME,...", help="only rows whose names begin with one of these")
    parser.add_argument("--quick", action="store_true", help="24 parties and short times")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    pace = _pace(arguments)
    try:
        rows = _chosen(arguments.rows)
    except ValueError as error:
        parser.error(f"no row is called {error}")
    descriptors = raise_descriptor_limit()
    if pace.parties < 1 or pace.parties > descriptors - _DESCRIPTORS_SPARE:
        parser.error(
            f"--parties {pace.parties}: 1 to {descriptors - _DESCRIPTORS_SPARE} with the limit of descriptors here"
        )
    interrupt_on_ending_signals()
    try:
        results = _measure(rows, pace)
    except KeyboardInterrupt:
        print("slow_parties: interrupted; its daemons are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    machine = (
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
    heading = f"hits of 8 KiB beside {pace.parties} parties of each kind, webproxy -t {PROXY_THREADS}; {machine}"
    print(as_json(results) if arguments.json else as_text(results, heading))
    return 1 if any(result.reasons for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
