"""Small verbs for tests of the hot table: both ends in one process, objects whose every byte tells their version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from shmchannel.objects.hot_table_layout import HOT_TABLE_BYTES_MIN, HotTableEntry, geometry
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.objects.hot_table_writer import HotTableWriter
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
        return self.publisher.publish(self.publisher.begin(key), key, version, metadata, body, **how)


@contextmanager
def open_hot_table(hot_table_bytes: int = HOT_TABLE_BYTES_MIN, *, first_sequence: int = 0) -> Iterator[HotTable]:
    """A hot table under a guard: without one any daemon that starts would sweep it."""
    queue_name = unique_queue()
    guard = ProcessGuard.acquire(queue_guard_path(queue_name))
    try:
        publisher = HotTableWriter.create(queue_name, hot_table_bytes, first_sequence=first_sequence)
        try:
            reader = HotTableReader.attach(queue_name)
            yield HotTable(queue_name, publisher, reader)
            reader.close()
        finally:
            publisher.close()
    finally:
        guard.close()


def keys_of_one_bucket(count: int, hot_table_bytes: int = HOT_TABLE_BYTES_MIN) -> list[bytes]:
    """Keys that contend for the same cells."""
    buckets = geometry(hot_table_bytes).bucket_count
    numbers = range(count * buckets * 20)
    return [key for key in (b"/key-%d" % number for number in numbers) if not crc32(key) % buckets][:count]


def entry(version: int, body: bytes, metadata: bytes = b"") -> HotTableEntry:
    """The entry that a reader should see."""
    return HotTableEntry(version, metadata, body)
