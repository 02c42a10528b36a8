"""CacheHandler, over the library's in-memory channel: does each answer tell the truth of the sources?

Long because every command meets every kind of source."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from shmchannel import (
    ChannelClient,
    ChannelServer,
    Command,
    CommandKind,
    Deadline,
    ObjectFacts,
    PeerProtocolError,
    SegmentPool,
    TransferState,
)
from shmchannel.objects.commands import FACTS_ONLY, FetchLease
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.transfers import OutgoingTransfer
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import FLAGGED, LAST, OK, PREAMBLE
from shmchannel.testing import MemoryAttachments, MemoryQueue, MemorySegment, MemorySender
from simplecached.content.static import StaticDirectory
from simplecached.errors import StoreUnavailable
from simplecached.serving.handler import CacheHandler, is_alive
from simplecached.serving.hot_table import HotObjects
from simplecached.stores.memory_store import MemoryStore
from simplecached.stores.paused_objects import PausedObjects
from simplecached.stores.store import ObjectSource, StoredObject
from tests.support.channels import ChannelBench, reading
from tests.support.failing import failing
from tests.support.hot_tables import HotTable, open_hot_table
from tests.support.stores import InterruptedMemoryStore, objects_in, open_fds, put
from tests.support.waiting import wait_until

_QUEUE = "/handler-test"
_SEGMENT_BYTES = 1024
_BODY = bytes(range(256)) * 20  # several chunks


class BrokenSource:
    """A source whose file is there and cannot be opened."""

    def open(self, key: bytes) -> StoredObject | None:
        raise StoreUnavailable("open", key.decode(), 5)

    def close(self) -> None:
        """Nothing is open."""


class ShortFile:
    """A source whose file has fewer bytes than it says."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(_BODY[:1000])
        self._path = path
        self.released = threading.Event()

    def open(self, key: bytes) -> StoredObject | None:
        fd = os.open(self._path, os.O_RDONLY)
        return StoredObject(fd, len(_BODY), 7, b"", self._release, fd)

    def _release(self, fd: int) -> None:
        os.close(fd)
        self.released.set()

    def close(self) -> None:
        """Each open file is its reader's."""


