"""A hot table of any bytes: the reader never raises, and what it gives has the lengths that its cell says."""

import mmap
from collections.abc import Iterator
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    CELL_BYTES,
    CELL_HEAD,
    CELL_HEAD_BYTES,
    CELL_ROOM_BYTES,
    FILE_REF_BYTES,
    HOT_TABLE_BYTES_MIN,
    HOT_TABLE_HEADER_BYTES,
    MAGIC,
    HotTableEntry,
    file_entry,
    header_words,
)
from shmchannel.objects.hot_table_reader import HotTableReader
from tests.support.examples import examples

KEYS = [b"", b"/", b"/key", b"/" + b"x" * 4095]
_CHECKED = examples(150)
_SHORT = st.integers(0, 5)
_LENGTH = st.one_of(_SHORT, st.integers(0, CELL_ROOM_BYTES + 1), st.integers(2**64 - 3, 2**64 - 1))
_WORD = st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1))


@pytest.fixture(scope="module")
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, HOT_TABLE_BYTES_MIN) as block:
        words = (MAGIC, *header_words(HOT_TABLE_BYTES_MIN))
        block[: 8 * len(words)] = b"".join(word.to_bytes(8, "little") for word in words)
        yield block


@st.composite
def cells(draw: st.DrawFn, key: bytes) -> bytes:
    """A cell's head and the beginning of its room, more often than not nearly right for this key."""
    nearly = st.sampled_from([True, True, True, False])
    head = (
        draw(st.sampled_from([0, 2, 4, 3])) if draw(nearly) else draw(_WORD),
        crc32(key) if draw(nearly) else draw(_WORD),
        2**63 if draw(nearly) else draw(_WORD),
        draw(_WORD),
        len(key) if draw(nearly) else draw(_LENGTH),
        draw(_LENGTH),
        draw(st.sampled_from([FILE_REF_BYTES, 0, 1])) if draw(nearly) else draw(_LENGTH),
        0 if draw(nearly) else draw(_WORD),
    )
    room = key + draw(st.binary(max_size=50)) if draw(nearly) else draw(st.binary(max_size=50))
    return CELL_HEAD.pack(*head).ljust(CELL_HEAD_BYTES, b"\0") + room


def _lay(memory: mmap.mmap, *contents: bytes) -> None:
    for number, content in enumerate(contents):
        at = HOT_TABLE_HEADER_BYTES + number * CELL_BYTES
        memory[at : at + CELL_BYTES] = content.ljust(CELL_BYTES, b"\xff")[:CELL_BYTES]


@_CHECKED
@given(st.data(), st.sampled_from(KEYS))
def test_nearly_right_cells(memory: mmap.mmap, data: st.DataObject, key: bytes) -> None:
    """For any numbers: nothing, or exactly the bytes that the numbers of one of the cells describe."""
    both = [data.draw(cells(key)), data.draw(cells(key))]
    _lay(memory, *both)
    found = HotTableReader(memory).get(key)
    if found is None:
        return
    expected = []
    for number, cell in enumerate(both):
        head = CELL_HEAD.unpack_from(cell)
        sequence, key_hash, valid_until, version, key_bytes, metadata_bytes, body_bytes, file_bytes = head
        if sequence % 2 or key_hash != crc32(key) or key_bytes != len(key) or not valid_until:
            continue
        start = HOT_TABLE_HEADER_BYTES + number * CELL_BYTES + CELL_HEAD_BYTES
        end = start + key_bytes + metadata_bytes + body_bytes
        if end <= start - CELL_HEAD_BYTES + CELL_BYTES and memory[start : start + key_bytes] == key:
            room = memory[start + key_bytes : end]
            metadata, body = room[:metadata_bytes], room[metadata_bytes:]
            whole = (
                file_entry(version, metadata, body, file_bytes)
                if file_bytes
                else HotTableEntry(version, metadata, body)
            )
            expected.append(whole)
    assert found in expected
    assert len(found.body) <= BODY_BYTES_MAX


@_CHECKED
@given(st.binary(max_size=2 * CELL_BYTES), st.one_of(st.sampled_from(KEYS), st.binary(max_size=20)))
def test_any_bytes(memory: mmap.mmap, content: bytes, key: bytes) -> None:
    """No exception; and an entry only where this very key lies."""
    _lay(memory, content[:CELL_BYTES], content[CELL_BYTES:])
    found = HotTableReader(memory).get(key)
    assert found is None or key in content
