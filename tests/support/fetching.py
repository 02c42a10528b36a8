"""Fetches for tests: with a scripted plan and origin, or running against a stub; with fills that only remember."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import pytest

from tests.support.http_values import stored_response
from tests.support.sinks import origin_limits, running_driver
from tests.support.waiting import WATCHDOG_S
from webproxy.caching.options import DEFAULT_OPTIONS
from webproxy.caching.partial import continuation
from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, CacheUnavailable, OriginError
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.fetch.http_fetch import FetchRequest, HitForMiss, HttpFetches, HttpPlan
from webproxy.fetch.partial_response import PartialStore, whole_response
from webproxy.fetch.plan import Answered, Draft, FetchMeans, Plan
from webproxy.fetch.spool import Answer, BodyFound, Interim, Spool, SpooledPrefix, SpoolReader, Validated
from webproxy.fetch.state import Event, State
from webproxy.fetch.strand import Crew, Task
from webproxy.fetch.table import FetchTable
from webproxy.http.messages import RequestHead
from webproxy.origin.driver import OriginDriver
from webproxy.origin.hop import Sink
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule, OriginTable, Target
from webproxy.origin.via import Via
from webproxy.store.fill import Fill, FillRequest, Fills, Source, StoreToken
from webproxy.store.getfile_objects import PLAIN_GET, GetfileVariants
from webproxy.store.lookup import ObjectLookup, StoredHit
from webproxy.store.store import NoStore
from webproxy.store.updates import CacheUpdater
from workloads.origin_stub import OriginStub


class FakeFill:
    """As Fill: a cache that takes what it is given, up to where the test lets it."""

    def __init__(self, request: FillRequest, source: Source) -> None:
        self.request = request
        self.source = source
        self.position: int | None = None
        self.takes = True
        self.stores = True
        self.waited_for = False
        self.cancelled = False
        self.given_up = False
        self.is_bound = False
        self.stored = False
        self.chunk_bytes = 65_536
        self.refusal = b""
        self.on_cancel: Callable[[], object] = lambda: None
        self.on_finish: Callable[[], object] = lambda: None

    @property
    def is_coming(self) -> bool:
        return not self.given_up and self.position is not None

    @property
    def may_begin_anew(self) -> bool:
        return not (self.is_bound or self.given_up)

    @property
    def needs_from(self) -> int | None:
        if self.given_up:
            return None
        return (self.position or 0) if self.is_bound else 0

    def bind(self) -> None:
        self.is_bound = True
        self.given_up = self.given_up or self.position is None

    def drop(self, refusal: bytes, _reason: str) -> None:
        self.refusal, self.given_up, self.position = refusal, True, None

    def pump(self) -> None:
        if self.takes and self.request.size_bytes is not None:
            self.position = self.source.written

    def yield_turn(self) -> None:
        if self.waited_for:
            self.position, self.takes = None, False

    def finish(self, _limit_s: float | None = None) -> bool:
        self.on_finish()
        self.position, self.stored = None, self.stores and not self.request.token.revoked
        return self.stored

    def cancel(self) -> None:
        self.on_cancel()
        self.cancelled = True


class FakeFills:
    """As Fills: remembers the fills it has begun, each changed by the test at its beginning."""

    def __init__(self, change: Callable[[FakeFill], None] = lambda fill: None) -> None:
        self.made: list[FakeFill] = []
        self.change = change

    def begin(self, request: FillRequest, source: Source) -> Fill:
        self.made.append(FakeFill(request, source))
        self.change(self.made[-1])
        return cast(Fill, self.made[-1])


PARTIAL = stored_response(b'ETag: "a"', b"X: 1", body_bytes=1000, incomplete=True)


class FakePartials:
    """As PartialStore: has one or none, and remembers what was asked of it."""

    def __init__(self, stored: StoredResponse | None = PARTIAL) -> None:
        self.part = None if stored is None else StoredHit(b"/x\0partial", stored, 7, held_bytes=400)
        self.looks = 0
        self.is_there = True
        self.keeps = True
        self.calls: list[tuple[object, ...]] = []

    def find(self, key: bytes, asked: RequestHead) -> StoredHit | None:
        self.looks += 1
        return self.part

    def copy(self, part: StoredHit, offset: int, take: Callable[[memoryview], None]) -> int:
        if not self.is_there:
            raise CacheUnavailable("gone")
        take(memoryview(b"abc"))
        return 3

    def keep(self, key: bytes, prefix: SpooledPrefix, stored: StoredResponse, size_bytes: int) -> bool:
        self.calls.append(("keep", key, prefix.written, size_bytes))
        return self.keeps

    def is_as_found(self, part: StoredHit) -> bool:
        return self.is_there

    def drop(self, key: bytes) -> None:
        self.calls.append(("drop", key))


class PlayedTransfer:
    """As Transfer: remembers what it is told; the test acts on it when it is the origin's turn."""

    def __init__(self, origin: ScriptedOrigin, request: OriginRequest, sink: Sink) -> None:
        self.asked_at = 0.0
        self.request = request
        self.sink = sink
        self.after_s = 0.0
        self.awaits_resume = True
        """Since its last write()."""
        self.cancelled: OriginError | None = None
        self.is_abandoned = False
        self._origin = origin

    def begin(self, after_s: float = 0.0) -> None:
        self.after_s = after_s
        self._origin.begun.append(self)

    def resume(self) -> None:
        self.awaits_resume = False

    def resumed(self) -> bool:
        """Whether it was resumed since its last write()."""
        return not self.awaits_resume

    def cancel(self, error: OriginError) -> None:
        self.cancelled = self.cancelled or error

    def abandon(self) -> None:
        self.is_abandoned = True


