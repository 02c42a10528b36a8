"""The layout of an entry: what is written is read, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.process.identity import ProcessIdentity
from shmchannel.registry.entry_layout import (
    ADDRESS_BYTES_MAX,
    ENTRY_BYTES,
    FACTS_BYTES_MAX,
    MAGIC,
    Entry,
    decode,
    decode_load,
    encode,
    encode_load,
)

ENTRY = Entry("cache", "one", ProcessIdentity(7, 8, 9), 10, 11, "/q", "127.0.0.1:80", {"a": "b", "c": ""})


def published(entry: Entry) -> bytearray:
    """The bytes of an entry with its magic."""
    block = bytearray(encode(entry))
    block[:8] = MAGIC.to_bytes(8, "little")
    return block


def test_what_is_written_is_read() -> None:
    assert decode(bytes(published(ENTRY))) == ENTRY
    bare = ENTRY._replace(queue_name="", address="", facts={})
    assert decode(bytes(published(bare))) == bare


@pytest.mark.parametrize(
    "change",
    [
        {"role": "Cache"},
        {"role": ""},
        {"role": "r" * 33},
        {"name": "a/b"},
        {"name": ""},
        {"name": "n" * 201},
        {"queue_name": "no-slash"},
        {"address": "x" * (ADDRESS_BYTES_MAX + 1)},
        {"facts": {"a": "x" * FACTS_BYTES_MAX}},
        {"facts": {"a=b": "c"}},
        {"facts": {"a": "b\nc"}},
        {"facts": {"": "c"}},
    ],
)
def test_values_that_are_not_valid_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        encode(ENTRY._replace(**change))  # type: ignore[arg-type]


def test_all_texts_at_their_longest_fit() -> None:
    longest = ENTRY._replace(
        role="r" * 32,
        name="n" * 200,
        queue_name="/" + "q" * 200,
        address="a" * ADDRESS_BYTES_MAX,
        facts={"f": "x" * (FACTS_BYTES_MAX - 3)},
    )
    assert decode(bytes(published(longest))) == longest


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 0), (0, 1), (8, 2), (16, 8192), (136, ENTRY_BYTES), (168, 1 << 63)],
)
def test_damaged_entries_are_refused(offset: int, value: int) -> None:
    block = published(ENTRY)
    block[offset : offset + 8] = value.to_bytes(8, "little")
    with pytest.raises(LayoutMismatch):
        decode(bytes(block))


@pytest.mark.parametrize("size", [0, 8, ENTRY_BYTES - 1])
def test_blocks_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(LayoutMismatch):
        decode(bytes(published(ENTRY)[:size]))


@given(st.binary(min_size=ENTRY_BYTES - 8, max_size=ENTRY_BYTES - 8))
def test_any_bytes_are_an_entry_or_refused(rest: bytes) -> None:
    head = bytes(published(ENTRY)[:24])
    try:
        decode(head + rest[16:])
    except LayoutMismatch:
        pass


def test_loads() -> None:
    assert decode_load(encode_load(2.5)) == 2.5
    for load in (-0.1, float("nan"), float("inf"), 1e13):
        with pytest.raises(UsageError):
            encode_load(load)
