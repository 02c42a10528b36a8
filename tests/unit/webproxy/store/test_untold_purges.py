"""CacheClient: what the cache could not be told to purge is not used before it was told; everything else is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, UsageError
from tests.support.pairs import Entry, MemoryPair
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import CacheUnavailable
from webproxy.store import pending_purges, untold_purges
from webproxy.store.cache_client import CacheClient
from webproxy.store.pending_purges import Purge
from webproxy.store.siblings import Missed, Told
from webproxy.store.store import Missing

IN_TIME_S = 0.1
NEWS = (
    "purges wait for the cache",
    "too many purges wait for the cache",
    "purges told to the cache",
    "purges left to others",
    "purges lost",
)


def news(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message in NEWS]


def is_found(store: CacheClient, key: bytes = b"/a", version: int = 0) -> bool:
    transfer = store.get(key, Deadline.after(WATCHDOG_S), version=version)
    if isinstance(transfer, Missing):
        return False
    with transfer:
        transfer.finish()
    return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untold_purges, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def pair() -> Iterator[MemoryPair]:
    with MemoryPair(segments=8, workers=4) as made:
        for key in (b"/a", b"/a\0id", b"/b"):
            made.cache.entries[key] = Entry(b"abc", b"m")
        yield made


@pytest.fixture
def store(pair: MemoryPair, caplog: pytest.LogCaptureFixture) -> Iterator[CacheClient]:
    caplog.set_level(logging.INFO)
    made = CacheClient(pair.client, patient=False, silence_s=IN_TIME_S)
    yield made
    made.close()


@pytest.fixture
def obstacle() -> Iterator[threading.Event]:
    """What holds a purge up; out of the way after the test."""
    made = threading.Event()
    yield made
    made.set()


def is_refused(store: CacheClient, key: bytes) -> None:
    for ask in (
        lambda: is_found(store, key),
        lambda: store.facts(key, Deadline.after(WATCHDOG_S)),
        lambda: store.put(key, 1, b"", Deadline.after(WATCHDOG_S), wait=True),
        lambda: store.update(key, 0, b"", Deadline.after(WATCHDOG_S)),
    ):
        with pytest.raises(CacheUnavailable, match="has not been told yet"):
            ask()


def test_a_purge_that_nobody_answered_is_repeated_until_it_was(
    pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = pair.client.purge, []

    def purge(key: bytes, deadline: Deadline, **how: object) -> int:
        tries.append(key)
        if len(tries) <= 3:
            raise ChannelTimeout("nothing")
        return real(key, deadline, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(pair.client, "purge", purge)
    with pytest.raises(CacheUnavailable):
        store.purge(b"/a", Deadline.after(IN_TIME_S), below=True)
    wait_until(lambda: set(pair.cache.entries) == {b"/b"}, what="it was told")
    wait_until(lambda: "purges told to the cache" in news(caplog), what="it was told twice")
    assert tries == [b"/a"] * 5
    assert news(caplog) == ["purges wait for the cache", "purges told to the cache"]
    pair.cache.entries[b"/a"] = Entry(b"new")
    assert is_found(store)


def test_others_are_told_at_once_and_what_they_tell_is_not_told_again(
    pair: MemoryPair, obstacle: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Missed] = []

    def tell(missed: Missed) -> Told:
        told.append(missed)
        return Told(knowing=1, silent=len(told) - 1)

    store = CacheClient(pair.client, patient=False, silence_s=IN_TIME_S, tell_siblings=tell)
    try:
        store.purge_later(Purge(b"/a"), obstacle.is_set)
        own = Missed(pair.client.queue_name, Purge(b"/a"))
        assert told == [own]
        store.withhold(Missed(pair.client.queue_name, Purge(b"/b")), obstacle.is_set)
        store.withhold(Missed("/another cache's queue", Purge(b"/c")), obstacle.is_set)
        assert told == [own]
        is_refused(store, b"/b")
        assert not is_found(store, b"/c")
        store.purge_later(Purge(b"/a"), obstacle.is_set)
        assert told == [own, own], "one of them may have told the cache by now"
        assert [record.processes for record in caplog.records if record.message == "purge not known to all"] == [1]  # type: ignore[attr-defined]
        obstacle.set()
        wait_until(lambda: not pair.cache.entries.keys() & {b"/a", b"/b"}, what="both were told to the cache")
    finally:
        store.close()


@pytest.mark.parametrize(("knowing", "last"), [(1, "purges left to others"), (0, "purges lost")])
def test_at_the_end_those_that_have_started_since_are_told(
    pair: MemoryPair, obstacle: threading.Event, caplog: pytest.LogCaptureFixture, knowing: int, last: str
) -> None:
    caplog.set_level(logging.INFO)
    told: list[Purge] = []

    def tell(missed: Missed) -> Told:
        told.append(missed.purge)
        return Told(knowing, silent=0)

    store = CacheClient(pair.client, patient=False, silence_s=IN_TIME_S, tell_siblings=tell)
    for key in (b"/a", b"/b"):
        store.withhold(Missed(pair.client.queue_name, Purge(key)), obstacle.is_set)
    assert told == []
    store.close()
    assert told == [Purge(b"/a"), Purge(b"/b")]
    assert news(caplog) == ["purges wait for the cache", last]


def test_the_hot_table_is_not_used_before(
    pair: MemoryPair, store: CacheClient, obstacle: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[bool] = []
    monkeypatch.setattr(pair.client, "use_hot_table", lambda *, is_wanted: wanted.append(is_wanted))
    store.purge_later(Purge(b"/a"), obstacle.is_set)
    store.purge_later(Purge(b"/b"))
    assert wanted == [False]
    wait_until(lambda: b"/b" not in pair.cache.entries, what="the other one was told")
    assert wanted == [False]
    obstacle.set()
    wait_until(lambda: wanted == [False, True], what="it is used again")
    assert b"/a" not in pair.cache.entries


def test_meanwhile_all_but_its_object_is_used(pair: MemoryPair, store: CacheClient, obstacle: threading.Event) -> None:
    store.purge_later(Purge(b"/a", below=True), obstacle.is_set)
    is_refused(store, b"/a")
    is_refused(store, b"/a\0id")
    assert is_found(store, b"/b")
    assert is_found(store, b"/a", version=1), "a body that has begun"
    assert store.purge(b"/b", Deadline.after(WATCHDOG_S)) == 1
    obstacle.set()
    wait_until(lambda: not pair.cache.entries, what="it was told")


def test_it_is_awaited_where_there_is_nobody_else_to_ask(pair: MemoryPair, obstacle: threading.Event) -> None:
    store = CacheClient(pair.client, patient=True)
    try:
        store.purge_later(Purge(b"/a"), obstacle.is_set)
        with pytest.raises(CacheUnavailable, match="has not been told yet"):
            store.get(b"/a", Deadline.after(IN_TIME_S))
        with ThreadPoolExecutor(1) as crew:
            waiting = crew.submit(is_found, store)
            obstacle.set()
            assert not waiting.result(WATCHDOG_S), "it is gone, and was not served before"
    finally:
        store.close()


def test_too_many_become_an_invalidation_of_everything(
    pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture, obstacle: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pending_purges, "PENDING_MAX", 2)
    for number in range(5):
        store.purge_later(Purge(b"/%d" % number), obstacle.is_set)
    is_refused(store, b"/b")
    obstacle.set()
    wait_until(lambda: "purges told to the cache" in news(caplog), what="it was told")
    assert {key: entry.invalidated for key, entry in pair.cache.entries.items()} == dict.fromkeys(
        (b"/a", b"/a\0id", b"/b"), True
    )
    assert news(caplog) == [NEWS[0], NEWS[1], NEWS[2]]
    assert is_found(store, b"/b")


def test_what_no_cache_would_take_is_not_repeated(
    pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def purge(*_: object, **__: object) -> int:
        raise UsageError("a key of 5000 bytes")

    monkeypatch.setattr(pair.client, "purge", purge)
    with pytest.raises(CacheUnavailable):
        store.purge(b"/a", Deadline.after(WATCHDOG_S))
    assert news(caplog) == []
    assert is_found(store)


def test_what_is_pending_at_the_end_is_said_to_be_lost(pair: MemoryPair, caplog: pytest.LogCaptureFixture) -> None:
    store = CacheClient(pair.client, patient=False)
    pair.kill_cache()
    with pytest.raises(CacheUnavailable):
        store.purge(b"/a", Deadline.after(WATCHDOG_S))
    store.close()
    assert news(caplog) == ["purges wait for the cache", "purges lost"]


def test_without_a_thread_the_next_look_tries_again(
    pair: MemoryPair, store: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        store.purge_later(Purge(b"/a"))
    is_refused(store, b"/a")
    store.look()
    wait_until(lambda: b"/a" not in pair.cache.entries, what="it was told")
