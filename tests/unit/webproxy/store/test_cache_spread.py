"""CacheSpread: which cache a command goes to, and what becomes of it while that one is away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from shmchannel.deadline import Deadline
from shmchannel.process.identity import ProcessIdentity
from shmchannel.registry import Change, ChangeKind, Entry, Member, RendezvousTable
from shmchannel.streams.admission import Admission
from tests.support.channels import in_thread, memory_pool
from tests.support.pairs import Entry as StoredObject
from tests.support.pairs import MemoryPair, body_of_transfer
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import CacheUnavailable
from webproxy.store import cache_spread
from webproxy.store.cache_client import CacheClient
from webproxy.store.cache_spread import CacheSpread
from webproxy.store.pending_purges import Purge
from webproxy.store.store import Missing

KEY = b"/key"


class ScriptedWatch:
    """A RoleWatch whose looks a test fills."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.closed = False

    def join(self, *queue_names: str, kind: ChangeKind = ChangeKind.JOINED) -> None:
        """The next look tells of these."""
        for name in queue_names:
            entry = Entry("cache", "n", ProcessIdentity(1, 1, 1), 1, 0, name, "", {})
            self.changes.append(Change(kind, Member(entry, 0.0, 0, False)))

    def look(self) -> list[Change]:
        """What came since the last look."""
        changes, self.changes = self.changes, []
        return changes

    def close(self) -> None:
        """Remembers it."""
        self.closed = True


class Rig:
    """Pairs of which each has a cache of its own, and a spread over all; `first` has KEY, `second` while it is away."""

    def __init__(self, resources: ExitStack, count: int = 2) -> None:
        pairs = [resources.enter_context(MemoryPair()) for _ in range(count)]
        self.by_name = {pair.queue_name: pair for pair in pairs}
        self.first, self.second, *_ = [self.by_name[name] for name in RendezvousTable(self.by_name).order(KEY)]
        self._resources = resources

    def open_cache(self, queue_name: str, release: ExitStack) -> CacheClient:
        """The client of one of the pairs."""
        client = CacheClient(self.by_name[queue_name].client, patient=False)
        release.callback(client.close)
        return client

    def spread(self, *, patient: bool = False, watch: ScriptedWatch | None = None) -> CacheSpread:
        """Over all pairs, or those that the watch tells of."""
        names = () if watch is not None else tuple(self.by_name)
        made = CacheSpread(self.first.pool, self.open_cache, names=names, watch=watch, patient=patient)  # type: ignore[arg-type]
        self._resources.callback(made.close)
        return made


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as resources:
        yield Rig(resources)


def soon() -> Deadline:
    return Deadline.after(WATCHDOG_S)


def read(spread: CacheSpread, key: bytes = KEY, **how: int) -> bytes | None:
    """The body, or None for a miss."""
    transfer = spread.get(key, soon(), **how)  # type: ignore[arg-type]
    if isinstance(transfer, Missing):
        return None
    with transfer:
        return body_of_transfer(transfer)


def put(spread: CacheSpread, key: bytes = KEY) -> None:
    """Store an object."""
    transfer = spread.put(key, 0, b"metadata", soon(), wait=True)
    assert transfer is not None
    with transfer:
        transfer.pump(lambda _views, _offset: 0, 0, wait=True)
        assert transfer.commit()


def test_a_key_and_all_that_belongs_to_it_are_in_one_cache(rig: Rig) -> None:
    spread = rig.spread()
    keys = [KEY, KEY + b"\0", KEY + b"\x000123456789abcdef", KEY + b"\0partial"]
    for key in keys:
        put(spread, key)
        assert read(spread, key) == b""
    assert set(rig.first.cache.entries) == set(keys)
    assert not rig.second.cache.entries
    assert spread.update(KEY, 0, b"new", soon())
    assert rig.first.cache.entries[KEY].metadata == b"new"
    assert not isinstance(spread.facts(KEY, soon()), Missing)


