"""gfclient warm: requests every path of a list once and discards the content, so that a cache has it beforehand."""

from collections.abc import Iterable

from workloads.gfclient.cancel import Canceller
from workloads.gfclient.connection import CountOnly, Fetcher
from workloads.gfclient.download import OnOutcome, TransferSettings, fetch_all
from workloads.gfclient.outcome import Outcome
from workloads.gfclient.workload import WorkList

_SINK = CountOnly()


def each_once(paths: Iterable[bytes]) -> WorkList:
    """The work of requesting each path once, in the order of first mention; ValueError if there are none."""
    return WorkList(list(dict.fromkeys(paths)))


def warm_all(work: WorkList, settings: TransferSettings, on_outcome: OnOutcome, canceller: Canceller) -> None:
    """Fetch all of `work` with at most `settings.thread_count` requests at a time, and keep nothing.

    As `fetch_all` otherwise: failures go to `on_outcome`, which one thread at a time calls for each request.
    """
    fetch_all(work, settings, _fetch_and_drop, on_outcome, canceller)


def _fetch_and_drop(fetcher: Fetcher, path: bytes) -> Outcome:
    return fetcher.fetch(path, _SINK)
