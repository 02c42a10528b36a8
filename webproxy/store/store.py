"""Store: what the proxy keeps objects in, as those see it that look for them; and NoStore, in a proxy without a cache.

One cache (CacheClient), several (CacheSpread) and none fulfil it, so that callers need not ask which it is: without one
nothing is found and nothing is stored, which they handle like a miss and like an object that was refused.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from shmchannel.deadline import Deadline
from shmchannel.objects.commands import FetchLease
from shmchannel.objects.hot_table_files import FileName, HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.streams.admission import Ticket
from webproxy.store.pending_purges import Obstacle, Purge
from webproxy.store.siblings import Missed


class Missing(NamedTuple):
    """The result if there is no usable object."""

    unreadable: bool = False
    """The object exists but cannot be read."""
    nothing_below: bool = False
    """Nothing is stored below its key either: no variants and no incomplete response."""
    lease: FetchLease | None = None
    """Who fetches it, if that was asked for and the cache has said so."""


class StoredFacts(NamedTuple):
    """An object's facts without its body; `invalidated`: a soft purge has arrived since it was stored."""

    size_bytes: int
    version: int
    metadata: bytes
    invalidated: bool


class Store(Protocol):
    """What the proxy stores objects in: one cache, several, or none. The methods are those of a CacheClient."""

    @property
    def keeps(self) -> bool:
        """Whether anything can be stored at all."""

    def of(self, key: bytes, /) -> OneStore:
        """The cache that has a key."""

    def peek(self, key: bytes, /) -> HotTableEntry | None:
        """A copy of the whole object if it is in the hot table."""

    def hold_file(self, key: bytes, entry: HotTableEntry, /) -> HotTableFile | None:
        """The file of a large object that peek() found, or None."""

    def adopt_file(self, fd: int, version: int, /) -> HotTableFile:
        """Take over an open file of an object of this version."""

    def reopen_file(self, name: FileName, /) -> HotTableFile | None:
        """A file held before, if it is still open."""

    def watch(self, key: bytes, entry: HotTableEntry, /) -> EntryVersion | None:
        """Tells whether an object found by peek() is still in the hot table."""

    def is_large(self, key: bytes, /) -> bool:
        """Whether the key's object came in several chunks, as far as is known."""

    def should_enqueue(self, key: bytes, /) -> bool:
        """Whether the key's object must wait for a ticket for long transfers."""

    def get(
        self,
        key: bytes,
        deadline: Deadline,
        /,
        *,
        offset: int = 0,
        length: int = 0,
        version: int = 0,
        metadata_wanted: bool = False,
        ticket: Ticket | None = None,
        void_lease: int | None = None,
    ) -> IncomingTransfer | Missing:
        """Request an object, and wait."""

    def facts(self, key: bytes, deadline: Deadline, /) -> StoredFacts | Missing:
        """An object's facts, without its body."""

    def put(
        self,
        key: bytes,
        size_bytes: int,
        metadata: bytes,
        deadline: Deadline,
        /,
        *,
        segments_max: int = 1,
        wait: bool,
        fetched_under: int = 0,
    ) -> OutgoingTransfer | None:
        """Offer an object."""

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline, /) -> bool:
        """Replace the metadata of an object."""

    def purge(
        self, key: bytes, deadline: Deadline, /, *, prefix: bool = False, below: bool = False, invalidate: bool = False
    ) -> int:
        """Remove objects, or invalidate them."""

    def purge_later(self, purge: Purge, obstacle: Obstacle | None, /) -> None:
        """Withhold objects until the cache has been told to purge them."""

    def uses(self, queue_name: str, /) -> bool:
        """Whether objects come from the cache with this queue."""

    def withhold(self, missed: Missed, obstacle: Obstacle | None, /) -> None:
        """As purge_later(), of a purge of which another process has told."""

    def expire(self) -> None:
        """Close files that were not used again."""

    def look(self) -> None:
        """See whether there is a cache, and log what has changed."""

    def stop_waiting(self) -> None:
        """No longer wait for an absent cache."""


class OneStore(Store, Protocol):
    """A Store of one cache, or of none."""

    @property
    def connected(self) -> bool:
        """Whether a living cache is available, which does not hang as far as is known."""

    @property
    def chunk_bytes(self) -> int:
        """The size of a segment, which is slightly more than a chunk."""

    @property
    def object_bytes_max(self) -> int | None:
        """The largest object that the cache stores, as it announced; None if it did not."""

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for a segment."""


_NOTHING = Missing(nothing_below=True)


class NoStore:
    """The null object: nothing is found, and nothing is stored."""

    keeps = connected = others_wait = False
    chunk_bytes = 0
    object_bytes_max = None

    def of(self, _key: bytes) -> NoStore:
        """There is no cache."""
        return self

    def peek(self, _key: bytes) -> None:
        """Nothing."""

    def hold_file(self, _key: bytes, _entry: HotTableEntry) -> None:
        """Nothing."""

    def adopt_file(self, _fd: int, _version: int) -> HotTableFile:
        """There is no hit, of which something could be left."""
        raise NotImplementedError

    def reopen_file(self, _name: FileName) -> None:
        """Nothing."""

    def watch(self, _key: bytes, _entry: HotTableEntry) -> None:
        """Nothing."""

    def should_enqueue(self, _key: bytes) -> bool:
        """Nothing waits."""
        return False

    def is_large(self, _key: bytes) -> bool:
        """Nothing is known."""
        return False

    def get(self, *_: object, ticket: Ticket | None = None, **_options: object) -> Missing:
        """Nothing is there."""
        if ticket is not None:
            ticket.leave()
        return _NOTHING

    def facts(self, _key: bytes, _deadline: Deadline) -> Missing:
        """Nothing is there."""
        return _NOTHING

    def put(self, *_: object, **_options: object) -> None:
        """Nothing is kept."""

    def update(self, _key: bytes, _version: int, _metadata: bytes, _deadline: Deadline) -> bool:
        """There is nothing to update."""
        return False

    def purge(self, *_: object, **_options: object) -> int:
        """There is nothing to remove."""
        return 0

    def purge_later(self, _purge: Purge, _obstacle: Obstacle | None = None) -> None:
        """There is nothing to remove."""

    def uses(self, _queue_name: str) -> bool:
        """There is no cache."""
        return False

    def withhold(self, _missed: Missed, _obstacle: Obstacle | None = None) -> None:
        """There is nothing to remove."""

    def expire(self) -> None:
        """Nothing is held."""

    def look(self) -> None:
        """There is nothing to be seen."""

    def stop_waiting(self) -> None:
        """Nothing waits."""
