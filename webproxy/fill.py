"""Fill: hand a body to the cache while it comes from the origin, without ever slowing the fetch or starving a hit.

The fill moves when bytes and a free segment are there. When the origin pauses and somebody waits for a segment, the fill
gives way: it is aborted, and begun anew from the spool when the body is complete.
"""

from __future__ import annotations

import logging
import os

from shmchannel.client import ChannelClient, OutgoingTransfer
from shmchannel.deadline import Deadline
from shmchannel.errors import ShmChannelError
from shmchannel.pool import SegmentPool
from webproxy.spool import Spool

log = logging.getLogger(__name__)

FILL_SEGMENTS = 2
START_SECONDS = 2.0


class Fill:
    """One object on its way into the cache; used by the fetch's thread only."""

    def __init__(self, client: ChannelClient, pool: SegmentPool, key: bytes, spool: Spool) -> None:
        self._client = client
        self._pool = pool
        self._key = key
        self._spool = spool
        self._size: int | None = None
        self._transfer: OutgoingTransfer | None = None
        self._given_up = False

    @property
    def position(self) -> int | None:
        """How much of the body the cache has got, or None when nothing is under way."""
        return self._transfer.position if self._transfer is not None else None

    def set_size(self, size_bytes: int) -> None:
        """The body's length is known: the fill may begin."""
        self._size = size_bytes

    def pump(self) -> None:
        """Hand over what can be handed over now; never waits for the cache, except for its taking a new fill."""
        if self._given_up or self._size is None:
            return
        try:
            if self._transfer is None:
                self._begin(self._pool.try_lease(FILL_SEGMENTS))
            if self._transfer is not None:
                self._transfer.pump(self._read_into, self._spool.written, wait=False)
                self._give_up_if_refused()
        except (ShmChannelError, OSError) as error:
            self._drop(error)

    def give_way(self) -> None:
        """Nothing comes from the origin: if a hit waits for a segment, let it have ours."""
        if self._transfer is not None and self._pool.waiting:
            self._abort()

    def finish(self) -> None:
        """The body is complete in the spool: hand the rest over and wait for the commit."""
        if self._given_up or self._size is None:
            return
        try:
            if self._transfer is None:
                self._begin(self._pool.lease(Deadline.after(START_SECONDS), 1))
            transfer = self._transfer
            assert transfer is not None
            transfer.pump(self._read_into, self._size, wait=True)
            if not transfer.commit():
                log.info("object not stored by the cache", extra={"key": self._key, "size_bytes": self._size})
            self._close()
        except (ShmChannelError, OSError) as error:
            self._drop(error)

    def cancel(self) -> None:
        """The body will not be complete."""
        self._given_up = True
        if self._transfer is not None:
            self._abort()

    def _begin(self, lease: object) -> None:
        if lease is None:
            return
        assert self._size is not None
        self._transfer = self._client.put(self._key, self._size, b"", lease, Deadline.after(START_SECONDS))  # type: ignore[arg-type]

    def _read_into(self, view: memoryview, offset: int) -> int:
        return os.preadv(self._spool.fd, (view,), offset)

    def _give_up_if_refused(self) -> None:
        if self._transfer is not None and self._transfer.refused:
            self._given_up = True
            self._transfer.commit()
            self._close()

    def _abort(self) -> None:
        assert self._transfer is not None
        try:
            self._transfer.abort()
            self._close()
        except ShmChannelError as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        log.debug("fill broken", extra={"key": self._key, "reason": str(error)})
        self._given_up = True
        self._close()

    def _close(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.close()
