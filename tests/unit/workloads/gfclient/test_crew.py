"""The threads of a run end together, however they end."""

import threading

import pytest

from workloads.gfclient.cancel import Canceller
from workloads.gfclient.crew import run_crew


def test_every_worker_runs_once() -> None:
    ran: list[int] = []
    run_crew(4, ran.append, Canceller())
    assert sorted(ran) == [0, 1, 2, 3]


def test_a_crash_in_one_worker_ends_the_others_and_is_raised() -> None:
    canceller = Canceller()

    def work(index: int) -> None:
        if index == 1:
            raise ZeroDivisionError
        while not canceller.wait(60.0):
            pass

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        run_crew(3, work, canceller)
    assert threading.active_count() == before
