"""PURE: VariantIndex ↔ the metadata of the object that represents all variants of a URL.

     off  size  field                                     (all numbers little-endian)
       0     1  kind: 2
       1     1  version of this layout
       2     2  number of variants
       4   ...  for each: id: 8, length of its ETag: 2, number of its selecting fields: 2, ETag, selecting fields

Selecting fields are encoded as in stored_codec.py.
"""

from __future__ import annotations

import binascii
import functools
import re
import struct
from typing import Final

from shmchannel.objects.commands import METADATA_BYTES_MAX
from webproxy.caching.stored_codec import KIND_INDEX, MetadataError, pack_selecting, unpack_selecting
from webproxy.caching.variants import VARIANT_ID_BYTES, VARIANTS_MAX, Variant, VariantIndex

VERSION: Final = 1

_HEAD = struct.Struct("<BBH")
_LENGTH_MAX = 0xFFFF
_REMEMBERED_BYTES_MAX = 2_048
_REMEMBERED_MAX = 256
_is_id = re.compile(b"[0-9a-f]{%d}" % VARIANT_ID_BYTES).fullmatch
_VARIANT = struct.Struct(f"<{VARIANT_ID_BYTES // 2}sHH")


def encode_index(index: VariantIndex) -> bytes:
    """The metadata of an index; raises MetadataError if it is too long, or an id is not 16 hex digits."""
    if len(index.variants) > VARIANTS_MAX:
        raise MetadataError(f"{len(index.variants)} variants, at most {VARIANTS_MAX}")
    parts = [_HEAD.pack(KIND_INDEX, VERSION, len(index.variants))]
    for variant in index.variants:
        if _is_id(variant.id) is None or len(variant.etag) > _LENGTH_MAX or len(variant.selecting) > _LENGTH_MAX:
            raise MetadataError(f"invalid variant: {variant.id!r}, ETag of {len(variant.etag)} bytes")
        parts.append(_VARIANT.pack(binascii.unhexlify(variant.id), len(variant.etag), len(variant.selecting)))
        parts += [variant.etag, pack_selecting(variant.selecting)]
    data = b"".join(parts)
    if len(data) > METADATA_BYTES_MAX:
        raise MetadataError(f"metadata of {len(data)} bytes, at most {METADATA_BYTES_MAX}")
    return data


def decode_index(data: bytes) -> VariantIndex:
    """The index in these metadata; results for short metadata are cached.

    Raises MetadataError for anything that encode_index() does not produce.
    """
    return _decode_remembered(data) if len(data) <= _REMEMBERED_BYTES_MAX else _decode(data)


def _decode(data: bytes) -> VariantIndex:
    if len(data) < _HEAD.size:
        raise MetadataError(f"index metadata of {len(data)} bytes is truncated")
    kind, version, count = _HEAD.unpack_from(data)
    if kind != KIND_INDEX or version != VERSION or count > VARIANTS_MAX:
        raise MetadataError(f"metadata of kind {kind}, version {version} with {count} variants")
    variants = []
    offset = _HEAD.size
    for _ in range(count):
        etag_at = offset + _VARIANT.size
        if etag_at > len(data):
            raise MetadataError("truncated variants")
        identity, etag_bytes, selecting_count = _VARIANT.unpack_from(data, offset)
        etag = data[etag_at : etag_at + etag_bytes]
        selecting, offset = unpack_selecting(data, etag_at + etag_bytes, selecting_count)
        if offset > len(data):
            raise MetadataError("truncated ETag")
        variants.append(Variant(selecting, etag, binascii.hexlify(identity)))
    if offset != len(data):
        raise MetadataError(f"{len(data)} bytes of metadata, {offset} by the lengths in them")
    return VariantIndex(tuple(variants))


_decode_remembered = functools.lru_cache(maxsize=_REMEMBERED_MAX)(_decode)
