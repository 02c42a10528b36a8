"""PURE: StoredResponse ↔ the metadata that the cache keeps with a body and does not interpret.

     off  size  field                                     (all numbers little-endian)
       0     1  kind: 1 a response, 2 an index of variants (index_codec.py)
       1     1  version of this layout
       2     2  status
       4     4  flags: 1 heuristic, 2 always validate, 4 never stale, 8 incomplete
       8    16  request time, response time: binary64, seconds since the epoch
      24    16  initial age, lifetime, stale-while-revalidate, stale-if-error: 4 bytes each, seconds
      40     8  length of the body
      48     8  length of the reason: 2, number of selecting fields: 2, length of the field block: 4
      56   ...  reason, selecting fields, field block, and nothing after them

A selecting field consists of the lengths of its name and its value, 2 bytes each (65,535: it was absent), and of both.
Metadata of another version is refused: the object counts as missing and is fetched again.
"""

from __future__ import annotations

import functools
import struct
from typing import Final

from shmchannel.objects.commands import METADATA_BYTES_MAX
from webproxy.caching.stored import Selecting, StoredResponse
from webproxy.http.fields import Fields

KIND_RESPONSE: Final = 1
KIND_INDEX: Final = 2
VERSION: Final = 1

_HEAD = struct.Struct("<BBHIddIIIIQHHI")
_LENGTHS = struct.Struct("<HH")
_ABSENT = 0xFFFF
_HEURISTIC, _ALWAYS_VALIDATE, _NEVER_STALE, _INCOMPLETE = 1, 2, 4, 8
_FLAGS_END = 16
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
    flags = (
        _HEURISTIC * stored.heuristic
        | _ALWAYS_VALIDATE * stored.always_validate
        | _NEVER_STALE * stored.never_stale
        | _INCOMPLETE * stored.incomplete
    )
    try:
        head = _HEAD.pack(
            KIND_RESPONSE,
            VERSION,
            stored.status,
            flags,
            stored.request_time,
            stored.response_time,
            stored.initial_age_s,
            stored.lifetime_s,
            stored.stale_while_revalidate_s,
            stored.stale_if_error_s,
            stored.body_bytes,
            len(stored.reason),
            len(stored.selecting),
            len(block),
        )
    except struct.error as error:
        raise MetadataError(f"a number in the response exceeds its field: {error}") from None
    data = b"".join((head, stored.reason, pack_selecting(stored.selecting), block))
    if len(data) > METADATA_BYTES_MAX:
        raise MetadataError(f"metadata of {len(data)} bytes, at most {METADATA_BYTES_MAX}")
    if _decode(data).fields != stored.fields:  # never write what would be decoded as something else
        raise MetadataError("a field value contains a line end")
    return data


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
        (
            kind,
            version,
            status,
            flags,
            request_time,
            response_time,
            initial_age_s,
            lifetime_s,
            stale_while_revalidate_s,
            stale_if_error_s,
            body_bytes,
            reason_bytes,
            selecting_count,
            block_bytes,
        ) = _HEAD.unpack_from(data)
    except struct.error:
        raise MetadataError(f"response metadata of {len(data)} bytes is truncated") from None
    if kind != KIND_RESPONSE or version != VERSION:
        raise MetadataError(f"metadata of kind {kind}, version {version}; expected {KIND_RESPONSE}, {VERSION}")
    if flags >= _FLAGS_END or not 100 <= status <= 999:
        raise MetadataError(f"status {status}, flags {flags:#x}")
    if not (0.0 <= request_time < _TIME_END and 0.0 <= response_time < _TIME_END):  # also if one is NaN
        raise MetadataError(f"times {request_time} and {response_time}")
    offset = _HEAD.size + reason_bytes
    reason = data[_HEAD.size : offset]
    selecting: Selecting = ()
    if selecting_count:
        selecting, offset = unpack_selecting(data, offset, selecting_count)
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
        request_time=request_time,
        response_time=response_time,
        initial_age_s=initial_age_s,
        lifetime_s=lifetime_s,
        heuristic=flags & _HEURISTIC != 0,
        always_validate=flags & _ALWAYS_VALIDATE != 0,
        never_stale=flags & _NEVER_STALE != 0,
        incomplete=flags & _INCOMPLETE != 0,
        stale_while_revalidate_s=stale_while_revalidate_s,
        stale_if_error_s=stale_if_error_s,
        selecting=selecting,
        body_bytes=body_bytes,
        invalidated=invalidated,
    )


# Bounded in bytes too, by the limit for each entry: at most 2 MiB of metadata and their values.
_decode_remembered = functools.lru_cache(maxsize=_REMEMBERED_MAX)(_decode)


def pack_selecting(selecting: Selecting) -> bytes:
    """The selecting fields as bytes, without their number. Raises MetadataError if one is too long."""
    parts = []
    for name, value in selecting:
        if len(name) > _ABSENT or (value is not None and len(value) >= _ABSENT):
            raise MetadataError(f"a selecting field of {len(name)} + {len(value or b'')} bytes, at most {_ABSENT - 1}")
        parts += [_LENGTHS.pack(len(name), _ABSENT if value is None else len(value)), name, value or b""]
    return b"".join(parts)


def unpack_selecting(data: bytes, offset: int, count: int) -> tuple[Selecting, int]:
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
