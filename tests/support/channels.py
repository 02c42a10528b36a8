"""Small verbs for tests of shmchannel: both ends of a channel in one process, leases that follow a script, names."""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from shmchannel.errors import ShmChannelError
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import pool_guard_path, pool_name, segment_name
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter, ReadInto
from shmchannel.streams.layout import HEADER_BYTES, ObjectFacts
from shmchannel.streams.pool import SegmentPool
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import TransferState
from shmchannel.testing import ManualPeer, MemorySegment
from tests.support.queue_room import wait_for_queue_room
from tests.support.waiting import WATCHDOG_S

CAPACITY = 128
SEGMENT_BYTES = HEADER_BYTES + CAPACITY
"""The smallest segment there is: many chunks from few bytes."""

FIRST_SEMAPHORES = (0, 1)
"""data_available and space_available of a segment that no transfer uses."""

_numbers = itertools.count()
_own_pool = pool_name(os.getpid(), secrets.token_hex(4))
# A segment without a guard belongs to the dead: a daemon that starts anywhere on the machine would sweep it away.
atexit.register(ProcessGuard.acquire(pool_guard_path(_own_pool)).close)
_T = TypeVar("_T")


def unique_queue() -> str:
    """A queue name that no other test uses, when there is room for a queue."""
    wait_for_queue_room()
    return f"/gft-{os.getpid()}-u{next(_numbers)}"


def unique_pool() -> str:
    """The name of a pool of this process that no other test uses."""
    return f"gf-{os.getpid()}-{next(_numbers):08x}"


def unique_segment() -> str:
    """The name of a segment of this process that no other test uses."""
    return segment_name(_own_pool, next(_numbers))


def address_in(segment: Segment, offset: int) -> int:
    """Where a byte of the header lies in this process."""
    return segment.chunk_address - HEADER_BYTES + offset


def body_of(length: int) -> bytes:
    """Bytes in which no chunk equals its neighbour."""
    return bytes((number * 7 + (number >> 7)) & 0xFF for number in range(length))


def reading(body: bytes) -> ReadInto:
    """os.preadv(), for bytes instead of a file."""

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        done = 0
        for view in views:
            part = body[offset + done : offset + done + len(view)]
            view[: len(part)] = part
            done += len(part)
        return done

    return read_into


def semaphores(segment: Segment) -> tuple[int, int]:
    """The values of both."""
    return segment.data_available.value, segment.space_available.value


def memory_pool(
    count: int, segment_bytes: int = SEGMENT_BYTES, *, segments_per_transfer_max: int = 4, waiters_max: int = 100
) -> SegmentPool:
    """A pool of fakes; the caller closes it."""
    return SegmentPool(
        unique_pool(),
        None,
        count,
        segment_bytes,
        segments_per_transfer_max=segments_per_transfer_max,
        waiters_max=waiters_max,
        create=MemorySegment.create,
    )


@contextmanager
def in_thread(call: Callable[[], _T]) -> Iterator[Future[_T]]:
    """Run `call` beside the block; after the block it must come to its end without an error."""
    executor = ThreadPoolExecutor(1)
    try:
        future = executor.submit(call)
        yield future
        future.result(WATCHDOG_S)
    finally:
        executor.shutdown(wait=False)


class ScriptedLease:
    """Asks segments back at the given calls of should_shrink(), and sees that each one comes back clean."""

    def __init__(self, segments: Sequence[Segment], asks_at: Collection[int]) -> None:
        self._segments = segments
        self._asks_at = asks_at
        self._calls = itertools.count()
        self.promised: list[int] = []
        self.given_back: list[int] = []

    def should_shrink(self) -> bool:
        """True at the calls that the script names."""
        return next(self._calls) in self._asks_at

    def promise(self, segment: Segment) -> None:
        """Once for each segment."""
        number = self._segments.index(segment)
        assert number not in self.promised
        self.promised.append(number)

    def give_back_one(self, segment: Segment) -> None:
        """In the order of the promises; from here on the segment may be somebody else's."""
        number = self._segments.index(segment)
        assert number == self.promised[len(self.given_back)]
        assert semaphores(segment) == FIRST_SEMAPHORES
        self.given_back.append(number)


class ChannelBench:
    """The two ends of one channel over `width` segments: the owner's, and the attached one of the other process."""

    def __init__(
        self,
        segment_type: type[Segment],
        width: int,
        segment_bytes: int = SEGMENT_BYTES,
        between_bytes_timeout_s: float = WATCHDOG_S,
    ) -> None:
        self.between_bytes_timeout_s = between_bytes_timeout_s
        self.owner_lives = ManualPeer("the owner")
        self.other_lives = ManualPeer("the other")
        self.owned: list[Segment] = []
        self.attached: list[Segment] = []
        self._resources = ExitStack()
        for _ in range(width):
            segment = segment_type.create(unique_segment(), segment_bytes, own_identity())
            self._resources.callback(segment.close)
            self._resources.callback(segment.unlink)
            self.owned.append(segment)
            other = segment_type.attach(segment.name)
            self._resources.callback(other.close)
            self.attached.append(other)
        self.prepare()

    def __enter__(self) -> ChannelBench:
        return self

    def __exit__(self, *error: object) -> None:
        self._resources.close()

    def prepare(self) -> None:
        """As the owner does before each transfer."""
        for segment in self.owned:
            segment.header.prepare()

    def get_ends(self, asks_at: Collection[int] = ()) -> tuple[ChunkWriter, ChunkReader, ScriptedLease]:
        """GET: the other produces, the owner consumes and may shrink its lease."""
        lease = ScriptedLease(self.owned, asks_at)
        writer = ChunkWriter(self.attached, self.owner_lives, self.between_bytes_timeout_s, own_identity())
        return writer, ChunkReader(self.owned, self.other_lives, self.between_bytes_timeout_s, lease), lease

    def put_ends(self) -> tuple[ChunkWriter, ChunkReader]:
        """PUT: the owner produces, the other consumes."""
        writer = ChunkWriter(self.owned, self.other_lives, self.between_bytes_timeout_s, own_identity())
        return writer, ChunkReader(self.attached, self.owner_lives, self.between_bytes_timeout_s)

    def all_clean(self) -> bool:
        """Whether every segment stands as it began."""
        return all(semaphores(segment) == FIRST_SEMAPHORES for segment in self.owned)


def send_object(
    writer: ChunkWriter,
    body: bytes,
    *,
    offset: int = 0,
    end: int | None = None,
    preamble: bytes = b"",
    flagged: bool = False,
    version: int = 1,
) -> TransferState:
    """The producer of a whole answer."""
    writer.begin(ObjectFacts(len(body), version, len(preamble)))
    return writer.send(reading(body), offset, len(body) if end is None else end, preamble, flagged=flagged)


def read_rest(reader: ChunkReader) -> bytes:
    """The body from the current chunk to the last, and the clean end."""
    body = bytes(reader.chunk)
    while not reader.last:
        reader.advance()
        body += bytes(reader.chunk)
    reader.finish()
    return body


def outcome(call: Callable[[], _T]) -> _T | type[ShmChannelError]:
    """The result: the value, or the kind of the library's error."""
    try:
        return call()
    except ShmChannelError as error:
        return type(error)
