"""PURE: several stored responses for one URL, distinguished by the request fields in Vary (RFC 9111 section 4.1).

The object at the URL's key is either a response without Vary or an index: an empty body whose metadata list the
variants. A variant is a separate object at `variant_key(key, id)`. Index and variant are written one after the other,
so a reader compares the `selecting` of a variant with that in the index; if they differ, it is a miss.

Normalisation: lines of one name are joined. For the four negotiation fields (RFC 9110 section 12.5), white space around
commas and semicolons and empty list members are removed, and all but Accept are lower-cased, as their values are
case-insensitive. The order is kept, because an origin may use it to choose between equal weights. All other fields are
compared as received, since the meaning of their syntax is unknown.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from webproxy.caching.stored import Selecting
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.http.syntax import is_token, split_list

VARIANTS_MAX = 64
VARIANT_ID_BYTES = 16

# The limit for all variants of an index together: names, values and ETags, plus 32 bytes for each part. Well below the
# limit for metadata, so that an index can always be written.
_INDEX_COST_MAX = 60_000
_PART_COST = 32
_REMEMBERED_BYTES_MAX = 1_024

_CASELESS = frozenset((b"accept-encoding", b"accept-language", b"accept-charset"))
_NEGOTIATING = _CASELESS | {b"accept"}
_around_semicolons = re.compile(rb"[ \t]*;[ \t]*").sub


@dataclass(frozen=True, slots=True)
class Variant:
    """One stored response: the requests it answers, its ETag (empty if none), its id (16 hex digits)."""

    selecting: Selecting
    etag: bytes
    id: bytes


@dataclass(frozen=True, slots=True)
class VariantIndex:
    """The variants of one URL, most recent first."""

    variants: tuple[Variant, ...] = ()


def selecting_fields(response_fields: Fields, request: RequestHead) -> Selecting | None:
    """The fields of `request` named in the response's Vary, sorted by name; () without Vary.

    None if no later request can match: for `*` (section 4.1), and for a Vary that is not a list of names.
    """
    vary = response_fields.get(b"vary")
    if vary is None:
        return ()
    names = _varying_names(vary)
    return None if names is None else tuple([(name, _selecting_value(request.fields, name)) for name in names])


def selecting_like(selecting: Selecting, request: RequestHead) -> Selecting:
    """The values of these fields in `request`: requests with equal values can share a response."""
    return tuple([(name, _selecting_value(request.fields, name)) for name, _ in selecting])


def matches(selecting: Selecting, request: RequestHead) -> bool:
    """True if `request` has the same values in all of these fields; a field that was absent must be absent."""
    fields = request.fields
    for name, value in selecting:  # noqa: SIM110 - runs for every hit with variants: all() takes twice as long
        if _selecting_value(fields, name) != value:
            return False
    return True


def choose(index: VariantIndex, request: RequestHead) -> Variant | None:
    """The most recent variant that matches `request`, or None.

    One without Vary matches everything and is chosen only if no other does: an origin that omits Vary from its default
    response does not intend it to hide the others (section 4.1).
    """
    without_vary = None
    for variant in index.variants:
        if not variant.selecting:
            without_vary = without_vary or variant
        elif matches(variant.selecting, request):
            return variant
    return without_vary


def new_variant(selecting: Selecting, etag: bytes | None) -> Variant:
    """The variant for these selecting fields; equal fields give equal ids, in every process."""
    digest = hashlib.blake2b(digest_size=VARIANT_ID_BYTES // 2)
    for name, value in selecting:
        # The lengths distinguish values whose concatenation would be equal.
        digest.update(b"%d,%d:" % (len(name), -1 if value is None else len(value)) + name + (value or b""))
    return Variant(selecting, etag or b"", digest.hexdigest().encode())


def variant_id(selecting: Selecting, request: RequestHead) -> bytes:
    """The id of the variant for `request`, by these fields; empty without any."""
    return new_variant(selecting_like(selecting, request), None).id if selecting else b""


def has_others(index: VariantIndex | None, request: RequestHead) -> bool:
    """Whether responses with Vary exist for other requests: one without Vary must not hide them (section 4.1)."""
    return index is not None and any(one.selecting and not matches(one.selecting, request) for one in index.variants)


def replaced_by(index: VariantIndex, selecting: Selecting, request: RequestHead) -> tuple[Variant, ...]:
    """The variants in the index that are replaced by the response to `request` with these selecting fields.

    A response without Vary is chosen only if no variant matches, so those matching its own request have to go, or it
    would never be chosen. Among responses with Vary, the most recent is chosen anyway.
    """
    if selecting:
        return ()
    return tuple([one for one in index.variants if one.selecting and matches(one.selecting, request)])


def with_variant(index: VariantIndex, variant: Variant, without: Collection[Variant] = ()) -> VariantIndex:
    """The index with this variant as the most recent one, replacing any with the same selecting fields.

    `without` are removed. The oldest are dropped beyond VARIANTS_MAX, or beyond what fits the metadata of one object.
    """
    gone = {variant.selecting, *(other.selecting for other in without)}
    others = [other for other in index.variants if other.selecting not in gone]
    kept = [variant, *others[: VARIANTS_MAX - 1]]
    cost = sum(map(_cost, kept))
    while cost > _INDEX_COST_MAX and len(kept) > 1:
        cost -= _cost(kept.pop())
    return VariantIndex(tuple(kept))


def variant_key(key: bytes, variant_id: bytes) -> bytes:
    """The key of a variant of the URL with this key; no key of a URL contains NUL."""
    return key + b"\0" + variant_id


def _cost(variant: Variant) -> int:
    parts = sum(_PART_COST + len(name) + len(value or b"") for name, value in variant.selecting)
    return _PART_COST + len(variant.etag) + parts


def _varying_names(vary: bytes) -> tuple[bytes, ...] | None:
    names = {name.lower() for name in split_list(vary)}
    if b"*" in names or not all(map(is_token, names)):
        return None
    return tuple(sorted(names))


def _selecting_value(fields: Fields, name: bytes) -> bytes | None:
    value = fields.get(name)
    if value is None or name not in _NEGOTIATING:
        return value
    return _normalised_remembered(name, value) if len(value) <= _REMEMBERED_BYTES_MAX else _normalised(name, value)


def _normalised(name: bytes, value: bytes) -> bytes:
    members = [member if b'"' in member else _around_semicolons(b";", member) for member in split_list(value)]
    joined = b",".join(members)
    return joined.lower() if name in _CASELESS else joined


# Clients of one kind send the same value, so most values have been seen before.
_normalised_remembered = functools.lru_cache(maxsize=256)(_normalised)
