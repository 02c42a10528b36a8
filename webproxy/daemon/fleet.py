"""Fleet: which worker processes there should be, and what to do about those there are. PURE.

The supervisor tells it what has happened, with the time, and asks what to do: which workers to start, which to kill,
whether the next generation may take over.

**States.** A *generation* is a set of posts that shall be filled with the same settings. One serves; during a reload a
second one, the *candidates*, is started beside it. A post is due at a time, or filled, or given up because its worker
said that it cannot start. A worker starts, is ready, or retires: then it only completes what it has begun.

**Events.** `started()`, `beat()`, `exited()`, and the operator's `begin()`, `promote()`, `abandon()` and `stop()`.

**Rules.** A worker that ends unasked is replaced after a pause, which doubles from BACKOFF_MIN_S to BACKOFF_MAX_S with
each further one at its post and is forgotten once a worker has lived for FORGIVEN_AFTER_S. While no other worker is
there, the pause is the shortest: a proxy that serves now and then is better than none. A worker that says that it
cannot start is not replaced, for it would say so again; but where one with the same settings has served before, what it
lacks is memory or descriptors, which may be there later. A worker that is silent is to be killed. Candidates get one
try each: if one of them ends before all are ready, the generation is refused, and the old one has never stopped. Each
worker is judged by the limits of its own generation, also once another serves: its settings are those of that time.
Of each generation so many start at once as do not slow each other down, and the next when one of them is ready or has
ended: a worker that replaces another does not wait for candidates.

**Slots.** Each worker has the lowest number that no other has, retiring ones included. What is kept for a slot (its
page of figures) so has one writer at a time, and the worker that replaces another continues there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from shmchannel.daemonkit.exits import ExitCode

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
FORGIVEN_AFTER_S = 60.0

AT_ONCE_MIN = 2
"""So many may start at once whatever the machine: part of each start is waiting. Each further one would delay the first
answer, and have the last worker ready no sooner."""

_CANNOT_START = (ExitCode.USAGE, ExitCode.CANNOT_START, ExitCode.LOCK_HELD)


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"


class Progress(Enum):
    """How far a generation has come."""

    STARTING = "starting"
    READY = "ready"
    """Each post that is not given up has a worker that is ready."""
    REFUSED = "refused"
    """It will not come to that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """How long a worker may take: to be ready, between two signs of life, and from when it retires to its end."""

    start_s: float
    silence_s: float
    retire_s: float


@dataclass(slots=True, eq=False)
class Post:
    """A place for one worker."""

    due_s: float | None
    """When to fill it; None while it is filled or given up."""
    limits: FleetLimits
    """Of its generation."""
    ended: int = 0
    """Workers in a row that have ended here unasked."""
    exit_status: int | None = None
    """With which its last worker ended."""
    given_up: bool = False
    has_served: bool = False
    """A worker has been ready here: its settings can be started with."""