@contextmanager
def served(handler: CacheHandler, pool_name: str = "gf-1-0000000a") -> Iterator[ChannelClient]:
    """A client whose commands one thread answers by the handler."""
    with ExitStack() as undo:
        queue = MemoryQueue.create(_QUEUE)
        undo.callback(queue.close)
        pool = SegmentPool(pool_name, None, 4, _SEGMENT_BYTES, create=MemorySegment.create)
        undo.callback(pool.close)
        server = ChannelServer(queue, handler, between_bytes_timeout_s=10, attachments=MemoryAttachments())
        undo.callback(server.close)
        client = ChannelClient(_QUEUE, pool, between_bytes_timeout_s=10, open_sender=MemorySender)
        undo.callback(client.close)
        stopping = threading.Event()

        def work() -> None:
            while not stopping.is_set():
                server.serve_one(0.01)

        thread = threading.Thread(target=work)
        undo.callback(thread.join)
        undo.callback(stopping.set)
        thread.start()
        queue.set_ready()
        yield client
        assert pool.stats().retired_total == 0, "every transfer here ends cleanly"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys of the objects that were kept for a paused proxy, as it happens."""
    keys: list[bytes] = []
    keep = PausedObjects.keep

    def noting(paused: PausedObjects, key: bytes, found: StoredObject) -> None:
        keep(paused, key, found)
        keys.append(key)

    monkeypatch.setattr(PausedObjects, "keep", noting)
    return keys


@pytest.fixture
def store() -> Iterator[InterruptedMemoryStore]:
    """An empty store with room for a few bodies."""
    made = InterruptedMemoryStore(budget_bytes=20_000, entries_max=10)
    yield made
    made.close()


def handler_of(
    store: MemoryStore,
    static: ObjectSource | None = None,
    *,
    delay_s: float = 0.0,
    is_holder_alive: Callable[[str], bool] = is_alive,
) -> CacheHandler:
    """A handler with limits that no test comes to."""
    return CacheHandler(
        static, store, lookup_delay_s=delay_s, between_bytes_timeout_s=10, is_holder_alive=is_holder_alive
    )


def fetch(
    client: ChannelClient, key: bytes, *, offset: int = 0, length: int = 0, version: int = 0
) -> tuple[TransferState, bytes, bytes]:
    """The end of a GET, its body and its metadata."""
    body = bytearray()
    with client.get(
        key, Deadline.after(10), offset=offset, length=length, version=version, metadata_wanted=True
    ) as transfer:
        body += transfer.chunk
        while not transfer.last:
            transfer.advance()
            body += transfer.chunk
        transfer.finish()
        return transfer.state, bytes(body), transfer.metadata


def store_through(client: ChannelClient, key: bytes, body: bytes, metadata: bytes = b"") -> bool:
    """Fill an object by a PUT; whether the cache says that it is stored."""

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        (view,) = views
        view[:] = body[offset : offset + len(view)]
        return len(view)

    deadline = Deadline.after(10)
    lease = client.pool.lease(deadline)
    with client.put(key, len(body), metadata, lease, deadline) as transfer:
        while not (transfer.complete or transfer.refused):
            transfer.pump(read_into, len(body), wait=True)
        return transfer.commit()


def test_static_goes_before_the_store(store: MemoryStore, tmp_path: Path) -> None:
    """A key that both have is the file's; one that only the store has is the store's."""
    (tmp_path / "both").write_bytes(b"file")
    put(store, b"/both", b"stored")
    put(store, b"/stored", b"stored")
    static = StaticDirectory(str(tmp_path))
    with served(handler_of(store, static)) as client:
        assert fetch(client, b"/both") == (TransferState.COMPLETE, b"file", b"")
        assert fetch(client, b"/stored") == (TransferState.COMPLETE, b"stored", b"")
        assert fetch(client, b"/neither")[0] is TransferState.NOT_FOUND
    static.close()


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (1, 0), (1000, 2000), (len(_BODY) - 1, 0), (len(_BODY), 0), (len(_BODY) + 5, 9)]
)
def test_ranges(store: MemoryStore, offset: int, length: int) -> None:
    """A range gives those bytes and no others; beyond the end there are none."""
    put(store, b"/body", _BODY, b"facts")
    wanted = _BODY[offset : offset + length] if length else _BODY[offset:]
    with served(handler_of(store)) as client:
        assert fetch(client, b"/body", offset=offset, length=length) == (TransferState.COMPLETE, wanted, b"facts")


def test_another_version_is_not_found(store: MemoryStore) -> None:
    """A resumed GET gets the rest of the same object, or nothing."""
    version = put(store, b"/body", _BODY)
    with served(handler_of(store)) as client:
        assert fetch(client, b"/body", version=version, offset=9)[:2] == (TransferState.COMPLETE, _BODY[9:])
        assert fetch(client, b"/body", version=version + 1)[0] is TransferState.NOT_FOUND
    assert store.stats().pinned_count == 0


def pause(client: ChannelClient, key: bytes) -> int:
    """Read the first chunk and cancel, as a proxy does with a response whose client is slow; returns the version."""
    with client.get(key, Deadline.after(10)) as transfer:
        assert transfer.pause() == b""
        return transfer.facts.version


def test_a_paused_object_is_resumed_though_it_was_replaced(store: MemoryStore) -> None:
    """The rest of the old one for who had begun with it, once; the new one for everybody else."""
    put(store, b"/body", _BODY)
    with served(handler_of(store)) as client:
        version = pause(client, b"/body")
        wait_until(lambda: store.stats().pinned_count == 1)
        put(store, b"/body", b"new")
        assert fetch(client, b"/body")[1] == b"new"
        assert fetch(client, b"/body", version=version, offset=700)[:2] == (TransferState.COMPLETE, _BODY[700:])
        assert fetch(client, b"/body", version=version, offset=700)[0] is TransferState.NOT_FOUND
    assert store.stats().pinned_count == 0


def test_what_is_not_wanted_is_not_kept(store: MemoryStore) -> None:
    """A cancel is no pause: nothing of it stays pinned, and who asks for that version later finds it gone."""
    put(store, b"/body", _BODY)
    with served(handler_of(store)) as client:
        with client.get(b"/body", Deadline.after(10)) as transfer:
            version = transfer.facts.version
            transfer.cancel()
        wait_until(lambda: store.stats().pinned_count == 0)
        put(store, b"/body", b"new")
        assert fetch(client, b"/body", version=version)[0] is TransferState.NOT_FOUND


def test_facts_alone(store: MemoryStore) -> None:
    """Nothing of the body comes, of a long one neither, and nothing stays pinned."""
    put(store, b"/body", _BODY, b"facts")
    with served(handler_of(store)) as client:
        with client.get(b"/body", Deadline.after(10), offset=FACTS_ONLY, metadata_wanted=True) as transfer:
            assert (transfer.facts.size_bytes, transfer.metadata) == (len(_BODY), b"facts")
            assert (transfer.last, transfer.length) == (True, 0)
            transfer.finish()
        wait_until(lambda: store.stats().pinned_count == 0)


@pytest.mark.parametrize(("offset", "part"), [(-10, _BODY[-10:]), (-len(_BODY), _BODY), (-len(_BODY) - 1, _BODY)])
def test_the_end_of_an_object(store: MemoryStore, offset: int, part: bytes) -> None:
    put(store, b"/body", _BODY)
    with served(handler_of(store)) as client, client.get(b"/body", Deadline.after(10), offset=offset) as transfer:
        body = bytes(transfer.chunk)
        while not transfer.last:
            transfer.advance()
            body += bytes(transfer.chunk)
        transfer.finish()
    assert body == part


def test_a_miss_says_whether_something_lies_below(store: MemoryStore) -> None:
    for key in (b"/a\0", b"/ab", b"/b/c"):
        put(store, key, b"")
    with served(handler_of(store)) as client:
        for key, nothing_below in ((b"/a", False), (b"/b", True), (b"/none", True)):
            with client.get(key, Deadline.after(10)) as transfer:
                transfer.finish()
                assert (transfer.found, transfer.nothing_below) == (False, nothing_below)


def leased(client: ChannelClient, key: bytes, void: int = 0) -> FetchLease | None:
    """Ask for a missing key and who fetches it."""
    with client.get(key, Deadline.after(10), void_lease=void) as transfer:
        transfer.finish()
        assert not transfer.found
        return transfer.fetch_lease


ALICE, BOB = "gf-1-0000000a", "gf-2-0000000b"


def test_one_of_all_that_miss_a_key_fetches_it(store: MemoryStore) -> None:
    handler = handler_of(store, is_holder_alive=lambda _pool: True)
    with served(handler, ALICE) as client:
        first = leased(client, b"/x")
        assert first is not None
        assert first.holder == ALICE
        assert leased(client, b"/x") == first
        other = leased(client, b"/y")
        assert other is not None
        assert other.number != first.number
        with client.get(b"/x", Deadline.after(10)) as transfer:  # who does not ask is told nothing
            transfer.finish()
            assert transfer.fetch_lease is None
    with served(handler, BOB) as client:
        assert leased(client, b"/x") == first
        assert leased(client, b"/x", void=first.number + 100) == first
        second = leased(client, b"/x", void=first.number)
        assert second is not None
        assert second.holder == BOB
        assert leased(client, b"/x", void=first.number) == second, "the same number is void only once"


def test_a_cache_that_grants_no_leases_is_not_asked_for_one(store: MemoryStore) -> None:
    """It would drop a command with a flag that it does not know."""
    handler, seen = handler_of(store), []
    handler.grants_leases = False
    get = handler.get

    def noting(command: Command, writer: ChunkWriter) -> TransferState:
        seen.append((command.flags, command.version))
        return get(command, writer)

    handler.get = noting  # type: ignore[method-assign]
    with served(handler) as client:
        assert leased(client, b"/x", void=5) is None
    assert seen == [(0, 0)]


def test_the_lease_of_a_process_that_has_ended_passes_on(store: MemoryStore) -> None:
    dead: set[str] = set()
    handler = handler_of(store, is_holder_alive=lambda pool: pool not in dead)
    with served(handler, ALICE) as client:
        assert [leased(client, key).holder for key in (b"/x", b"/y")] == [ALICE] * 2  # type: ignore[union-attr]
    dead.add(ALICE)
    with served(handler, BOB) as client:
        lease = leased(client, b"/x")
        assert lease is not None
        assert lease.holder == BOB
        handler.expire()
        dead.clear()
        lease = leased(client, b"/y")
        assert lease is not None
        assert lease.holder == BOB


@pytest.mark.parametrize("below", [b"", b"\0001", b"\0partial"])
def test_what_is_stored_ends_the_lease(store: MemoryStore, below: bytes) -> None:
    with served(handler_of(store, is_holder_alive=lambda _pool: True)) as client:
        first = leased(client, b"/x")
        lease = client.pool.lease(Deadline.after(10), 1)
        with client.put(b"/x" + below, 1, b"facts", lease, Deadline.after(10)) as transfer:
            transfer.pump(reading(b"x"), 1, wait=True)
            assert transfer.commit()
        if below:
            assert leased(client, b"/x") is None, "something lies below: the index decides"
        store.remove(b"/x" + below)
        again = leased(client, b"/x")
        assert again != first
        assert again is not None


@pytest.mark.parametrize(
    ("purged", "how"),
    [(b"/x", {}), (b"/x", {"below": True}), (b"/", {"prefix": True}), (b"/x\0", {"prefix": True}),
     (b"/x", {"invalidate": True, "below": True})],
)  # fmt: skip
def test_a_purge_ends_the_lease(store: MemoryStore, purged: bytes, how: dict[str, bool]) -> None:
    """What its holder receives was asked for before."""
    with served(handler_of(store, is_holder_alive=lambda _pool: True)) as client:
        first = leased(client, b"/x")
        client.purge(purged, Deadline.after(10), **how)
        again = leased(client, b"/x")
        assert again is not None
        assert again != first


@pytest.mark.parametrize("invalidate", [False, True])
def test_what_was_fetched_before_a_purge_is_not_stored_after_it(store: MemoryStore, invalidate: bool) -> None:
    """By whichever process it was purged. What was fetched under another lease, or under none, is."""
    with served(handler_of(store, is_holder_alive=lambda _pool: True)) as client:

        def stores(number: int) -> bool:
            lease = client.pool.lease(Deadline.after(10), 1)
            with client.put(b"/x", 1, b"facts", lease, Deadline.after(10), fetched_under=number) as transfer:
                transfer.pump(reading(b"x"), 1, wait=True)
                return transfer.commit()

        before = leased(client, b"/x")
        client.purge(b"/x", Deadline.after(10), below=True, invalidate=invalidate)
        after = leased(client, b"/x")
        assert before is not None
        assert after is not None
        assert not stores(before.number)
        assert leased(client, b"/x") == after, "nothing is there"
        assert stores(after.number)
        assert not stores(before.number)
        assert stores(0)


def test_what_was_stored_before_the_lease_is_granted_is_found(store: MemoryStore) -> None:
    """Between the look and the grant."""
    handler = handler_of(store)
    has_below = store.has_below

    def stores_meanwhile(key: bytes) -> bool:
        put(store, key, _BODY)
        return has_below(key)

    store.has_below = stores_meanwhile  # type: ignore[method-assign]
    with served(handler) as client, client.get(b"/x", Deadline.after(10), void_lease=0) as transfer:
        assert transfer.found
        transfer.cancel_quietly()
    store.remove(b"/x")
    store.has_below = has_below  # type: ignore[method-assign]
    with served(handler, BOB) as client:
        lease = leased(client, b"/x")
        assert lease is not None
        assert lease.holder == BOB, "nobody holds a lease for what was there"


@pytest.mark.parametrize("invalidate", [False, True])
def test_a_purge_with_what_lies_below(store: MemoryStore, invalidate: bool) -> None:
    keys = (b"/a", b"/a\0", b"/a\0001", b"/ab", b"/a/b")
    for key in keys:
        put(store, key, b"x", b"facts")
    with served(handler_of(store)) as client:
        assert client.purge(b"/a", Deadline.after(10), below=True, invalidate=invalidate) == 3
        assert client.purge(b"/none", Deadline.after(10), below=True, invalidate=invalidate) == 0
        if invalidate:
            assert [key for key in keys if facts_of(client, key)[1]] == list(keys[:3])
        else:
            assert [entry.key for entry in store.records()] == list(keys[3:])


def test_a_purge_comes_to_the_key_itself_last(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object completed from a stored part finds that part gone, or the purge finds the object."""
    purged: list[bytes] = []
    monkeypatch.setattr(store, "remove", lambda key: purged.append(key) or True)
    monkeypatch.setattr(store, "remove_prefix", lambda prefix: purged.append(prefix) or 1)
    with served(handler_of(store)) as client:
        assert client.purge(b"/a", Deadline.after(10), below=True) == 2
    assert purged == [b"/a\0", b"/a"]


