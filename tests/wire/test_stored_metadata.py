"""The metadata of stored responses byte by byte: a cache that outlives its proxy must be understood by the next one."""

from __future__ import annotations

from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import decode, decode_index, encode, encode_index
from webproxy.caching.variants import Variant, VariantIndex
from webproxy.http.fields import Fields

STORED = StoredResponse(
    status=404,
    fields=Fields([(b"ETag", b'"v"'), (b"X", b"")]),
    reason=b"Gone",
    request_time=1.0,
    response_time=1_795_255_200.25,
    initial_age_s=0x0102,
    lifetime_s=0x0304,
    heuristic=True,
    always_validate=False,
    never_stale=True,
    stale_while_revalidate_s=0x0506,
    stale_if_error_s=0x0708,
    selecting=((b"accept", b"a/b"), (b"cookie", None), (b"x", b"")),
    body_bytes=0x090A0B0C0D,
)
STORED_BYTES = (
    b"\x01\x01"  # a response, version 1
    b"\x94\x01"  # 404
    b"\x05\x00\x00\x00"  # heuristic, never stale
    b"\x00\x00\x00\x00\x00\x00\xf0\x3f"  # 1.0
    b"\x00\x00\x10\xe8\x5a\xc0\xda\x41"  # 1795255200.25
    b"\x02\x01\x00\x00\x04\x03\x00\x00\x06\x05\x00\x00\x08\x07\x00\x00"
    b"\x0d\x0c\x0b\x0a\x09\x00\x00\x00"  # bytes of the body
    b"\x04\x00\x03\x00\x10\x00\x00\x00"  # reason of 4 bytes, 3 selecting fields, block of 16 bytes
    b"Gone"
    b"\x06\x00\x03\x00accepta/b"
    b"\x06\x00\xff\xffcookie"
    b"\x01\x00\x00\x00x"
    b'ETag: "v"\r\nX: \r\n'
)

INDEX = VariantIndex(
    (
        Variant(((b"accept", b"a/b"), (b"cookie", None)), b'"v"', b"0123456789abcdef"),
        Variant((), b"", b"fedcba9876543210"),
    )
)
INDEX_BYTES = (
    b"\x02\x01\x02\x00"  # an index, version 1, 2 variants
    b"\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"\x03\x00\x02\x00"  # ETag of 3 bytes, 2 selecting fields
    b'"v"'
    b"\x06\x00\x03\x00accepta/b"
    b"\x06\x00\xff\xffcookie"
    b"\xfe\xdc\xba\x98\x76\x54\x32\x10"
    b"\x00\x00\x00\x00"
)


def test_a_response_is_written_so() -> None:
    assert encode(STORED) == STORED_BYTES


def test_a_response_is_read_so() -> None:
    assert decode(STORED_BYTES) == STORED


def test_an_index_is_written_so() -> None:
    assert encode_index(INDEX) == INDEX_BYTES


def test_an_index_is_read_so() -> None:
    assert decode_index(INDEX_BYTES) == INDEX