@dataclass(slots=True, eq=False)
class Worker:
    """One process. `seen_s` is when it last gave a sign of life; while it retires, when it began to."""

    pid: int
    slot: int
    post: Post
    began_s: float
    seen_s: float
    phase: Phase = Phase.STARTING
    is_killed: bool = False
    """It was overdue."""
    was_starting: bool = False
    """It retires, and was not ready before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """What an end means: `pause_s` is the time until its post is filled again, None if it is not."""

    worker: Worker
    unasked: bool
    pause_s: float | None


@dataclass(slots=True, eq=False)
class Generation:
    """Posts that are to be filled with the same settings."""

    number: int
    posts: list[Post] = field(default_factory=list)


class Fleet:
    """Times are seconds of one monotonic clock. Not thread-safe."""

    def __init__(self, at_once: int = AT_ONCE_MIN) -> None:
        """`at_once` workers of one generation may start at the same time."""
        self._at_once = at_once
        self.serving = Generation(0)
        self.candidates: Generation | None = None
        self.workers: dict[int, Worker] = {}
        """By pid."""
        self.restarts_total = 0
        self._number = 0

    # -- the operator ------------------------------------------------------------------------------------------------
    def begin(self, size: int, limits: FleetLimits, now_s: float) -> Generation:
        """A generation of `size` workers shall be started; it becomes the candidates, of which there are none yet."""
        assert self.candidates is None
        self._number += 1
        self.candidates = Generation(self._number, [Post(now_s, limits) for _ in range(size)])
        return self.candidates

    def promote(self, now_s: float) -> list[int]:
        """The candidates serve from now on; returns the workers that are to retire."""
        assert self.candidates is not None
        retiring = self._of(self.serving)
        self.serving, self.candidates = self.candidates, None
        return self._retire(retiring, now_s)

    def abandon(self, now_s: float) -> list[int]:
        """Give up the candidates; returns the workers that are to end."""
        assert self.candidates is not None
        retiring = self._of(self.candidates)
        self.candidates = None
        return self._retire(retiring, now_s)

    def stop(self, now_s: float) -> list[int]:
        """No post is filled again; returns all workers, which are to end."""
        self.serving, self.candidates = Generation(self.serving.number), None
        retiring = list(self.workers.values())
        return self._retire(retiring, now_s)

    def progress(self, generation: Generation) -> Progress:
        """How far it has come."""
        posts = [post for post in generation.posts if not post.given_up]
        if not posts:
            return Progress.REFUSED
        is_reload = generation is self.candidates and bool(self.serving.posts)
        if is_reload and any(post.ended or post.given_up for post in generation.posts):
            return Progress.REFUSED
        ready = {worker.post for worker in self.workers.values() if worker.phase is Phase.READY}
        return Progress.READY if ready.issuperset(posts) else Progress.STARTING

    # -- what happens ------------------------------------------------------------------------------------------------
    def due(self, now_s: float) -> list[tuple[Post, int]]:
        """The posts that are to be filled now, each with the slot for its worker."""
        posts = [post for due_s, post in self._next() if due_s <= now_s]
        taken = {worker.slot for worker in self.workers.values()}
        free = (slot for slot in range(len(taken) + len(posts)) if slot not in taken)
        return list(zip(posts, free, strict=False))

    def started(self, post: Post, slot: int, pid: int, now_s: float) -> None:
        """A worker has been started for a post that was due."""
        post.due_s = None
        self.workers[pid] = Worker(pid, slot, post, now_s, now_s)

    def not_started(self, post: Post, now_s: float) -> float:
        """No process could be started for a post that was due; returns the seconds until the next try."""
        return self._pause(post, now_s)

    def beat(self, pid: int, now_s: float, *, is_ready: bool = False) -> Worker | None:
        """A worker gave a sign of life; returns it if it has become ready by that."""
        worker = self.workers.get(pid)
        if worker is None or worker.phase is Phase.RETIRING:
            return None
        worker.seen_s = now_s
        if not is_ready or worker.phase is Phase.READY:
            return None
        worker.phase = Phase.READY
        worker.post.has_served = True
        return worker

    def exited(self, pid: int, status: int, now_s: float) -> Exit | None:
        """A worker has ended: with an exit code, or by a signal, which is negative. None if it was not known."""
        worker = self.workers.pop(pid, None)
        if worker is None:
            return None
        post = worker.post
        post.exit_status = status
        if worker.phase is Phase.RETIRING or post not in self._posts():
            return Exit(worker=worker, unasked=False, pause_s=None)
        if worker.phase is Phase.STARTING and status in _CANNOT_START and not post.has_served:
            post.given_up = True
            return Exit(worker=worker, unasked=True, pause_s=None)
        if now_s - worker.began_s >= FORGIVEN_AFTER_S:
            post.ended = 0
        self.restarts_total += 1
        return Exit(worker=worker, unasked=True, pause_s=self._pause(post, now_s))

    def overdue(self, now_s: float) -> list[Worker]:
        """The workers that have been silent for too long, or take too long to be ready or to end: each once."""
        late = [worker for worker in self.workers.values() if not worker.is_killed and self._is_late(worker, now_s)]
        for worker in late:
            worker.is_killed = True
        return late

    def retire_s(self) -> float:
        """The longest that one of the workers may take to end, from when it retires."""
        return max((worker.post.limits.retire_s for worker in self.workers.values()), default=0.0)

    def forgive_silence(self, seconds: float) -> None:
        """The supervisor itself did not run for so long, in which nobody could be heard."""
        for worker in self.workers.values():
            worker.began_s += seconds
            worker.seen_s += seconds

    def next_s(self) -> float | None:
        """When a post falls due next; None: nothing is due, or what is waits for others to be ready."""
        return min((due_s for due_s, _ in self._next()), default=None)

    # -- inside ------------------------------------------------------------------------------------------------------
    def _posts(self) -> list[Post]:
        return self.serving.posts + ([] if self.candidates is None else self.candidates.posts)

    def _next(self) -> list[tuple[float, Post]]:
        """The posts to be filled as far as workers may start beside those that do, each with its time."""
        found: list[tuple[float, Post]] = []
        for generation in (self.serving, self.candidates):
            if generation is not None:
                starting = sum(worker.phase is Phase.STARTING for worker in self._of(generation))
                waiting = [(post.due_s, post) for post in generation.posts if post.due_s is not None]
                waiting.sort(key=lambda each: each[0])
                found += waiting[: max(0, self._at_once - starting)]
        return found

    def _of(self, generation: Generation) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.post in generation.posts]

    def _retire(self, workers: list[Worker], now_s: float) -> list[int]:
        for worker in workers:
            if worker.phase is not Phase.RETIRING:
                worker.was_starting = worker.phase is Phase.STARTING
                worker.phase, worker.seen_s = Phase.RETIRING, now_s
        return [worker.pid for worker in workers]

    def _pause(self, post: Post, now_s: float) -> float:
        post.ended += 1
        is_alone = not any(worker.phase is not Phase.RETIRING for worker in self.workers.values())
        pause_s = BACKOFF_MIN_S if is_alone else min(BACKOFF_MIN_S * 2 ** min(post.ended - 1, 10), BACKOFF_MAX_S)
        post.due_s = now_s + pause_s
        return pause_s

    @staticmethod
    def _is_late(worker: Worker, now_s: float) -> bool:
        limits = worker.post.limits
        match worker.phase:
            case Phase.STARTING:
                return now_s - worker.began_s > limits.start_s
            case Phase.READY:
                return now_s - worker.seen_s > limits.silence_s
            case Phase.RETIRING:
                return now_s - worker.seen_s > limits.retire_s
