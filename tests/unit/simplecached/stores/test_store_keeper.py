"""StoreKeeper: the thread that works behind."""

from __future__ import annotations

import threading

import pytest

from simplecached.errors import StoreUnavailable
from simplecached.stores.store_keeper import StoreKeeper
from tests.support.waiting import WATCHDOG_S


class Work:
    """So many pieces of each kind are left; notes the order."""

    def __init__(self, urgent: int, patient: int) -> None:
        self.left = {"urgent": urgent, "patient": patient}
        self.done: list[str] = []
        self.error: Exception | None = None

    def piece(self, kind: str) -> bool:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if self.left[kind]:
            self.left[kind] -= 1
            self.done.append(kind)
            return True
        return False

    def keeper(self) -> StoreKeeper:
        keeper = StoreKeeper("keeper", urgent=lambda: self.piece("urgent"), patient=lambda: self.piece("patient"))
        keeper.start()
        return keeper


def test_what_is_urgent_comes_first_and_all_is_done() -> None:
    work = Work(2, 3)
    keeper = work.keeper()
    keeper.settle()
    assert work.done == ["urgent"] * 2 + ["patient"] * 3
    work.left["urgent"] = 1
    keeper.settle()
    assert work.done[-1] == "urgent"
    keeper.stop()
    keeper.stop()
    keeper.settle()


def test_who_wakes_it_need_not_wait() -> None:
    came = threading.Event()
    keeper = StoreKeeper("keeper", urgent=lambda: came.set() or False, patient=lambda: False)
    keeper.start()
    keeper.settle()
    came.clear()
    for _ in range(3):
        keeper.wake()
    assert came.wait(WATCHDOG_S)
    keeper.stop()


@pytest.mark.parametrize("error", [StoreUnavailable("write to", "index", 28), ValueError("a bug")])
def test_a_failure_is_logged_and_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    work = Work(0, 0)
    keeper = work.keeper()
    keeper.settle()
    work.left["urgent"], work.error = 1, error
    keeper.settle()
    assert len(caplog.records) == 1
    keeper.settle()
    assert work.done == ["urgent"]
    keeper.stop()


def test_one_that_was_never_started_stops() -> None:
    StoreKeeper("keeper", urgent=lambda: False, patient=lambda: False).stop()