def test_a_paused_object_that_is_not_resumed_is_let_go(store: MemoryStore) -> None:
    put(store, b"/body", _BODY)
    handler = handler_of(store)
    with served(handler) as client:
        version = pause(client, b"/body")
        wait_until(lambda: store.stats().pinned_count == 1)
        handler.expire()
        assert store.stats().pinned_count == 1, "its time has not come"
        store.remove(b"/body")
        handler.close()
        assert store.stats().pinned_count == 0
        assert fetch(client, b"/body", version=version, offset=700)[0] is TransferState.NOT_FOUND


def test_more_paused_objects_than_are_kept(store: MemoryStore, kept: list[bytes]) -> None:
    """The one that was paused first gives way."""
    put(store, b"/first", _BODY)
    put(store, b"/second", _BODY)
    handler = CacheHandler(None, store, lookup_delay_s=0, between_bytes_timeout_s=10, paused_max=1)
    with served(handler) as client:
        for key in (b"/first", b"/second"):
            pause(client, key)
            wait_until(lambda key=key: kept[-1:] == [key])
            assert store.stats().pinned_count == 1
        handler.close()


@pytest.mark.parametrize("in_place", [False, True])
def test_a_paused_file_goes_on_unless_it_was_rewritten_in_place(
    store: MemoryStore, kept: list[bytes], tmp_path: Path, *, in_place: bool
) -> None:
    """A file moved over it leaves the old one readable; one written into would give a body of two halves."""
    path, other = tmp_path / "body", tmp_path / "other"
    path.write_bytes(_BODY)
    static = StaticDirectory(str(tmp_path))
    handler = handler_of(store, static)
    with served(handler) as client:
        version = pause(client, b"/body")
        wait_until(lambda: kept)
        changed = path if in_place else other
        changed.write_bytes(bytes(len(_BODY)))
        os.utime(changed, ns=(1, 1))  # a second write within one tick of the file system's clock looks like none
        if not in_place:
            other.rename(path)
        state, body, _ = fetch(client, b"/body", version=version, offset=700)
        assert (state, body) == ((TransferState.NOT_FOUND, b"") if in_place else (TransferState.COMPLETE, _BODY[700:]))
        assert fetch(client, b"/body")[1] == bytes(len(_BODY))
    static.close()
    wait_until(lambda: not any(str(tmp_path) in target for target in open_fds().values()))


