"""PURE: StoredResponse ↔ the metadata that the cache keeps beside a body and does not look into.

     off  size  field                                     (all numbers little-endian)
       0     1  kind: 1 a response, 2 an index of variants (index_codec.py)
       1     1  version of this layout
       2     2  status
       4     4  flags: 1 heuristic, 2 always validate, 4 never stale, 8 incomplete
       8    16  request time, response time: binary64, seconds since the epoch
      24    16  initial age, lifetime, stale-while-revalidate, stale-if-error: 4 bytes each, seconds
      40     8  bytes of the body
      48     8  bytes of the reason: 2, number of selecting fields: 2, bytes of the field block: 4
      56   ...  reason, selecting fields, field block, and nothing behind them

A selecting field is the lengths of its name and its value, 2 bytes each (65,535: it was absent), then both.
What was not written by this version is refused: the object counts as missing then, and is fetched anew.
"""

from __future__ import annotations

import functools
import struct
from typing import Final

from shmchannel.layout import METADATA_BYTES_MAX
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
    """Metadata that cannot be written, or that this version did not write."""


def is_index(data: bytes) -> bool:
    """True when these metadata say that they are an index of variants."""
    return data[:1] == b"\x02"


def encode(stored: StoredResponse) -> bytes:
    """The metadata of a response; `marked` is not in them: the cache tells it.

    Raises MetadataError when they are longer than METADATA_BYTES_MAX or a part does not fit: it is not stored then.
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
        raise MetadataError(f"a number of the response does not fit its place: {error}") from None
    data = b"".join((head, stored.reason, pack_selecting(stored.selecting), block))
    if len(data) > METADATA_BYTES_MAX:
        raise MetadataError(f"metadata of {len(data)} bytes, at most {METADATA_BYTES_MAX}")
    if _decode(data).fields != stored.fields:  # what would be read as something else, or not at all, is not written
        raise MetadataError("a field value with a line end in it")
    return data


def decode(data: bytes, *, marked: bool = False) -> StoredResponse:
    """The response of these metadata; `marked` is what the cache told of the object.

    The same bytes give the same value again without being looked at: a hot object costs this once.
    Raises MetadataError for anything that encode() does not write.
    """
    if len(data) <= _REMEMBERED_BYTES_MAX:
        return _decode_remembered(data, marked)
    return _decode(data, marked)


def _decode(data: bytes, marked: bool = False) -> StoredResponse:
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
        raise MetadataError(f"{len(data)} bytes are no metadata of a response") from None
    if kind != KIND_RESPONSE or version != VERSION:
        raise MetadataError(f"metadata of kind {kind}, version {version}; expected {KIND_RESPONSE}, {VERSION}")
    if flags >= _FLAGS_END or not 100 <= status <= 999:
        raise MetadataError(f"status {status}, flags {flags:#x}")
    if not (0.0 <= request_time < _TIME_END and 0.0 <= response_time < _TIME_END):  # also when one is no number
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
        marked=marked,
    )


# Bounded in bytes too, by what is let in: at most 2 MiB of metadata and their values.
_decode_remembered = functools.lru_cache(maxsize=_REMEMBERED_MAX)(_decode)


def pack_selecting(selecting: Selecting) -> bytes:
    """The selecting fields as bytes; their number is not in them. Raises MetadataError when one is too long."""
    parts = []
    for name, value in selecting:
        if len(name) > _ABSENT or (value is not None and len(value) >= _ABSENT):
            raise MetadataError(f"a selecting field of {len(name)} + {len(value or b'')} bytes, at most {_ABSENT - 1}")
        parts += [_LENGTHS.pack(len(name), _ABSENT if value is None else len(value)), name, value or b""]
    return b"".join(parts)


def unpack_selecting(data: bytes, offset: int, count: int) -> tuple[Selecting, int]:
    """That many selecting fields from there on, and the offset behind them; raises MetadataError."""
    selecting: list[tuple[bytes, bytes | None]] = []
    for _ in range(count):
        if offset + _LENGTHS.size > len(data):
            raise MetadataError("selecting fields that end too soon")
        name_bytes, value_bytes = _LENGTHS.unpack_from(data, offset)
        value_at = offset + _LENGTHS.size + name_bytes
        end = value_at if value_bytes == _ABSENT else value_at + value_bytes
        if end > len(data):
            raise MetadataError("a selecting field that is longer than the rest")
        selecting.append(
            (data[value_at - name_bytes : value_at], None if end == value_at and value_bytes else data[value_at:end])
        )
        offset = end
    return tuple(selecting), offset
