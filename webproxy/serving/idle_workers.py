"""IdleWorkers: where workers without work sleep, and who of them is woken for what.

**States.** A worker is *awake*, which is the time between two sleeps, or it sleeps in `_wait`. That epoll knows the
`_sources` (run queue, listener, idle connections), an epoll of their own, by one entry, which is armed or not.

**Events.** An event of a source wakes one sleeper if the entry is armed, the one that has slept for the shortest time
(ep_poll() puts itself at the head of the kernel's line, and one event wakes one), and disarms it (EPOLLONESHOT). Who
was woken looks at the sources, takes what there is, and arms it for the next; so does who goes to sleep. Arming looks
at the sources: what has come in the meantime wakes somebody at once. Nobody arms while as many are awake as may be, or
while one that was woken is still on its way: it looks at everything that has come until then.

**Invariants.** While the entry is disarmed somebody is awake or on the way, who looks at all sources before he arms or
sleeps: no wake-up is lost. A worker says that it sleeps before it sees how many are awake, so that of the last two that
fall asleep one arms. `_is_armed` may be False while it is armed, which costs a call; it is never True for nothing.

**Why so.** Threads share one interpreter. While `awake_min` workers have something to do, another that is woken makes
none of them faster: it takes the GIL from one that would have come to its job within microseconds. So no more are woken
while these keep a processor busy, however many there are. If they wait instead, for the cache, a disk or a segment,
the process uses little of its processor while work waits: AwakeLimit sees that, and lets more of them run.

Fewer than eight cost less CPU time per request, but a process alone then gets a smaller share of processors that it
has to share with its clients. Of several processes each has fewer (docs/tuning.md).

**Why not otherwise.** An epoll for each worker in which the others are registered cannot be exclusive for idle
connections, which are in an epoll themselves: each of their events woke every sleeper, and 64 workers had two thirds of
the throughput of eight. A list of sleepers with a lock for each would need another thread to poll the sources, or a
wake-up of the next who polls them for each job.
"""

from __future__ import annotations

import os
import select
import threading
from time import monotonic, process_time

from webproxy.transport import sockets

AWAKE_MIN = 8
"""So many workers may always be awake in a process that serves a port alone."""
AWAKE_MIN_OF_SEVERAL = 3
"""So many in each of several processes that serve one port."""
SLEEP_SECONDS = 60.0
"""Longest sleep. Nothing depends on its end, and each would bring the worker to the head of the line."""
TICK_SECONDS = 0.01
_TICKS_WITHOUT_NEED = 100
_BLOCKED_SHARE = 0.8
"""A process that uses less than this of one processor, over `awake_min`, has its workers blocked."""
_TICKS_TO_GROW = 2
_TICKS_TO_SHRINK = 10


class AwakeLimit:
    """PURE: how many workers may be awake: `awake_min`, and more of them while these wait instead of working.

    Told of each tick whether work waited though the limit was reached. A process that has work, and uses little of one
    processor in two ticks (a tenth with eight workers, a quarter with three), has its workers blocked: the limit
    doubles. (On a loaded machine a process that computes gets more.) It shrinks by one worker in ten ticks without
    that, so that it stays where it is needed.
    """

    def __init__(self, workers: int, awake_min: int = AWAKE_MIN) -> None:
        self._workers = workers
        self.least = self.value = min(workers, awake_min)
        self._blocked_share = _BLOCKED_SHARE / awake_min
        self._blocked = self._fine = 0
        """Ticks in a row."""

    @property
    def is_raised(self) -> bool:
        """Whether it is above the least."""
        return self.value > self.least

    def tick(self, *, work_waits: bool, busy_share: float) -> bool:
        """Another tick, in which the process used this share of one processor; returns whether the limit has grown.

        `work_waits`: nobody could be woken for it.
        """
        if work_waits and busy_share < self._blocked_share:
            self._fine, self._blocked = 0, self._blocked + 1
            if self._blocked < _TICKS_TO_GROW:
                return False
            before, self.value = self.value, min(2 * self.value, self._workers)
            return self.value > before
        self._blocked, self._fine = 0, self._fine + 1
        if self._fine >= _TICKS_TO_SHRINK:
            self._fine, self.value = 0, max(self.least, self.value - 1)
        return False


