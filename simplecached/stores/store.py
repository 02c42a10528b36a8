"""What sources and stores hand out: a pinned object to read through its descriptor, and the writer of a new one.

An object is written once, becomes visible as a whole at its commit, and its body never changes; a new body is a new
object with a higher version. Its metadata can be replaced, and it can be invalidated until then. A reader holds a pin:
a pinned object stays readable, with the metadata it had at open, even if it is replaced or removed.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from simplecached.errors import NotStored, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self


class StoredObject:
    """A pinned, readable object: read it with ``os.preadv(fd, ...)``, and release it exactly once.

    The descriptor is shared with other readers and belongs to the source: never seek, close or write it. As a context
    manager it is released at the end.
    """

    __slots__ = ("_pinned", "_unpin", "fd", "invalidated", "metadata", "size_bytes", "version")

    def __init__(
        self,
        fd: int,
        size_bytes: int,
        version: int,
        metadata: bytes,
        unpin: Callable[[Any], None],
        pinned: object,
        invalidated: bool = False,
    ) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        self.version = version
        self.metadata = metadata
        self.invalidated = invalidated
        self._unpin: Callable[[Any], None] | None = unpin
        self._pinned = pinned

    def is_unchanged(self) -> bool:
        """Whether the descriptor still yields this version's bytes; objects of a store never change."""
        return True

    def recheck(self) -> Callable[[], bool] | None:
        """Tells, after reading, whether the bytes are certainly this version's; None if they always are."""
        return None

    def release(self) -> None:
        """Release the pin; the descriptor must not be used afterwards."""
        unpin = self._unpin
        assert unpin is not None, "a stored object was released twice"
        self._unpin = None
        self.fd = -1
        unpin(self._pinned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """If evicted_total grows as fast as stored_total, the budget is too small for the working set.

    `oldest_age_s` is the age of the object that is evicted next, since it was stored; 0 if there is none.
    """

    objects_count: int
    pinned_count: int
    hits_total: int
    misses_total: int
    used_bytes: int
    budget_bytes: int
    writing_count: int
    stored_total: int
    evicted_total: int
    removed_total: int
    refused_total: int
    oldest_age_s: float


class ObjectSource(Protocol):
    """A source of readable objects; thread-safe."""

    def open(self, key: bytes) -> StoredObject | None:
        """Return the object of this key, pinned, or None; raises StoreUnavailable if it exists but cannot be read."""

    def close(self) -> None:
        """Close what nobody reads; what is being read closes at its release. May be called twice."""


class BodyWriter:
    """Receives the body of one new object; created by ``begin``, for one thread, ended by commit or abort."""

    __slots__ = ("_abort", "_commit", "_fd", "_open", "_place", "size_bytes", "written_bytes")

    def __init__(
        self, fd: int, size_bytes: int, place: str, *, commit: Callable[[], int], abort: Callable[[], None]
    ) -> None:
        self._fd = fd  # owned by the store: closed in commit or abort
        self._place = place
        self._commit = commit
        self._abort = abort
        self._open = True
        self.size_bytes = size_bytes
        self.written_bytes = 0

    def write(self, chunk: memoryview) -> None:
        """Append bytes, which the kernel copies without the GIL.

        Raises NotStored, writing nothing, if this exceeds the announced size, and StoreUnavailable if the medium
        fails. After an error only abort may be called.
        """
        assert self._open, "written after the end"
        length = chunk.nbytes
        if self.written_bytes + length > self.size_bytes:
            self.written_bytes += length  # so that a later commit is refused as well
            raise self._other_length()
        try:
            done = os.write(self._fd, chunk)
            self.written_bytes += done
            while done < length:  # cut short by a signal or a nearly full medium
                with chunk.cast("B") as octets, octets[done:] as rest:
                    count = os.write(self._fd, rest)
                self.written_bytes += count
                done += count
        except OSError as error:
            raise StoreUnavailable("write", self._place, error.errno or errno.EIO) from error

    def commit(self) -> int:
        """Make the object visible, replacing an older one, and return its version.

        Raises NotStored or StoreUnavailable; nothing is left of the object then. May block for the disk.
        """
        assert self._open, "committed after the end"
        try:
            if self.written_bytes != self.size_bytes:
                raise self._other_length()
            version = self._commit()
        except BaseException:
            self.abort()
            raise
        self._open = False
        return version

    def _other_length(self) -> NotStored:
        return NotStored(f"object of {self.size_bytes} announced bytes arrived as {self.written_bytes}")

    def abort(self) -> None:
        """Discard what was written; does nothing after a commit, or if called again."""
        if self._open:
            self._open = False
            self._abort()
