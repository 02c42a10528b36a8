"""gfclient measure: the same requests with the content counted instead of kept, and each one timed.

With a planned rate the latency runs from when a request was due, so a server that stalls cannot hide the requests
that had to wait behind the stall.
"""

import threading
import time
from collections.abc import Callable

from workloads.gfclient.cancel import Canceller
from workloads.gfclient.connection import CountOnly, Fetcher
from workloads.gfclient.crew import run_crew
from workloads.gfclient.download import TransferSettings
from workloads.gfclient.outcome import Failure, Outcome
from workloads.gfclient.recorder import Recorder, Report
from workloads.gfclient.workload import WorkList

OnRow = Callable[[float, Outcome], None]


def measure_all(
    work: WorkList, settings: TransferSettings, rate: float | None, on_row: OnRow, canceller: Canceller
) -> Report:
    """Do all of `work`, `rate` requests per second (None: each thread asks again once it is answered); the numbers.

    `on_row` gets the seconds since the start and the outcome of each request as it ends, from one thread at a time.
    Blocks until the work is done or cancelled; requests that the cancel cut off are not counted.
    """
    merging = threading.Lock()
    totals = Recorder()
    start = time.monotonic()

    def worker(_index: int) -> None:
        fetcher = Fetcher(settings.endpoint, settings.timeout_s, canceller)
        recorder = Recorder()
        sink = CountOnly()
        while not canceller.cancelled and (task := work.take()):
            number, path = task
            elapsed_s = time.monotonic() - start
            due_s = elapsed_s if rate is None else number / rate  # it may be past: that delay counts as latency
            if due_s > elapsed_s and canceller.wait(due_s - elapsed_s):
                break
            outcome = fetcher.fetch(path, sink)
            if outcome.failure is Failure.CANCELLED:
                break
            ended_s = time.monotonic() - start
            recorder.add(outcome, ended_s - due_s)
            with merging:
                on_row(ended_s, outcome)
        with merging:
            totals.merge(recorder)

    run_crew(min(settings.thread_count, work.request_count), worker, canceller)
    return totals.report(time.monotonic() - start)
