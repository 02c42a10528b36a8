"""Output of a run: progress, failures, the table, JSON and the CSV of rows.

Results go to standard output, everything about the run to standard error.
"""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from workloads.gfclient.outcome import Failure, Outcome, remedy_for
from workloads.gfclient.recorder import Report

CSV_COLUMNS = ("elapsed_s", "bytes_received", "served", "failed", "path")
_FAILURES_SHOWN_MAX = 20


class OutcomeReporter:
    """Counts the outcomes of a run; shows a bar on a terminal, each failure, and one line at the end."""

    def __init__(self, progress: Progress | None, request_count: int, done: str) -> None:
        """`done` is what the last line says has happened to what was served."""
        self._progress = progress
        self._done = done
        self._failed: Counter[str] = Counter()
        self._request_count = request_count
        self._served = 0
        self._received_bytes = 0
        if progress is not None:
            self._files = progress.add_task("files", total=request_count)
            self._bytes = progress.add_task("bytes", total=None)

    @property
    def all_served(self) -> bool:
        """True when every request of the run was served whole."""
        return self._served == self._request_count

    def on_outcome(self, outcome: Outcome) -> None:
        """Take one outcome; called by one thread at a time."""
        self._received_bytes += outcome.received_bytes
        self._served += outcome.served
        if self._progress is not None:
            self._progress.advance(self._files)
            self._progress.update(self._bytes, completed=self._received_bytes)
        if outcome.failure is not None:
            self._failed[outcome.failure.value] += 1
            if outcome.failure is not Failure.CANCELLED:
                self._show_failure(outcome)

    def summary(self, elapsed_s: float) -> str:
        """Return the line that ends the run."""
        rate = self._received_bytes / max(elapsed_s, 1e-9) / 1e6
        text = (
            f"{self._done} {self._served} of {self._request_count}, "
            f"{self._received_bytes} bytes in {elapsed_s:.2f} s ({rate:.1f} MB/s)"
        )
        if self._failed:
            text += ", failed: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self._failed.items()))
        return text

    def _show_failure(self, outcome: Outcome) -> None:
        count = self._failed.total()
        if count > _FAILURES_SHOWN_MAX:
            return
        line = failure_line(outcome)
        if count == _FAILURES_SHOWN_MAX:
            line += "\n(further failures are only counted)"
        if self._progress is None:
            print(line, file=sys.stderr)
        else:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def failure_line(outcome: Outcome) -> str:
    """Return the path, the kind of failure, what was seen, and what to do about it."""
    assert outcome.failure is not None, "a served outcome has no failure line"
    path = outcome.path.decode("utf-8", "backslashreplace")
    return f"{path}: {outcome.failure}: {outcome.detail}; {remedy_for(outcome.failure)}"


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Give a live progress display on standard error, None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield progress


def print_report(report: Report) -> None:
    """Print the numbers of a measurement as tables on standard output."""
    table = Table(title="gfclient measure", show_header=False)
    table.add_row("requests", f"{report.requests} ({report.served} served, {report.failed} failed)")
    table.add_row("elapsed", f"{report.elapsed_s:.3f} s")
    table.add_row("requests/s", f"{report.requests_per_s:.1f}")
    table.add_row("throughput", f"{report.megabytes_per_s:.2f} MB/s ({report.received_bytes} bytes)")
    for status, count in report.statuses.items():
        table.add_row(f"status {status}", str(count))
    for kind, count in report.failures.items():
        table.add_row(f"failure {kind}", str(count))
    for name, value in report.latency_ms.items():
        table.add_row(f"latency {name}", f"{value:.3f} ms")
    Console().print(table)


def print_json(report: Report) -> None:
    """Print the numbers of a measurement as one JSON object on standard output."""
    print(json.dumps(asdict(report), indent=2))


class RowWriter:
    """Writes the CSV of rows, one for each request as it ends.

    elapsed_s: seconds from the start of the run to the end of the request; bytes_received: content of this request;
    served, failed: 1 and 0 or 0 and 1.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(CSV_COLUMNS)

    def on_row(self, elapsed_s: float, outcome: Outcome) -> None:
        """Write one row; called by one thread at a time."""
        served = int(outcome.served)
        row = (f"{elapsed_s:.6f}", outcome.received_bytes, served, 1 - served, os.fsdecode(outcome.path))
        self._writer.writerow(row)
