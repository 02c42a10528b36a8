"""The semaphore as the kernel sees it: signals, and processes that die. The contract is in tests/contract."""

from __future__ import annotations

import ctypes
import errno
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmchannel import semaphore as semaphore_module
from shmchannel.errors import ChannelTimeout, PeerGone, ResourceError
from shmchannel.guard import GuardWatch
from shmchannel.identity import own_identity
from shmchannel.segment import Segment
from shmchannel.testing import ManualPeer
from tests.support.channels import SEGMENT_BYTES, unique_segment
from tests.support.holders import holding
from tests.support.waiting import WATCHDOG_S


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create(unique_segment(), SEGMENT_BYTES, own_identity())
    yield segment
    segment.unlink()
    segment.close()


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
    assert count == 200
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
from shmchannel.segment import Segment
from shmchannel.guard import ProcessGuard
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


def test_the_kernels_refusal_is_told(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(semaphore_module, "_sem_clockwait", broken)
    with pytest.raises(ResourceError, match="sem_clockwait"):
        segment.data_available.take(WATCHDOG_S, ManualPeer())
    monkeypatch.setattr(semaphore_module, "_sem_init", broken)
    with pytest.raises(ResourceError, match="sem_init"):
        segment.data_available.initialise(0)
