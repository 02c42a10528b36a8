"""Store: the interface to stored responses; NoStore is the null object of a proxy without a cache.

Callers need not check whether there is a store: without one nothing is found and nothing is stored, which they handle
like a miss and like an object that was refused.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from shmchannel.deadline import Deadline
from shmchannel.objects.hot_table_files import FileName, HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.streams.admission import Ticket


class Missing(NamedTuple):
    """The result if there is no usable object."""

    unreadable: bool = False
    """The object exists but cannot be read."""
    nothing_below: bool = False
    """Nothing is stored below its key either: no variants and no incomplete response."""


_NOTHING = Missing(nothing_below=True)


class StoredFacts(NamedTuple):
    """An object's facts without its body; `invalidated`: a soft purge has arrived since it was stored."""

    size_bytes: int
    version: int
    metadata: bytes
    invalidated: bool


class Store(Protocol):
    """Thread-safe. Failures raise CacheUnavailable: no store, or none that answers in time."""

    @property
    def keeps(self) -> bool:
        """Whether anything can be stored at all."""

    @property
    def connected(self) -> bool:
        """Whether it is available now."""

    @property
    def object_bytes_max(self) -> int | None:
        """The largest object that it keeps; None if no limit is known."""

    @property
    def chunk_bytes(self) -> int:
        """Bodies are handed over in chunks, which are smaller than this."""

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for resources held by an object being stored."""

    def peek(self, key: bytes) -> HotTableEntry | None:
        """A copy of the whole object if it is in the hot table; at once, without a message. Never raises."""

    def hold_file(self, key: bytes, entry: HotTableEntry) -> HotTableFile | None:
        """The file of a large object that peek() found, or None; never raises."""

    def reopen_file(self, name: FileName) -> HotTableFile | None:
        """A file held before, if it is still open; never raises."""

    def watch(self, key: bytes, entry: HotTableEntry) -> EntryVersion | None:
        """Tells whether an object found by peek() is still in the hot table; never raises."""

    def should_enqueue(self, key: bytes) -> bool:
        """Whether the key's object must wait for a ticket for long transfers; never raises."""

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
    ) -> IncomingTransfer | Missing:
        """Request `length` bytes of an object (0: all) from `offset` on, and wait; version 0 means any.

        A negative offset counts back from the end. The transfer must be used as a context manager. A `ticket` ends with
        it, or if there is none.
        """

    def facts(self, key: bytes, deadline: Deadline) -> StoredFacts | Missing:
        """An object's facts, without its body."""

    def put(
        self, key: bytes, size_bytes: int, metadata: bytes, deadline: Deadline, *, segments_max: int = 1, wait: bool
    ) -> OutgoingTransfer | None:
        """Offer an object; must be used as a context manager. None without `wait` if it could not begin at once."""

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline) -> bool:
        """Replace the metadata of an object and keep its body; False if that version is gone."""

    def purge(
        self, key: bytes, deadline: Deadline, *, prefix: bool = False, below: bool = False, invalidate: bool = False
    ) -> int:
        """Remove an object, or invalidate it; returns the number of objects.

        With `prefix` every object whose key begins with `key`, with `below` the object and everything below its key.
        """

    def expire(self) -> None:
        """Release what is held for a limited time; to be called about every second."""

    def stop_waiting(self) -> None:
        """The daemon stops: no longer wait for an absent store."""


class NoStore:
    """The null object: nothing is found, and nothing is stored."""

    keeps = connected = others_wait = False
    chunk_bytes = 0
    object_bytes_max = None

    def peek(self, _key: bytes) -> None:
        """Nothing."""

    def hold_file(self, _key: bytes, _entry: HotTableEntry) -> None:
        """Nothing."""

    def reopen_file(self, _name: FileName) -> None:
        """Nothing."""

    def watch(self, _key: bytes, _entry: HotTableEntry) -> None:
        """Nothing."""

    def should_enqueue(self, _key: bytes) -> bool:
        """Nothing waits."""
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

    def expire(self) -> None:
        """Nothing is held."""

    def stop_waiting(self) -> None:
        """Nothing waits."""