class IdleWorkers:
    """For a number of workers, each of which knows its index."""

    def __init__(self, count: int, awake_min: int = AWAKE_MIN) -> None:
        """So many workers, of which `awake_min` may always be awake."""
        self._count = count
        self.sleeping = bytearray(count)
        """1 for each worker that only waits for work."""
        self.sleeps = [0] * count
        """How often each has gone to sleep: two equal lists say that none has worked in between."""
        self._limit = AwakeLimit(count, awake_min)
        self._sources = select.epoll()
        self._sources_fd = self._sources.fileno()
        self._wait = select.epoll()
        self._wait_fd = self._wait.fileno()
        self._wait.register(self._sources, select.EPOLLONESHOT)
        self._is_armed = False
        """It is armed, or whom it has woken does not run yet."""
        self._end_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wait.register(self._end_fd, select.EPOLLIN)
        self._lookout = None if self._limit.value == count else _Lookout(self)

    def add(self, fd: int) -> None:
        """A source: workers are woken while it is readable."""
        self._sources.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """A source is about to be closed."""
        self._sources.unregister(fd)

    def start(self) -> None:
        """Start the thread that looks out for workers that wait, if there are more than may be awake."""
        if self._lookout is not None:
            self._lookout.start()

    def sleep(self, index: int, limit_s: float = SLEEP_SECONDS) -> None:
        """Worker `index` has found nothing to do: wait until there may be something; afterwards it looks and shares."""
        sleeping = self.sleeping
        self.sleeps[index] += 1
        sleeping[index] = 1
        if not self._is_armed and self.awake < self._limit.value:
            self._arm()
        self._wait.poll(limit_s, 1)
        self._is_armed = False
        sleeping[index] = 0

    def share(self) -> None:
        """A worker that was woken has taken what it was woken for: whatever else there is may wake another."""
        if self.awake < self._limit.value:
            if not self._is_armed:
                self._arm()
        elif self._lookout is not None and not self._lookout.is_looking:
            self._lookout.look()

    def _arm(self) -> None:
        self._is_armed = True  # first: the worker that it wakes at once may be faster than the next line
        sockets.arm_once(self._wait_fd, self._sources_fd)

    @property
    def awake(self) -> int:
        """How many workers do not wait for work."""
        return self._count - self.sleeping.count(1)

    @property
    def spare(self) -> int:
        """How many more could be woken for work."""
        asleep = self.sleeping.count(1)
        return min(asleep, self._limit.value - self._count + asleep)

    def work_waits(self) -> bool:
        """Whether a source is readable; takes nothing, never blocks."""
        return sockets.take_ready(self._sources_fd) is not None

    def consider(self, busy_share: float) -> bool:
        """For the lookout, once a tick: let more be awake, or fewer. Returns whether there is need to look again."""
        limit = self._limit
        is_reached = self.awake >= limit.value
        if limit.tick(work_waits=is_reached and self.work_waits(), busy_share=busy_share):
            self._arm()
        return is_reached or limit.is_raised

    def end(self) -> None:
        """Wake all, to see that they shall end; nobody sleeps from now on."""
        sockets.raise_event(self._end_fd)

    def close(self) -> None:
        """Close the descriptors; no worker may be in sleep()."""
        if self._lookout is not None:
            self._lookout.stop()
        self._wait.close()
        self._sources.close()
        os.close(self._end_fd)


class _Lookout:
    """A thread that looks a hundred times a second whether workers wait, while as many are awake as may be."""

    def __init__(self, workers: IdleWorkers) -> None:
        self._workers = workers
        self._wanted = threading.Event()
        self.is_looking = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """As many are awake as may be; never blocks."""
        self.is_looking = True
        self._wanted.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._wanted.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = threading.Event()
        while self._wanted.wait() and not self._is_stopping:
            self._wanted.clear()
            without_need, since, used = 0, monotonic(), process_time()
            while without_need < _TICKS_WITHOUT_NEED and not self._is_stopping:
                pause.wait(TICK_SECONDS)
                now, now_used = monotonic(), process_time()
                is_needed = self._workers.consider((now_used - used) / max(now - since, TICK_SECONDS))
                since, used = now, now_used
                without_need = 0 if is_needed else without_need + 1
            self.is_looking = False
            if self._workers.spare <= 0:  # somebody may have seen that it still looks
                self.look()
