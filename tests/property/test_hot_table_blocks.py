"""A hot table of any bytes: the reader never raises, and what it gives has the lengths that its cell says."""

import mmap
from collections.abc import Iterator
from struct import pack, unpack_from
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    BUCKET_BYTES,
    CELL,
    CELL_BYTES,
    CELLS_AT,
    FILE_REF_BYTES,
    HOT_TABLE_BYTES_MIN,
    LINE_BYTES,
    MAGIC,
    RECORD_BYTES_MAX,
    HotTableEntry,
    file_ref,
    geometry,
    header_words,
)
from shmchannel.objects.hot_table_reader import HotTableReader
from tests.support.examples import examples

KEYS = [b"", b"/", b"/key", b"/" + b"x" * 4095]
PLACES = geometry(HOT_TABLE_BYTES_MIN)
_CHECKED = examples(150)
_SHORT = st.integers(0, 5)
_LENGTH = st.one_of(_SHORT, st.integers(0, RECORD_BYTES_MAX + 1), st.integers(2**32 - 3, 2**32 - 1))
_WORD = st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1))


@pytest.fixture(scope="module")
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, HOT_TABLE_BYTES_MIN) as block:
        words = (MAGIC, *header_words(HOT_TABLE_BYTES_MIN))
        block[: 8 * len(words)] = b"".join(word.to_bytes(8, "little") for word in words)
        yield block


@st.composite
def cells(draw: st.DrawFn, key: bytes, number: int) -> tuple[bytes, bytes]:
    """A cell and the beginning of its record, more often than not nearly right for this key."""
    nearly = st.sampled_from([True, True, True, False])
    line = (PLACES.arena_at + number * RECORD_BYTES_MAX) // LINE_BYTES
    metadata_bytes = draw(_LENGTH)
    record_bytes = len(key) + metadata_bytes + (draw(st.sampled_from([FILE_REF_BYTES, 0, 1])))
    head = (
        draw(st.sampled_from([0, 2, 4, 3])) if draw(nearly) else draw(_WORD),
        2**63 if draw(nearly) else draw(_WORD),
        draw(_WORD),
        (line if draw(nearly) else draw(_LENGTH)) | (record_bytes % 2**32 if draw(nearly) else draw(_LENGTH)) << 32,
        len(key) if draw(nearly) else draw(_LENGTH),
        metadata_bytes,
        0 if draw(nearly) else draw(_WORD),
    )
    record = key + draw(st.binary(max_size=50)) if draw(nearly) else draw(st.binary(max_size=50))
    return CELL.pack(*head).ljust(CELL_BYTES, b"\0"), record


@_CHECKED
@given(st.data(), st.sampled_from(KEYS))
def test_nearly_right_cells(memory: mmap.mmap, data: st.DataObject, key: bytes) -> None:
    """For any numbers: nothing, or exactly the bytes that the numbers of one of the cells describe."""
    both = [data.draw(cells(key, 0)), data.draw(cells(key, 1))]
    bucket = PLACES.buckets_at + crc32(key) % PLACES.bucket_count * BUCKET_BYTES
    tags = pack("<7I", *[crc32(key)] * 2, *[0] * 5)
    memory[bucket : bucket + CELLS_AT] = tags.ljust(CELLS_AT, b"\0")
    for number, (cell, record) in enumerate(both):
        at = bucket + CELLS_AT + number * CELL_BYTES
        memory[at : at + CELL_BYTES] = cell
        start = PLACES.arena_at + number * RECORD_BYTES_MAX
        memory[start : start + RECORD_BYTES_MAX] = record.ljust(RECORD_BYTES_MAX, b"\xff")[:RECORD_BYTES_MAX]
    found = HotTableReader(memory).get(key)
    if found is None:
        return
    assert found in [described(memory, key, cell) for cell, _ in both]
    assert len(found.body) <= BODY_BYTES_MAX


def described(memory: mmap.mmap, key: bytes, cell: bytes) -> HotTableEntry | None:
    """What a cell says, as the document has it."""
    sequence, valid_until, version, line, record_bytes, key_bytes, metadata_bytes, file_bytes = unpack_from(
        "<3Q4IQ", cell
    )
    record = memory[line * LINE_BYTES : line * LINE_BYTES + record_bytes]
    if sequence % 2 or not valid_until or record[:key_bytes] != key or len(record) != record_bytes:
        return None
    metadata, body = record[key_bytes : key_bytes + metadata_bytes], record[key_bytes + metadata_bytes :]
    if not file_bytes:
        return HotTableEntry(version, metadata, body)
    reference = file_ref(body, file_bytes)
    return None if reference is None else HotTableEntry(version, metadata, b"", reference)


@_CHECKED
@given(st.binary(max_size=2 * BUCKET_BYTES), st.one_of(st.sampled_from(KEYS), st.binary(max_size=20)))
def test_any_bytes(memory: mmap.mmap, content: bytes, key: bytes) -> None:
    """No exception; and an entry only where this very key lies."""
    rest = HOT_TABLE_BYTES_MIN - PLACES.buckets_at
    memory[PLACES.buckets_at :] = (content * (rest // max(1, len(content)) + 1)).ljust(rest, b"\0")[:rest]
    found = HotTableReader(memory).get(key)
    assert found is None or key in content * 2