def test_unreadable_object_fails(store: MemoryStore) -> None:
    """What is there and cannot be read is no miss: the proxy must not take it for absent."""
    with served(handler_of(store, BrokenSource())) as client:
        assert fetch(client, b"/broken")[0] is TransferState.FAILED


def test_file_shorter_than_it_said(store: MemoryStore, tmp_path: Path) -> None:
    """The bytes that are there go out, then the failure; nothing is made up, and the file is released."""
    source = ShortFile(tmp_path / "short")
    with served(handler_of(store, source)) as client:
        state, body, _ = fetch(client, b"/short")
    assert state is TransferState.FAILED
    assert _BODY.startswith(body)
    assert len(body) <= 1000
    assert source.released.is_set()


@pytest.mark.parametrize("size", [0, 1, 640, 641, len(_BODY)])
def test_put_then_get(store: MemoryStore, size: int) -> None:
    """An object acknowledged as stored is there, whole, with its metadata."""
    with served(handler_of(store)) as client:
        assert store_through(client, b"/new", _BODY[:size], b"m" * 700)
        assert fetch(client, b"/new") == (TransferState.COMPLETE, _BODY[:size], b"m" * 700)


@pytest.mark.parametrize("size", [640, 20_001])
def test_put_that_does_not_fit_is_refused(size: int) -> None:
    """Refused in one chunk or in the middle of many: said so, not stored, and the channel is clean."""
    store = MemoryStore(budget_bytes=100, entries_max=10)
    with served(handler_of(store)) as client:
        assert not store_through(client, b"/large", bytes(size))
        assert fetch(client, b"/large")[0] is TransferState.NOT_FOUND
    assert store.stats().objects_count == 0
    store.close()


