"""CacheClient: the Store implemented by a cache daemon. Every failure of the cache becomes CacheUnavailable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

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
from webproxy.store.store import Missing, StoredFacts

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05


class CacheClient:
    """Sends commands to the cache, waits for an absent one if told to, and logs once when it comes and goes."""

    keeps = True

    def __init__(self, client: ChannelClient, *, patient: bool) -> None:
        """`patient`: there is no origin as an alternative, so an absent cache is waited for up to the deadline."""
        self._client = client
        self.pool = client.pool
        self._patient = patient
        self._present: bool | None = None
        """None until the first command."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.unavailable_total = 0
        # As in Store, without a frame of their own on the path of every hit.
        self.peek: Callable[[bytes], HotTableEntry | None] = client.peek
        self.hold_file: Callable[[bytes, HotTableEntry], HotTableFile | None] = client.hold_file
        self.reopen_file: Callable[[FileName], HotTableFile | None] = client.files.again
        self.watch: Callable[[bytes, HotTableEntry], EntryVersion | None] = client.watch
        self.should_enqueue: Callable[[bytes], bool] = client.should_enqueue

    @property
    def connected(self) -> bool:
        """Whether a living cache is available."""
        return self._client.connected

    @property
    def object_bytes_max(self) -> int | None:
        """The largest object that the cache stores, as it announced; None if it did not."""
        return self._client.object_bytes_max

    @property
    def chunk_bytes(self) -> int:
        """The size of a segment, which is slightly more than a chunk."""
        return self.pool.segment_bytes

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
        """As Store.get()."""
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
        """As Store.facts()."""
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
        """As Store.put(). None without `wait` when no segment is free."""
        try:
            lease = self.pool.lease(deadline, segments_max) if wait else self.pool.try_lease(segments_max)
            return None if lease is None else self._client.put(key, size_bytes, metadata, lease, deadline)
        except ShmChannelError as error:
            raise CacheUnavailable(str(error)) from error

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline) -> bool:
        """As Store.update()."""
        try:
            return self._client.update(key, version, metadata, deadline)
        except ShmChannelError as error:
            raise CacheUnavailable(str(error)) from error

    def purge(
        self, key: bytes, deadline: Deadline, *, prefix: bool = False, below: bool = False, invalidate: bool = False
    ) -> int:
        """As Store.purge()."""
        try:
            return self._client.purge(key, deadline, prefix=prefix, below=below, invalidate=invalidate)
        except ShmChannelError as error:
            raise CacheUnavailable(str(error)) from error

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


def _missing(transfer: IncomingTransfer) -> Missing:
    with transfer:
        transfer.finish()
        return Missing(transfer.state is TransferState.FAILED, transfer.nothing_below)
