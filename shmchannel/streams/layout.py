"""PURE: the byte layout of a segment, written once (normative text: docs/protocol.md 3), and how a message names one.

    off  size  field                                                  written by
      0     8  magic                                                  owner, LAST: its arrival publishes the segment
      8     8  layout version
     16     8  segment size in bytes, header included
     24     8  chunk capacity in bytes
     64     8  generation: raised for every transfer                  owner
     72     8  owner pid
     80     8  owner start time (field 22 of /proc/PID/stat)
     88    16  boot id
    128    32  data_available (sem_t, starts at 0)
    160    32  space_available (sem_t, starts at 1)
    192     8  status of the chunk                                    producer, before it posts data_available
    200     8  chunk length
    208     8  chunk offset in the body (in the preamble for PREAMBLE chunks)
    216     8  flags: LAST, ERROR, RELEASED, PREAMBLE, FLAGGED
    256     8  object size                                            producer, first chunk only
    264     8  object version
    272     8  preamble length
    280     8  worker pid
    288     8  worker start time
    320     8  flags: CANCEL, RELEASE, PAUSE                               consumer, before it posts space_available
    384   ...  chunk

Each cache line is written by one side only, so the header needs no lock: the semaphores order every hand-over.
Fields are written through a cast view, never struct.pack_into (it zeroes the target first and a reader may see that).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shmchannel.errors import LayoutMismatch
from shmchannel.process.identity import ProcessIdentity

MAGIC = 0x31_4D_47_45_53_46_47_01  # "\x01GFSEGM1" in little-endian order
LAYOUT_VERSION = 1
CACHE_LINE_BYTES = 64
HEADER_BYTES = 384
SEGMENT_BYTES_MIN = 512
SEGMENT_BYTES_MAX = 1 << 32
SEGMENTS_MAX = 64
"""Maximum number of segments that one message names."""
PREAMBLE_BYTES_MAX = 65_536
SEM_BYTES = 32

DATA_AVAILABLE_OFFSET = 128
SPACE_AVAILABLE_OFFSET = 160

# Indices of 64-bit words.
_MAGIC, _VERSION, _SIZE, _CAPACITY = 0, 1, 2, 3
_GENERATION, _OWNER_PID, _OWNER_START, _BOOT_LOW, _BOOT_HIGH = 8, 9, 10, 11, 12
_STATUS, _LENGTH, _OFFSET, _FLAGS = 24, 25, 26, 27
_OBJECT_SIZE, _OBJECT_VERSION, _PREAMBLE_BYTES, _WORKER_PID, _WORKER_START = 32, 33, 34, 35, 36
_CONSUMER_FLAGS = 40

assert HEADER_BYTES % CACHE_LINE_BYTES == 0
assert DATA_AVAILABLE_OFFSET + SEM_BYTES == SPACE_AVAILABLE_OFFSET


# Plain integers: an enum operation costs more than the rest of a check. All-zero memory is no status.
OK, NOT_FOUND, FAILED, CANCELLED, OTHER_VERSION = 1, 2, 3, 4, 5
"""The producer's status of a chunk."""
LAST, ERROR, RELEASED, PREAMBLE, FLAGGED = 1, 2, 4, 8, 16
"""Flags of the producer's line."""
CANCEL, RELEASE, PAUSE = 1, 2, 4
"""Flags of the consumer's line."""


class SegmentRef(NamedTuple):
    """How a message refers to a segment of its sender: name, the generation it was prepared for, size in bytes."""

    name: bytes
    generation: int
    segment_bytes: int


class ObjectFacts(NamedTuple):
    """What the first chunk says about the object: size in bytes, version, length of the opaque preamble in bytes."""

    size_bytes: int
    version: int
    preamble_bytes: int


class SegmentSight(NamedTuple):
    """What a bystander sees of a segment's last or running transfer."""

    generation: int
    producer_pid: int
    done_bytes: int
    object_bytes: int
    has_ended: bool
    """The last chunk, or the end of the transfer, was written."""