def test_put_given_up_is_forgotten(store: MemoryStore) -> None:
    """A fill that its proxy aborts leaves no part of an object and no reserved room."""
    with served(handler_of(store)) as client:
        deadline = Deadline.after(10)
        with client.put(b"/half", len(_BODY), b"", client.pool.lease(deadline), deadline) as transfer:
            transfer.pump(lambda views, _offset: len(views[0]), 1500, wait=True)
            transfer.abort()
        assert fetch(client, b"/half")[0] is TransferState.NOT_FOUND
        assert store_through(client, b"/other", bytes(19_000)), "the room of the first is free again"


def test_purge(store: MemoryStore) -> None:
    """One key, or all with a prefix; the answer counts what there was."""
    for key in (b"/a/1", b"/a/2", b"/b"):
        put(store, key, b"x")
    with served(handler_of(store)) as client:
        assert client.purge(b"/b", Deadline.after(10)) == 1
        assert client.purge(b"/b", Deadline.after(10)) == 0
        assert client.purge(b"/a/", Deadline.after(10), prefix=True) == 2
        assert fetch(client, b"/a/1")[0] is TransferState.NOT_FOUND
        client.ping(Deadline.after(10))


def facts_of(client: ChannelClient, key: bytes) -> tuple[bytes, bool]:
    """Metadata, and whether it is invalidated, as a GET tells them."""
    with client.get(key, Deadline.after(10), metadata_wanted=True) as transfer:
        found = transfer.metadata, transfer.invalidated
        transfer.finish()
        return found


