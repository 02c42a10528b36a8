"""stored_codec, an index: what is refused, and why. The round trip is a property test, its bytes are a wire test."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from webproxy.caching.stored_codec import MetadataError, decode_index, encode_index, is_index
from webproxy.caching.variants import VARIANTS_MAX, Variant, VariantIndex

FIRST = Variant(((b"accept-encoding", b"gzip"), (b"cookie", None)), b'"a"', b"0123456789abcdef")
SECOND = Variant((), b"", b"fedcba9876543210")
INDEX = VariantIndex((FIRST, SECOND))
DATA = encode_index(INDEX)
HEAD_BYTES, ID_BYTES = 4, 8


def test_what_is_encoded_comes_back() -> None:
    assert is_index(DATA)
    assert decode_index(DATA) == INDEX
    assert decode_index(encode_index(VariantIndex())) == VariantIndex()


def test_the_same_bytes_are_looked_at_once() -> None:
    assert decode_index(bytes(bytearray(DATA))) is decode_index(bytes(bytearray(DATA)))


def with_bytes(offset: int, new: bytes) -> bytes:
    return DATA[:offset] + new + DATA[offset + len(new) :]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(DATA[:3], id="less-than-the-head"),
        pytest.param(DATA[:-1], id="short"),
        pytest.param(DATA + b"x", id="long"),
        pytest.param(DATA[: HEAD_BYTES + 5], id="ends-in-a-variant"),
        pytest.param(with_bytes(0, b"\x01"), id="a-response"),
        pytest.param(with_bytes(1, b"\x02"), id="next-version"),
        pytest.param(with_bytes(2, struct.pack("<H", 1)), id="one-variant-less"),
        pytest.param(with_bytes(2, struct.pack("<H", 3)), id="one-variant-more"),
        pytest.param(with_bytes(HEAD_BYTES + ID_BYTES, struct.pack("<H", 0xFFFF)), id="etag-beyond-the-end"),
        pytest.param(with_bytes(len(DATA) - 4, struct.pack("<H", 1)), id="last-etag-beyond-the-end"),
        pytest.param(with_bytes(len(DATA) - 2, struct.pack("<H", 1)), id="last-selecting-field-beyond-the-end"),
    ],
)
def test_what_does_not_add_up_is_refused(data: bytes) -> None:
    with pytest.raises(MetadataError):
        decode_index(data)


def test_more_variants_than_there_may_be_are_refused() -> None:
    full = VariantIndex((SECOND,) * VARIANTS_MAX)
    assert decode_index(encode_index(full)) == full
    one = encode_index(VariantIndex((SECOND,)))[HEAD_BYTES:]
    with pytest.raises(MetadataError):
        decode_index(struct.pack("<BBH", 2, 1, VARIANTS_MAX + 1) + one * (VARIANTS_MAX + 1))
    with pytest.raises(MetadataError):
        encode_index(VariantIndex((SECOND,) * (VARIANTS_MAX + 1)))


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(replace(SECOND, id=b"0123456789ABCDEF"), id="id-in-capitals"),
        pytest.param(replace(SECOND, id=b"0123"), id="short-id"),
        pytest.param(replace(SECOND, id=b"0123456789abcdefg"), id="long-id"),
        pytest.param(replace(SECOND, etag=b"e" * 65_536), id="etag-does-not-fit"),
        pytest.param(replace(SECOND, selecting=((b"x", b"v" * 65_535),)), id="selecting-value-does-not-fit"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(variant: Variant) -> None:
    with pytest.raises(MetadataError):
        encode_index(VariantIndex((variant,)))


def test_an_index_longer_than_metadata_may_be_is_not_written() -> None:
    with pytest.raises(MetadataError, match="at most 65536"):
        encode_index(VariantIndex((replace(SECOND, etag=b"e" * 40_000),) * 2))
