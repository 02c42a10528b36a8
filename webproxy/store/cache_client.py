"""CacheClient: one cache as the proxy sees it; a Store. Every failure of the cache becomes CacheUnavailable.

A cache that is dead is known by its guard, and costs no wait. One that hangs is known by its silence: two commands in a
row that were not answered in time, and it counts as absent, as a dead one does (Health). A thread pings it then, once a
second, and holds no worker. When a ping is answered, or the cache has ended, one command asks whether it still hangs,
and waits for that: a cache whose disk hangs may answer pings. The others go to the origin at once. Who has no origin to
ask waits for a cache that hangs, or is absent, until the deadline.

A purge that the cache could not be told is told later (UntoldPurges). Until then its objects under that key count as
absent.

Long because each command is read together with what its failure says of the cache, and NoStore with what it stands for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from time import monotonic

from shmchannel.deadline import Deadline
from shmchannel.errors import (
    AccessDenied,
    ChannelTimeout,
    LayoutMismatch,
    NameMissing,
    PeerError,
    PeerGone,
    PeerProtocolError,
    ShmChannelError,
    UsageError,
    VersionMismatch,
)
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import FACTS_ONLY
from shmchannel.objects.hot_table_files import FileName, HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.streams.admission import Ticket
from shmchannel.streams.transfer import TransferState
from webproxy.errors import CacheUnavailable
from webproxy.origin.health import Admitted, Failing, Failure, Health, HealthSettings, State
from webproxy.store.pending_purges import Obstacle, Purge
from webproxy.store.siblings import Missed, Told, nobody
from webproxy.store.store import Missing, StoredFacts
from webproxy.store.untold_purges import UntoldPurges

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
SILENCE_SECONDS = 2.0
"""How long a cache that answers may take to begin, unless the settings say otherwise."""
FAILURES_TO_OPEN = 2
PAUSE_SECONDS = 1.0
"""How long a cache that hangs counts as absent before it is asked again."""
PING_SECONDS = 0.5
"""How long a ping may take."""


_HANGS = "the cache does not answer"
_PENDING = "the cache has not been told yet to purge this"
OF_A_HOST = b"http://"
"""Keys that begin so are URLs, of a host that can be asked instead, also when it is no configured origin."""


class _Standing(Enum):
    """What is known of the cache's process."""

    PRESENT = auto()
    ABSENT = auto()
    OF_ANOTHER_VERSION = auto()
    OF_ANOTHER_USER = auto()


_MAY_BE_THERE = (None, _Standing.PRESENT)


