"""CacheSpread: several caches as one store. Each key has its cache, and another one while that one is away.

**Which cache.** A key's caches are ranked by rendezvous hashing over the queue names of all caches that are known, so
every proxy ranks them alike. The first that is present has the key. An object's variants, its index and its incomplete
response go with it: only the part of a key before its first NUL counts. Load does not: a cache that passed a key on to
another would make that one fetch the object again.

**Away and back.** A cache that has ended, hangs, or cannot be reached is known as absent to its own CacheClient, from
the first command that finds out; that command goes to the next cache at once, if its deadline allows. So only its keys
move. It stays in the ranking, and has its keys again when a look (once a second) finds it, or a command that asks after
a ping: see CacheClient. With no cache present, and no origin to ask instead, a command waits for one.

**Versions** are unique over all caches. A command that names one asks each cache that is present until one has it, so
that a body under way continues though its key has moved; bodies of two versions never mix.

**Purges** go to every cache that is known, because each may have had the key for some time; one that is away is told
later, by its CacheClient, and one that joins late has everything validated. What replaces an object goes to one cache
only: while that was away another had a newer response, and when it is back its own counts again for as long as it is
fresh, as with any two caches.

**Known caches.** A list of names is known for good. Otherwise the registry says who has joined; who has left stays
known, for it may come back with what it had, up to KNOWN_MAX, where one that is absent makes room.

All caches share one pool of segments: a segment is named by each command anew, one whose transfer did not end cleanly
is retired, and before the first transfer with another cache its semaphores are checked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from shmchannel.deadline import Deadline
from shmchannel.errors import PoolExhausted
from shmchannel.objects.hot_table_files import FileName, HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.registry import ChangeKind, RendezvousTable, RoleWatch, first_available
from shmchannel.streams.admission import Ticket
from shmchannel.streams.pool import SegmentPool
from webproxy.errors import CacheUnavailable
from webproxy.store.cache_client import LOOK_SECONDS, OF_A_HOST, CacheClient
from webproxy.store.pending_purges import EVERYTHING, Obstacle, Purge
from webproxy.store.siblings import Missed
from webproxy.store.store import Missing, NoStore, StoredFacts

log = logging.getLogger(__name__)

KNOWN_MAX = 64
"""How many caches are known at once."""

_NOBODY = "no cache is present"

T = TypeVar("T")
OpenCache = Callable[[str, ExitStack], CacheClient]
"""Makes the client of the cache on a queue, and pushes its release; the client is not patient."""


class _Caches(NamedTuple):
    """All that are known; replaced as a whole."""

    table: RendezvousTable
    clients: Mapping[str, CacheClient]

    def ranked(self, key: bytes) -> Iterator[CacheClient]:
        """The key's caches, present or not."""
        clients = self.clients
        return (clients[name] for name in self.table.order(key.partition(b"\0")[0]))


def _is_present(client: CacheClient) -> bool:
    return client.is_present