def test_update(store: MemoryStore) -> None:
    """New metadata for the body that is there; refused for what is gone or another by now."""
    version = put(store, b"/a", b"body", b"old")
    with served(handler_of(store)) as client:
        assert client.update(b"/a", version, b"n" * 3000, Deadline.after(10))
        assert fetch(client, b"/a", version=version) == (TransferState.COMPLETE, b"body", b"n" * 3000)
        assert not client.update(b"/a", version + 1, b"other", Deadline.after(10))
        assert not client.update(b"/none", 0, b"other", Deadline.after(10))
        assert not client.update(b"/a", version, bytes(20_001), Deadline.after(10)), "there is no room for it"
        assert fetch(client, b"/a") == (TransferState.COMPLETE, b"body", b"n" * 3000)


def test_update_in_a_store_that_cannot_be_written(store: InterruptedMemoryStore) -> None:
    put(store, b"/a", b"body", b"old")
    store.around("keep metadata", failing(StoreUnavailable("write to", "index", 28)))
    with served(handler_of(store)) as client:
        assert not client.update(b"/a", 0, b"new", Deadline.after(10))
        assert facts_of(client, b"/a") == (b"old", False)


def test_update_given_up(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy says FAILED in the place of the rest: answered, and nothing changed."""
    put(store, b"/a", b"body", b"old")
    with served(handler_of(store)) as client:
        monkeypatch.setattr(OutgoingTransfer, "pump", lambda transfer, *_, wait: transfer.abort())
        assert not client.update(b"/a", 0, b"new", Deadline.after(10))
        assert facts_of(client, b"/a") == (b"old", False)


@pytest.mark.parametrize("prefix", [False, True])
def test_invalidate(store: MemoryStore, prefix: bool) -> None:
    """The object stays and says so, until a PUT or an UPDATE; one without metadata is removed."""
    for key in (b"/a/1", b"/a/2", b"/b"):
        put(store, key, b"x", b"facts")
    put(store, b"/a/bare", b"x")
    with served(handler_of(store)) as client:
        count = client.purge(b"/a/" if prefix else b"/a/1", Deadline.after(10), prefix=prefix, invalidate=True)
        assert count == (3 if prefix else 1)
        assert facts_of(client, b"/a/1") == (b"facts", True)
        assert facts_of(client, b"/a/2") == (b"facts", prefix)
        assert facts_of(client, b"/b") == (b"facts", False)
        assert fetch(client, b"/a/bare")[0] is (TransferState.NOT_FOUND if prefix else TransferState.COMPLETE)
        assert client.update(b"/a/1", 0, b"new", Deadline.after(10))
        assert facts_of(client, b"/a/1") == (b"new", False)
        client.purge(b"/a/1", Deadline.after(10), invalidate=True)
        assert store_through(client, b"/a/1", b"y", b"facts")
        assert facts_of(client, b"/a/1") == (b"facts", False)
        assert client.purge(b"/none", Deadline.after(10), invalidate=True) == 0


@pytest.mark.parametrize("invalidate", [False, True])
def test_files_are_neither_updated_nor_purged(store: MemoryStore, tmp_path: Path, invalidate: bool) -> None:
    (tmp_path / "file").write_bytes(b"file")
    static = StaticDirectory(str(tmp_path))
    with served(handler_of(store, static)) as client:
        assert fetch(client, b"/file")[1] == b"file"
        for prefix in (False, True):
            assert client.purge(b"/file", Deadline.after(10), prefix=prefix, invalidate=invalidate) == 0
        assert not client.update(b"/file", 0, b"facts", Deadline.after(10))
        assert facts_of(client, b"/file") == (b"", False)
        assert fetch(client, b"/file")[1] == b"file"
    static.close()


@pytest.mark.parametrize(
    ("kind", "length", "size", "flags"),
    [
        pytest.param(CommandKind.UPDATE, 0, 1, PREAMBLE, id="update-with-a-body"),
        pytest.param(CommandKind.UPDATE, 1, 1, PREAMBLE, id="update-that-announces-a-body"),
        pytest.param(CommandKind.UPDATE, 1, 0, PREAMBLE, id="update-of-another-length"),
        pytest.param(CommandKind.UPDATE, 0, 0, PREAMBLE | FLAGGED, id="flagged-update"),
        pytest.param(CommandKind.PUT, 1, 1, PREAMBLE | FLAGGED, id="flagged-put"),
        pytest.param(CommandKind.PUT, 1, 2, PREAMBLE, id="put-of-another-length"),
    ],
)
def test_offer_that_contradicts_itself(
    store: MemoryStore, kind: CommandKind, length: int, size: int, flags: int
) -> None:
    """The transfer is broken off, and what is stored stays as it was."""
    put(store, b"/a", b"body", b"old")
    before = objects_in(store)
    handler = handler_of(store)
    with ChannelBench(MemorySegment, 2) as bench:
        writer, reader = bench.put_ends()
        writer.begin(ObjectFacts(size, 0, 3))
        assert writer.take_turn(10)
        writer.post(OK, 3, 0, flags)
        assert writer.take_turn(10)
        writer.post(OK, size, 0, LAST)
        answer = handler.put if kind is CommandKind.PUT else handler.update
        with pytest.raises(PeerProtocolError, match=kind.name):
            answer(Command(kind, b"/a", length=length), reader)
    assert objects_in(store) == before


def test_stop_ends_the_delay(store: MemoryStore) -> None:
    """A lookup that waits out its delay returns at once when the daemon stops."""
    put(store, b"/body", _BODY)
    handler = handler_of(store, delay_s=3600)
    handler.stop_delaying()
    with served(handler) as client:
        assert fetch(client, b"/body")[1] == _BODY


@contextmanager
def on_a_hot_table(store: MemoryStore, static: ObjectSource | None = None) -> Iterator[tuple[ChannelClient, HotTable]]:
    """A client of a handler that has its objects in a hot table."""
    with open_hot_table() as hot_table:
        hot = HotObjects(hot_table.publisher, store, None if static is None else 1e6)
        with served(CacheHandler(static, store, lookup_delay_s=0, between_bytes_timeout_s=10, hot=hot)) as client:
            yield client, hot_table


def test_request_puts_it_on_the_hot_table(store: MemoryStore) -> None:
    """With its metadata and version, whole or, when large, by its file; not if it is resumed, or not there."""
    version = put(store, b"/hot", b"body", b"facts")
    put(store, b"/large", bytes(16_385))
    with on_a_hot_table(store) as (client, hot_table):
        fetch(client, b"/hot", version=version)
        assert fetch(client, b"/none")[0] is TransferState.NOT_FOUND
        assert hot_table.publisher.stats().published_total == 0
        assert fetch(client, b"/hot") == (TransferState.COMPLETE, b"body", b"facts")
        wait_until(
            lambda: hot_table.reader.get(b"/hot") == HotTableEntry(version, b"facts", b"body"),
            what="the hot table has it",
        )
        assert hot_table.reader.get(b"/large") is None
        fetch(client, b"/large")
        large = wait_until(lambda: hot_table.reader.get(b"/large"), what="the hot table has that too")
        assert large is not None
        assert large.file is not None
        assert large.size_bytes == 16_385
    assert store.stats().pinned_count == 0


def test_what_is_stored_is_there_before_it_is_acknowledged(store: MemoryStore) -> None:
    """Small or large; also where it takes the place of another."""
    with on_a_hot_table(store) as (client, hot_table):
        for body in (b"body", bytes(16_385), b"", b"last"):
            assert store_through(client, b"/new", body)
            found = hot_table.reader.get(b"/new")
            assert found is not None
            assert (found.body, found.file is None, found.size_bytes) == (
                body if len(body) <= 16_384 else b"",
                len(body) <= 16_384,
                len(body),
            )


def test_what_files_may_hide_is_not(store: MemoryStore, tmp_path: Path) -> None:
    """Before somebody has asked for it, who would have got the file."""
    static = StaticDirectory(str(tmp_path))
    with on_a_hot_table(store, static) as (client, hot_table):
        (tmp_path / "new").write_bytes(b"file")
        assert store_through(client, b"/new", b"body")
        assert hot_table.reader.get(b"/new") is None
    static.close()


def test_evicted_object_is_off(store: MemoryStore) -> None:
    """When the PUT that needs its place is acknowledged."""
    with on_a_hot_table(store) as (client, hot_table):
        for key in (b"/old", b"/newer"):
            put(store, key, bytes(9000))
            published(client, hot_table, key)
        assert store_through(client, b"/new", bytes(9000))
        assert hot_table.reader.get(b"/old") is None
        assert hot_table.reader.get(b"/newer") is not None


def test_readers_that_all_pause_put_it_there_too(store: MemoryStore) -> None:
    """Or each of them would take a command and segments, and none of them the file."""
    put(store, b"/large", bytes(16_385))
    with on_a_hot_table(store) as (client, hot_table):
        pause(client, b"/large")
        pause(client, b"/large")
        large = wait_until(lambda: hot_table.reader.get(b"/large"), what="the hot table has it")
        assert large is not None
        assert large.file is not None


def published(client: ChannelClient, hot_table: HotTable, key: bytes) -> HotTableEntry:
    """Ask until the object lies on the hot table."""

    def asked() -> HotTableEntry | None:
        fetch(client, key)
        return hot_table.reader.get(key)

    found = wait_until(asked, what=f"{key!r} on the hot table")
    assert found is not None
    return found


@pytest.mark.parametrize("way", ["put", "update", "purge", "prefix", "invalidate", "invalidate prefix"])
def test_change_takes_it_off_before_it_is_acknowledged(store: MemoryStore, way: str) -> None:
    put(store, b"/hot", b"old", b"facts")
    put(store, b"/other", b"other")
    with on_a_hot_table(store) as (client, hot_table):
        assert published(client, hot_table, b"/hot")[1:3] == (b"facts", b"old")
        assert published(client, hot_table, b"/other").body == b"other"
        if way == "put":
            assert store_through(client, b"/hot", b"new")
        elif way == "update":
            assert client.update(b"/hot", 0, b"newer", Deadline.after(10))
        else:
            prefix = way.endswith("prefix")
            key = b"/ho" if prefix else b"/hot"
            assert client.purge(key, Deadline.after(10), prefix=prefix, invalidate=way.startswith("invalidate")) == 1
        assert way == "put" or hot_table.reader.get(b"/hot") is None
        assert hot_table.reader.get(b"/other") is not None
        assert hot_table.publisher.stats().dropped_total == 1
        if way == "put":
            found = hot_table.reader.get(b"/hot")
            assert found is not None
            assert found.body == b"new"
        elif way == "update":
            assert published(client, hot_table, b"/hot")[1:3] == (b"newer", b"old")


def test_invalidated_object_is_not_on_the_hot_table_before_it_was_updated(store: MemoryStore) -> None:
    """A hot table could not tell of it."""
    put(store, b"/hot", b"body", b"facts")
    store.invalidate(b"/hot")
    with on_a_hot_table(store) as (client, hot_table):
        for _ in range(4):
            assert facts_of(client, b"/hot") == (b"facts", True)
        assert hot_table.publisher.stats().published_total == 0
        assert client.update(b"/hot", 0, b"new", Deadline.after(10))
        assert published(client, hot_table, b"/hot")[1:3] == (b"new", b"body")


def test_refused_update_leaves_it_there(store: MemoryStore) -> None:
    """What is served is still the old metadata."""
    version = put(store, b"/hot", b"body", b"old")
    with on_a_hot_table(store) as (client, hot_table):
        published(client, hot_table, b"/hot")
        assert not client.update(b"/hot", version + 1, b"new", Deadline.after(10))
        assert hot_table.reader.get(b"/hot") is not None


def test_refused_put_leaves_it_there(store: MemoryStore) -> None:
    """What is served is still the old object."""
    put(store, b"/hot", b"old")
    with on_a_hot_table(store) as (client, hot_table):
        published(client, hot_table, b"/hot")
        assert not store_through(client, b"/hot", bytes(20_001))
        assert hot_table.reader.get(b"/hot") is not None


def test_changed_file(store: MemoryStore, tmp_path: Path) -> None:
    """When its life on the hot table has ended, what lies there next is the new content."""
    path = tmp_path / "hot"
    path.write_bytes(b"old")
    static = StaticDirectory(str(tmp_path))
    with on_a_hot_table(store, static) as (client, hot_table):
        assert published(client, hot_table, b"/hot").body == b"old"
        hot_table.publisher.clear()
        path.write_bytes(b"newer")
        assert fetch(client, b"/hot")[1] == b"newer"
        assert published(client, hot_table, b"/hot").body == b"newer"
    static.close()
