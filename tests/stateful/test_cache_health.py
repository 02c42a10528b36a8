"""What is asked of a cache that may hang, under any history: two silences, then one who asks, and all once it answers.

Commands overlap as those of several workers do: while one is under way, others begin and end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, PeerGone, RequestFailed
from shmchannel.objects.client import ChannelClient
from tests.support.examples import examples
from webproxy.errors import CacheUnavailable
from webproxy.store import cache_client
from webproxy.store.cache_client import CacheClient

SILENCE_S = 2.0
PROBE_LOST_S = 2 * SILENCE_S


class Word(Enum):
    """How a command ends."""

    ANSWER = auto()
    SILENCE = auto()
    FAILURE = auto()
    """The cache answers that it could not."""
    GONE = auto()


@dataclass
class Ask:
    """A command, and what happens while it is under way."""

    word: Word
    takes_s: float
    during: list[Ask] = field(default_factory=list)


asks = st.recursive(
    st.builds(Ask, st.sampled_from(Word), st.sampled_from([0.0, 0.5, SILENCE_S])),
    lambda inner: st.builds(
        Ask, st.sampled_from(Word), st.sampled_from([0.0, 2.5, PROBE_LOST_S]), st.lists(inner, max_size=3)
    ),
    max_leaves=6,
)


class FakeClient:
    """A channel to a cache that does as the test says."""

    queue_name = "/q"
    object_bytes_max = None
    connected = False
    files = SimpleNamespace(again=None, adopt=None)
    peek = hold_file = watch = is_large = None

    def __init__(self) -> None:
        self.pool = SimpleNamespace(segment_bytes=512)
        self.perform: Callable[[], None] = lambda: None
        self.pings = self.commands = 0
        self.ping_word = Word.ANSWER

    def update(self, *_: object) -> bool:
        self.commands += 1
        self.perform()
        return True

    def ping(self, _deadline: Deadline) -> None:
        self.pings += 1
        raise_as(self.ping_word)


def raise_as(word: Word) -> None:
    if word is Word.SILENCE:
        raise ChannelTimeout("nothing came")
    if word is Word.FAILURE:
        raise RequestFailed("it could not")
    if word is Word.GONE:
        raise PeerGone("it has ended")


class FakeThreads:
    """The module `threading` of the client under test: its threads run when the test says, for one ping each time."""

    Lock = staticmethod(threading.Lock)

    def __init__(self) -> None:
        self.alive: list[FakeThread] = []
        self.pings_left = 0
        self.is_interrupted = False

    def Thread(self, *, target: Callable[[], None], **_: object) -> FakeThread:  # noqa: N802 - as in threading
        return FakeThread(self, target)

    def Event(self) -> FakeEvent:  # noqa: N802 - as in threading
        return FakeEvent(self)

    def run_for_one_ping(self) -> None:
        for thread in list(self.alive):
            self.pings_left, self.is_interrupted = 1, False
            thread.target()
            if not self.is_interrupted:
                self.alive.remove(thread)


@dataclass(eq=False)
class FakeThread:
    threads: FakeThreads
    target: Callable[[], None]

    def start(self) -> None:
        self.threads.alive.append(self)

    def join(self) -> None:
        """It does nothing by itself."""


@dataclass(eq=False)
class FakeEvent:
    threads: FakeThreads

    def set(self) -> None:
        """Nobody waits for real."""

    def is_set(self) -> bool:
        return False

    def wait(self, _seconds: float) -> bool:
        """True where the thread is to be interrupted; it goes on from its beginning, which is as good."""
        self.threads.is_interrupted = self.threads.pings_left == 0
        self.threads.pings_left -= 1
        return self.threads.is_interrupted


class News(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg in ("cache does not answer", "cache answers again"):
            self.told.append(record.msg)


class CacheHealthMachine(RuleBasedStateMachine):
    """The model knows what has happened to each command, and who may ask."""

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.patches = pytest.MonkeyPatch()
        self.threads = FakeThreads()
        self.patches.setattr(cache_client, "threading", self.threads)
        self.patches.setattr(cache_client, "monotonic", lambda: self.now)
        self.client = FakeClient()
        self.store = CacheClient(cast("ChannelClient", self.client), patient=False, silence_s=SILENCE_S)
        self.news = News()
        self.log = logging.getLogger(cache_client.__name__)
        self.level = self.log.level
        self.log.setLevel(logging.INFO)
        self.log.addHandler(self.news)
        self.is_open = self.is_pinged = False
        self.period = self.in_a_row = self.changes = 0
        self.not_before = 0.0
        """While it is open: when the next may ask, if no ping is awaited."""

    def teardown(self) -> None:
        """Whatever happened, a cache that answers is asked by everybody again, and soon."""
        if not hasattr(self, "store"):
            return
        self.pings(Word.ANSWER)
        self.now += PROBE_LOST_S
        self.run(Ask(Word.ANSWER, 0.0))
        assert self.store.answers()
        self.store.close()
        self.log.removeHandler(self.news)
        self.log.setLevel(self.level)
        self.patches.undo()

    @rule(seconds=st.sampled_from([0.25, 1.0, PROBE_LOST_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(word=st.sampled_from([Word.ANSWER, Word.SILENCE, Word.GONE]))
    def pings(self, word: Word) -> None:
        """A second has passed for the thread that pings, if there is one."""
        self.now += cache_client.PAUSE_SECONDS
        self.client.ping_word = word
        before = self.client.pings
        self.threads.run_for_one_ping()
        assert self.client.pings - before == self.is_pinged, "one thread, while it is awaited"
        self.is_pinged = self.is_pinged and word is Word.SILENCE

    @rule(ask=asks)
    def run(self, ask: Ask) -> None:
        """A command; those within it begin and end while it is under way."""
        is_probe = self.is_open
        if self.is_open:
            is_admitted = self.store.is_due and self.now >= self.not_before
            if is_admitted:
                self.period += 1
                self.not_before = self.now + PROBE_LOST_S
        else:
            is_admitted = True
        period, sent = self.period, self.client.commands

        def perform() -> None:
            assert is_admitted, "it is asked though it does not answer"
            for inner in ask.during:
                self.run(inner)
            self.now += ask.takes_s
            self.ended(ask.word, period, is_probe=is_probe)
            raise_as(ask.word)

        self.client.perform = perform
        try:
            self.store.update(b"/a", 1, b"", Deadline.after(60.0))
        except CacheUnavailable:
            assert not is_admitted or ask.word is not Word.ANSWER
        else:
            assert ask.word is Word.ANSWER
        assert (self.client.commands > sent) == is_admitted

    def ended(self, word: Word, period: int, *, is_probe: bool) -> None:
        is_current = period == self.period
        if word in (Word.ANSWER, Word.FAILURE):
            if self.is_open:
                self.is_open = False
                self.changes += 1
                self.period += 1
            self.in_a_row = 0
        elif word is Word.SILENCE and is_current:
            self.in_a_row += 1
            if is_probe or self.in_a_row >= cache_client.FAILURES_TO_OPEN:
                self.changes += not self.is_open
                self.is_open = self.is_pinged = True
                self.period += 1
                self.not_before = self.now + cache_client.PAUSE_SECONDS
        elif word is Word.GONE and is_current and is_probe:
            self.period += 1
            self.not_before = self.now

    @invariant()
    def is_what_was_heard(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.answers() == (not self.is_open)
        assert self.news.told == [
            ("cache does not answer", "cache answers again")[number % 2] for number in range(self.changes)
        ]
        assert len(self.threads.alive) == self.is_pinged
        assert self.store.is_due == (not self.is_pinged)


TestCacheHealth = CacheHealthMachine.TestCase
TestCacheHealth.settings = examples(40, stateful_step_count=25, deadline=None)
