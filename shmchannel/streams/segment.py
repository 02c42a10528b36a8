"""Segment: one named block of shared memory with two semaphores, a header and room for one chunk.

The creator owns the name and alone unlinks it; whoever attaches only maps. Nothing here knows of transfers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from contextlib import ExitStack
from typing import Self

import posix_ipc

from shmchannel.errors import AccessDenied, LayoutMismatch, PeerProtocolError, UsageError, os_errors
from shmchannel.process.identity import ProcessIdentity
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.streams.layout import (
    DATA_AVAILABLE_OFFSET,
    HEADER_BYTES,
    SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
    SPACE_AVAILABLE_OFFSET,
    SegmentHeader,
)
from shmchannel.sync.semaphore import Semaphore


def check_segment_bytes(segment_bytes: int) -> None:
    """Refuse a size that no segment has.

    Raises:
        UsageError: it is out of range.
    """
    if not SEGMENT_BYTES_MIN <= segment_bytes <= SEGMENT_BYTES_MAX:
        raise UsageError(f"segment size {segment_bytes} is not between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}")


class Segment:
    """A mapped segment; `chunk` is the writable view of its data region, `chunk_address` its address.

    `chunk_pointer` is the address in a form that ctypes passes without conversion. `checked_for` is the peer for
    which the owner has last called check_at_rest().
    """

    __slots__ = (
        "_resources",
        "checked_for",
        "chunk",
        "chunk_address",
        "chunk_capacity",
        "chunk_pointer",
        "data_available",
        "header",
        "is_owner",
        "name",
        "segment_bytes",
        "space_available",
        "wire_name",
    )

    def __init__(self, name: str, mapping: mmap.mmap, *, is_owner: bool, resources: ExitStack) -> None:
        """Take over a mapping."""
        resources.callback(mapping.close)
        view = resources.enter_context(memoryview(mapping))  # views close before the map, else BufferError
        anchor = ctypes.c_char.from_buffer(mapping)
        address = ctypes.addressof(anchor)
        del anchor  # it would keep the map open; the address stays good until mapping.close()
        self.name = name
        self.wire_name = name.encode()
        self.is_owner = is_owner
        self.segment_bytes = len(mapping)
        self.chunk_capacity = self.segment_bytes - HEADER_BYTES
        self.chunk_address = address + HEADER_BYTES
        self.chunk_pointer: object = ctypes.byref(ctypes.c_char.from_address(self.chunk_address))
        self.header = SegmentHeader(resources.enter_context(view[:HEADER_BYTES].cast("Q")))
        resources.callback(self.header.release)
        self.chunk = resources.enter_context(view[HEADER_BYTES:])
        self.data_available = Semaphore(address + DATA_AVAILABLE_OFFSET, f"{name} data_available")
        self.space_available = Semaphore(address + SPACE_AVAILABLE_OFFSET, f"{name} space_available")
        self.checked_for: object = None
        self._resources = resources

    def check_at_rest(self, peer: object) -> None:
        """Owner, before the first transfer with a peer: a surplus post would let it write too early.

        Raises:
            PeerProtocolError: the semaphores are not as between transfers, space for one chunk, and none to take.
        """
        if self.space_available.value != 1 or self.data_available.value != 0:
            raise PeerProtocolError(f"segment {self.name}: an earlier transfer left its semaphores in a wrong state")
        self.checked_for = peer

    @classmethod
    def create(cls, name: str, segment_bytes: int, owner: ProcessIdentity) -> Self:
        """Create, initialise and publish a segment of `segment_bytes` bytes, header included; mode 0600.

        Raises:
            UsageError: the size is out of range.
            NameTaken, LimitReached, AccessDenied: the system refused; nothing is left behind.
        """
        check_segment_bytes(segment_bytes)
        with (
            ExitStack() as undo,
            os_errors(f"create segment {name} of {segment_bytes} bytes", existential=errno.EEXIST),
        ):
            fd = cls._create_name(name)
            undo.callback(cls._remove_name, name)  # we made it, so we may remove it; attach() never does
            try:
                # ftruncate succeeds on a full /dev/shm and the first touch is SIGBUS; this one says ENOSPC.
                os.posix_fallocate(fd, 0, segment_bytes)
                mapping = mmap.mmap(fd, segment_bytes)
            finally:
                os.close(fd)
            resources = undo.enter_context(ExitStack())
            segment = cls(name, mapping, is_owner=True, resources=resources)
            segment.header.initialise(segment_bytes, owner)
            segment.data_available.initialise(0)
            segment.space_available.initialise(1)
            segment.header.publish()
            undo.pop_all()
            return segment

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map a published segment that belongs to this user, whatever its size says, after checking all of it.

        Raises:
            NameMissing, AccessDenied: there is none, or it is another user's.
            LayoutMismatch: its header does not fit; nothing stays mapped.
        """
        with ExitStack() as undo, os_errors(f"attach segment {name}"):
            fd = cls._open_name(name)
            try:
                status = os.fstat(fd)
                if status.st_uid != os.geteuid():
                    raise AccessDenied(f"segment {name} belongs to uid {status.st_uid}", errno.EACCES)
                if not SEGMENT_BYTES_MIN <= status.st_size <= SEGMENT_BYTES_MAX:
                    raise LayoutMismatch(f"segment {name} has {status.st_size} bytes")
                mapping = mmap.mmap(fd, status.st_size)
            finally:
                os.close(fd)
            resources = undo.enter_context(ExitStack())
            segment = cls(name, mapping, is_owner=False, resources=resources)
            segment.header.check(status.st_size)
            undo.pop_all()
            return segment

    def unlink(self) -> None:
        """Remove the name, which only the owner may; the memory lives until the last process unmaps it."""
        if not self.is_owner:
            raise UsageError(f"{self.name}: only its creator may unlink a segment")
        self._remove_name(self.name)

    @staticmethod
    def exists(name: str) -> bool:
        """Whether a segment of this name could be attached now."""
        return os.path.exists(SHM_DIRECTORY + name)

    # What a name leads to; shmchannel.testing has names of its own.
    @staticmethod
    def _create_name(name: str) -> int:
        fd: int = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=0).fd
        return fd

    @staticmethod
    def _open_name(name: str) -> int:
        fd: int = posix_ipc.SharedMemory(name).fd
        return fd

    @staticmethod
    def _remove_name(name: str) -> None:
        with contextlib.suppress(posix_ipc.ExistentialError):  # a sweep on our behalf, or one by hand, was faster
            posix_ipc.unlink_shared_memory(name)

    def close(self) -> None:
        """Unmap; may be called twice. While a view of `chunk` is held, for example by a traceback, the memory stays."""
        with contextlib.suppress(BufferError):
            self._resources.close()