class CacheSpread:
    """A Store over several caches; thread-safe, but look() and close() are for the main thread."""

    keeps = True

    def __init__(
        self,
        pool: SegmentPool,
        open_cache: OpenCache,
        *,
        names: tuple[str, ...] = (),
        watch: RoleWatch | None = None,
        patient: bool,
    ) -> None:
        """The caches on the queues `names`, and those that `watch` finds; `patient` as for a CacheClient."""
        self.pool = pool
        self._open_cache = open_cache
        self._watch = watch
        self._patient = patient
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.unavailable_total = 0
        self._releases: dict[str, ExitStack] = {}
        self._caches = _Caches(RendezvousTable(()), {})
        for name in names:
            self._know(name)
        self._has_purged = False
        self._follow_registry()

    @property
    def ready_count(self) -> int:
        """How many living caches are available, which do not hang as far as is known."""
        return sum(client.connected for client in self._caches.clients.values())

    # -- which cache ---------------------------------------------------------------------------------------------
    def of(self, key: bytes) -> CacheClient | NoStore:
        """The cache that has a key now; the one that will have it, if none is present."""
        caches = self._caches
        return first_available([*caches.ranked(key)], _is_present) or next(caches.ranked(key), None) or NoStore()

    def _try_each(
        self, key: bytes, deadline: Deadline, ask: Callable[[CacheClient], T], *, anywhere: bool = False
    ) -> T:
        """As _try_present(); without an origin wait for a cache until the deadline."""
        is_awaited = self._patient and not key.startswith(OF_A_HOST)
        while True:
            try:
                return self._try_present(key, deadline, ask, anywhere=anywhere)
            except CacheUnavailable:
                if not is_awaited or deadline.expired or self._stopping.wait(deadline.slice(LOOK_SECONDS)):
                    with self._lock:
                        self.unavailable_total += 1
                    raise
            for client in self._caches.clients.values():
                client.look()

    def _try_present(self, key: bytes, deadline: Deadline, ask: Callable[[CacheClient], T], *, anywhere: bool) -> T:
        """The answer of the first of the key's caches that gives one; `anywhere`: of the first that has the object."""
        failure, missing = CacheUnavailable(_NOBODY), None
        for client in self._caches.ranked(key):
            if not client.is_present:
                continue
            try:
                answer = ask(client)
            except CacheUnavailable as error:
                failure = error
                if deadline.expired or isinstance(error.__cause__, PoolExhausted):
                    break  # with another cache it would end alike
            else:
                if not (anywhere and isinstance(answer, Missing)):
                    return answer
                missing = answer
        if missing is None:
            raise failure
        return missing

    # -- Store ---------------------------------------------------------------------------------------------------
    def peek(self, key: bytes) -> HotTableEntry | None:
        """A copy of the whole object if it is in the hot table of its cache."""
        return self.of(key).peek(key)

    def hold_file(self, key: bytes, entry: HotTableEntry) -> HotTableFile | None:
        """The file of a large object that peek() found, or None."""
        return self.of(key).hold_file(key, entry)

    def adopt_file(self, fd: int, version: int) -> HotTableFile:
        """As CacheClient.adopt_file(); it does not matter by which cache's client it is kept."""
        return next(iter(self._caches.clients.values())).adopt_file(fd, version)

    def reopen_file(self, name: FileName) -> HotTableFile | None:
        """A file held before, if it is still open."""
        files = (client.reopen_file(name) for client in self._caches.clients.values())
        return next((file for file in files if file is not None), None)

    def watch(self, key: bytes, entry: HotTableEntry) -> EntryVersion | None:
        """Tells whether an object found by peek() is still in the hot table."""
        return self.of(key).watch(key, entry)

    def should_enqueue(self, key: bytes) -> bool:
        """Whether the key's object must wait for a ticket for long transfers."""
        return self.of(key).should_enqueue(key)

    def is_large(self, key: bytes) -> bool:
        """Whether the key's object came in several chunks, as far as is known."""
        return self.of(key).is_large(key)

    def get(
        self,
        key: bytes,
        deadline: Deadline,
        *,
        offset: int = 0,
        length: int = 0,
        version: int = 0,
        metadata_wanted: bool = False,
        ticket: Ticket | None = None,
        void_lease: int | None = None,
    ) -> IncomingTransfer | Missing:
        """Request an object from its cache, as CacheClient.get(); one of a given version from any that has it."""

        def ask(client: CacheClient) -> IncomingTransfer | Missing:
            return client.get(
                key,
                deadline,
                offset=offset,
                length=length,
                version=version,
                metadata_wanted=metadata_wanted,
                ticket=ticket,
                void_lease=void_lease,
            )

        try:
            return self._try_each(key, deadline, ask, anywhere=version != 0)
        except CacheUnavailable:
            if ticket is not None:
                ticket.leave()
            raise

    def facts(self, key: bytes, deadline: Deadline) -> StoredFacts | Missing:
        """An object's facts, without its body."""
        return self._try_each(key, deadline, lambda client: client.facts(key, deadline))

    def put(
        self,
        key: bytes,
        size_bytes: int,
        metadata: bytes,
        deadline: Deadline,
        *,
        segments_max: int = 1,
        wait: bool,
        fetched_under: int = 0,
    ) -> OutgoingTransfer | None:
        """Offer an object to its cache, as CacheClient.put()."""
        return self.of(key).put(
            key, size_bytes, metadata, deadline, segments_max=segments_max, wait=wait, fetched_under=fetched_under
        )

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline) -> bool:
        """Replace the metadata of an object in its cache and keep its body; False if that version is not there."""
        return self.of(key).update(key, version, metadata, deadline)

    def purge(
        self, key: bytes, deadline: Deadline, *, prefix: bool = False, below: bool = False, invalidate: bool = False
    ) -> int:
        """Remove an object, or invalidate it, in all caches; returns how many there were. As CacheClient.purge().

        Raises:
            CacheUnavailable: one that is alive was not told, or none is present.
        """
        self._has_purged = True  # before the caches are listed: see _join()
        count, failure = 0, None
        clients = self._caches.clients.values()
        for client in clients:
            is_alive = client.is_alive
            try:
                count += client.purge(key, deadline, prefix=prefix, below=below, invalidate=invalidate)
            except CacheUnavailable as error:
                if is_alive or client.is_alive:
                    failure = error
        if failure is None and not any(client.is_alive for client in clients):
            failure = CacheUnavailable(_NOBODY)
        if failure is not None:
            raise failure
        return count

    def purge_later(self, purge: Purge, obstacle: Obstacle | None = None) -> None:
        """Withhold objects in all caches until they have been told, as CacheClient.purge_later()."""
        self._has_purged = True
        for client in self._caches.clients.values():
            client.purge_later(purge, obstacle)

    def uses(self, queue_name: str) -> bool:
        """Whether this is the queue of one of the caches."""
        return queue_name in self._caches.clients

    def withhold(self, missed: Missed, obstacle: Obstacle | None = None) -> None:
        """As CacheClient.withhold()."""
        self._has_purged = True
        for client in self._caches.clients.values():
            client.withhold(missed, obstacle)

    def expire(self) -> None:
        """Close files that were not used again."""
        for client in self._caches.clients.values():
            client.expire()

    # -- which caches there are ----------------------------------------------------------------------------------
    def look(self) -> None:
        """See which caches there are, and log what has changed; never waits."""
        self._follow_registry()
        for client in self._caches.clients.values():
            client.look()

    def _follow_registry(self) -> None:
        if self._watch is None:
            return
        for change in self._watch.look():
            queue_name = change.member.entry.queue_name
            if change.kind is ChangeKind.JOINED and queue_name and queue_name not in self._caches.clients:
                self._join(queue_name)

    def _join(self, queue_name: str) -> None:
        clients = self._caches.clients
        if len(clients) >= KNOWN_MAX:
            gone = next((name for name, client in clients.items() if not client.is_alive), None)
            if gone is None:
                log.warning("too many caches", extra={"queue": queue_name, "known": len(clients)})
                return
            self._forget(gone)
        self._know(queue_name)
        log.info("cache joined", extra={"queue": queue_name, "known": len(self._caches.clients)})
        # A purge that did not see this cache has set it before.
        if self._has_purged:
            self._caches.clients[queue_name].purge_later(EVERYTHING, None)

    def _know(self, queue_name: str) -> None:
        release = ExitStack()
        client = self._open_cache(queue_name, release)
        self._releases[queue_name] = release
        self._replace({**self._caches.clients, queue_name: client})

    def _forget(self, queue_name: str) -> None:
        self._replace({name: client for name, client in self._caches.clients.items() if name != queue_name})
        self._releases.pop(queue_name).close()

    def _replace(self, clients: Mapping[str, CacheClient]) -> None:
        self._caches = _Caches(RendezvousTable(clients), clients)

    def stop_waiting(self) -> None:
        """The daemon stops: no longer wait for an absent cache."""
        self._stopping.set()
        for client in self._caches.clients.values():
            client.stop_waiting()

    def close(self) -> None:
        """Close all clients, which takes as long as a ping; may be called twice. The pool belongs to its owner."""
        self.stop_waiting()
        if self._watch is not None:
            self._watch.close()
        while self._releases:
            self._releases.popitem()[1].close()
