"""`bench --http`: the table of few objects, with one worker or with several, then the one of sets of objects."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.benchmark.http_measure import measure_http
from scripts.benchmark.http_report import http_as_markdown, http_as_object, http_as_text
from scripts.benchmark.http_rows import HTTP_ROWS, PACKAGES
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.measure import FULL, QUICK
from scripts.benchmark.set_measure import SET_FULL, SET_QUICK, measure_sets
from scripts.benchmark.set_report import sets_as_markdown, sets_as_object, sets_as_text
from scripts.benchmark.set_rows import SET_ROWS, is_chosen
from scripts.benchmark.worker_measure import measure_workers, missing_programs
from scripts.benchmark.worker_report import workers_as_markdown, workers_as_object, workers_as_text
from scripts.benchmark.worker_rows import WORKER_ROWS

ROW_KEYS = (*(row.key for row in HTTP_ROWS), *(row.key for row in SET_ROWS))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpBench:
    """What to measure, and how to print it."""

    quick: bool
    workers: int
    prefixes: Sequence[str]
    """Rows are measured whose keys begin with one of these; all if there is none."""
    form: str
    """text, json or markdown."""
    machine: str


def http_tables(directory: str, bench: HttpBench) -> tuple[str, bool]:
    """Measure, and print what was found; with whether every row could be judged. Blocks for minutes.

    Raises:
        BuildFailed, DaemonFailed, LoadFailed: as the parts do.
    """
    texts: list[str] = []
    document: dict[str, object] = {}
    judged = True
    if any(is_chosen(row.key, bench.prefixes) for row in HTTP_ROWS):
        text, document = (_few_objects if bench.workers == 1 else _few_objects_many_workers)(directory, bench)
        texts.append(text)
    if any(is_chosen(row.key, bench.prefixes) for row in SET_ROWS):
        pace = SET_QUICK if bench.quick else SET_FULL
        sets = measure_sets(directory, pace, bench.workers, bench.prefixes, quick=bench.quick)
        texts.append(sets_as_markdown(sets) if bench.form == "markdown" else sets_as_text(sets, bench.machine))
        document = {"machine": bench.machine, **document, "sets": sets_as_object(sets)}
        judged = not sets.failed
    return json.dumps(document, indent=2) if bench.form == "json" else "\n\n".join(texts), judged


def _few_objects(directory: str, bench: HttpBench) -> tuple[str, dict[str, object]]:
    rows = [row for row in HTTP_ROWS if is_chosen(row.key, bench.prefixes)]
    results = measure_http(directory, QUICK if bench.quick else FULL, rows)
    text = http_as_markdown(results) if bench.form == "markdown" else http_as_text(results, bench.machine)
    return text, http_as_object(results, bench.machine)


def _few_objects_many_workers(directory: str, bench: HttpBench) -> tuple[str, dict[str, object]]:
    rows = [row for row in WORKER_ROWS if is_chosen(row.key, bench.prefixes)]
    results = measure_workers(directory, QUICK if bench.quick else FULL, bench.workers, rows)
    if results is None:
        missing = missing_programs()
        packages = " ".join(PACKAGES[name] for name in missing)
        raise LoadFailed(f"not installed: {', '.join(missing)} (apt-get install {packages})")
    text = workers_as_markdown(results) if bench.form == "markdown" else workers_as_text(results, bench.machine)
    return text, workers_as_object(results, bench.machine)
