"""PURE: StoredResponse and VariantIndex ↔ metadata, which the cache keeps with a body and does not interpret.

     off  size  field                                     (all numbers little-endian)
       0     1  kind: 1 a response, 2 an index of variants (below)
       1     1  version of this layout
       2     2  status
       4     4  flags: 1 heuristic, 2 always validate, 4 never stale, 8 incomplete
       8    16  request time, response time: binary64, seconds since the epoch
      24    16  initial age, lifetime, stale-while-revalidate, stale-if-error: 4 bytes each, seconds
      40     8  length of the body
      48     8  length of the reason: 2, number of selecting fields: 2, length of the field block: 4
      56   ...  reason, selecting fields, field block, and nothing after them

A selecting field consists of the lengths of its name and its value, 2 bytes each (65,535: it was absent), and of both.
The index is the metadata of the object that represents all variants of a URL:

     off  size  field
       0     1  kind: 2
       1     1  version of this layout
       2     2  number of variants
       4   ...  for each: id: 8, length of its ETag: 2, number of its selecting fields: 2, ETag, selecting fields

Metadata of another version is refused: the object counts as missing and is fetched again.
"""

from __future__ import annotations

import binascii
import functools
import re
import struct
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from shmchannel.objects.commands import METADATA_BYTES_MAX
from webproxy.caching.stored import Selecting, StoredResponse
from webproxy.caching.variants import VARIANT_ID_BYTES, VARIANTS_MAX, Variant, VariantIndex
from webproxy.http.fields import Fields
from webproxy.http.syntax import is_field_block

KIND_RESPONSE: Final = 1
KIND_INDEX: Final = 2
VERSION: Final = 1

_HEAD = struct.Struct("<BBHIddIIIIQHHI")
_LENGTHS = struct.Struct("<HH")
_ABSENT = 0xFFFF
_FLAGS = {"heuristic": 1, "always_validate": 2, "never_stale": 4, "incomplete": 8}
_FLAGS_END = 16
_NUMBERS = (
    "request_time",
    "response_time",
    "initial_age_s",
    "lifetime_s",
    "stale_while_revalidate_s",
    "stale_if_error_s",
    "body_bytes",
)
_BITS = tuple(_FLAGS.values())
_flags_of = attrgetter(*_FLAGS)
_numbers_of = attrgetter(*_NUMBERS)
_INDEX_HEAD = struct.Struct("<BBH")
_VARIANT = struct.Struct(f"<{VARIANT_ID_BYTES // 2}sHH")
_is_id = re.compile(b"[0-9a-f]{%d}" % VARIANT_ID_BYTES).fullmatch
_TIME_END = float(1 << 40)
_REMEMBERED_BYTES_MAX = 2_048
_REMEMBERED_MAX = 1_024


class MetadataError(Exception):
    """Metadata that cannot be encoded, or was not encoded by this version."""


def is_index(data: bytes) -> bool:
    """True if these metadata are those of an index of variants."""
    return data[:1] == b"\x02"


def encode(stored: StoredResponse) -> bytes:
    """The metadata of a response, without `invalidated`, which the cache reports.

    Raises MetadataError if they exceed METADATA_BYTES_MAX or a part does not fit its field: it cannot be stored then.
    """
    block = stored.fields.block
    flags = 0
    for bit, is_set in zip(_BITS, _flags_of(stored), strict=True):
        if is_set:
            flags |= bit
    numbers = _numbers_of(stored)
    lengths = len(stored.reason), len(stored.selecting), len(block)
    try:
        head = _HEAD.pack(KIND_RESPONSE, VERSION, stored.status, flags, *numbers, *lengths)
    except struct.error as error:
        raise MetadataError(f"a number in the response exceeds its field: {error}") from None
    data = b"".join((head, stored.reason, _pack_selecting(stored.selecting), block))
    _check_length(data)
    _check_values(stored.status, numbers[:2])
    _check_block(stored.fields, block)
    return data


def _check_block(fields: Fields, block: bytes) -> None:
    """Never write what would be decoded as something else."""
    is_readable = is_field_block(block) is not None and block.count(b"\r\n") == len(fields)
    for name, _ in fields.lines:
        if b":" in name:
            is_readable = False
    if not is_readable:
        raise MetadataError("a field value contains a line end, or a name is none")


def _check_values(status: int, times: Sequence[float]) -> None:
    if not 100 <= status <= 999:
        raise MetadataError(f"status {status}")
    for time in times:
        if not 0.0 <= time < _TIME_END:  # also if it is NaN
            raise MetadataError(f"times {times}")


def decode(data: bytes, *, invalidated: bool = False) -> StoredResponse:
    """The response in these metadata; `invalidated` is what the cache reported for the object.

    Results are cached, so that a hot object is decoded once. Raises MetadataError for anything that encode() does not
    produce.
    """
    if len(data) <= _REMEMBERED_BYTES_MAX:
        return _decode_remembered(data, invalidated)
    return _decode(data, invalidated)


