"""What every source of objects offers: open a key, read through a pinned descriptor, release; and for stores: write.

An object is written once, becomes visible whole at its commit, and its body never changes; a new body is a new object
with a higher version. Its metadata can be replaced, and it can be marked until its metadata is. Whoever reads holds a
pin: what is pinned stays readable even when it was replaced or removed meanwhile, with the metadata it had at its open.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from simplecached.errors import ShortObject, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self


class StoredObject:
    """A pinned, readable object: read it with ``os.preadv(fd, ...)``, and release it exactly once.

    The descriptor is shared with other readers and belongs to the source: never seek, close or write it. Also a context
    manager that releases at its end.
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
        """Whether the descriptor still gives this version's bytes; what a store keeps never changes."""
        return True

    def recheck(self) -> Callable[[], bool] | None:
        """What tells, after the bytes were read, whether they surely are this version's; None: they always are."""
        return None

    def release(self) -> None:
        """Give the pin back; the descriptor must not be used any more."""
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
class SourceStats:
    """What a source holds and was asked for. For static sources "objects" are the files that are open just now."""

    objects_count: int
    objects_bytes: int
    pinned_count: int
    hits_total: int
    misses_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats(SourceStats):
    """When evicted_total grows as fast as stored_total, the budget is too small for what is asked for."""

    used_bytes: int
    budget_bytes: int
    entries_max: int
    writing_count: int
    stored_total: int
    evicted_total: int
    removed_total: int
    refused_total: int


class ObjectSource(Protocol):
    """Anything that objects can be read from; safe for several threads."""

    def open(self, key: bytes) -> StoredObject | None:
        """Return the object of this key, pinned, or None; raises StoreUnavailable when it is there and unreadable."""

    def stats(self) -> SourceStats:
        """Return the counts of this moment."""

    def close(self) -> None:
        """Close what nobody reads; what is being read closes at its release. May be called twice."""


class ObjectStore(ObjectSource, Protocol):
    """A source that objects can also be written to."""

    def begin(self, key: bytes, size_bytes: int, metadata: bytes) -> BodyWriter:
        """Reserve room for an object and return its writer; raises EntryTooLarge, NoRoom or StoreUnavailable."""

    def remove(self, key: bytes) -> bool:
        """Remove one object and whatever is being written under its key; return whether it was visible."""

    def remove_prefix(self, prefix: bytes) -> int:
        """Remove all objects whose keys begin with the prefix; return how many were visible."""

    def replace_metadata(self, key: bytes, version: int, metadata: bytes) -> bool:
        """Give the visible object of this version (0: any) other metadata and take its mark off.

        Returns False when there is none; raises EntryTooLarge, NoRoom or StoreUnavailable, and changes nothing then.
        """

    def invalidate(self, key: bytes) -> bool:
        """Mark one object, or remove it when it has no metadata, and whatever is being written under its key likewise.

        Returns whether it was visible.
        """

    def invalidate_prefix(self, prefix: bytes) -> int:
        """Mark all objects whose keys begin with the prefix, as mark(); return how many were visible."""


class BodyWriter:
    """Takes the body of one new object; made by ``begin``, for one thread, ended by commit or abort."""

    __slots__ = ("_abort", "_commit", "_fd", "_open", "_place", "size_bytes", "written_bytes")

    def __init__(
        self, fd: int, size_bytes: int, place: str, *, commit: Callable[[], int], abort: Callable[[], None]
    ) -> None:
        self._fd = fd  # the store's: it is closed by what commit or abort calls
        self._place = place
        self._commit = commit
        self._abort = abort
        self._open = True
        self.size_bytes = size_bytes
        self.written_bytes = 0

    def write(self, chunk: memoryview) -> None:
        """Append bytes, which the kernel copies while the GIL is free.

        Raises ShortObject, and writes nothing, when this is more than was announced, and StoreUnavailable when the
        medium refuses. After an error only abort is left to do.
        """
        assert self._open, "written after the end"
        length = chunk.nbytes
        if self.written_bytes + length > self.size_bytes:
            self.written_bytes += length  # so that a commit after this is refused as well
            raise ShortObject(self.size_bytes, self.written_bytes)
        try:
            done = os.write(self._fd, chunk)
            self.written_bytes += done
            while done < length:  # a signal or a nearly full medium cut it short
                with chunk.cast("B") as octets, octets[done:] as rest:
                    count = os.write(self._fd, rest)
                self.written_bytes += count
                done += count
        except OSError as error:
            raise StoreUnavailable("write", self._place, error.errno or errno.EIO) from error

    def commit(self) -> int:
        """Make the object visible in place of an older one and return its version.

        Raises ShortObject or StoreUnavailable; nothing is left of the object then. May block for the disk.
        """
        assert self._open, "committed after the end"
        try:
            if self.written_bytes != self.size_bytes:
                raise ShortObject(self.size_bytes, self.written_bytes)
            version = self._commit()
        except BaseException:
            self.abort()
            raise
        self._open = False
        return version

    def abort(self) -> None:
        """Throw away what was written; does nothing after a commit, or when called again."""
        if self._open:
            self._open = False
            self._abort()
