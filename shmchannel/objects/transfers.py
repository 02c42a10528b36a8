"""IncomingTransfer and OutgoingTransfer: one GET or PUT seen from the proxy, with the lease it holds.

Left cleanly it returns its segments; left by an exception, or in mid-transfer, it retires them: a late cache then
writes into memory that nobody reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from shmchannel import faults
from shmchannel.deadline import PEER_CHECK_SECONDS, Deadline
from shmchannel.errors import ChannelTimeout, PeerGone, ShmChannelError, UsageError
from shmchannel.messages.posix_queue import MessageSender
from shmchannel.objects.commands import FetchLease
from shmchannel.process.identity import ProcessIdentity
from shmchannel.process.naming import pool_of_word
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter, ReadInto
from shmchannel.streams.layout import LAST, OK
from shmchannel.streams.pool import WIDEN_CHUNKS, Lease
from shmchannel.streams.transfer import COMPLETE, STREAMING, TransferState
from shmchannel.sync.semaphore import PeerLiveness

log = logging.getLogger(__name__)


class _WantedPeer:
    """As PeerLiveness: a cache that its user may cease to wait for."""

    __slots__ = ("_is_wanted", "_peer")

    def __init__(self, peer: PeerLiveness, is_wanted: Callable[[], bool]) -> None:
        self._peer = peer
        self._is_wanted = is_wanted

    def alive(self) -> bool:
        """As PeerLiveness.alive(); raises ChannelTimeout, out of the wait, if it is no longer wanted."""
        if not self._is_wanted():
            raise ChannelTimeout(f"{self.describe()} is no longer waited for")
        return self._peer.alive()

    def describe(self) -> str:
        """As PeerLiveness.describe()."""
        return self._peer.describe()


class _Leased:
    """Common to both directions: a `lease` that ends with the block."""

    __slots__ = ()

    _clean: bool
    lease: Lease

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the lease: returned to the pool after a clean end, otherwise retired; may be called twice.

        After an unclean end the cache is told, without waiting for its answer.
        """
        if self._clean:
            self.lease.give_back()
            return
        try:
            if self.lease.segments:
                self.abandon()
        finally:  # a post may fail: the peer can have written anything into the semaphore
            self.lease.retire()

    def abandon(self) -> None:
        """Tell the cache that the transfer is over; never waits."""
        raise NotImplementedError


