"""CacheClient: one proxy's view of its cache. Whatever is wrong with the cache becomes CacheUnavailable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shmchannel.deadline import Deadline
from shmchannel.errors import NameMissing, PeerError, PeerGone, ShmChannelError
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.hot_table_files import HotTableFile, HotTableFiles
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.transfers import IncomingTransfer
from shmchannel.streams.admission import Ticket
from webproxy.errors import CacheUnavailable

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05


class CacheClient:
    """Asks the cache, waits for one that is not there when told to, and logs its coming and going once."""

    def __init__(self, client: ChannelClient, *, patient: bool) -> None:
        """`patient`: there is no origin to go to instead, so an absent cache is waited for up to the deadline."""
        self._client = client
        self._patient = patient
        self._present = True
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.unavailable_total = 0

    @property
    def peek(self) -> Callable[[bytes], HotTableEntry | None]:
        """Looks a key up on the cache's hot table: a copy of the whole object or None, at once, without a message."""
        return self._client.peek

    @property
    def files(self) -> HotTableFiles:
        """The open files of large objects."""
        return self._client.files

    def hold_file(self, key: bytes, entry: HotTableEntry) -> HotTableFile | None:
        """The file of a large object that peek() found, or None; as ChannelClient.hold_file()."""
        return self._client.hold_file(key, entry)

    def watch(self, key: bytes, entry: HotTableEntry) -> EntryVersion | None:
        """Tells whether an object that peek() found lies there still; as ChannelClient.watch()."""
        return self._client.watch(key, entry)

    def should_enqueue(self, key: bytes) -> bool:
        """True when the key's object waits for a place among the long transfers; as ChannelClient.should_enqueue()."""
        return self._client.should_enqueue(key)

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
    ) -> IncomingTransfer:
        """Ask for `length` bytes of an object (0: all) from `offset` on, and wait; use it as a context manager.

        Version 0 means any. A `place` among the long transfers ends with this one, or when this raises.

        Raises:
            CacheUnavailable: no cache, or none that answers before the deadline.
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
            except ShmChannelError as error:
                if isinstance(error, PeerError):
                    log.warning("cache answered wrongly", extra={"reason": str(error)})
                raise self._unavailable(error) from error
            else:
                if not self._present:
                    self._note(present=True)
                return transfer

    def _worth_waiting(self, deadline: Deadline) -> bool:
        """One that ended may have a successor already; an absent one is waited for when there is no other way."""
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
            changed, self._present = self._present != present, present
        if changed and present:
            log.info("cache found", extra={"queue": self._client.queue_name})
        elif changed:
            log.warning("cache lost", extra={"queue": self._client.queue_name, "reason": str(reason)})

    def stop_waiting(self) -> None:
        """The daemon stops: nobody waits for an absent cache any more."""
        self._stopping.set()
