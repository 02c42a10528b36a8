"""CacheClient: the cache as the proxy sees it; NoStore stands in its place in a proxy without a cache.

Callers need not check whether there is a cache: without one nothing is found and nothing is stored, which they handle
like a miss and like an object that was refused. Every failure of the cache becomes CacheUnavailable.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from shmchannel.deadline import Deadline
from shmchannel.errors import NameMissing, PeerError, PeerGone, ShmChannelError, VersionMismatch
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import FACTS_ONLY
from shmchannel.objects.hot_table_files import FileName, HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.streams.admission import Ticket
from shmchannel.streams.transfer import TransferState
from webproxy.errors import CacheUnavailable

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05


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


class CacheClient:
    """Sends commands to the cache, waits for an absent one if told to, and logs once when it comes and goes."""

    keeps = True
    """Whether anything can be stored at all."""

    def __init__(self, client: ChannelClient, *, patient: bool) -> None:
        """`patient`: there is no origin as an alternative, so an absent cache is waited for up to the deadline."""
        self._client = client
        self.pool = client.pool
        self.chunk_bytes = client.pool.segment_bytes
        """The size of a segment, which is slightly more than a chunk."""
        self._patient = patient
        self._present: bool | None = None
        """None until the first command."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.unavailable_total = 0
        # These never raise and send no message; without a frame of their own on the path of every hit.
        self.peek: Callable[[bytes], HotTableEntry | None] = client.peek
        """A copy of the whole object if it is in the hot table."""
        self.hold_file: Callable[[bytes, HotTableEntry], HotTableFile | None] = client.hold_file
        """The file of a large object that peek() found, or None."""
        self.reopen_file: Callable[[FileName], HotTableFile | None] = client.files.again
        """A file held before, if it is still open."""
        self.watch: Callable[[bytes, HotTableEntry], EntryVersion | None] = client.watch
        """Tells whether an object found by peek() is still in the hot table."""
        self.should_enqueue: Callable[[bytes], bool] = client.should_enqueue
        """Whether the key's object must wait for a ticket for long transfers."""

    @property
    def connected(self) -> bool:
        """Whether a living cache is available."""
        return self._client.connected

    @property
    def object_bytes_max(self) -> int | None:
        """The largest object that the cache stores, as it announced; None if it did not."""
        return self._client.object_bytes_max

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for a segment."""
        return self.pool.waiting > 0

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
        while True:
            try:
                transfer = self._client.get(
                    key,
                    deadline,
                    offset=offset,
                    length=length,
                    version=version,
                    metadata_wanted=metadata_wanted,
                    ticket=ticket,
                )
            except (NameMissing, PeerGone) as error:
                self._note(present=False, reason=error)
                if not self._worth_waiting(deadline):
                    raise self._unavailable(error) from error
            except VersionMismatch as error:
                self._note(present=False, reason=error)
                raise self._unavailable(error) from error
            except ShmChannelError as error:
                if isinstance(error, PeerError):
                    log.warning("invalid answer from the cache", extra={"reason": str(error)})
                raise self._unavailable(error) from error
            else:
                if not self._present:
                    self._note(present=True)
                return transfer if transfer.found else _missing(transfer)

    def facts(self, key: bytes, deadline: Deadline) -> StoredFacts | Missing:
        """An object's facts, without its body."""
        transfer = self.get(key, deadline, offset=FACTS_ONLY, metadata_wanted=True)
        if isinstance(transfer, Missing):
            return transfer
        with transfer:
            size_bytes, version, _ = transfer.facts
            facts = StoredFacts(size_bytes, version, transfer.metadata, transfer.invalidated)
            transfer.finish()
        return facts

    def put(
        self, key: bytes, size_bytes: int, metadata: bytes, deadline: Deadline, *, segments_max: int = 1, wait: bool
    ) -> OutgoingTransfer | None:
        """Offer an object; must be used as a context manager. None without `wait` if no segment is free."""
        with _as_unavailable():
            lease = self.pool.lease(deadline, segments_max) if wait else self.pool.try_lease(segments_max)
            return None if lease is None else self._client.put(key, size_bytes, metadata, lease, deadline)

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline) -> bool:
        """Replace the metadata of an object and keep its body; False if that version is gone."""
        with _as_unavailable():
            return self._client.update(key, version, metadata, deadline)

    def purge(
        self, key: bytes, deadline: Deadline, *, prefix: bool = False, below: bool = False, invalidate: bool = False
    ) -> int:
        """Remove an object, or invalidate it; returns the number of objects.

        With `prefix` every object whose key begins with `key`, with `below` the object and everything below its key.
        """
        with _as_unavailable():
            return self._client.purge(key, deadline, prefix=prefix, below=below, invalidate=invalidate)

    def expire(self) -> None:
        """Close files that were not used again."""
        self._client.files.expire()

    def _worth_waiting(self, deadline: Deadline) -> bool:
        """A cache that ended may have a successor already; an absent one is waited for if there is no alternative."""
        if deadline.expired or self._stopping.is_set():
            return False
        if self._client.connected:
            return True
        if self._patient:
            self._stopping.wait(deadline.slice(LOOK_SECONDS))
        return self._patient

    def _unavailable(self, error: ShmChannelError) -> CacheUnavailable:
        with self._lock:
            self.unavailable_total += 1
        return CacheUnavailable(str(error))

    def _note(self, *, present: bool, reason: Exception | None = None) -> None:
        with self._lock:
            before, self._present = self._present, present
        if before is present:
            return
        facts = {"queue": self._client.queue_name} | ({} if present else {"reason": str(reason)})
        if isinstance(reason, VersionMismatch):
            log.error("cache of another version", extra=facts)
        elif before:
            log.warning("cache lost", extra=facts)
        elif not present:
            log.warning("cache not found", extra=facts)
        elif before is not None:
            log.info("cache found", extra=facts)

    def stop_waiting(self) -> None:
        """The daemon stops: no longer wait for an absent cache."""
        self._stopping.set()


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except ShmChannelError as error:
        raise CacheUnavailable(str(error)) from error


def _missing(transfer: IncomingTransfer) -> Missing:
    with transfer:
        transfer.finish()
        return Missing(transfer.state is TransferState.FAILED, transfer.nothing_below)


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


Store: TypeAlias = CacheClient | NoStore