class _GivenUp(Exception):
    """Nobody wants any more of what the script plays."""


class Played:
    """What a script says to the sink of one transfer; it ends with the script, or when it is given up."""

    def __init__(self, transfer: PlayedTransfer) -> None:
        self.transfer = transfer
        self._sink = transfer.sink

    @property
    def is_given_up(self) -> bool:
        return self.transfer.is_abandoned or self.transfer.cancelled is not None

    def interim(self, status: int) -> None:
        self._sink.interim(status, PLAIN_GET.fields)

    def begin(self, response: OriginResponse) -> bool:
        """Whether the body is wanted."""
        self._check()
        return self._sink.begin(response)

    def write(self, data: bytes) -> bool:
        """Whether there was room; if not, the same must be written once the transfer was resumed."""
        self._check()
        self.transfer.awaits_resume = True
        return self._sink.write(data)

    def send(self, data: bytes) -> None:
        """Write it, in a second try if the first one met steps that were being taken."""
        if not self.write(data):
            self._check()
            assert self.transfer.resumed(), "paused for ever"
            assert self.write(data), "resumed without room"

    def idle(self) -> bool:
        """Let a moment pass; whether it is given up then."""
        self._sink.tick()
        return self.is_given_up

    def _check(self) -> None:
        if self.is_given_up:
            raise _GivenUp


Script: TypeAlias = Callable[[Played], object]


