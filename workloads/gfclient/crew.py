"""The threads of one run: each works through the shared list until it is empty or the run is cancelled."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workloads.gfclient.cancel import Canceller


def run_crew(thread_count: int, work: Callable[[int], None], canceller: Canceller) -> None:
    """Run `work(index)` in that many threads and wait for all of them.

    An exception in the waiting thread (Ctrl-C) or in a worker cancels the run, waits for every thread to undo what it
    had begun, and is then raised.
    """
    crashes: list[BaseException] = []
    ended = threading.Semaphore(0)

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            crashes.append(error)
            canceller.cancel()
        finally:
            ended.release()

    threads = [
        threading.Thread(target=guarded, args=(index,), name=f"gfclient-{index}") for index in range(thread_count)
    ]
    started: list[threading.Thread] = []
    try:
        with _signals_blocked():
            for thread in threads:
                thread.start()
                started.append(thread)
        # Not join(): Python 3.11 considers a thread ended if a signal interrupts the join, and would exit under it.
        for _ in started:
            ended.acquire()
    except BaseException:
        canceller.cancel()
        for thread in started:
            thread.join()
        raise
    for thread in started:
        thread.join()
    if crashes:
        raise crashes[0]


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals while threads start: none is left half started, and only this thread gets signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
