"""The semaphore as the kernel sees it: signals, and processes that die. The contract is in tests/contract."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from shmchannel.errors import ChannelTimeout, PeerGone, ResourceError
from shmchannel.process.guard import GuardWatch
from shmchannel.process.identity import own_identity
from shmchannel.streams.layout import DATA_AVAILABLE_OFFSET
from shmchannel.streams.segment import Segment
from shmchannel.sync import semaphore as semaphore_module
from shmchannel.sync.semaphore import Calls, calls_by_ctypes, calls_by_semlock
from shmchannel.testing import ManualPeer
from tests.support.channels import SEGMENT_BYTES, address_in, in_thread, unique_segment
from tests.support.holders import holding
from tests.support.waiting import WATCHDOG_S


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create(unique_segment(), SEGMENT_BYTES, own_identity())
    yield segment
    segment.unlink()
    segment.close()


@pytest.mark.parametrize("calls", [calls_by_ctypes, calls_by_semlock])
def test_both_ways_to_call_are_the_same_semaphore(segment: Segment, calls: Callable[[int], Calls]) -> None:
    semaphore = segment.data_available
    post, try_take = calls(address_in(segment, DATA_AVAILABLE_OFFSET))
    assert try_take() is False
    for count in range(1, 4):
        post()
        assert semaphore.value == count
    assert semaphore.try_take() is True
    assert [try_take(), try_take(), try_take()] == [True, True, False]
    assert semaphore.value == 0


def test_the_calls_of_a_thread_that_waits_are_heard(segment: Segment) -> None:
    for calls in (calls_by_ctypes, calls_by_semlock):
        post, _ = calls(address_in(segment, DATA_AVAILABLE_OFFSET))
        with in_thread(lambda: segment.data_available.take(WATCHDOG_S, ManualPeer())):
            post()
    assert segment.data_available.value == 0


def test_the_end_of_a_semlock_leaves_the_semaphore(segment: Segment) -> None:
    post, try_take = calls_by_semlock(address_in(segment, DATA_AVAILABLE_OFFSET))
    post()
    del post, try_take
    gc.collect()
    assert segment.data_available.value == 1
    assert segment.data_available.try_take()


class _Stub:
    """A Python's stand-in for SemLock."""

    SEM_VALUE_MAX = 1

    @staticmethod
    def release() -> None:
        """Does nothing."""

    @staticmethod
    def acquire(_blocking: bool) -> bool:
        return True

    @classmethod
    def _rebuild(cls, *_: object) -> type[_Stub]:
        return cls


@pytest.mark.parametrize("found", [None, object(), SimpleNamespace(SemLock=int), SimpleNamespace(SemLock=_Stub)])
def test_a_python_without_a_fitting_semlock_uses_ctypes(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    assert semaphore_module.best_calls() is calls_by_semlock
    monkeypatch.setitem(sys.modules, "_multiprocessing", found)
    assert semaphore_module.best_calls() is calls_by_ctypes


def test_signals_do_not_end_a_wait(segment: Segment) -> None:
    """Hundreds of signals while the main thread waits: it comes back for the post, not for them."""
    count = 0

    def on_signal(*_: object) -> None:
        nonlocal count
        count += 1
        if count == 200:
            signal.setitimer(signal.ITIMER_REAL, 0)
            segment.data_available.post()

    previous = signal.signal(signal.SIGALRM, on_signal)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        segment.data_available.take(WATCHDOG_S, ManualPeer())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert count >= 200  # one more may have been on its way
    assert segment.data_available.value == 0


def test_signals_do_not_lengthen_a_wait(segment: Segment) -> None:
    """The deadline is absolute: a storm of signals must not start it anew."""
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        with pytest.raises(ChannelTimeout):
            segment.data_available.take(0.1, ManualPeer())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


POSTS = """
from shmchannel.streams.layout import DATA_AVAILABLE_OFFSET
from shmchannel.streams.segment import Segment
from shmchannel.process.guard import ProcessGuard
guard = ProcessGuard.acquire(sys.argv[2])
segment = Segment.attach(sys.argv[1])
for _ in range(int(sys.argv[3])):
    segment.data_available.post()
"""


def test_between_processes(segment: Segment, tmp_path: Path) -> None:
    guard_path = str(tmp_path / "peer.guard")  # no sweep of the machine comes here
    with holding(POSTS, segment.name, guard_path, "2") as peer:
        watch = GuardWatch(guard_path)
        segment.data_available.take(WATCHDOG_S, watch)
        peer.kill()
        segment.data_available.take(WATCHDOG_S, watch)  # posted before it died
        with pytest.raises(PeerGone, match=str(peer.pid)):
            segment.data_available.take(WATCHDOG_S, watch)
        watch.close()


def test_others_run_while_one_waits(segment: Segment) -> None:
    """A wait lets the interpreter go on, else the thread that posts would never come to it."""
    poster = threading.Timer(0.0, segment.data_available.post)
    poster.start()
    segment.data_available.take(WATCHDOG_S, ManualPeer())
    poster.join()


def test_the_kernels_refusal_is_told(segment: Segment) -> None:
    with pytest.raises(ResourceError, match="sem_init"):
        segment.data_available.initialise(1 << 31)