def test_while_its_cache_is_away_the_next_has_it(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spread = rig.spread()
    spread.look()
    rig.first.cache.entries[KEY] = StoredObject(b"old")
    rig.first.kill_cache()
    assert read(spread) is None, "the first command goes on to the next cache"
    put(spread)
    assert KEY in rig.second.cache.entries
    assert read(spread) == b""
    rig.first.start_heir()
    spread.look()
    assert read(spread) == b"old", "and its own cache has it again"
    events = [record.message for record in caplog.records if record.message.startswith("cache ")]
    assert events == ["cache lost", "cache found"]


def test_a_version_is_found_wherever_it_is(rig: Rig) -> None:
    """So that a body under way continues when its cache is no longer the one of the key."""
    rig.second.cache.entries[KEY] = StoredObject(b"body", version=7)
    spread = rig.spread()
    assert read(spread) is None
    assert read(spread, version=7, offset=1) == b"ody"
    assert read(spread, version=8) is None
    rig.second.kill_cache()
    assert read(spread, version=7) is None


def test_without_a_cache_it_is_unavailable_and_the_ticket_left(rig: Rig) -> None:
    spread = rig.spread()
    rig.first.kill_cache()
    rig.second.kill_cache()
    for _ in range(2):
        ticket = Admission(1).try_enter()
        assert ticket is not None
        with pytest.raises(CacheUnavailable):
            spread.get(KEY, soon(), ticket=ticket)
        assert not ticket.held
    assert spread.unavailable_total == 2
    with pytest.raises(CacheUnavailable):
        spread.put(KEY, 0, b"", soon(), wait=True)
    with pytest.raises(CacheUnavailable):
        spread.purge(KEY, soon())


def test_a_patient_one_waits_for_any_of_them(rig: Rig) -> None:
    spread = rig.spread(patient=True)
    rig.first.kill_cache()
    rig.second.kill_cache()
    deadline = Deadline.after(0.2)
    with pytest.raises(CacheUnavailable):
        spread.get(KEY, deadline)
    assert deadline.expired
    with pytest.raises(CacheUnavailable):
        spread.get(b"http://host/", soon())  # a host can be asked instead
    rig.second.cache.entries[KEY] = StoredObject(b"body")
    with in_thread(lambda: read(spread)) as found:
        rig.second.start_heir()
    assert found.result() == b"body"


def test_a_patient_one_stops_waiting_with_the_daemon(rig: Rig) -> None:
    spread = rig.spread(patient=True)
    rig.first.kill_cache()
    rig.second.kill_cache()

    def fails() -> None:
        with pytest.raises(CacheUnavailable):
            spread.get(KEY, Deadline.after(3600))

    with in_thread(fails):
        wait_until(lambda: not any(client.is_alive for client in (spread.of(KEY),)))
        spread.stop_waiting()


def test_a_purge_reaches_all_and_waits_for_who_is_away(rig: Rig) -> None:
    for pair in (rig.first, rig.second):
        pair.cache.entries[KEY] = StoredObject(b"body", b"metadata")
    spread = rig.spread()
    assert spread.purge(KEY, soon()) == 2
    for pair in (rig.first, rig.second):
        pair.cache.entries[KEY] = StoredObject(b"body", b"metadata")
    rig.first.kill_cache()
    assert read(spread) == b"body"  # and the first is known as absent
    assert spread.purge(KEY, soon()) == 1
    rig.first.start_heir()
    spread.look()
    wait_until(lambda: KEY not in rig.first.cache.entries, what="it is told when it is back")


def test_one_that_turns_out_to_be_away_during_a_purge_is_no_success(rig: Rig) -> None:
    """Nobody knew yet; so the operator is told, and the next purge goes through."""
    spread = rig.spread()
    spread.look()
    rig.first.kill_cache()
    with pytest.raises(CacheUnavailable):
        spread.purge(KEY, soon())
    assert spread.purge(KEY, soon()) == 0


def test_what_is_purged_later_is_withheld_in_all(rig: Rig) -> None:
    for pair in (rig.first, rig.second):
        pair.cache.entries[KEY] = StoredObject(b"body", b"metadata")
    spread = rig.spread()
    assert [spread.uses(name) for name in (rig.first.client.queue_name, "/another")] == [True, False]
    gone = [False]
    spread.purge_later(Purge(KEY), lambda: gone[0])
    with pytest.raises(CacheUnavailable):
        read(spread)
    gone[0] = True
    wait_until(lambda: not rig.first.cache.entries and not rig.second.cache.entries)


def test_caches_join_as_the_registry_finds_them(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = ScriptedWatch()
    spread = rig.spread(watch=watch)
    assert spread.peek(KEY) is None
    assert not spread.should_enqueue(KEY)
    with pytest.raises(CacheUnavailable):
        spread.get(KEY, soon())
    watch.join(rig.second.queue_name, "")
    spread.look()
    put(spread)
    assert KEY in rig.second.cache.entries
    watch.join(rig.second.queue_name, kind=ChangeKind.LEFT)
    watch.join(rig.second.queue_name, rig.first.queue_name)
    spread.look()
    assert read(spread) is None, "the first takes the key over"
    assert [record.message for record in caplog.records if record.message == "cache joined"] == ["cache joined"] * 2
    spread.close()
    assert watch.closed


def test_one_that_joins_after_a_purge_has_all_validated(rig: Rig) -> None:
    watch = ScriptedWatch()
    watch.join(rig.second.queue_name)
    spread = rig.spread(watch=watch)
    rig.first.cache.entries[b"/other"] = StoredObject(b"body", b"metadata")
    spread.purge(KEY, soon())
    watch.join(rig.first.queue_name)
    spread.look()
    wait_until(lambda: rig.first.cache.entries[b"/other"].invalidated)


def test_so_many_caches_are_known_and_one_that_is_away_makes_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_spread, "KNOWN_MAX", 2)
    with ExitStack() as resources:
        rig = Rig(resources, 3)
        names = list(rig.by_name)
        watch = ScriptedWatch()
        watch.join(*names[:2])
        spread = rig.spread(watch=watch)
        spread.look()
        watch.join(names[2])
        spread.look()
        assert [record.message for record in caplog.records] == ["too many caches"]
        rig.by_name[names[0]].kill_cache()
        spread.look()
        watch.join(names[2])
        spread.look()
        table = RendezvousTable(names[1:])
        for key in (b"/%d" % number for number in range(20)):
            put(spread, key)
            assert key in rig.by_name[table.order(key)[0]].cache.entries


def test_the_pool_is_shared() -> None:
    pool = memory_pool(2, 4096)
    try:
        spread = CacheSpread(pool, lambda *_: pytest.fail("none is known"), patient=False)
        assert spread.pool is pool
        assert spread.reopen_file((1, 2, 3)) is None  # type: ignore[arg-type]
        spread.close()
    finally:
        pool.close()
