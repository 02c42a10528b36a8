"""Fetch: when does a fetch wait, go on, try again or end, as clients, the cache and the origin come and go?"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import pytest

from tests.support.failing import failing
from tests.support.fetching import (
    FakeFill,
    FakeFills,
    FakePartials,
    HeldCrew,
    Played,
    Script,
    ScriptedOrigin,
    ScriptedPlan,
    as_crew,
    fetch_means,
    joined,
    wait_answer,
    wait_available,
)
from tests.support.http_values import fields, stored_response
from webproxy.errors import (
    BodyCutShort,
    CacheUnavailable,
    FetchAborted,
    FetchBroken,
    OriginBadReply,
    OriginError,
    OriginTimeout,
    SpoolFailed,
)
from webproxy.fetch.job import MOMENT_SECONDS, Fetch
from webproxy.fetch.plan import Draft
from webproxy.fetch.spool import IN_MEMORY_BYTES, PUNCH_BYTES, BodyFound, Spool
from webproxy.fetch.spool_budget import GRANT_BYTES, NO_BUDGET, SpoolBudget
from webproxy.fetch.state import Event, State
from webproxy.http.messages import RequestHead
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import StoredHit

WINDOW = 1000


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.state.FIRST_PAUSE_SECONDS", 0.002)


def head(length: int | None, *lines: bytes, status: int = 200) -> OriginResponse:
    return OriginResponse(status=status, fields=fields(*lines), length=length)


class Running:
    """A fetch with one reader, an origin that the test plays, and tasks that are run at once unless they are held."""

    def __init__(
        self,
        *events: Event,
        share: float,
        partials: FakePartials | None = None,
        budget: SpoolBudget = NO_BUDGET,
        **plan: Any,
    ) -> None:
        self.fills = FakeFills(lambda fill: setattr(fill, "position", 0))
        self.stopping = threading.Event()
        self.origin = ScriptedOrigin()
        self.crew = HeldCrew()
        self.spool = Spool(None, budget=budget)
        self.reader = self.spool.reader()
        self.over: list[Fetch] = []
        means = fetch_means(self.origin, self.fills, WINDOW, share, partials)
        self.plan = ScriptedPlan(means, *events, **plan)
        self.fetch = Fetch(self.plan, self.spool, as_crew(self.crew), self.stopping, self.over.append)

    @property
    def fill(self) -> FakeFill:
        return self.fills.made[-1]

    def stop(self) -> None:
        """As FetchTable.stop()."""
        self.stopping.set()
        self.fetch.stop()

    def run(self, *scripts: Script) -> OriginError | None:
        """Let the origin answer so, once for each request; then the fetch is over."""
        self.origin.scripts += scripts
        self.fetch.start()
        self.origin.play()
        assert self.over == [self.fetch]
        self.reader.close()
        assert self.spool.fd == -1
        assert not self.origin.scripts, "it asked as often as there were answers"
        return self.fetch.failure


Make: TypeAlias = Callable[..., Running]


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.job.SMALL_BYTES", 0)


@pytest.fixture
def make() -> Make:
    def made(*events: Event, share: float = 0.0, cache: bool = True, **plan: Any) -> Running:
        return Running(*events, share=share, stores=cache, **plan)

    return made


def body(length: int | None, then: Script) -> Script:
    """An answer with a body of this length, up to which the test plays it."""

    def answer(origin: Played) -> None:
        assert origin.begin(head(length))
        then(origin)

    return answer


def breaks(*, retryable: bool = True) -> Script:
    return failing(OriginTimeout("stalled", retryable=retryable))


# -- the clients have left -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "share", "goes_on"),
    [(0, 0.0, True), (0, 0.5, False), (499, 0.5, False), (500, 0.5, True), (999, 1.0, False), (1000, 1.0, True)],
)
def test_it_goes_on_for_the_cache_from_its_share_on(make: Make, written: int, share: float, *, goes_on: bool) -> None:
    running = make(share=share)

    def play(origin: Played) -> None:
        origin.send(bytes(written))
        assert not origin.idle(), "somebody reads"
        running.reader.close()
        assert origin.idle() is not goes_on
        late = running.spool.join()
        assert (late is not None) is goes_on, "what has ended takes nobody in"
        if late is not None:
            late.close()

    running.run(body(1000, play))


def test_below_its_share_a_second_client_keeps_it(make: Make) -> None:
    running = make(share=0.5)

    def play(origin: Played) -> None:
        second = joined(running.spool)
        origin.send(bytes(100))
        running.reader.close()
        assert not origin.idle()
        second.close()
        assert origin.idle()

    running.run(body(1000, play))


def test_a_reader_that_detaches_keeps_it_below_its_share(make: Make) -> None:
    running = make(share=0.5)

    def play(origin: Played) -> None:
        origin.send(bytes(100))
        running.reader.detach()
        assert not origin.idle()

    running.run(body(1000, play))


def test_a_length_that_nobody_knows_has_no_share(make: Make) -> None:
    running = make(share=0.0)

    def play(origin: Played) -> None:
        origin.send(bytes(100))
        running.reader.close()
        assert origin.idle(), "the cache takes it only when it is complete"

    assert isinstance(running.run(body(None, play)), FetchAborted)


def test_a_small_body_is_fetched_for_the_cache_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.job.SMALL_BYTES", 1000)
    running = make(share=1.0)

    def play(origin: Played) -> None:
        running.reader.close()
        origin.send(bytes(500))
        assert not origin.idle()
        origin.send(bytes(500))

    assert running.run(body(1000, play)) is None
    assert running.fetch.stored


@pytest.mark.parametrize("is_asked", [False, True])
def test_the_head_is_waited_for_once_the_origin_was_asked(make: Make, *, is_asked: bool) -> None:
    """Else it would be free for the next request, while the origin may still have this one to do."""
    running = make(share=1.0)

    def play(origin: Played) -> None:
        origin.transfer.asked_at = 1.0 if is_asked else 0.0
        running.reader.close()
        assert origin.idle() is not is_asked
        late = running.spool.join()
        assert (late is not None) is is_asked
        if late is not None:
            late.close()
            assert origin.begin(head(1000))
            assert origin.idle(), "it is neither small nor far"

    assert isinstance(running.run(play), FetchAborted)


def test_without_a_cache_it_ends_whatever_its_share_is(make: Make) -> None:
    running = make(cache=False)

    def play(origin: Played) -> None:
        origin.send(bytes(999))
        running.reader.close()
        assert origin.idle()

    running.run(body(1000, play))


def test_a_complete_body_is_for_the_cache_also_when_its_readers_have_left(make: Make) -> None:
    """The fill let go, the last byte has come, and the client is off before the origin client looks up."""
    running = make(share=1.0)

    def play(origin: Played) -> None:
        running.fill.takes, running.fill.position = False, None
        origin.send(b"abc")
        assert not origin.idle()
        origin.send(b"def")
        running.reader.close()
        assert not origin.idle()
        assert not running.fetch.stored

    assert running.run(body(6, play)) is None
    assert running.fetch.stored
    assert running.plan.calls == ["settle", ("end", True)]


def test_it_ends_at_once_when_the_daemon_stops(make: Make) -> None:
    running = make()

    def play(origin: Played) -> None:
        assert not origin.idle()
        running.stop()
        assert origin.idle()

    running.run(body(1000, play))


def test_the_fill_yields_when_a_hit_waits(make: Make) -> None:
    running = make()

    def play(origin: Played) -> None:
        origin.send(bytes(100))
        assert not origin.idle()
        assert running.fill.position == 100
        running.fill.waited_for = True
        assert not origin.idle()
        assert running.fill.position is None

    running.run(body(1000, play))


def test_what_nobody_waits_for_is_not_asked_for(make: Make) -> None:
    running = make()
    running.reader.close()
    assert "no reader left" in str(running.run())
    assert running.origin.requests == []


# -- the window ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["reader moves", "the fastest leaves", "reader detaches"])
def test_it_waits_for_its_fastest_reader_until(make: Make, how: str) -> None:
    running = make(cache=False)

    def play(origin: Played) -> None:
        second = joined(running.spool)
        assert origin.write(bytes(WINDOW + 1)), "up to a window there was room"
        assert not origin.write(b"x")
        assert not origin.idle()
        assert not origin.transfer.resumed()
        if how == "reader moves":
            running.reader.advance(1)
        elif how == "the fastest leaves":
            second.advance(WINDOW)
            second.close()
            running.reader.advance(1)
        else:
            running.reader.detach()
        assert origin.transfer.resumed()
        assert origin.write(b"x")
        second.close()
        running.reader.detach()
        origin.send(bytes(10_000 - WINDOW - 2))

    assert running.run(body(10_000, play)) is None


def test_an_origin_that_waited_for_the_last_reader_is_not_resumed_for_nobody(make: Make) -> None:
    running = make(cache=False)

    def play(origin: Played) -> None:
        assert origin.write(bytes(WINDOW + 1))
        assert not origin.write(b"x")
        running.reader.close()
        assert origin.is_given_up
        assert not origin.transfer.resumed()

    assert isinstance(running.run(body(10_000, play)), FetchAborted)


def test_an_origin_that_waited_for_the_last_reader_is_resumed_for_the_cache(make: Make) -> None:
    running = make()

    def play(origin: Played) -> None:
        running.fill.takes, running.fill.chunk_bytes = False, 0
        assert origin.write(bytes(WINDOW + 1))
        assert not origin.write(b"x")
        running.fill.position = WINDOW
        running.reader.close()
        assert not origin.is_given_up
        running.fill.takes = True
        origin.idle()
        assert origin.transfer.resumed()
        origin.send(bytes(10_000 - WINDOW - 1))

    assert running.run(body(10_000, play)) is None
    assert running.fetch.stored


@pytest.mark.parametrize("is_full", [False, True])
def test_it_does_not_wait_before_there_is_an_answer(make: Make, *, is_full: bool) -> None:
    """Its length is unknown: the readers are told when all of it is there, or that there is no room for it."""
    running = make(Event.BODY_AHEAD, cache=False, budget=NO_BUDGET if is_full else SpoolBudget(GRANT_BYTES))

    def play(origin: Played) -> None:
        for _ in range(10):
            assert origin.write(bytes(WINDOW))
        assert not running.spool.answered

    running.origin.scripts.append(body(None, play))
    running.fetch.start()
    running.origin.play()
    if is_full:
        assert "spools are full" in str(running.fetch.failure)
    else:
        assert wait_answer(running.reader) == BodyFound(10 * WINDOW)
    running.reader.close()


def test_it_waits_for_a_cache_that_takes_it_when_the_clients_have_left(make: Make) -> None:
    """At least for a chunk: the fill moves in whole ones."""
    running = make()

    def play(origin: Played) -> None:
        fill = running.fill
        running.reader.close()
        fill.takes = False
        assert origin.write(bytes(fill.chunk_bytes + 1))  # within what a fill may hold back
        assert not origin.write(b"x")
        assert not origin.idle()
        assert not origin.transfer.resumed()
        fill.takes = True
        assert not origin.idle()
        assert origin.transfer.resumed()
        origin.send(bytes((1 << 20) - fill.chunk_bytes - 1))

    assert running.run(body(1 << 20, play)) is None
    assert running.fetch.stored


def test_a_fill_that_gave_up_lets_the_disk_be_freed(make: Make) -> None:
    running = make()

    def play(origin: Played) -> None:
        data = os.urandom(PUNCH_BYTES)
        running.reader.detach()
        origin.send(data)
        joined(running.spool).close()  # all is there yet, for a fill that begins anew
        running.fill.given_up = True
        running.fill.position, running.fill.takes = None, False
        origin.send(data)
        assert os.fstat(running.spool.fd).st_blocks * 512 < PUNCH_BYTES
        assert running.spool.join() is None

    running.run(body(8 * PUNCH_BYTES, play))


@pytest.mark.parametrize("is_bound", [False, True])
def test_no_cache_is_waited_for_when_the_spool_cannot_be_written(
    make: Make, monkeypatch: pytest.MonkeyPatch, is_bound: bool
) -> None:
    running = make()

    def play(origin: Played) -> None:
        running.fill.takes, running.fill.is_bound = False, is_bound
        monkeypatch.setattr(os, "pwrite", failing(OSError(28, "No space left on device")))
        for _ in range(5):
            origin.send(bytes(IN_MEMORY_BYTES))
            while available := running.reader.available():
                running.reader.advance(available)
        assert running.fill.given_up
        assert running.fill.refusal == b"spools full"

    assert running.run(body(5 * IN_MEMORY_BYTES, play)) is None


# -- tries -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("retryable", "asked"), [(True, 3), (False, 1)])
def test_only_what_may_help_is_tried_again(make: Make, *, retryable: bool, asked: int) -> None:
    running = make(tries=3)
    assert isinstance(running.run(*[breaks(retryable=retryable)] * asked), OriginTimeout)
    assert len(running.origin.requests) == asked


def test_nobody_waits_any_more_between_two_tries(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.state.FIRST_PAUSE_SECONDS", 60.0)
    running = make(tries=2)

    def play(_origin: Played) -> None:
        running.reader.close()
        raise OriginTimeout("slow", retryable=True)

    assert "no reader left" in str(running.run(play))


def test_a_status_that_is_no_answer_is_an_error_of_the_origin(make: Make) -> None:
    running = make(Event.NO_ANSWER, Event.NO_ANSWER, tries=3)

    def refuse(status: int) -> Script:
        def answer(origin: Played) -> None:
            assert not origin.begin(head(0, status=status))

        return answer

    failure = running.run(refuse(503), refuse(400))
    assert failure is not None
    assert (failure.status, failure.retryable) == (400, False)


def test_a_spool_that_takes_nothing_fails_the_fetch(make: Make) -> None:
    running = make()
    failure = running.run(body(10, failing(OSError(28, "No space left on device"))))
    assert isinstance(failure, SpoolFailed)
    assert "No space left" in str(failure)


# -- a body that broke off -------------------------------------------------------------------------------------------
ETAG = b'ETag: "a"'


def begun(data: bytes, *lines: bytes, length: int = 10) -> Script:
    """A body that breaks off behind these bytes."""

    def answer(origin: Played) -> None:
        assert origin.begin(head(length, *lines))
        origin.send(data)
        raise OriginTimeout("stalled", retryable=True)

    return answer


def rest(data: bytes, content_range: bytes, *lines: bytes, status: int = 206) -> Script:
    def answer(origin: Played) -> None:
        response = head(len(data), ETAG, b"Content-Range: " + content_range, *lines, status=status)
        assert origin.begin(response)
        origin.send(data)

    return answer


def test_the_rest_is_asked_for_from_where_it_broke_off(make: Make) -> None:
    running = make(tries=2)
    assert running.run(begun(b"abc", ETAG), rest(b"defghij", b"bytes 3-9/10")) is None
    first, second = running.origin.requests
    assert b"range" not in first.fields
    assert second.fields == fields(b"Range: bytes=3-", b'If-Range: "a"')
    assert running.fetch.stored


@pytest.mark.parametrize(
    ("script", "tries"),
    [
        pytest.param(begun(b"abc"), 2, id="of no validator"),
        pytest.param(begun(b"abcdefghij", ETAG), 2, id="all of it is there"),
        pytest.param(begun(b"abc", ETAG), 1, id="no try is left"),
    ],
)
def test_a_body_that_cannot_be_resumed(make: Make, script: Script, tries: int) -> None:
    running = make(tries=tries)
    assert isinstance(running.run(script), OriginTimeout)
    assert len(running.origin.requests) == 1


@pytest.mark.parametrize(
    ("content_range", "status", "asked"),
    [
        (b"bytes 4-9/10", 206, 2),
        (b"bytes 3-9/10", 200, 2),
        (b"bytes */10", 416, 2),
        (b"bytes 3-9/10", 503, 3),
    ],
)
def test_only_the_rest_is_taken(make: Make, content_range: bytes, status: int, asked: int) -> None:
    running = make(tries=3)
    scripts = [rest(b"x", content_range, status=status)] * (asked - 1)
    failure = running.run(begun(b"abc", ETAG), *scripts)
    assert isinstance(failure, OriginBadReply)
    assert failure.status == status


def test_a_body_that_is_shorter_than_it_said(make: Make) -> None:
    running = make()
    failure = running.run(body(4, lambda origin: origin.send(b"abc")))
    assert isinstance(failure, OriginBadReply)
    assert "3 of 4" in str(failure)
    assert failure.retryable


def test_a_body_that_is_longer_than_it_said(make: Make) -> None:
    running = make()

    def play(origin: Played) -> None:
        origin.send(b"abc")
        origin.send(b"de")

    assert "more than the announced 4 bytes" in str(running.run(body(4, play)))
    assert not running.fetch.stored


# -- the end ---------------------------------------------------------------------------------------------------------
def test_an_end_in_mid_body_is_short_for_clients_and_cancelled_for_the_cache(make: Make) -> None:
    running = make()
    follower = joined(running.spool)
    told: list[str] = []

    def hear() -> None:
        with pytest.raises(BodyCutShort, match="stalled") as caught:
            wait_available(follower)
        told.append(str(caught.value))
        follower.close()

    def play(origin: Played) -> None:
        origin.send(b"abc")
        follower.advance(3)
        running.fill.on_cancel = hear
        raise OriginTimeout("stalled")

    running.run(body(1000, play))
    assert told == ["stalled"], "before the cache"
    assert running.fill.cancelled
    assert running.plan.calls == [("end", False)]


def test_a_bug_at_the_end_leaves_no_reader_waiting_and_no_fill(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    running = make()
    monkeypatch.setattr(running.plan, "keeps", failing(ZeroDivisionError("a bug")))
    running.origin.scripts.append(begun(b"abc"))
    running.fetch.start()
    running.origin.play()
    assert read_what_came(running) == b"abc"
    assert running.fill.cancelled
    running.reader.close()
    assert running.spool.fd == -1


@pytest.mark.parametrize("method", ["request", "judge", "draft", "answer"])
def test_a_bug_fails_the_fetch_alone(make: Make, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    running = make()
    monkeypatch.setattr(running.plan, method, failing(ZeroDivisionError("a bug")))
    running.origin.scripts.append(lambda origin: origin.begin(head(0)))
    running.fetch.start()
    running.origin.play()
    with pytest.raises(FetchBroken, match="a bug"):
        running.reader.news()
    assert running.over == [running.fetch]
    running.reader.close()


def test_an_answer_that_cannot_be_understood_is_not_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to follow the failed action does not happen."""
    running = make()
    monkeypatch.setattr(running.plan, "draft", failing(OriginBadReply("what is this")))
    follower = joined(running.spool)
    running.origin.scripts.append(lambda origin: origin.begin(head(9)))
    running.fetch.start()
    running.origin.play()
    running.reader.close()
    with pytest.raises(OriginBadReply, match="what is this"):
        follower.news()
    follower.close()
    assert not running.fills.made


