"""`scripts/bench`: measure every row of the speed table, or of the HTTP table, print it, leave nothing behind."""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence

from scripts.benchmark import measure
from scripts.benchmark.client_load import ClientLoad
from scripts.benchmark.http_tables import ROW_KEYS, HttpBench, http_tables
from scripts.benchmark.load import Load, LoadFailed, NativeLoad
from scripts.benchmark.measure import FULL, QUICK, Bench, Pace, say
from scripts.benchmark.native import BuildFailed, build
from scripts.benchmark.peer_servers import find_server
from scripts.benchmark.report import Results, as_json, as_markdown, as_text
from scripts.benchmark.rows import FAIRNESS_ROW, ROWS
from scripts.benchmark.scale_measure import measure_scale
from scripts.benchmark.scale_rows import COUNT, COUNT_MAX, COUNT_MIN, scale_as_json, scale_as_text
from scripts.benchmark.set_rows import unknown_prefixes
from scripts.daemons import DaemonFailed, interrupt_on_ending_signals

_EXIT_INTERRUPTED = 130
_WORKERS_MAX = 64


def run(bench: Bench) -> Results:
    """Measure everything, one thing after the other. Blocks for minutes. Raises DaemonFailed, LoadFailed."""
    compared = []
    for row in ROWS:
        over = bench.with_objects_of(row)
        if over is not None:
            say(row.title)
            compared.append(measure.measure_row(over, row))
    fairness = None
    if bench.load.mixes:
        say(FAIRNESS_ROW.title)
        fairness = measure.measure_fairness(bench)
    say("steps of one request")
    steps = measure.measure_steps(bench)
    nginx = find_server("nginx")
    return Results(
        load_description=bench.load.description,
        machine=_machine(),
        rows=compared,
        fairness=fairness,
        memory_idle=bench.memory_idle,
        memory_loaded=bench.memory_loaded,
        steps=steps,
        peers=measure.measure_nginx(bench, nginx) if nginx is not None else [],
        peers_missing=[] if nginx is not None else ["nginx"],
    )


def _machine() -> str:
    system, python = f"{platform.system()} {platform.release()}", f"Python {platform.python_version()}"
    return f"{os.cpu_count()} processors, {system}, {python}"


def _getfile_table(directory: str, pace: Pace, form: str) -> str:
    load: Load = NativeLoad.built_in(directory) or ClientLoad()
    objects, many = measure.make_objects(directory), measure.make_many_objects(directory)
    c_pair = build(directory, "pair", ["pair.c"])
    results = run(Bench(directory=directory, objects=objects, many=many, load=load, pace=pace, c_pair=c_pair))
    return {"text": as_text, "json": as_json, "markdown": as_markdown}[form](results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short rounds: about a minute, with --http four; wider spread"
    )
    parser.add_argument(
        "--http", action="store_true", help="our HTTP hits and misses against nginx's cache and varnish instead"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="with --http: N worker processes, nginx with as many"
    )
    parser.add_argument(
        "--rows",
        type=lambda text: text.split(","),
        default=[],
        metavar="PREFIX,...",
        help=f"with --http: only rows whose names begin so; the names: {' '.join(ROW_KEYS)}",
    )
    parser.add_argument(
        "--scale",
        type=int,
        nargs="?",
        const=COUNT,
        metavar="N",
        help=f"a store of N objects instead, {COUNT:,} without a number: takes minutes, and 5 GB of disk for a million",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", dest="form", action="store_const", const="json", help="print one JSON object")
    forms.add_argument(
        "--markdown",
        dest="form",
        action="store_const",
        const="markdown",
        help="print the tables of README.md, worst first",
    )
    parser.set_defaults(form="text")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table.

    Exit status: 0 measured, 1 a reply was wrong, a daemon failed, or --scale missed a target, 130 interrupted.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.rows and not arguments.http:
        parser.error("--rows chooses rows of --http")
    if unknown := unknown_prefixes(arguments.rows, ROW_KEYS):
        parser.error(f"no row begins with {', '.join(unknown)}")
    if arguments.workers != 1 and not arguments.http:
        parser.error("--workers measures HTTP hits: add --http")
    if not 1 <= arguments.workers <= _WORKERS_MAX:
        parser.error(f"--workers {arguments.workers} is not from 1 to {_WORKERS_MAX}")
    if arguments.scale is not None:
        if arguments.http or arguments.form == "markdown":
            parser.error("--scale prints a table of its own: leave out --http and --markdown")
        if not COUNT_MIN <= arguments.scale <= COUNT_MAX:
            parser.error(f"--scale {arguments.scale} is not from {COUNT_MIN} to {COUNT_MAX}")
    interrupt_on_ending_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="gfbench-") as directory:
            if arguments.scale is not None:
                results = measure_scale(directory, arguments.scale)
                as_form = scale_as_json if arguments.form == "json" else scale_as_text
                text, judged = as_form(results, _machine()), results.holds
            elif arguments.http:
                bench = HttpBench(
                    quick=arguments.quick,
                    workers=arguments.workers,
                    prefixes=arguments.rows,
                    form=arguments.form,
                    machine=_machine(),
                )
                text, judged = http_tables(directory, bench)
            else:
                text, judged = _getfile_table(directory, QUICK if arguments.quick else FULL, arguments.form), True
    except (BuildFailed, DaemonFailed, LoadFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; its daemons are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    print(text)
    return 0 if judged else 1


if __name__ == "__main__":
    sys.exit(main())
