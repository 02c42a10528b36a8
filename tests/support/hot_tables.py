"""Small verbs for tests of the hot table: both ends in one process, objects whose every byte tells their version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from shmchannel.objects.hot_table_layout import HOT_TABLE_HEADER_BYTES, SET_BYTES, HotTableEntry
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.objects.hot_table_writer import FILES_MAX, HotTableToken, HotTableWriter
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.naming import queue_guard_path
from tests.support.channels import unique_queue

LONG_NS = 10**15
"""A life that no test outlives."""


@dataclass(frozen=True, slots=True)
class HotTable:
    """A publisher and the reader of another mapping of the same memory."""

    queue_name: str
    publisher: HotTableWriter
    reader: HotTableReader

    def put(self, key: bytes, version: int, body: bytes, metadata: bytes = b"", **how: Any) -> bool:
        """Publish under a token of now; `how` is what publish() takes by name."""
        return publish(self.publisher, self.publisher.begin(), key, version, body, metadata, **how)


def publish(
    publisher: HotTableWriter,
    token: HotTableToken,
    key: bytes,
    version: int,
    body: bytes,
    metadata: bytes = b"",
    *,
    read_into: Callable[[Sequence[memoryview], int], int] | None = None,
    life_ns: int = LONG_NS,
    is_unchanged: Callable[[], bool] | None = None,
) -> bool:
    """As HotTableWriter.publish(), of a body in memory."""
    return publisher.publish(
        token, key, version, metadata, len(body), read_into or reading(body), life_ns=life_ns, is_unchanged=is_unchanged
    )


def reading(body: bytes, step: int = 1 << 20) -> Callable[[Sequence[memoryview], int], int]:
    """os.preadv(), for bytes instead of a file; at most `step` of them at a time."""

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        part = body[offset : offset + min(step, len(views[0]))]
        views[0][: len(part)] = part
        return len(part)

    return read_into


@contextmanager
def open_hot_table(sets: int = 1, *, files_max: int = FILES_MAX) -> Iterator[HotTable]:
    """A hot table of so many sets of two cells, under a guard: without one any daemon that starts would sweep it."""
    queue_name = unique_queue()
    guard = ProcessGuard.acquire(queue_guard_path(queue_name))
    try:
        publisher = HotTableWriter.create(queue_name, max(65_536, HOT_TABLE_HEADER_BYTES + sets * SET_BYTES), files_max)
        try:
            reader = HotTableReader.attach(queue_name)
            yield HotTable(queue_name, publisher, reader)
            reader.close()
        finally:
            publisher.close()
    finally:
        guard.close()


def keys_of_one_set(count: int, sets: int) -> list[bytes]:
    """Keys that contend for the same two cells."""
    return [key for key in (b"/key-%d" % number for number in range(count * sets * 20)) if not crc32(key) % sets][
        :count
    ]


def entry(version: int, body: bytes, metadata: bytes = b"") -> HotTableEntry:
    """The entry that a reader should see."""
    return HotTableEntry(version, metadata, body)