def test_what_is_over_holds_nothing_alive(make: Make) -> None:
    running = make()
    gone = weakref.ref(running.fetch)
    gc.collect()
    gc.disable()  # the rest must not need it
    try:
        assert running.run(body(3, lambda origin: origin.send(b"abc"))) is None
        running.over.clear()
        del running.fetch
        assert gone() is None
    finally:
        gc.enable()


# -- steps that wait for the cache -----------------------------------------------------------------------------------
def test_bytes_that_come_while_steps_are_taken_are_refused_and_come_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = make()
    monkeypatch.setattr(running.plan, "keep_may_wait", lambda _draft: True)
    running.crew.is_held = True

    def play(origin: Played) -> None:
        assert origin.begin(head(6))
        assert not running.spool.answered
        assert not origin.write(b"abc")
        assert not origin.write(b"abc")
        assert not origin.transfer.resumed()
        running.crew.work()
        assert origin.transfer.resumed()
        assert origin.write(b"abc")
        running.crew.release()
        assert origin.write(b"def")

    assert running.run(play) is None
    assert running.fetch.stored


def test_the_first_bytes_wait_for_the_steps_that_they_cause(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    running = make(Event.BODY_AHEAD)
    monkeypatch.setattr(running.plan, "keep_may_wait", lambda _draft: True)
    running.crew.is_held = True

    def play(origin: Played) -> None:
        assert origin.begin(head(3))
        assert not origin.write(b"abc")
        assert running.spool.written == 0
        running.crew.release()
        assert running.reader.news() == BodyFound(3)
        assert origin.transfer.resumed()
        assert origin.write(b"abc")

    assert running.run(play) is None


def test_an_end_that_comes_while_steps_are_taken_is_not_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    running = make()
    monkeypatch.setattr(running.plan, "keep_may_wait", lambda _draft: True)
    running.crew.is_held = True
    running.origin.scripts.append(lambda origin: origin.begin(head(0)))
    running.fetch.start()
    running.origin.play()
    assert not running.over
    assert running.reader.news() is None
    running.crew.release()
    assert running.reader.news() == BodyFound(0)
    assert running.over == [running.fetch]
    running.reader.close()


def test_stopping_while_it_prepares_its_question(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """stop() sees no exchange yet: nothing may be sent after it."""
    running = make()
    request = running.plan.request

    def stopping(question: State, now: float) -> OriginRequest:
        running.stop()
        return request(question, now)

    monkeypatch.setattr(running.plan, "request", stopping)
    assert "stops" in str(running.run())
    assert running.origin.requests == []


def test_who_leaves_before_the_next_try_ends_it_with_the_next_tick(make: Make) -> None:
    running = make(tries=2)
    running.origin.scripts.append(breaks())
    running.fetch.start()
    running.origin.play_next()
    (waiting,) = running.origin.begun
    assert waiting.after_s > 0
    waiting.sink.tick()
    assert waiting.cancelled is None
    running.reader.close()
    waiting.sink.tick()
    running.origin.play()
    assert isinstance(running.fetch.failure, FetchAborted)
    assert len(running.origin.requests) == 1


# -- a partial response that is longer than the window ---------------------------------------------------------------
WHOLE = os.urandom(6 * WINDOW)
HELD_BYTES = 5 * WINDOW


class Long(FakePartials):
    """A partial response of several windows, in pieces that are none."""

    def __init__(self) -> None:
        super().__init__(stored_response(ETAG, body_bytes=len(WHOLE), incomplete=True))
        assert self.part is not None
        self.part.held_bytes = HELD_BYTES

    def copy(self, part: StoredHit, offset: int, take: Callable[[memoryview], None]) -> int:
        if not self.is_there:
            raise CacheUnavailable("gone")
        piece = WHOLE[offset : min(offset + 300, HELD_BYTES)]
        take(memoryview(piece))
        return len(piece)


class Copying(Running):
    """A fetch that copies its partial response ahead of the rest; its reader reads as the test says."""

    def __init__(self, **plan: Any) -> None:
        self.long = Long()
        super().__init__(Event.REST, partials=self.long, first=Event.TO_COMPLETE, **plan)

        def change(fill: FakeFill) -> None:
            fill.position, fill.takes, fill.chunk_bytes = 0, False, 0

        self.fills.change = change

    def rest_of(self, origin: Played, position: int = HELD_BYTES) -> bool:
        said = fields(ETAG, b"Content-Range: bytes %d-%d/%d" % (position, len(WHOLE) - 1, len(WHOLE)))
        return origin.begin(OriginResponse(status=206, fields=said, length=len(WHOLE) - position))

    def read(self, count: int) -> bytes:
        if not self.reader.is_told:
            assert self.reader.news() is not None
        available = self.reader.available()
        assert available
        data = self.reader.read(min(count, available))
        self.reader.advance(len(data))
        return data


@pytest.mark.parametrize("step", [1, 299, WINDOW, 3 * WINDOW])
def test_a_copy_waits_for_its_reader_without_a_thread(step: int) -> None:
    """However often it waits, the rest stays behind it."""
    running, got = Copying(share=1.0), bytearray()

    def play(origin: Played) -> None:
        assert running.rest_of(origin)
        while running.spool.written < HELD_BYTES:
            assert WINDOW < running.spool.written - len(got) <= WINDOW + 300, "it is not further ahead"
            assert not origin.write(WHOLE[HELD_BYTES:])
            assert not origin.transfer.resumed()
            got.extend(running.read(step))
        assert origin.transfer.resumed()
        while not origin.write(WHOLE[HELD_BYTES:]):
            got.extend(running.read(step))
        while len(got) < len(WHOLE):
            got.extend(running.read(step))

    assert running.run(play) is None
    assert bytes(got) == WHOLE


def test_a_copy_goes_on_for_the_cache_when_its_reader_has_left() -> None:
    running = Copying(share=0.0)

    def play(origin: Played) -> None:
        assert running.rest_of(origin)
        assert running.spool.written < HELD_BYTES
        running.reader.close()
        assert not origin.idle()
        assert running.spool.written < HELD_BYTES
        running.fill.takes = True
        assert not origin.idle()
        assert running.spool.written == HELD_BYTES
        origin.send(WHOLE[HELD_BYTES:])

    assert running.run(play) is None
    assert running.fetch.stored


def parked(running: Copying, then: Callable[[], None]) -> Script:
    """A copy that waits for its reader, and then something else."""

    def play(origin: Played) -> None:
        assert running.rest_of(origin)
        assert running.spool.written < HELD_BYTES
        then()

    return play


def test_who_leaves_ends_a_copy_that_waits() -> None:
    running = Copying(share=1.0)
    assert isinstance(running.run(parked(running, lambda: running.reader.close())), FetchAborted)


def test_stopping_ends_a_copy_that_waits() -> None:
    running = Copying(share=1.0)
    assert "stops" in str(running.run(parked(running, running.stop)))


def test_an_origin_that_breaks_off_behind_a_copy_is_asked_for_the_rest() -> None:
    """Nobody but the exchange looks after the fill: without it the copy does not wait."""
    running = Copying(share=1.0, tries=2)

    def resumed(origin: Played) -> None:
        assert running.spool.written == HELD_BYTES
        assert running.rest_of(origin)
        running.reader.detach()
        origin.send(WHOLE[HELD_BYTES:])

    break_off = failing(OriginTimeout("stalled", retryable=True))
    assert running.run(parked(running, break_off), resumed) is None
    assert running.origin.requests[1].fields.get(b"range") == b"bytes=%d-" % HELD_BYTES
    assert running.fetch.stored


def test_a_copy_that_is_lost_while_it_waited_is_asked_for_instead() -> None:
    running = Copying(share=1.0)

    def lose() -> None:
        running.long.is_there = False
        running.reader.detach()

    def resumed(origin: Played) -> None:
        position = running.spool.written
        assert running.rest_of(origin, position)
        origin.send(WHOLE[position:])

    assert running.run(parked(running, lose), resumed) is None


def test_an_end_on_the_way_from_what_was_dropped_does_not_count() -> None:
    """The first piece of the partial response is gone: whatever became of the exchange, the whole is asked for."""
    running = Copying(share=1.0)

    def play(origin: Played) -> None:
        running.crew.is_held = True
        assert running.rest_of(origin)
        raise OriginTimeout("stalled", retryable=False)

    def whole(origin: Played) -> None:
        assert origin.begin(head(3))
        running.reader.detach()
        origin.send(b"abc")

    running.origin.scripts += [play, whole]
    running.fetch.start()
    running.crew.work()
    running.origin.play()
    assert not running.over
    running.long.is_there = False
    running.crew.release()
    running.origin.play()
    assert running.over == [running.fetch]
    assert running.fetch.failure is None
    assert len(running.origin.requests) == 2


def test_what_an_exchange_says_after_it_was_dropped_is_nobodys() -> None:
    running = Copying(share=1.0)

    def play(origin: Played) -> None:
        running.long.is_there = False
        assert running.rest_of(origin)
        assert origin.is_given_up
        sink = origin.transfer.sink
        sink.interim(103, fields())
        assert running.reader.news() is None
        assert not sink.begin(head(3))
        assert sink.write(b"xyz")
        sink.ended(OriginTimeout("stalled"))

    assert running.run(play, body(3, lambda origin: origin.send(b"abc"))) is None
    assert running.spool.written == 3


# -- faults at each step ---------------------------------------------------------------------------------------------
class Interrupted(FakePartials):
    """A partial response of three bytes of ten; something happens at each of its steps."""

    def __init__(self, happens: Callable[[str], None]) -> None:
        super().__init__(stored_response(ETAG, body_bytes=10, incomplete=True))
        assert self.part is not None
        self.part.held_bytes = 3
        self._happens = happens

    def find(self, key: bytes, asked: RequestHead) -> StoredHit | None:
        self._happens("looked")
        return super().find(key, asked)

    def copy(self, part: StoredHit, offset: int, take: Callable[[memoryview], None]) -> int:
        take(memoryview(b"abc"[offset : offset + 2]))
        self._happens("copied" if offset else "copied the first piece")
        return 2


STEPS = ["looked", "asked", "copied the first piece", "copied", "half of it has come", "all has come", "filled"]


def purge(running: Running) -> None:
    assert running.fetch.token.revoke(0.0)


def leave(running: Running) -> None:
    running.reader.close()


def stop(running: Running) -> None:
    running.stop()


def break_off(running: Running) -> None:
    raise OriginTimeout("stalled", retryable=True)


def fill_the_disk(running: Running) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", [purge, leave, stop, break_off, fill_the_disk])
@pytest.mark.parametrize("tries", [1, 2])
def test_a_fault_at_each_step(fault: Callable[[Running], None], step: str, tries: int) -> None:
    """The readers get every byte or a failure, and the cache all of it or nothing; neither waits for ever."""
    left = [step]

    def happens(now: str) -> None:
        if left == [now] and (fault not in (break_off, fill_the_disk) or now not in ("looked", "filled")):
            left.clear()
            fault(running)

    def play(origin: Played) -> None:
        happens("asked")
        resumes = running.spool.answered
        position = running.spool.written if resumes else 3
        said = fields(ETAG, b"Content-Range: bytes %d-9/10" % position)
        if not origin.begin(OriginResponse(status=206, fields=said, length=10 - position)):
            return
        middle = max(position, 5)
        origin.send(b"abcdefghij"[position:middle])
        happens("half of it has come")
        if origin.idle():
            return
        origin.send(b"abcdefghij"[middle:])
        happens("all has come")

    running = Running(
        Event.REST, Event.REST, share=1.0, partials=Interrupted(happens), first=Event.TO_COMPLETE, tries=tries
    )
    running.fills.change = lambda fill: setattr(fill, "on_finish", lambda: happens("filled"))
    running.origin.scripts += [play] * tries
    running.fetch.start()
    running.origin.play()
    assert running.over == [running.fetch]
    failure = running.fetch.failure
    assert not left or (fault in (break_off, fill_the_disk) and step in ("looked", "filled")), "it has happened"
    if fault is not leave:
        got = read_what_came(running)
        assert b"abcdefghij".startswith(got)
        assert failure is not None or got == b"abcdefghij"
    assert failure is None or not running.fetch.stored
    if fault is purge:
        assert (failure, running.fetch.stored) == (None, False)
    assert running.plan.calls[-1] == ("end", running.fetch.stored)
    running.reader.close()
    assert running.spool.fd == -1


def read_what_came(running: Running) -> bytes:
    """All that the reader gets, up to a failure or the end."""
    reader = running.reader
    with suppress(BodyCutShort, OriginError):
        wait_answer(reader)
        while wait_available(reader):
            reader.advance(wait_available(reader))
    body = bytearray(reader.position)
    running.spool.read_into([memoryview(body)], 0)
    return bytes(body)


# -- a small fetch whose end its reader runs -------------------------------------------------------------------------
class BriefPlan(ScriptedPlan):
    """Its end needs the cache for nothing but the body."""

    is_brief = True

    def ends_briefly(self, draft: Draft) -> bool:
        return self.is_brief


def small_fetch(monkeypatch: pytest.MonkeyPatch, *, brief: bool = True, stores: bool = True) -> Running:
    monkeypatch.setattr("webproxy.fetch.job.SMALL_BYTES", 100)
    running = Running(share=0.0, stores=stores)
    plan = BriefPlan(running.plan.means, stores=stores)
    plan.is_brief = brief
    running.plan = plan
    running.fetch = Fetch(plan, running.spool, as_crew(running.crew), running.stopping, running.over.append)
    running.reader.runs_errands = True
    running.crew.is_held = True
    return running


def played(running: Running, length: int | None = 3, data: bytes = b"abc") -> None:
    """All of it comes, and is read."""
    running.origin.scripts.append(body(length, lambda origin: origin.send(data)))
    running.fetch.start()
    running.origin.play()
    assert wait_answer(running.reader) == BodyFound(len(data))
    assert running.reader.read(100) == data


@pytest.mark.parametrize("stores", [True, False])
def test_the_reader_of_a_small_body_runs_what_is_left(monkeypatch: pytest.MonkeyPatch, *, stores: bool) -> None:
    running = small_fetch(monkeypatch, stores=stores)
    played(running)
    assert running.over == []
    errand = running.reader.take_errand()
    assert errand is not None
    errand.run()
    running.crew.release()
    assert running.over == [running.fetch]
    assert running.fetch.stored is stores
    assert running.plan.calls == ([*(["settle"] if stores else []), ("end", stores)])
    running.reader.close()


@pytest.mark.parametrize("why", ["its end takes longer", "it is long", "its length is unknown", "nobody runs it"])
def test_otherwise_the_crew_runs_it(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    running = small_fetch(monkeypatch, brief=why != "its end takes longer")
    running.reader.runs_errands = why != "nobody runs it"
    data = bytes(101) if why == "it is long" else b"abc"
    running.origin.scripts.append(
        body(None if why == "its length is unknown" else len(data), lambda origin: origin.send(data))
    )
    running.fetch.start()
    running.origin.play()
    assert running.reader.take_errand() is None
    running.crew.release()
    assert running.over == [running.fetch]
    assert running.fetch.stored
    running.reader.close()


def test_a_reader_that_leaves_without_running_it_hands_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    running = small_fetch(monkeypatch)
    played(running)
    running.reader.close()
    assert running.over == []
    running.crew.release()
    assert running.over == [running.fetch]
    assert running.fetch.stored


def test_a_cache_that_needs_longer_than_a_moment_is_waited_for_by_the_crew(monkeypatch: pytest.MonkeyPatch) -> None:
    running = small_fetch(monkeypatch)
    played(running)
    limits: list[float | None] = []

    def finish(limit_s: float | None = None) -> bool | None:
        limits.append(limit_s)
        return True if limit_s is None else None

    monkeypatch.setattr(running.fill, "finish", finish)
    errand = running.reader.take_errand()
    assert errand is not None
    errand.run()
    assert (limits, running.over) == ([MOMENT_SECONDS], [])
    running.reader.close()
    running.crew.release()
    assert (limits, running.over) == ([MOMENT_SECONDS, None], [running.fetch])
    assert running.fetch.stored


def test_the_end_of_the_daemon_waits_for_no_reader_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    running = small_fetch(monkeypatch)
    played(running)
    running.fetch.stop()
    running.crew.release()
    assert running.over == [running.fetch]
    assert running.reader.take_errand() is None
    running.reader.close()
