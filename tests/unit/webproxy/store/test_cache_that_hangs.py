"""CacheClient: a cache that hangs counts as absent, no worker waits for its pings, and both ends are told once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import AccessDenied, ChannelTimeout
from shmchannel.messages.posix_queue import MessageSender
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import Command
from shmchannel.streams.chunk_reader import ChunkReader
from tests.support.channels import reading
from tests.support.pairs import DictCache, Entry, MemoryPair
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import CacheUnavailable
from webproxy.store import cache_client
from webproxy.store.cache_client import CacheClient
from webproxy.store.pending_purges import Purge
from webproxy.store.store import Missing

IN_TIME_S = 0.1
NEWS = ("cache does not answer", "cache answers again")


def news(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message in NEWS]


def is_found(store: CacheClient, limit_s: float = WATCHDOG_S, key: bytes = b"/a") -> bool:
    transfer = store.get(key, Deadline.after(limit_s))
    if isinstance(transfer, Missing):
        return False
    with transfer:
        transfer.finish()
    return True


def goes_unanswered(store: CacheClient) -> None:
    wait_until(lambda: store.is_due, what="a command may ask")
    with pytest.raises(CacheUnavailable, match=r"nothing from|became free"):
        is_found(store, IN_TIME_S)


def is_refused(ask: Callable[[], object]) -> None:
    """The call raises, and not because it has waited."""
    deadline = Deadline.after(WATCHDOG_S / 2)
    with pytest.raises(CacheUnavailable, match="does not answer"):
        ask()
    assert not deadline.expired


class HangsInFills(DictCache):
    """Holds offers too."""

    def put(self, command: Command, reader: ChunkReader) -> None:
        """As DictCache.put(), when it goes on."""
        self.hold.wait(WATCHDOG_S)
        super().put(command, reader)


@pytest.fixture
def pair() -> Iterator[MemoryPair]:
    made = MemoryPair(segments=8, workers=4)
    made.cache = made.handler = HangsInFills()
    made.cache.entries[b"/a"] = Entry(b"abc")
    with made:
        yield made


@pytest.fixture
def store(pair: MemoryPair, caplog: pytest.LogCaptureFixture) -> Iterator[CacheClient]:
    caplog.set_level(logging.INFO)
    made = CacheClient(pair.client, patient=False, silence_s=IN_TIME_S)
    yield made
    made.close()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set before the store is made: it is asked again at once."""
    monkeypatch.setattr(cache_client, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_client, "PAUSE_SECONDS", 3600.0)


def hang(pair: MemoryPair, store: CacheClient) -> None:
    """It has hung for so long that this is known."""
    pair.cache.hold.clear()
    for _ in range(cache_client.FAILURES_TO_OPEN):
        assert store.answers()
        goes_unanswered(store)
    assert not store.answers()


def test_after_two_commands_without_an_answer_nothing_waits_for_it(
    long_pause: None, pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture
) -> None:
    hang(pair, store)
    deadline = Deadline.after(WATCHDOG_S)
    is_refused(lambda: is_found(store))
    is_refused(lambda: store.facts(b"/a", deadline))
    is_refused(lambda: store.put(b"/a", 1, b"", deadline, wait=True))
    is_refused(lambda: store.update(b"/a", 0, b"", deadline))
    assert not store.connected
    assert not store.should_enqueue(b"/a")
    assert news(caplog) == ["cache does not answer"]
    is_refused(lambda: store.purge(b"/a", deadline))  # repeated until there is an answer
    assert store.unavailable_total == 4
    pair.cache.hold.set()


