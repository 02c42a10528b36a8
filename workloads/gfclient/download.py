"""gfclient download and warm: every path of a workload, to a file below one directory or to nowhere."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from workloads.gfclient.cancel import Canceller
from workloads.gfclient.connection import CountOnly, Endpoint, Fetcher
from workloads.gfclient.crew import run_crew
from workloads.gfclient.destination import Destination
from workloads.gfclient.outcome import Outcome, RequestError
from workloads.gfclient.workload import WorkList

FetchOne = Callable[[Fetcher, bytes], Outcome]
OnOutcome = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """Settings that every command needs to reach the server."""

    endpoint: Endpoint
    thread_count: int
    timeout_s: float


def fetch_all(
    work: WorkList, settings: TransferSettings, fetch_one: FetchOne, on_outcome: OnOutcome, canceller: Canceller
) -> None:
    """Do all of `work` by `fetch_one`; `on_outcome` is called for each request, by one thread at a time.

    Blocks until the work is done or cancelled. Failures are outcomes, not exceptions.
    """
    reporting = threading.Lock()

    def worker(_index: int) -> None:
        fetcher = Fetcher(settings.endpoint, settings.timeout_s, canceller)
        while not canceller.cancelled and (task := work.take()):
            outcome = fetch_one(fetcher, task[1])
            with reporting:
                on_outcome(outcome)

    run_crew(min(settings.thread_count, work.request_count), worker, canceller)


def download_one(fetcher: Fetcher, path: bytes, destination: Destination) -> Outcome:
    """Fetch one path; its file has its final name exactly when the outcome says served, and is removed otherwise."""
    received_bytes, status = 0, None
    try:
        with destination.file_for(path) as file:
            outcome = fetcher.fetch(path, file)
            received_bytes, status = outcome.received_bytes, outcome.status
            if outcome.served:
                file.commit()
            return outcome
    except RequestError as error:  # the name is unusable, or the rename was refused
        return Outcome(path, status, received_bytes, error.kind, error.detail)


def warm_one(fetcher: Fetcher, path: bytes) -> Outcome:
    """Fetch one path and keep nothing of it, so that a cache has it beforehand."""
    return fetcher.fetch(path, CountOnly())
