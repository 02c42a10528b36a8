"""stored_codec: what is refused, and why; the round trip is a property test, the bytes themselves are a wire test."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest

from shmchannel.objects.commands import METADATA_BYTES_MAX
from tests.support.http_values import stored_response
from webproxy.caching.stored_codec import MetadataError, decode, encode, is_index
from webproxy.http.fields import Fields

PLAIN = stored_response(b'ETag: "a"', b"Date: x", selecting=((b"accept", b"a/b"), (b"cookie", None)), reason=b"OK")
DATA = encode(PLAIN)
REASON_BYTES_AT, SELECTING_COUNT_AT, BLOCK_BYTES_AT, HEAD_BYTES = 48, 50, 52, 56
NAME_BYTES_AT = HEAD_BYTES + len(PLAIN.reason)


def with_bytes(offset: int, new: bytes) -> bytes:
    return DATA[:offset] + new + DATA[offset + len(new) :]


def test_what_is_encoded_comes_back() -> None:
    assert decode(DATA) == PLAIN


def test_an_incomplete_response_says_so() -> None:
    assert decode(encode(replace(PLAIN, incomplete=True))) == replace(PLAIN, incomplete=True)


def test_the_field_block_comes_back_as_it_is_sent() -> None:
    assert decode(DATA).fields.block == b'ETag: "a"\r\nDate: x\r\n'


def test_invalidation_is_the_caches_word() -> None:
    assert encode(replace(PLAIN, invalidated=True)) == DATA
    assert not decode(DATA).invalidated
    assert decode(DATA, invalidated=True) == replace(PLAIN, invalidated=True)


def test_the_same_bytes_are_looked_at_once() -> None:
    assert decode(bytes(bytearray(DATA))) is decode(bytes(bytearray(DATA)))


def test_long_metadata_are_not_remembered() -> None:
    long = encode(replace(PLAIN, fields=Fields([(b"X", b"x" * 4_000)])))
    assert decode(long) == decode(long)
    assert decode(long) is not decode(long)


def test_kinds_are_told_apart_by_the_first_byte() -> None:
    assert not is_index(DATA)
    assert not is_index(b"")
    assert is_index(b"\x02\x01\x00\x00")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(DATA[: HEAD_BYTES - 1], id="less-than-the-head"),
        pytest.param(DATA[:-1], id="short"),
        pytest.param(DATA + b"x", id="long"),
        pytest.param(DATA[:HEAD_BYTES], id="nothing-behind-the-head"),
        pytest.param(with_bytes(0, b"\x02"), id="an-index"),
        pytest.param(with_bytes(0, b"\x00"), id="no-kind"),
        pytest.param(with_bytes(1, b"\x02"), id="next-version"),
        pytest.param(with_bytes(2, struct.pack("<H", 99)), id="status-99"),
        pytest.param(with_bytes(2, struct.pack("<H", 1000)), id="status-1000"),
        pytest.param(with_bytes(4, struct.pack("<I", 16)), id="unknown-flag"),
        pytest.param(with_bytes(8, struct.pack("<d", math.nan)), id="request-time-no-number"),
        pytest.param(with_bytes(8, struct.pack("<d", -1.0)), id="request-time-negative"),
        pytest.param(with_bytes(16, struct.pack("<d", math.inf)), id="response-time-infinite"),
        pytest.param(with_bytes(16, struct.pack("<d", 2.0**40)), id="response-time-too-late"),
        pytest.param(with_bytes(REASON_BYTES_AT, struct.pack("<H", 3)), id="reason-longer"),
        pytest.param(with_bytes(REASON_BYTES_AT, struct.pack("<H", 0xFFFF)), id="reason-beyond-the-end"),
        pytest.param(with_bytes(SELECTING_COUNT_AT, struct.pack("<H", 1)), id="one-selecting-field-less"),
        pytest.param(with_bytes(SELECTING_COUNT_AT, struct.pack("<H", 3)), id="one-selecting-field-more"),
        pytest.param(with_bytes(NAME_BYTES_AT, struct.pack("<H", 0xFFFF)), id="name-beyond-the-end"),
        pytest.param(with_bytes(BLOCK_BYTES_AT, struct.pack("<I", 2**32 - 1)), id="block-beyond-the-end"),
        pytest.param(DATA.replace(b"Date: x", b"Date; x"), id="block-without-colon"),
        pytest.param(DATA.replace(b"Date: x", b"Date: \r"), id="block-with-bare-CR"),
    ],
)
def test_what_does_not_add_up_is_refused(data: bytes) -> None:
    with pytest.raises(MetadataError):
        decode(data)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"fields": Fields([(b"X", b"a\r\nSet-Cookie: b")])}, id="a-line-end-in-a-value"),
        pytest.param({"fields": Fields([(b"X Y", b"a")])}, id="a-name-that-is-no-token"),
        pytest.param({"status": 99}, id="status"),
        pytest.param({"status": 70_000}, id="status-does-not-fit"),
        pytest.param({"lifetime_s": -1}, id="negative-lifetime"),
        pytest.param({"lifetime_s": 2**32}, id="lifetime-does-not-fit"),
        pytest.param({"response_time": math.nan}, id="time-is-no-number"),
        pytest.param({"reason": b"r" * 65_536}, id="reason-does-not-fit"),
        pytest.param({"selecting": ((b"x", b"v" * 65_535),)}, id="selecting-value-does-not-fit"),
        pytest.param({"selecting": ((b"n" * 65_536, None),)}, id="selecting-name-does-not-fit"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(changes: dict[str, object]) -> None:
    with pytest.raises(MetadataError):
        encode(replace(PLAIN, **changes))


def test_metadata_may_be_as_long_as_the_cache_takes_them() -> None:
    room = METADATA_BYTES_MAX - len(encode(replace(PLAIN, fields=Fields([(b"X", b"")]))))
    assert len(encode(replace(PLAIN, fields=Fields([(b"X", b"x" * room)])))) == METADATA_BYTES_MAX
    with pytest.raises(MetadataError, match="65537 bytes, at most 65536"):
        encode(replace(PLAIN, fields=Fields([(b"X", b"x" * (room + 1))])))