class SegmentHeader:
    """The header's fields over `words`, the segment's first 384 bytes cast to 64-bit words.

    read_chunk() gives [status, length, offset, flags] to the consumer, once per chunk: one copy, so that a check holds.
    """

    __slots__ = ("_chunk_line", "_object_line", "_words", "read_chunk")

    def __init__(self, words: memoryview) -> None:
        self._words = words
        # Kept views: slicing anew for each chunk costs more than reading through them.
        self._chunk_line = words[_STATUS : _FLAGS + 1]
        self._object_line = words[_OBJECT_SIZE : _PREAMBLE_BYTES + 1]
        self.read_chunk: Callable[[], list[int]] = self._chunk_line.tolist

    def release(self) -> None:
        """Release the views, before the mapping closes."""
        self._chunk_line.release()
        self._object_line.release()

    # -- owner's lines -------------------------------------------------------------------------------------------
    def initialise(self, segment_bytes: int, owner: ProcessIdentity) -> None:
        """Owner, once, before publish(): everything but the magic and the semaphores."""
        words = self._words
        words[_VERSION] = LAYOUT_VERSION
        words[_SIZE] = segment_bytes
        words[_CAPACITY] = segment_bytes - HEADER_BYTES
        words[_OWNER_PID] = owner.pid
        words[_OWNER_START] = owner.start_time
        words[_BOOT_LOW] = owner.boot_id & 0xFFFF_FFFF_FFFF_FFFF
        words[_BOOT_HIGH] = owner.boot_id >> 64

    def publish(self) -> None:
        """Owner, last: from here on attachers accept the segment."""
        self._words[_MAGIC] = MAGIC

    def check(self, mapped_bytes: int) -> None:
        """Attacher: compare magic, version, size and capacity with the size of the mapped block.

        Raises:
            LayoutMismatch: not published yet, or not a segment of this layout.
        """
        magic, version, size, capacity = self._words[:4]
        if magic == 0:
            raise LayoutMismatch("the segment is not published yet")
        if (magic, version) != (MAGIC, LAYOUT_VERSION):
            raise LayoutMismatch(f"magic {magic:#x} version {version}, expected {MAGIC:#x} version {LAYOUT_VERSION}")
        if size != mapped_bytes or capacity != size - HEADER_BYTES or size < SEGMENT_BYTES_MIN:
            raise LayoutMismatch(f"size {size} and capacity {capacity} do not fit a block of {mapped_bytes} bytes")

    def prepare(self) -> int:
        """Owner, before a transfer: clear both sides' lines and raise the generation, which is returned."""
        words = self._words
        words[_STATUS] = words[_LENGTH] = words[_OFFSET] = words[_FLAGS] = 0
        words[_OBJECT_SIZE] = words[_OBJECT_VERSION] = words[_PREAMBLE_BYTES] = 0
        words[_CONSUMER_FLAGS] = 0
        words[_GENERATION] = generation = words[_GENERATION] + 1
        return generation

    def sight(self) -> SegmentSight:
        """Anybody: what the fields say now; they may be a chunk apart from each other."""
        words = self._words
        status, flags = words[_STATUS], words[_FLAGS]
        done_bytes = 0 if flags & PREAMBLE else words[_OFFSET] + words[_LENGTH]
        has_ended = status not in (0, OK) or bool(flags & (LAST | ERROR | RELEASED))
        return SegmentSight(words[_GENERATION], words[_WORKER_PID], done_bytes, words[_OBJECT_SIZE], has_ended)

    @property
    def generation(self) -> int:
        """How many transfers this segment has been prepared for."""
        return self._words[_GENERATION]

    # -- producer's lines ----------------------------------------------------------------------------------------
    def write_chunk(self, status: int, length: int, offset: int, flags: int) -> None:
        """Producer, before it posts data_available."""
        words = self._words
        words[_STATUS] = status
        words[_LENGTH] = length
        words[_OFFSET] = offset
        words[_FLAGS] = flags

    def write_object(self, size_bytes: int, version: int, preamble_bytes: int, worker: ProcessIdentity) -> None:
        """Producer, with the first chunk."""
        words = self._words
        words[_OBJECT_SIZE] = size_bytes
        words[_OBJECT_VERSION] = version
        words[_PREAMBLE_BYTES] = preamble_bytes
        words[_WORKER_PID] = worker.pid
        words[_WORKER_START] = worker.start_time

    def read_object(self) -> ObjectFacts:
        """Consumer, with the first chunk."""
        return ObjectFacts(*self._object_line.tolist())

    # -- consumer's line -----------------------------------------------------------------------------------------
    def write_request(self, flags: int) -> None:
        """Consumer, before it posts space_available: CANCEL or RELEASE."""
        self._words[_CONSUMER_FLAGS] = flags

    def read_request(self) -> int:
        """Producer, after it took space_available."""
        return self._words[_CONSUMER_FLAGS]