class ScriptedOrigin:
    """As OriginDriver: each request is answered by the next script, once the test lets the origins play."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[OriginRequest] = []
        """Those that were sent."""
        self.begun: deque[PlayedTransfer] = deque()
        """Those that have begun and were not played yet."""

    def afterwards(self, function: Callable[[], None]) -> None:
        function()

    def transfer(self, request: OriginRequest, sink: Sink, _limits: OriginLimits) -> PlayedTransfer:
        return PlayedTransfer(self, request, sink)

    def play(self) -> None:
        """Play all transfers to their ends, those that begin meanwhile too."""
        while self.begun:
            self.play_next()

    def play_next(self) -> None:
        """Play one transfer to its end."""
        transfer = self.begun.popleft()
        played = Played(transfer)
        outcome: OriginResponse | Exception = OriginResponse(status=200, fields=PLAIN_GET.fields)
        if not played.is_given_up:
            self.requests.append(transfer.request)
            try:
                self.scripts.pop(0)(played)
            except _GivenUp:
                pass
            except AssertionError:  # the test's own
                raise
            except Exception as error:  # noqa: BLE001 - as the driver does
                outcome = error
        if not transfer.is_abandoned:
            transfer.sink.ended(transfer.cancelled or outcome)
        del transfer.sink


class HeldCrew:
    """As Crew: runs each task at once or, while it is held, when the test says so."""

    def __init__(self) -> None:
        self.is_held = False
        self._tasks: deque[Task] = deque()

    def run(self, task: Task) -> None:
        self._tasks.append(task)
        if not self.is_held:
            self.work()

    def release(self) -> None:
        """Run what has been posted, and from now on each task at once."""
        self.is_held = False
        self.work()

    def work(self) -> None:
        """Run what has been posted."""
        while self._tasks:
            self._tasks.popleft()()


def as_crew(crew: HeldCrew) -> Crew:
    return cast(Crew, crew)


class ScriptedPlan(Plan):
    """A fetch plan that the test controls. By default it announces every answer with its head and stores it."""

    def __init__(
        self,
        means: FetchMeans,
        *events: Event,
        tries: int = 1,
        stores: bool = True,
        first: Event = Event.TO_FETCH,
    ) -> None:
        target = Target(b"/x", OriginRule(url="http://origin", tries=tries), "http://origin", b"/x", b"/x")
        super().__init__(b"/x", target, means, PLAIN_GET)
        self.calls: list[object] = []
        self._first = first
        self._events = list(events)
        self._stores = stores

    def first(self) -> Event:
        return self._first

    def request(self, question: State, now: float) -> OriginRequest:
        return OriginRequest(url=self.name)

    def judge(self, question: State, answered: Answered) -> Event:
        return self._events.pop(0) if self._events else Event.ANSWER

    def draft(self, answered: Answered) -> Draft:
        head = answered.response
        return Draft(
            response=head,
            stored=stored_response(),
            place=self.key if self._stores else None,
            continuation=continuation(head.status, head.fields, head.length, answered.response_time),
        )

    def completed(self, answered: Answered) -> Draft:
        whole = whole_response(answered.response, self.partial.stored)
        return replace(self.draft(replace(answered, response=whole)), completes=True)

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        return draft

    def answer(self, draft: Draft, fill: Fill, written: int) -> Answer:
        return BodyFound(written if draft.response.length is None else draft.response.length)

    def confirm(self, answered: Answered, token: StoreToken) -> Validated:
        return Validated(self.key, stored_response(), 1)

    def settle(self, draft: Draft) -> None:
        self.calls.append("settle")

    def replace(self, draft: Draft, token: StoreToken) -> None:
        self.calls.append("replace")

    def end(self, draft: Draft, prefix: SpooledPrefix | None, *, stored: bool) -> None:
        self.calls.append(("end", stored))


class RunningFetches(GetfileFetches):
    """Fetches from one origin, with the table that runs them."""

    def __init__(self, table: FetchTable, origins: OriginTable, means: FetchMeans, variants: GetfileVariants) -> None:
        super().__init__(table, origins, means, variants)
        self.table = table


_NO_STORE = NoStore()
_NO_LOOKUP = ObjectLookup(_NO_STORE)
NO_UPDATES = CacheUpdater(_NO_STORE, _NO_LOOKUP)
NO_FILLS = Fills(_NO_STORE)
NO_PARTIALS = PartialStore(_NO_STORE, _NO_LOOKUP, NO_UPDATES, NO_FILLS)
NO_VARIANTS = GetfileVariants(_NO_LOOKUP, NO_UPDATES)
VIA = Via(b"us", b"0123")


def fetch_means(
    origin: OriginDriver | ScriptedOrigin | None = None,
    fills: Fills | FakeFills = NO_FILLS,
    window_bytes: int = 1 << 20,
    share: float = 0.0,
    partials: PartialStore | FakePartials | None = None,
) -> FetchMeans:
    """The collaborators of fetches; without `fills` nothing is stored, without `origin` nothing can be asked."""
    return FetchMeans(
        origin=cast(OriginDriver, origin or ScriptedOrigin()),
        via=VIA,
        options=DEFAULT_OPTIONS,
        fills=cast(Fills, fills),
        updates=NO_UPDATES,
        partials=cast(PartialStore, partials or NO_PARTIALS),
        window_bytes=window_bytes,
        continue_after_share=share,
    )


def http_fetches(table: FetchTable, origin: OriginDriver | None = None) -> HttpFetches:
    """HTTP fetches of a proxy that stores nothing."""
    return HttpFetches(table, fetch_means(origin))


def http_plan(wanted: FetchRequest, partials: FakePartials | None = None) -> HttpPlan:
    """The plan of an HTTP fetch, without a cache except for partial responses."""
    return HttpPlan(wanted, fetch_means(partials=partials), HitForMiss())


@contextmanager
def table_of(threads: int = 8, directory: Path | None = None) -> Iterator[FetchTable]:
    """A table that is stopped, and waited for, at the end."""
    made = FetchTable(threads=threads, spool_directory=None if directory is None else str(directory))
    try:
        yield made
    finally:
        made.stop(WATCHDOG_S)


@contextmanager
def running(
    origin: OriginStub,
    *,
    threads: int = 8,
    tries: int = 3,
    window_bytes: int = 1 << 20,
    fills: Fills | FakeFills = NO_FILLS,
    variants: GetfileVariants = NO_VARIANTS,
    directory: Path | None = None,
    object_bytes_max: int = 1 << 30,
) -> Iterator[RunningFetches]:
    """Getfile fetches from a stub; without `fills` nothing is stored."""
    limits = origin_limits(object_bytes_max=object_bytes_max)
    origins = OriginTable([OriginRule(url=origin.url, tries=tries, limits=limits)])
    with running_driver() as driver, table_of(threads, directory) as table:
        yield RunningFetches(table, origins, fetch_means(driver, fills, window_bytes), variants)


_T = TypeVar("_T")


def _wait(reader: SpoolReader, take: Callable[[], _T | None]) -> _T:
    """What `take` has, once it has something; the reader wakes this thread as it would wake a job."""
    while (taken := take()) is None:
        progress = threading.Event()
        if reader.subscribe(progress.set):
            assert progress.wait(WATCHDOG_S)
    return taken


def wait_news(reader: SpoolReader) -> Interim | Answer:
    """The next interim response, or the answer."""
    return _wait(reader, reader.news)


def wait_answer(reader: SpoolReader) -> Answer:
    """The answer, whatever interim responses come before it."""
    while True:
        news = wait_news(reader)
        if not isinstance(news, Interim):
            return news


def wait_available(reader: SpoolReader) -> int:
    """The number of bytes beyond the position of a reader, who knows the answer then; 0 at the end of the body."""
    if not reader.is_told:
        wait_answer(reader)
    return _wait(reader, reader.available)


def opened(fetches: GetfileFetches, key: bytes, missed_at: float = float("inf")) -> SpoolReader:
    reader = fetches.open(key, missed_at)
    assert reader is not None
    return reader


def joined(spool: Spool) -> SpoolReader:
    reader = spool.join()
    assert reader is not None
    return reader


def read(reader: SpoolReader) -> bytes:
    """All of the body, as a getfile request reads it; closes the reader."""
    try:
        answer = wait_answer(reader)
        assert isinstance(answer, BodyFound), answer
        body = b""
        while len(body) < answer.length:
            if wait_available(reader) <= 0:
                raise BodyCutShort("ended before its length")
            piece = reader.read(answer.length - len(body))
            body += piece
            reader.advance(len(piece))
        return body
    finally:
        reader.close()


def skip_to_the_end(reader: SpoolReader) -> None:
    """Take all that comes, until there is a failure."""
    while True:
        reader.advance(wait_available(reader))


def failure(reader: SpoolReader) -> OriginError:
    with pytest.raises(OriginError) as caught:
        wait_answer(reader)
    reader.close()
    return caught.value