class CacheClient:
    """Sends commands to the cache, waits for an absent one if told to, and logs once when it comes and goes."""

    keeps = True
    """Whether anything can be stored at all."""

    def __init__(
        self,
        client: ChannelClient,
        *,
        patient: bool,
        silence_s: float = SILENCE_SECONDS,
        tell_siblings: Callable[[Missed], Told] = nobody,
    ) -> None:
        """`patient`: no origin is configured as an alternative, so an absent cache is waited for up to the deadline.

        `silence_s` is the longest time in which a cache that answers does so. `tell_siblings` as Siblings.tell().
        """
        self._client = client
        self.pool = client.pool
        self.chunk_bytes = client.pool.segment_bytes
        """The size of a segment, which is slightly more than a chunk."""
        self._patient = patient
        self._standing: _Standing | None = None
        """None until the first look."""
        self._health = Health(
            HealthSettings(
                failures_to_open=FAILURES_TO_OPEN,
                silence_s=silence_s,
                pause_s=PAUSE_SECONDS,
                pause_max_s=PAUSE_SECONDS,
            )
        )
        self._healthy = self._health.admitted_to_all
        """While nothing is known against it: one read instead of a lock for each command."""
        self._ping_s = min(silence_s, PING_SECONDS)
        self._untold = UntoldPurges(client, self._ping_s, self._note_answer, tell_siblings)
        self._withholds: Callable[[bytes], bool] = self._untold.withholds
        self.purge_later: Callable[[Purge, Obstacle | None], None] = self._untold.add
        """Withhold the objects under a key from now on, until the cache was told a purge; see UntoldPurges.add()."""
        self.is_due = True
        """If it hangs: a command may ask whether it still does."""
        self._pinging: threading.Thread | None = None
        self._has_been_silent = False
        """Since the last answer: an answer is nothing new without this, and takes no lock."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.unavailable_total = 0
        # These never raise and send no message; without a frame of their own on the path of every hit.
        self.peek: Callable[[bytes], HotTableEntry | None] = client.peek
        """A copy of the whole object if it is in the hot table."""
        self.hold_file: Callable[[bytes, HotTableEntry], HotTableFile | None] = client.hold_file
        """The file of a large object that peek() found, or None."""
        self.adopt_file: Callable[[int, int], HotTableFile] = client.files.adopt
        """Take over an open file of an object of this version."""
        self.reopen_file: Callable[[FileName], HotTableFile | None] = client.files.again
        """A file held before, if it is still open."""
        self.watch: Callable[[bytes, HotTableEntry], EntryVersion | None] = client.watch
        """Tells whether an object found by peek() is still in the hot table."""
        self.is_large: Callable[[bytes], bool] = client.is_large
        """Whether the key's object came in several chunks, as far as is known."""

    def should_enqueue(self, key: bytes) -> bool:
        """Whether the key's object must wait for a ticket for long transfers."""
        return self._client.should_enqueue(key) and self.answers()

    def answers(self) -> bool:
        """Whether nothing is known against a cache that lives; False for one that hangs. Never blocks."""
        return self._healthy is not None

    def of(self, _key: bytes) -> CacheClient:
        """The cache that has a key."""
        return self

    @property
    def is_alive(self) -> bool:
        """Whether it is there, as far as is known, be it that it hangs. Never blocks."""
        return self._standing in _MAY_BE_THERE

    @property
    def is_present(self) -> bool:
        """Whether it is worth a command: it is alive, and answers, or is to be asked whether it does. Never blocks."""
        return self._standing in _MAY_BE_THERE and (self._healthy is not None or self.is_due)

    @property
    def connected(self) -> bool:
        """Whether a living cache is available, which does not hang as far as is known."""
        return self.answers() and self._client.connected

    @property
    def ready_count(self) -> int:
        """How many caches are available: this one, or none."""
        return int(self.connected)

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
        void_lease: int | None = None,
    ) -> IncomingTransfer | Missing:
        """Request `length` bytes of an object (0: all) from `offset` on, and wait; version 0 means any.

        A negative offset counts back from the end. The transfer must be used as a context manager; with an origin as an
        alternative it ends when the cache turns out to hang. A `ticket` ends with it, or if there is none. `void_lease`
        as in ChannelClient.get().
        """
        is_awaited = self._patient and not key.startswith(OF_A_HOST)
        admission = self._healthy or self._admit()
        if isinstance(admission, Failing) and not is_awaited:
            if ticket is not None:
                ticket.leave()
            raise self._unavailable(_HANGS)
        while True:
            # By version, a body continues that was begun before the purge.
            while version == 0 and self._withholds(key):
                if not is_awaited or deadline.expired or self._stopping.is_set():
                    if ticket is not None:
                        ticket.leave()
                    self._judge(None, admission)
                    raise self._unavailable(_PENDING)
                self._stopping.wait(deadline.slice(LOOK_SECONDS))
            try:
                transfer = self._client.get(
                    key,
                    deadline,
                    offset=offset,
                    length=length,
                    version=version,
                    metadata_wanted=metadata_wanted,
                    ticket=ticket,
                    void_lease=void_lease,
                )
            except ShmChannelError as error:
                self._note_failure(error)
                if isinstance(error, NameMissing | PeerGone) and self._worth_waiting(deadline, is_awaited=is_awaited):
                    continue
                self._judge(error, admission)
                raise self._unavailable(str(error)) from error
            if self._standing is not _Standing.PRESENT:
                self._note(_Standing.PRESENT)
            self._note_answer()
            if not transfer.found:
                return _missing(transfer)
            if not is_awaited and not transfer.last:  # otherwise there is nothing to wait for
                transfer.wait_only_while(self.answers)
            return transfer

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
        """Offer an object; must be used as a context manager. None without `wait` if no segment is free.

        The transfer ends when the cache turns out to hang. An offer is never the command that asks whether it does.
        """
        if not self.answers():
            raise CacheUnavailable(_HANGS)
        if self._withholds(key):
            raise CacheUnavailable(_PENDING)
        with self._asking():
            lease = self.pool.lease(deadline, segments_max) if wait else self.pool.try_lease(segments_max)
            if lease is None:
                return None
            transfer = self._client.put(key, size_bytes, metadata, lease, deadline, fetched_under=fetched_under)
        transfer.wait_only_while(self.answers)
        return transfer

    def update(self, key: bytes, version: int, metadata: bytes, deadline: Deadline) -> bool:
        """Replace the metadata of an object and keep its body; False if that version is gone."""
        if self._withholds(key):
            raise CacheUnavailable(_PENDING)
        with self._asking():
            is_updated = self._client.update(key, version, metadata, deadline)
        self._note_answer()
        return is_updated

    def purge(
        self, key: bytes, deadline: Deadline, *, prefix: bool = False, below: bool = False, invalidate: bool = False
    ) -> int:
        """Remove an object, or invalidate it; returns the number of objects.

        With `prefix` every object whose key begins with `key`, with `below` the object and everything below its key.
        If this raises, the objects are not used any more, and the purge is repeated until the cache has answered.
        """
        try:
            with self._asking():
                count = self._client.purge(key, deadline, prefix=prefix, below=below, invalidate=invalidate)
        except CacheUnavailable as error:
            if not isinstance(error.__cause__, UsageError):
                self._untold.add(Purge(key, prefix, below, invalidate))
            raise
        self._note_answer()
        return count

    def uses(self, queue_name: str) -> bool:
        """Whether this is the queue of the cache."""
        return queue_name == self._client.queue_name

    def withhold(self, missed: Missed, obstacle: Obstacle | None = None) -> None:
        """As purge_later(), of a purge of which a sibling has told; never waits."""
        if self.uses(missed.queue_name):
            self._untold.withhold(missed.purge, obstacle)

    def expire(self) -> None:
        """Close files that were not used again."""
        self._client.files.expire()

    def look(self) -> None:
        """See whether there is a cache, and log what has changed; never waits."""
        self._untold.look()
        try:
            self._client.connect()
        except ShmChannelError as error:
            self._note_failure(error)
        else:
            self._note(_Standing.PRESENT)

    def _worth_waiting(self, deadline: Deadline, *, is_awaited: bool) -> bool:
        """A cache that ended may have a successor already; an absent one is waited for if there is no alternative."""
        if deadline.expired or self._stopping.is_set():
            return False
        if self._client.connected:
            return True
        if is_awaited:
            self._stopping.wait(deadline.slice(LOOK_SECONDS))
        return is_awaited

    # -- whether it answers --------------------------------------------------------------------------------------
    @contextmanager
    def _asking(self) -> Iterator[None]:
        admission = self._healthy or self._admit()
        if isinstance(admission, Failing):
            raise CacheUnavailable(_HANGS)
        try:
            yield
        except ShmChannelError as error:
            self._note_failure(error)
            self._judge(error, admission)
            raise CacheUnavailable(str(error)) from error

    def _admit(self) -> Admitted | Failing:
        with self._lock:
            now = monotonic()
            return self._health.admit(now) if self.is_due or self._healthy is not None else self._health.refuse(now)

    def _unavailable(self, reason: str) -> CacheUnavailable:
        with self._lock:
            self.unavailable_total += 1
        return CacheUnavailable(reason)

    def _judge(self, error: ShmChannelError | None, admission: Admitted | Failing) -> None:
        """A command was not answered, or not well; None if it was not sent after all, so that another one may ask."""
        if isinstance(error, PeerError) and not isinstance(error, PeerGone):
            self._note_answer()  # an answer of a kind
            return
        if isinstance(admission, Failing):
            return
        now = monotonic()
        with self._lock:
            if isinstance(error, ChannelTimeout):
                self._has_been_silent = True
                change = self._health.failed(admission, Failure.SILENCE, now)
                self._healthy = self._health.admitted_to_all
                if change is not None:
                    self._begin_to_ping()
            else:  # its end is told by its guard, and whatever else is wrong is on this side
                self._health.abandoned(admission, now)
                return
        if change is not None and change.before is State.CLOSED:
            facts = {"queue": self._client.queue_name, "reason": str(error), "unanswered": change.failures}
            log.warning("cache does not answer", extra=facts)

    def _note_answer(self) -> None:
        if not self._has_been_silent:
            return
        with self._lock:
            self._has_been_silent = False
            change = self._health.succeeded(monotonic())
            self._healthy = self._health.admitted_to_all
        if change is not None:
            facts = {"queue": self._client.queue_name, "silent_s": round(change.open_s, 1), "not_asked": change.refused}
            log.info("cache answers again", extra=facts)

    def _begin_to_ping(self) -> None:
        """It hangs, or has just been found to hang still; the lock is held."""
        self.is_due = False
        if self._pinging is not None:  # since the last time that it hung
            return
        self._pinging = threading.Thread(target=self._ping, name="cache-ping", daemon=True)
        try:
            self._pinging.start()
        except RuntimeError:  # the system refused another thread: a command has to do
            self.is_due, self._pinging = True, None

    def _ping(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            try:
                self._client.ping(Deadline.after(self._ping_s))
            except ChannelTimeout:
                continue
            except ShmChannelError:
                pass  # nothing that has to be waited for: whoever asks next will say
            with self._lock:
                self.is_due, self._pinging = True, None
            return

    # -- whether it is there -------------------------------------------------------------------------------------
    def _note_failure(self, error: ShmChannelError) -> None:
        if isinstance(error, NameMissing | PeerGone):
            self._note(_Standing.ABSENT, error)
        elif isinstance(error, VersionMismatch):
            self._note(_Standing.OF_ANOTHER_VERSION, error)
        elif isinstance(error, AccessDenied):
            self._note(_Standing.OF_ANOTHER_USER, error)
        elif isinstance(error, LayoutMismatch | PeerProtocolError):
            log.warning("invalid answer from the cache", extra={"reason": str(error)})

    def _note(self, standing: _Standing, reason: ShmChannelError | None = None) -> None:
        with self._lock:
            before, self._standing = self._standing, standing
        if before is standing:
            return
        facts = {"queue": self._client.queue_name} | ({} if reason is None else {"reason": str(reason)})
        if standing is _Standing.OF_ANOTHER_VERSION:
            log.error("cache of another version", extra=facts)
        elif standing is _Standing.OF_ANOTHER_USER:
            log.error("cache of another user", extra=facts)
        elif standing is _Standing.PRESENT:
            if before is not None:
                log.info("cache found", extra=facts)
        elif before is _Standing.PRESENT:
            log.warning("cache lost", extra=facts)
        else:
            log.warning("cache not found", extra=facts)

    def stop_waiting(self) -> None:
        """The daemon stops: no longer wait for an absent cache."""
        self._stopping.set()

    def close(self) -> None:
        """End the thread that pings, which takes as long as a ping; the client belongs to its owner."""
        self._stopping.set()
        self._untold.close()
        pinging = self._pinging
        if pinging is not None:
            pinging.join()


def _missing(transfer: IncomingTransfer) -> Missing:
    with transfer:
        transfer.finish()
        return Missing(transfer.state is TransferState.FAILED, transfer.nothing_below, transfer.fetch_lease)