class IncomingTransfer(ChunkReader, _Leased):
    """One answer to a GET: the reader of its chunks, together with the lease."""

    __slots__ = ("_clean", "lease", "sender")

    def __init__(self, lease: Lease, sender: MessageSender, between_bytes_timeout_s: float) -> None:
        super().__init__(lease.segments, sender, between_bytes_timeout_s, lease)
        self.lease = lease
        self.sender = sender
        self._clean = False

    def wait_only_while(self, is_wanted: Callable[[], bool]) -> None:
        """From now on a wait for the cache ends in ChannelTimeout at most 250 ms after `is_wanted` has become false.

        It is called between the slices of a wait only: a cache that answers within one is not affected. Never blocks.
        """
        self._peer = _WantedPeer(self._peer, is_wanted)

    @property
    def found(self) -> bool:
        """Whether the object exists and its chunks follow."""
        state = self.state
        return state is COMPLETE or state is STREAMING

    @property
    def nothing_below(self) -> bool:
        """For a missing object: nothing is stored below its key either (`key NUL ...`)."""
        return self.flagged and self.state is TransferState.NOT_FOUND

    @property
    def fetch_lease(self) -> FetchLease | None:
        """For a missing object: who fetches it, if that was asked for and the cache has said so."""
        if self.state is not TransferState.NOT_FOUND or not self.facts.version:
            return None
        holder = pool_of_word(self.facts.size_bytes)
        return None if holder is None else FetchLease(self.facts.version, holder)

    @property
    def metadata(self) -> bytes:
        """The object's opaque metadata, if requested."""
        return self.preamble

    @property
    def invalidated(self) -> bool:
        """Whether the object was invalidated since it was stored or updated; reported with its metadata only."""
        return self.flagged

    @property
    def chunk_capacity(self) -> int:
        """The capacity of one chunk in bytes."""
        return self.ring[0].chunk_capacity

    @property
    def long_bytes(self) -> int:
        """With less than this still to come, could_widen() and should_enqueue() are never true."""
        return WIDEN_CHUNKS * self.chunk_capacity

    def could_widen(self, bytes_left: int) -> bool:
        """Whether a new request for the rest would get a much wider lease; a few comparisons."""
        return self.lease.could_grow(bytes_left // self.ring[0].chunk_capacity) and self.may_ask_again

    def should_enqueue(self, bytes_left: int) -> bool:
        """Whether the rest is long enough to need a ticket, and none is free; a few comparisons."""
        return self.lease.should_enqueue(bytes_left // self.ring[0].chunk_capacity) and self.may_ask_again

    @property
    def ticket_wanted(self) -> bool:
        """Whether somebody waits for this transfer's ticket; two comparisons."""
        ticket = self.lease.ticket
        return ticket is not None and ticket.wanted

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for a segment without being promised one, or for this transfer's ticket."""
        return self.lease.should_shrink() or self.ticket_wanted

    @property
    def may_ask_again(self) -> bool:
        """Whether this cache accepts new commands: a stopping one completes only transfers it has begun."""
        return self.sender.ready()

    def finish(self, *, refused: bool = False) -> None:
        """Answer the last chunk, after it was used: the transfer has ended cleanly."""
        if faults.ARMED and not refused:
            faults.reach("proxy.completed")
        super().finish(refused=refused)
        self._clean = True

    def pause(self, used: int = 0) -> bytes:
        """End a transfer whose rest, from byte `used` of the current chunk on, will be asked for later, by its version.

        The cache keeps the object readable for a while, even if it is replaced or removed, unless it had handed all of
        it over: then that rest is returned. A transfer that cannot be ended cleanly is retired at its close.
        """
        rest = b""
        try:
            if self.last:
                rest = bytes(self.chunk[used:])
                self.finish()
            else:
                rest = super().pause(used)
        except ShmChannelError as error:
            log.debug("pause failed", extra={"reason": str(error)})
        return rest

    def cancel_quietly(self) -> None:
        """End the transfer cleanly in any state, and keep the segments: the cache's worker is free at once."""
        try:
            if self.last:
                self.finish()
            else:
                self.cancel()
        except ShmChannelError as error:
            log.debug("cancel failed", extra={"reason": str(error)})  # retired, which costs nothing but new segments


class OutgoingTransfer(ChunkWriter, _Leased):
    """One fill (PUT): sends chunks of an object of known size; the cache commits it once complete.

    An UPDATE is one too, of metadata and an empty body. `position` is the number of bytes handed over.
    """

    __slots__ = ("_blocked_at", "_clean", "_look_at", "_patience", "_size_bytes", "lease", "position", "sender")

    def __init__(
        self,
        lease: Lease,
        sender: MessageSender,
        size_bytes: int,
        between_bytes_timeout_s: float,
        identity: ProcessIdentity,
        until: Deadline | None,
    ) -> None:
        super().__init__(lease.segments, sender, between_bytes_timeout_s, identity, until)
        self.lease = lease
        self.sender = sender
        self.position = 0
        self._clean = False
        self._size_bytes = size_bytes
        self._blocked_at = -1
        self._patience = self._look_at = Deadline(0)

    def wait_only_while(self, is_wanted: Callable[[], bool]) -> None:
        """As IncomingTransfer.wait_only_while()."""
        self._peer = _WantedPeer(self._peer, is_wanted)

    @property
    def refused(self) -> bool:
        """Whether the cache has refused the object."""
        return self.state is TransferState.CANCELLED

    @property
    def complete(self) -> bool:
        """Whether the last chunk has been handed over."""
        return self.state is TransferState.COMPLETE

    def pump(self, read_into: ReadInto, available_bytes: int, *, wait: bool) -> None:
        """Hand over whole chunks up to `available_bytes` of the object, and the last one if complete.

        Without `wait` it stops as soon as the cache has not taken the previous chunk; with it, it waits. Either way a
        cache that ended, or has taken nothing for the between-bytes timeout, is an error.

        Raises:
            ChannelTimeout, PeerGone, PeerProtocolError: the fill is over; leave the block.
            UsageError: `read_into` returned less than is available; the fill is over too.
        """
        while not self.state.ended:
            length = min(self.ring[0].chunk_capacity, self._size_bytes - self.position)
            if self.position + length > available_bytes:
                return
            if not self.take_turn(wait=wait):
                if not self.state.ended:
                    self._check_cache()
                return
            done = read_into((self.ring[0].chunk[:length],), self.position) if length else 0
            if done != length:
                raise UsageError(f"the source gave {done} of {length} bytes that were said to be available")
            self.position += length
            last = self.position == self._size_bytes
            self.post(OK, length, self.position - length, LAST if last else 0)
            if faults.ARMED:
                faults.reach("proxy.fill_last" if last else "proxy.fill_chunk")

    def _check_cache(self) -> None:
        if self._blocked_at != self.position:
            self._blocked_at = self.position
            self._patience = Deadline.after(self._between_bytes_timeout_s)
        elif self._patience.expired:
            raise ChannelTimeout(
                f"{self.sender.describe()} took nothing of a fill within {self._between_bytes_timeout_s:.1f} s"
            )
        if self._look_at.expired:
            self._look_at = Deadline.after(PEER_CHECK_SECONDS)
            if not self.sender.alive():
                raise PeerGone(f"{self.sender.describe()} has ended")

    def commit(self, limit_s: float | None = None) -> bool:
        """After the last chunk: wait for the cache's answer, True if it stored the object; ends the lease cleanly.

        Raises:
            ChannelTimeout: none within `limit_s`, by default the between-bytes timeout; it may be waited for again.
            PeerGone: the cache has ended.
        """
        stored = self.wait_acknowledged(limit_s)
        self._clean = True
        return stored and not self.refused

    def abort(self, limit_s: float | None = None) -> None:
        """The object will not be completed: tell the cache, which discards it; ends the lease cleanly.

        Raises:
            ChannelTimeout, PeerGone: the cache did not take its turn within `limit_s`, by default the between-bytes
                timeout.
        """
        self.fail(limit_s)
        self.wait_acknowledged(limit_s)
        self._clean = True