def _decode(data: bytes, invalidated: bool = False) -> StoredResponse:
    try:
        kind, version, status, flags, *numbers, reason_bytes, selecting_count, block_bytes = _HEAD.unpack_from(data)
    except struct.error:
        raise MetadataError(f"response metadata of {len(data)} bytes is truncated") from None
    if kind != KIND_RESPONSE or version != VERSION:
        raise MetadataError(f"metadata of kind {kind}, version {version}; expected {KIND_RESPONSE}, {VERSION}")
    if flags >= _FLAGS_END:
        raise MetadataError(f"flags {flags:#x}")
    _check_values(status, numbers[:2])
    offset = _HEAD.size + reason_bytes
    reason = data[_HEAD.size : offset]
    selecting: Selecting = ()
    if selecting_count:
        selecting, offset = _unpack_selecting(data, offset, selecting_count)
    if offset + block_bytes != len(data):
        raise MetadataError(f"{len(data)} bytes of metadata, {offset + block_bytes} by the lengths in them")
    try:
        fields = Fields.parse_block(data[offset:])
    except ValueError as error:
        raise MetadataError(str(error)) from None
    return StoredResponse(
        status=status,
        fields=fields,
        reason=reason,
        selecting=selecting,
        invalidated=invalidated,
        **dict(zip(_NUMBERS, numbers, strict=True)),
        **{name: flags & bit != 0 for name, bit in _FLAGS.items()},
    )


# Bounded in bytes too, by the limit for each entry: at most 2 MiB of metadata and their values.
_decode_remembered = functools.lru_cache(maxsize=_REMEMBERED_MAX)(_decode)


def _check_length(data: bytes) -> None:
    if len(data) > METADATA_BYTES_MAX:
        raise MetadataError(f"metadata of {len(data)} bytes, at most {METADATA_BYTES_MAX}")


def _pack_selecting(selecting: Selecting) -> bytes:
    """The selecting fields as bytes, without their number. Raises MetadataError if one is too long."""
    parts = []
    for name, value in selecting:
        if len(name) > _ABSENT or (value is not None and len(value) >= _ABSENT):
            raise MetadataError(f"a selecting field of {len(name)} + {len(value or b'')} bytes, at most {_ABSENT - 1}")
        parts += [_LENGTHS.pack(len(name), _ABSENT if value is None else len(value)), name, value or b""]
    return b"".join(parts)


def _unpack_selecting(data: bytes, offset: int, count: int) -> tuple[Selecting, int]:
    """`count` selecting fields from `offset` on, and the offset after them; raises MetadataError."""
    selecting: list[tuple[bytes, bytes | None]] = []
    for _ in range(count):
        if offset + _LENGTHS.size > len(data):
            raise MetadataError("truncated selecting fields")
        name_bytes, value_bytes = _LENGTHS.unpack_from(data, offset)
        value_at = offset + _LENGTHS.size + name_bytes
        end = value_at if value_bytes == _ABSENT else value_at + value_bytes
        if end > len(data):
            raise MetadataError("truncated selecting field")
        selecting.append(
            (data[value_at - name_bytes : value_at], None if end == value_at and value_bytes else data[value_at:end])
        )
        offset = end
    return tuple(selecting), offset


def encode_index(index: VariantIndex) -> bytes:
    """The metadata of an index; raises MetadataError if it is too long, or an id is not 16 hex digits."""
    if len(index.variants) > VARIANTS_MAX:
        raise MetadataError(f"{len(index.variants)} variants, at most {VARIANTS_MAX}")
    parts = [_INDEX_HEAD.pack(KIND_INDEX, VERSION, len(index.variants))]
    for variant in index.variants:
        if _is_id(variant.id) is None or len(variant.etag) > _ABSENT or len(variant.selecting) > _ABSENT:
            raise MetadataError(f"invalid variant: {variant.id!r}, ETag of {len(variant.etag)} bytes")
        parts.append(_VARIANT.pack(binascii.unhexlify(variant.id), len(variant.etag), len(variant.selecting)))
        parts += [variant.etag, _pack_selecting(variant.selecting)]
    data = b"".join(parts)
    _check_length(data)
    return data


def decode_index(data: bytes) -> VariantIndex:
    """The index in these metadata; results for short metadata are cached.

    Raises MetadataError for anything that encode_index() does not produce.
    """
    return _decode_index_remembered(data) if len(data) <= _REMEMBERED_BYTES_MAX else _decode_index(data)


def _decode_index(data: bytes) -> VariantIndex:
    if len(data) < _INDEX_HEAD.size:
        raise MetadataError(f"index metadata of {len(data)} bytes is truncated")
    kind, version, count = _INDEX_HEAD.unpack_from(data)
    if kind != KIND_INDEX or version != VERSION or count > VARIANTS_MAX:
        raise MetadataError(f"metadata of kind {kind}, version {version} with {count} variants")
    variants = []
    offset = _INDEX_HEAD.size
    for _ in range(count):
        etag_at = offset + _VARIANT.size
        if etag_at > len(data):
            raise MetadataError("truncated variants")
        identity, etag_bytes, selecting_count = _VARIANT.unpack_from(data, offset)
        etag = data[etag_at : etag_at + etag_bytes]
        selecting, offset = _unpack_selecting(data, etag_at + etag_bytes, selecting_count)
        if offset > len(data):
            raise MetadataError("truncated ETag")
        variants.append(Variant(selecting, etag, binascii.hexlify(identity)))
    if offset != len(data):
        raise MetadataError(f"{len(data)} bytes of metadata, {offset} by the lengths in them")
    return VariantIndex(tuple(variants))


_decode_index_remembered = functools.lru_cache(maxsize=_REMEMBERED_MAX // 4)(_decode_index)