def test_an_answer_between_two_that_did_not_come_begins_the_row_again(
    long_pause: None, pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        pair.cache.hold.clear()
        goes_unanswered(store)
        pair.cache.hold.set()
        assert is_found(store)
    assert news(caplog) == []


def test_the_first_answer_ends_it(
    no_pause: None, pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture
) -> None:
    hang(pair, store)
    goes_unanswered(store)
    pair.cache.hold.set()
    wait_until(lambda: store.is_due, what="a ping is answered")
    assert is_found(store)
    assert store.connected
    assert news(caplog) == ["cache does not answer", "cache answers again"]
    assert is_found(store)
    assert store.update(b"/a", 0, b"m", Deadline.after(WATCHDOG_S))
    assert store.purge(b"/a", Deadline.after(WATCHDOG_S)) == 1


def test_while_one_asks_the_others_do_not_wait(no_pause: None, pair: MemoryPair, store: CacheClient) -> None:
    hang(pair, store)
    wait_until(lambda: store.is_due, what="a ping is answered")
    asked = len(pair.cache.commands)
    with ThreadPoolExecutor(1) as crew:
        probe = crew.submit(is_found, store)
        wait_until(lambda: len(pair.cache.commands) > asked)
        for _ in range(3):
            is_refused(lambda: is_found(store))
        pair.cache.hold.set()
        assert probe.result(WATCHDOG_S)
    assert is_found(store)


def test_who_may_not_use_what_is_stored_leaves_it_to_another_to_ask(
    no_pause: None, pair: MemoryPair, store: CacheClient
) -> None:
    hang(pair, store)
    store.purge_later(Purge(b"/purged"), lambda: False)
    wait_until(lambda: store.is_due, what="a ping is answered")
    with pytest.raises(CacheUnavailable, match="not been told"):
        is_found(store, key=b"/purged")
    pair.cache.hold.set()
    assert is_found(store)


def test_a_purge_may_be_what_asks(no_pause: None, pair: MemoryPair, store: CacheClient) -> None:
    hang(pair, store)
    pair.cache.hold.set()
    wait_until(lambda: store.is_due, what="a ping is answered")
    assert store.purge(b"/a", Deadline.after(WATCHDOG_S)) == 1
    assert store.answers()


def test_while_no_ping_is_answered_no_command_asks(
    no_pause: None, pair: MemoryPair, store: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold a worker for as long as a cache that answers may take, again and again."""
    pinged, goes_on = threading.Semaphore(0), threading.Event()

    def ping(_deadline: Deadline) -> None:
        pinged.release()
        if not goes_on.is_set():
            raise ChannelTimeout("nothing")

    monkeypatch.setattr(pair.client, "ping", ping)
    hang(pair, store)
    pair.cache.hold.set()
    for _ in range(3):
        assert pinged.acquire(timeout=WATCHDOG_S)
        is_refused(lambda: is_found(store))
    goes_on.set()
    wait_until(lambda: store.is_due, what="a ping is answered")
    assert is_found(store)
    assert store.answers()


def test_closing_ends_the_pings(long_pause: None, pair: MemoryPair, store: CacheClient) -> None:
    hang(pair, store)
    pair.cache.hold.set()
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "cache-ping" and thread.is_alive()]


def test_the_end_of_its_process_is_no_silence(
    no_pause: None, pair: MemoryPair, store: CacheClient, caplog: pytest.LogCaptureFixture
) -> None:
    pair.kill_cache()
    for _ in range(5):
        with pytest.raises(CacheUnavailable):
            is_found(store)
    assert store.answers()
    pair.start_heir()
    assert is_found(store)
    assert news(caplog) == []


def test_without_an_origin_it_is_waited_for_all_the_same(long_pause: None, pair: MemoryPair) -> None:
    store = CacheClient(pair.client, patient=True, silence_s=IN_TIME_S)
    hang(pair, store)
    asked = len(pair.cache.commands)
    with ThreadPoolExecutor(1) as crew:
        waiting = crew.submit(is_found, store)
        wait_until(lambda: len(pair.cache.commands) > asked)
        is_refused(lambda: is_found(store, key=b"http://host/a"))
        pair.cache.hold.set()
        assert waiting.result(WATCHDOG_S)
    assert store.answers(), "an answer is an answer, whoever asked"
    store.close()


def test_where_the_url_names_a_host_an_absent_cache_is_not_waited_for(pair: MemoryPair) -> None:
    """A forward proxy has no configured origin, but somebody to ask."""
    store = CacheClient(pair.client, patient=True)
    pair.kill_cache()
    deadline = Deadline.after(WATCHDOG_S)
    with pytest.raises(CacheUnavailable):
        store.get(b"http://host/a", deadline)
    assert not deadline.expired


def test_a_fill_under_way_ends_when_the_cache_turns_out_to_hang(
    long_pause: None, pair: MemoryPair, store: CacheClient
) -> None:
    limit = Deadline.after(WATCHDOG_S)
    pair.cache.hold.clear()
    transfer = store.put(b"/b", 3, b"", limit, wait=True)
    assert transfer is not None
    transfer.pump(reading(b"xyz"), 3, wait=True)
    hang(pair, store)
    with pytest.raises(ChannelTimeout, match="no longer waited for"), transfer:
        transfer.commit()
    assert not limit.expired
    pair.cache.hold.set()


def test_a_cache_of_another_user_is_named_once(caplog: pytest.LogCaptureFixture, pair: MemoryPair) -> None:
    def refuse(_name: str) -> MessageSender:
        raise AccessDenied("guard /dev/shm/x belongs to alice (uid 1001)", 13, says_why=True)

    store = CacheClient(ChannelClient("/q", pair.pool, open_sender=refuse), patient=False)
    store.look()
    for _ in range(3):
        with pytest.raises(CacheUnavailable):
            is_found(store)
    told = [(record.levelname, record.message, vars(record)["reason"]) for record in caplog.records]
    assert told == [("ERROR", "cache of another user", "guard /dev/shm/x belongs to alice (uid 1001)")]


def test_a_look_tells_what_has_changed(caplog: pytest.LogCaptureFixture, pair: MemoryPair) -> None:
    caplog.set_level(logging.INFO)
    store = CacheClient(pair.client, patient=False)
    for _ in range(2):
        store.look()
    assert caplog.records == []
    pair.kill_cache()
    for _ in range(2):
        store.look()
    pair.start_heir()
    for _ in range(2):
        store.look()
    assert [record.message for record in caplog.records] == ["cache lost", "cache found"]
