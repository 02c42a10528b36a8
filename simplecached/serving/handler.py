"""CacheHandler: one command → one answer. Knows sources and the store, but neither HTTP nor proxies."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from time import monotonic

from shmchannel import faults
from shmchannel.deadline import Deadline
from shmchannel.errors import PeerProtocolError, ResourceError
from shmchannel.objects.commands import BELOW, INVALIDATE, LEASE, METADATA_WANTED, PREFIX, Command, CommandKind
from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX
from shmchannel.objects.server import Handler
from shmchannel.process.guard import GuardWatch
from shmchannel.process.naming import parse_segment_name, pool_guard_path, pool_word
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import ObjectFacts
from shmchannel.streams.transfer import TransferState
from simplecached.descriptors import PAUSED_MAX
from simplecached.errors import SimpleCachedError, StoreUnavailable
from simplecached.serving.hot_table import HotObjects
from simplecached.serving.leases import NUMBER_BITS, Lease, LeaseTable
from simplecached.stores.lru_store import LruStore
from simplecached.stores.paused_objects import PausedObjects
from simplecached.stores.store import BodyWriter, ObjectSource, StoredObject

log = logging.getLogger(__name__)


def is_alive(pool: str) -> bool:
    """Whether the process that owns this pool lives; never blocks."""
    try:
        with closing(GuardWatch(pool_guard_path(pool))) as watch:
            return watch.alive()
    except ResourceError:
        return False


class CacheHandler(Handler):
    """Looks up keys in the static source first, then in the store. Thread-safe."""

    grants_leases = True

    def __init__(
        self,
        static: ObjectSource | None,
        store: LruStore,
        *,
        lookup_delay_s: float,
        between_bytes_timeout_s: float,
        hot: HotObjects | None = None,
        paused_max: int = PAUSED_MAX,
        is_holder_alive: Callable[[str], bool] = is_alive,
    ) -> None:
        self._static = static
        self._store = store
        self._lookup_delay_s = lookup_delay_s
        self._between_bytes_timeout_s = between_bytes_timeout_s
        self._hot = hot
        self._paused = PausedObjects(paused_max=paused_max)
        self._leases = LeaseTable(1 + secrets.randbits(NUMBER_BITS))
        self._leases_lock = threading.Lock()
        self._is_holder_alive = is_holder_alive
        self._stopping = threading.Event()
        self.object_bytes_max = store.stats().budget_bytes

    def set_static(self, static: ObjectSource | None, hot_life_s: float | None) -> None:
        """Serve files from another source from now on; lookups that have begun may still use the former one."""
        self._static = static
        if self._hot is not None:  # after the change: what is published from here on was found in the new source
            self._hot.start_over(hot_life_s)

    def stop_delaying(self) -> None:
        """End the delay of waiting lookups, because the daemon stops."""
        self._stopping.set()

    def expire(self) -> None:
        """Release what is held for a limited time: paused objects, leases of the dead. And note what proxies have used.

        To be called about once a second.
        """
        self._paused.expire(monotonic())
        with self._leases_lock:
            holders = self._leases.holders()
        dead = [holder for holder in holders if not self._is_holder_alive(holder)]
        if dead:
            with self._leases_lock:
                self._leases.end_those_of(dead)
        if self._hot is not None:
            self._hot.note_uses()

    def close(self) -> None:
        """Release all of them, before the sources close."""
        self._paused.close()

    def get(self, command: Command, writer: ChunkWriter) -> TransferState:
        """Send the object's bytes from its file straight into the segments."""
        if self._lookup_delay_s:
            self._stopping.wait(self._lookup_delay_s)
        hot = self._hot
        token = hot.begin(command) if hot is not None else None
        try:
            found = self._find(command) or self._refuse_get(command, writer)
        except StoreUnavailable as error:
            log.warning("object unreadable", extra={"key": command.key, "reason": str(error)})
            writer.fail()
            return writer.state
        if found is None:
            return writer.state
        if log.isEnabledFor(logging.DEBUG):
            log.debug("object found", extra={"key": command.key, "size_bytes": found.size_bytes})
        state = TransferState.FAILED
        try:
            state = self._send(command, found, writer)
            # Also for who pauses: slow readers would otherwise keep on asking by a command, one after the other.
            is_read = state is TransferState.COMPLETE or writer.paused
            if token is not None and hot is not None and is_read:
                hot.publish(token, command.key, found)
        finally:
            if writer.paused:
                self._paused.keep(command.key, found)
            else:
                found.release()
        return state

    def _refuse_get(self, command: Command, writer: ChunkWriter) -> StoredObject | None:
        """Say that there is no such object, and who fetches it if that is asked; returns one stored in the meantime."""
        key, words = command.key, (0, 0)
        nothing_below = not self._store.has_below(key)
        if command.flags & LEASE and nothing_below:
            lease, is_new = self._lease(command)
            # What was stored before the lease was granted ended the one before: then nothing is missing.
            if is_new and (found := self._find(command)) is not None:
                with self._leases_lock:
                    self._leases.end(key)
                return found
            words = pool_word(lease.holder), lease.number
        if self._hot is not None:
            self._hot.missed(key)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("object missing", extra={"key": key, "nothing_below": nothing_below, "lease": words[1]})
        writer.refuse(flagged=nothing_below, words=words)
        return None

    def _lease(self, command: Command) -> tuple[Lease, bool]:
        """The lease of a missing key, and whether it was granted just now; never that of a process that has ended."""
        asker = parse_segment_name(command.segments[0].name.decode())
        assert asker is not None  # its segments are attached
        key, void = command.key, command.version
        while True:
            with self._leases_lock:
                first = self._leases.next_number
                lease = self._leases.ask(key, asker, void)
            if lease.holder == asker or self._is_holder_alive(lease.holder):
                return lease, lease.number >= first
            void = lease.number

    def _find(self, command: Command) -> StoredObject | None:
        if command.flags & LEASE:  # its version is the number of a lease
            command = command._replace(version=0)
        if command.version and (paused := self._paused.take(command.key, command.version)) is not None:
            if paused.is_unchanged():
                return paused
            paused.release()
        found = self._static.open(command.key) if self._static is not None else None
        if found is None:
            found = self._store.open(command.key)
        if found is not None and command.version and found.version != command.version:
            found.release()
            return None
        return found

    def _send(self, command: Command, found: StoredObject, writer: ChunkWriter) -> TransferState:
        fd, size = found.fd, found.size_bytes
        metadata = found.metadata if command.flags & METADATA_WANTED else b""
        start, end = command.range_in(size)
        writer.begin(ObjectFacts(size, found.version, len(metadata)))

        try:
            state = writer.send(partial(os.preadv, fd), start, end, metadata, flagged=found.invalidated)
        except OSError as error:
            if isinstance(error, TimeoutError):  # the proxy's fault, not the file's
                raise
            log.warning("object unreadable", extra={"key": command.key, "reason": str(error)})
            return writer.state
        if faults.ARMED:
            faults.reach("cache.last_chunk")
        return state

    def put(self, command: Command, reader: ChunkReader) -> None:
        """Store a complete object, or refuse it; never a part of one."""
        if not self._begin(command, reader):
            return
        try:
            writer = self._store.begin(command.key, command.length, reader.preamble)
        except SimpleCachedError as error:
            self._refuse(command, reader, error)
            return
        try:
            if command.version and self._leases.is_purged(command.version):
                log.info("object not stored", extra={"key": command.key, "reason": "purged while it was fetched"})
                reader.refuse()
                return
            self._receive(command, reader, writer)
        finally:
            writer.abort()  # nothing to abort after a commit

    def update(self, command: Command, reader: ChunkReader) -> None:
        """Replace the metadata of an object in the store, or refuse; the body stays and is not transferred again."""
        if not self._begin(command, reader):
            return
        if faults.ARMED:
            faults.reach("cache.update_uncommitted")
        try:
            replaced = self._store.replace_metadata(command.key, command.version, reader.preamble)
        except SimpleCachedError as error:
            self._refuse(command, reader, error)
            return
        reader.finish(refused=not replaced)

    def _begin(self, command: Command, reader: ChunkReader) -> bool:
        """Receive the metadata of a PUT or an UPDATE; False if the proxy has abandoned it, which has been answered."""
        reader.begin(Deadline.after(self._between_bytes_timeout_s), preamble_wanted=True)
        size = reader.facts.size_bytes
        if size != command.length or reader.flagged or (size and command.kind is CommandKind.UPDATE):
            raise PeerProtocolError(
                f"{command.kind.name} of {command.length} bytes became {size} there, flagged: {reader.flagged}"
            )
        if reader.state is TransferState.FAILED:
            reader.refuse()
            return False
        return True

    def _receive(self, command: Command, reader: ChunkReader, writer: BodyWriter) -> None:
        if faults.ARMED:
            faults.reach("cache.put_begun")
        parts: list[bytes] = []
        is_small = self._hot is not None and command.length <= BODY_BYTES_MAX
        try:
            writer.write(reader.chunk)
            if is_small:
                parts.append(bytes(reader.chunk))
            while not reader.last:
                reader.advance()
                writer.write(reader.chunk)
                if is_small:
                    parts.append(bytes(reader.chunk))
                if faults.ARMED:
                    faults.reach("cache.put_chunk")
            if reader.state is not TransferState.COMPLETE:  # the proxy abandoned the fill
                reader.refuse()
                return
            if faults.ARMED:
                faults.reach("cache.put_uncommitted")
            version = writer.commit()
            with self._leases_lock:
                self._leases.end(command.key)
            if self._hot is not None:
                self._hot.stored(command.key, version, b"".join(parts) if is_small else None)
        except SimpleCachedError as error:
            self._refuse(command, reader, error)
            return
        if faults.ARMED:
            faults.reach("cache.put_committed")
        log.debug("object stored", extra={"key": command.key, "size_bytes": command.length})
        reader.finish()

    def _refuse(self, command: Command, reader: ChunkReader, error: SimpleCachedError) -> None:
        log.info("object not stored", extra={"key": command.key, "reason": str(error)})
        reader.refuse()

    def purge(self, command: Command) -> int:
        """Remove or invalidate one object, all with a prefix, or one and everything below it; no static files."""
        store, key, flags = self._store, command.key, command.flags
        remove, remove_prefix = store.remove, store.remove_prefix
        if flags & INVALIDATE:
            remove, remove_prefix = store.invalidate, store.invalidate_prefix
        # Before the objects: a PUT that does not see this has begun, and what has begun is removed with them.
        with self._leases_lock:
            (self._leases.purge_prefix if flags & PREFIX else self._leases.purge)(key)
        count = 0
        if flags & (PREFIX | BELOW):
            # Before the key itself: a proxy that completes an incomplete response checks that this is still there.
            count += remove_prefix(key if flags & PREFIX else key + b"\0")
        if not flags & PREFIX:
            count += remove(key)
        log.debug("objects removed", extra={"key": key, "objects": count, "kept": bool(flags & INVALIDATE)})
        return count
