"""Counting from many threads: nothing is lost, because nothing is between the read and the write of a cell."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from shmchannel.stats_pages import Buckets, Counter, Gauge, HistogramCells, SampledTotal, TimedEvent, is_reliable
from tests.support.channels import in_thread
from tests.support.waiting import WATCHDOG_S

THREADS = 4
COUNTS = 20_000
_HARMLESS = ("CACHE", "COPY", "EXTENDED_ARG", "NOP", "SWAP")


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads change as often as the interpreter can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def cells(count: int = 8) -> memoryview[int]:
    """So many cells, all 0."""
    return memoryview(bytearray(8 * count)).cast("Q")


def in_threads(work: Callable[[], None]) -> None:
    """Run it in several threads at once, to its end."""
    start = threading.Barrier(THREADS)

    def run() -> None:
        start.wait(WATCHDOG_S)
        for _ in range(COUNTS):
            work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WATCHDOG_S)


@pytest.mark.usefixtures("hasty")
def test_no_count_is_lost() -> None:
    room = cells(64)
    buckets = Buckets(shift=0, octaves=2)
    counter, gauge, histogram = Counter(room, 0), Gauge(room, 1), HistogramCells(room, 2, buckets)

    def work() -> None:
        counter.add()
        counter.add(3)
        gauge.add(5)
        gauge.add(-4)
        histogram.observe(9)

    in_threads(work)
    total = THREADS * COUNTS
    assert (counter.value, gauge.value) == (4 * total, total)
    assert (room[2], room[3 + buckets.index_of(9)]) == (9 * total, total)


@pytest.mark.parametrize("add", [Counter.add, Gauge.add, HistogramCells.observe, TimedEvent.note])
def test_nothing_lets_other_threads_run_within_an_addition(add: Callable[..., None]) -> None:
    """Between a cell's read and its write are only the operand and the addition: no call, no jump, no attribute.

    The stress test above could pass by luck; the bytecode of this interpreter cannot.
    """
    steps = [step for step in dis.get_instructions(add) if step.opname not in _HARMLESS]
    writes = [at for at, step in enumerate(steps) if step.opname == "STORE_SUBSCR"]
    assert writes
    for at in writes:
        read, operand, addition = steps[at - 3 : at]
        assert (read.opname, addition.opname, addition.argrepr) == ("BINARY_SUBSCR", "BINARY_OP", "+=")
        assert operand.opname in ("LOAD_FAST", "LOAD_CONST")


@pytest.mark.usefixtures("hasty")
def test_no_event_is_lost() -> None:
    """Also of those that come during a flush, and beside another counter on the same cells."""
    room, buckets = cells(64), Buckets(shift=0, octaves=2)
    event, bytes_total = TimedEvent(room, 0, 1, 2, buckets), Counter(room, 1)
    ended = threading.Event()

    def flush() -> None:
        while not ended.is_set():
            event.flush()

    def work() -> None:
        event.note(3, 9)
        bytes_total.add()

    with in_thread(flush):
        try:
            in_threads(work)
        finally:
            ended.set()
    event.flush()
    total = THREADS * COUNTS
    assert (room[0], room[1], room[2], room[3 + buckets.index_of(9)]) == (total, 4 * total, 9 * total, total)


@pytest.mark.parametrize("value", [-7, 0, 5, 9, 31, 10**9])
def test_an_event_is_counted_as_by_its_parts(value: int) -> None:
    buckets = Buckets(shift=0, octaves=2)
    one, three = cells(64), cells(64)
    event = TimedEvent(one, 0, 1, 2, buckets)
    event.note(70, value)
    event.flush()
    event.flush()
    Counter(three, 0).add()
    Counter(three, 1).add(70)
    HistogramCells(three, 2, buckets).observe(value)
    assert one.tolist() == three.tolist()


@pytest.mark.usefixtures("hasty")
def test_a_call_within_an_addition_loses_counts() -> None:
    """What the two tests above are afraid of happens."""
    room = cells()

    def work() -> None:
        room[0] = room[0] + int("1")

    for _ in range(50):
        in_threads(work)
        if room[0] != THREADS * COUNTS:
            return
        room[0] = 0
    pytest.fail("no count was lost")


def test_the_interpreter_has_a_lock() -> None:
    assert is_reliable()


def test_a_cell_never_wraps_round() -> None:
    room = cells()
    room[0] = 2**64 - 1
    with pytest.raises(ValueError, match="invalid value"):
        Counter(room, 0).add()
    with pytest.raises(ValueError, match="invalid value"):
        Gauge(room, 1).add(-1)
    assert (room[0], room[1]) == (2**64 - 1, 0)


def test_a_sampled_total_keeps_what_was_there() -> None:
    room = cells()
    room[0] = 10
    total = SampledTotal(room, 0)
    total.set(3)
    total.set(5)
    assert room[0] == 15
    SampledTotal(room, 0).set(2)
    assert room[0] == 17


@pytest.mark.parametrize("value", [-1, -5000, -(2**70)])
def test_a_negative_value_counts_as_zero(value: int) -> None:
    """A clock that jumps must not count in another row's cells."""
    room = cells(64)
    HistogramCells(room, 8, Buckets(shift=2, octaves=3)).observe(value)
    assert room.tolist() == [0] * 9 + [1] + [0] * 54


def test_a_gauge_is_set() -> None:
    room = cells()
    gauge = Gauge(room, 2)
    gauge.set(7)
    assert gauge.value == room[2] == 7
