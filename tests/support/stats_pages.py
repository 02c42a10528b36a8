"""Small verbs for tests of stats pages: an owner of pages until the end of a block, and a schema with all kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import posix_ipc

from shmchannel.stats_pages import Buckets, Histogram, HistogramCells, Metric, MetricKind, Schema, StatsPages, Table

SCHEMA = Schema(
    (
        Metric(
            name="things_total",
            kind=MetricKind.COUNTER,
            help="Things done.",
            advice="Do more.",
            labels=("colour", "size"),
            rows=(("red", "big"), ("red", "small"), ("blue", "big")),
        ),
        Metric(name="waiting", kind=MetricKind.GAUGE, help="Things that wait."),
        Metric(name="taken_seconds", kind=MetricKind.HISTOGRAM, help="Time.", unit="seconds", per_unit=10**9),
        Metric(name="of_place_total", kind=MetricKind.COUNTER, help="By place.", labels=("place",), table="places"),
        Metric(name="at_place_seconds", kind=MetricKind.HISTOGRAM, help="T.", labels=("place",), table="places"),
    ),
    (Table(name="places", label="place", rows=4),),
)


@contextmanager
def open_pages(role: str = "test", instance: str = "") -> Iterator[StatsPages]:
    """An owner, whose names are removed after the block."""
    pages = StatsPages.create(role, instance)
    try:
        yield pages
    finally:
        pages.close()


@contextmanager
def raw_page(name: str, data: bytes) -> Iterator[None]:
    """A block under this name with these bytes, whatever they are; removed after the block."""
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=0)
    try:
        os.pwrite(memory.fd, data, 0)
        yield
    finally:
        memory.close_fd()
        posix_ipc.unlink_shared_memory(name)


def histogram_of(buckets: Buckets, *values: int) -> Histogram:
    """What is in a histogram's cells after these values were counted there."""
    cells = memoryview(bytearray(8 * (buckets.size + 1))).cast("Q")
    row = HistogramCells(cells, 0, buckets)
    for value in values:
        row.observe(value)
    return Histogram.of(buckets, cells.tolist())
