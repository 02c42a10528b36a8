"""Fetch: when does a fetch wait, go on, try again or end, as clients, the cache and the origin come and go?"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

import pytest

from tests.support.failing import failing
from tests.support.fetching import (
    FakeFill,
    FakeFills,
    FakePartials,
    ScriptedOrigin,
    ScriptedPlan,
    fetch_means,
    joined,
)
from tests.support.http_values import fields, stored_response
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import BodyCutShort, FetchAborted, OriginBadReply, OriginError, OriginTimeout, OriginUnreachable
from webproxy.fetch.job import Fetch
from webproxy.fetch.spool import PUNCH_BYTES, BodyFound, Spool
from webproxy.fetch.state import Event
from webproxy.http.messages import RequestHead
from webproxy.origin.client import Sink
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import StoredHit

WINDOW = 1000
Script: TypeAlias = Callable[[Sink], None]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.state.FIRST_PAUSE_SECONDS", 0.002)


def head(length: int | None, *lines: bytes, status: int = 200) -> OriginResponse:
    return OriginResponse(status=status, fields=fields(*lines), length=length)


class Running:
    """A fetch with one reader and an origin that the test plays."""

    def __init__(self, *events: Event, share: float, partials: FakePartials | None = None, **plan: Any) -> None:
        self.fills = FakeFills(lambda fill: setattr(fill, "position", 0))
        self.stop = threading.Event()
        self.origin = ScriptedOrigin()
        self.spool = Spool(None)
        self.reader = joined(self.spool)
        means = fetch_means(self.origin, self.fills, WINDOW, share, partials)
        self.plan = ScriptedPlan(means, *events, **plan)
        self.fetch = Fetch(self.plan, self.spool, self.stop)

    @property
    def fill(self) -> FakeFill:
        return self.fills.made[-1]

    def run(self, *scripts: Script) -> OriginError | None:
        """Let the origin answer so, once for each request; then the fetch is over."""
        self.origin.scripts += scripts
        failure = self.fetch.run()
        self.fetch.end(failure)
        self.reader.close()
        assert self.spool.fd == -1
        assert not self.origin.scripts, "it asked as often as there were answers"
        return failure


Make: TypeAlias = Callable[..., Running]


@pytest.fixture
def make() -> Make:
    def made(*events: Event, share: float = 0.0, cache: bool = True, **plan: Any) -> Running:
        return Running(*events, share=share, stores=cache, **plan)

    return made


def body(length: int | None, then: Script) -> Script:
    """An answer with a body of this length, up to which the test plays it."""

    def answer(sink: Sink) -> None:
        assert sink.begin(head(length))
        then(sink)

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

    def play(sink: Sink) -> None:
        sink.write(bytes(written))
        assert not sink.idle(), "somebody reads"
        running.reader.close()
        assert sink.idle() is not goes_on
        late = running.spool.join()
        assert (late is not None) is goes_on, "what has ended takes nobody in"
        if late is not None:
            late.close()

    running.run(body(1000, play))


def test_below_its_share_a_second_client_keeps_it(make: Make) -> None:
    running = make(share=0.5)

    def play(sink: Sink) -> None:
        second = joined(running.spool)
        sink.write(bytes(100))
        running.reader.close()
        assert not sink.idle()
        second.close()
        assert sink.idle()

    running.run(body(1000, play))


def test_a_reader_that_detaches_keeps_it_below_its_share(make: Make) -> None:
    running = make(share=0.5)

    def play(sink: Sink) -> None:
        sink.write(bytes(100))
        running.reader.detach()
        assert not sink.idle()

    running.run(body(1000, play))


def test_a_length_that_nobody_knows_has_no_share(make: Make) -> None:
    running = make(share=1.0)

    def play(sink: Sink) -> None:
        sink.write(bytes(100))
        running.reader.close()
        assert not sink.idle(), "the cache takes it"
        running.fill.position = None
        assert sink.idle()

    running.run(body(None, play))


def test_without_a_cache_it_ends_whatever_its_share_is(make: Make) -> None:
    running = make(cache=False)

    def play(sink: Sink) -> None:
        sink.write(bytes(999))
        running.reader.close()
        assert sink.idle()

    running.run(body(1000, play))


def test_a_complete_body_is_for_the_cache_also_when_its_readers_have_left(make: Make) -> None:
    """The fill let go, the last byte has come, and the client is off before the origin client looks up."""
    running = make(share=1.0)

    def play(sink: Sink) -> None:
        running.fill.takes, running.fill.position = False, None
        sink.write(b"abc")
        assert not sink.idle()
        sink.write(b"def")
        running.reader.close()
        assert not sink.idle()
        assert not running.fetch.stored

    assert running.run(body(6, play)) is None
    assert running.fetch.stored
    assert running.plan.calls == ["settle", ("end", True)]


def test_it_ends_at_once_when_the_daemon_stops(make: Make) -> None:
    running = make()

    def play(sink: Sink) -> None:
        assert not sink.idle()
        running.stop.set()
        assert sink.idle()

    running.run(body(1000, play))


def test_the_fill_yields_when_a_hit_waits(make: Make) -> None:
    running = make()

    def play(sink: Sink) -> None:
        sink.write(bytes(100))
        assert running.fill.position == 100
        running.fill.waited_for = True
        assert not sink.idle()
        assert running.fill.position is None

    running.run(body(1000, play))


def test_what_nobody_waits_for_is_not_asked_for(make: Make) -> None:
    running = make()
    running.reader.close()
    assert "no reader left" in str(running.run())
    assert running.origin.requests == []


# -- the window ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["reader moves", "reader leaves", "reader detaches", "daemon stops"])
def test_it_waits_for_its_fastest_reader_until(make: Make, how: str) -> None:
    running = make(cache=False)

    def play(sink: Sink) -> None:
        with ThreadPoolExecutor(1) as crew:
            writing = crew.submit(sink.write, bytes(WINDOW + 1))
            wait_until(lambda: running.spool.written > WINDOW)
            assert not writing.done()
            if how == "reader moves":
                running.reader.advance(1)
            elif how == "reader leaves":
                running.reader.close()
            elif how == "reader detaches":
                running.reader.detach()
            else:
                running.stop.set()
            writing.result(WATCHDOG_S)

    running.run(body(10_000, play))


def test_it_does_not_wait_before_there_is_an_answer(make: Make) -> None:
    """Its length is unknown: the readers are told when all of it is there."""
    running = make(Event.BODY_AHEAD, cache=False)

    def play(sink: Sink) -> None:
        sink.write(bytes(10 * WINDOW))
        assert running.spool.written == 10 * WINDOW
        assert not running.spool.answered

    assert running.run(body(None, play)) is None
    assert running.reader.wait_answer() == BodyFound(10 * WINDOW)


def test_it_waits_for_a_cache_that_takes_it_when_the_clients_have_left(make: Make) -> None:
    """At least for a chunk: the fill moves in whole ones."""
    running = make()

    def play(sink: Sink) -> None:
        fill = running.fill
        running.reader.close()
        fill.takes = False
        sink.write(bytes(fill.chunk_bytes))  # within what a fill may hold back
        with ThreadPoolExecutor(1) as crew:
            writing = crew.submit(sink.write, b"x")
            wait_until(lambda: running.spool.written > fill.chunk_bytes)
            assert not writing.done()
            fill.takes = True
            writing.result(WATCHDOG_S)

    running.run(body(1 << 20, play))


def test_a_fill_that_gave_up_lets_the_disk_be_freed(make: Make) -> None:
    running = make()

    def play(sink: Sink) -> None:
        data = os.urandom(PUNCH_BYTES)
        running.reader.detach()
        sink.write(data)
        joined(running.spool).close()  # all is there yet, for a fill that begins anew
        running.fill.given_up = True
        running.fill.position, running.fill.takes = None, False
        sink.write(data)
        assert os.fstat(running.spool.fd).st_blocks * 512 < PUNCH_BYTES
        assert running.spool.join() is None

    running.run(body(8 * PUNCH_BYTES, play))


# -- tries -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("retryable", "asked"), [(True, 3), (False, 1)])
def test_only_what_may_help_is_tried_again(make: Make, *, retryable: bool, asked: int) -> None:
    running = make(tries=3)
    assert isinstance(running.run(*[breaks(retryable=retryable)] * asked), OriginTimeout)
    assert len(running.origin.requests) == asked


def test_nobody_waits_any_more_between_two_tries(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.state.FIRST_PAUSE_SECONDS", 60.0)
    running = make(tries=2)

    def play(_sink: Sink) -> None:
        running.reader.close()
        raise OriginTimeout("slow", retryable=True)

    assert "no reader left" in str(running.run(play))


def test_a_status_that_is_no_answer_is_an_error_of_the_origin(make: Make) -> None:
    running = make(Event.NO_ANSWER, Event.NO_ANSWER, tries=3)

    def refuse(status: int) -> Script:
        def answer(sink: Sink) -> None:
            assert not sink.begin(head(0, status=status))

        return answer

    failure = running.run(refuse(503), refuse(400))
    assert failure is not None
    assert (failure.status, failure.retryable) == (400, False)


def test_a_full_disk_fails_the_fetch(make: Make) -> None:
    running = make()
    failure = running.run(body(10, failing(OSError(28, "No space left on device"))))
    assert isinstance(failure, OriginUnreachable)
    assert "No space left" in str(failure)


# -- a body that broke off -------------------------------------------------------------------------------------------
ETAG = b'ETag: "a"'


def begun(data: bytes, *lines: bytes, length: int = 10) -> Script:
    """A body that breaks off behind these bytes."""

    def answer(sink: Sink) -> None:
        assert sink.begin(head(length, *lines))
        sink.write(data)
        raise OriginTimeout("stalled", retryable=True)

    return answer


def rest(data: bytes, content_range: bytes, *lines: bytes, status: int = 206) -> Script:
    def answer(sink: Sink) -> None:
        response = head(len(data), ETAG, b"Content-Range: " + content_range, *lines, status=status)
        assert sink.begin(response)
        sink.write(data)

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
    failure = running.run(body(4, lambda sink: sink.write(b"abc")))
    assert isinstance(failure, OriginBadReply)
    assert "3 of 4" in str(failure)
    assert failure.retryable


def test_a_body_that_is_longer_than_it_said(make: Make) -> None:
    running = make()

    def play(sink: Sink) -> None:
        sink.write(b"abc")
        sink.write(b"de")

    assert "more than the announced 4 bytes" in str(running.run(body(4, play)))
    assert not running.fetch.stored


# -- the end ---------------------------------------------------------------------------------------------------------
def test_an_end_in_mid_body_is_short_for_clients_and_cancelled_for_the_cache(make: Make) -> None:
    running = make()
    follower = joined(running.spool)
    told: list[str] = []

    def hear() -> None:
        with pytest.raises(BodyCutShort, match="stalled") as caught:
            follower.wait_available()
        told.append(str(caught.value))
        follower.close()

    def play(sink: Sink) -> None:
        sink.write(b"abc")
        follower.advance(3)
        running.fill.on_cancel = hear
        raise OriginTimeout("stalled")

    running.run(body(1000, play))
    assert told == ["stalled"], "before the cache"
    assert running.fill.cancelled
    assert running.plan.calls == [("end", False)]


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
    running.stop.set()


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

    def play(sink: Sink) -> None:
        happens("asked")
        resumes = running.spool.answered
        position = running.spool.written if resumes else 3
        said = fields(ETAG, b"Content-Range: bytes %d-9/10" % position)
        if not sink.begin(OriginResponse(status=206, fields=said, length=10 - position)):
            return
        middle = max(position, 5)
        sink.write(b"abcdefghij"[position:middle])
        happens("half of it has come")
        if sink.idle():
            raise FetchAborted("nobody waits")
        sink.write(b"abcdefghij"[middle:])
        happens("all has come")

    running = Running(
        Event.REST, Event.REST, share=1.0, partials=Interrupted(happens), first=Event.TO_COMPLETE, tries=tries
    )
    running.fills.change = lambda fill: setattr(fill, "on_finish", lambda: happens("filled"))
    running.origin.scripts += [play] * tries
    failure = running.fetch.run()
    running.fetch.end(failure)
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
        reader.wait_answer()
        while reader.wait_available():
            reader.advance(reader.wait_available())
    return os.pread(reader.fd, reader.position, 0) if reader.position else b""
