"""PURE: several stored responses for one URL, told apart by the request fields that Vary names (RFC 9111 section 4.1).

The object at the URL's key is either a response without Vary, or an index: an empty body whose metadata list the
variants. A variant is an object of its own at `variant_key(key, id)`. Index and variant are written one after the
other, so whoever has loaded a variant compares its `selecting` with that in the index; when they differ it is a miss.

Normalisation: lines of one name are joined. Of the four fields that negotiate (RFC 9110 section 12.5) the white space
around commas and semicolons and empty list members go too, and but for Accept they become lower case, for their values
have no case. The order stays, because an origin may let it decide between equal weights. All others are compared as
they came: of a field that we do not know, we do not know what may be changed.
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

# What the variants of an index may take together, names, values and ETags with 32 bytes for each part: well below
# what metadata may be, so that an index can always be written.
_INDEX_COST_MAX = 60_000
_PART_COST = 32

_CASELESS = frozenset((b"accept-encoding", b"accept-language", b"accept-charset"))
_NEGOTIATING = _CASELESS | {b"accept"}
_around_semicolons = re.compile(rb"[ \t]*;[ \t]*").sub


@dataclass(frozen=True, slots=True)
class Variant:
    """One stored response: which requests it answers, its ETag (empty when it has none), its id (16 hex digits)."""

    selecting: Selecting
    etag: bytes
    id: bytes


@dataclass(frozen=True, slots=True)
class VariantIndex:
    """The variants of one URL, the most recent first."""

    variants: tuple[Variant, ...] = ()

    @property
    def etags(self) -> list[bytes]:
        """The ETags of the variants, for a request that validates them all at once (section 4.3.1)."""
        return [variant.etag for variant in self.variants if variant.etag]


def selecting_fields(response_fields: Fields, request: RequestHead) -> Selecting | None:
    """The fields of `request` that the response's Vary names, in the order of their names; () when it has no Vary.

    None when no later request can be told to match: for `*` (section 4.1), and for a Vary that is no list of names.
    """
    vary = response_fields.get(b"vary")
    if vary is None:
        return ()
    names = _varying_names(vary)
    return None if names is None else tuple([(name, _selecting_value(request.fields, name)) for name in names])


def selecting_like(selecting: Selecting, request: RequestHead) -> Selecting:
    """The values that `request` has in these fields: equal ones may share an answer."""
    return tuple([(name, _selecting_value(request.fields, name)) for name, _ in selecting])


def matches(selecting: Selecting, request: RequestHead) -> bool:
    """True when `request` has the same values in all of these fields; one that was absent is absent again."""
    fields = request.fields
    for name, value in selecting:  # noqa: SIM110 - for every hit of a URL with variants: all() takes twice as long
        if _selecting_value(fields, name) != value:
            return False
    return True


def choose(index: VariantIndex, request: RequestHead) -> Variant | None:
    """The most recent variant that matches `request`, None when there is none.

    One that came without Vary matches everything, and is chosen only when no other does: an origin that leaves Vary
    out of its default answer does not want that to hide the others (section 4.1).
    """
    without_vary = None
    for variant in index.variants:
        if not variant.selecting:
            without_vary = without_vary or variant
        elif matches(variant.selecting, request):
            return variant
    return without_vary


def new_variant(selecting: Selecting, etag: bytes | None) -> Variant:
    """The variant for these selecting fields; the same fields give the same id, in every process."""
    digest = hashlib.blake2b(digest_size=VARIANT_ID_BYTES // 2)
    for name, value in selecting:
        # The lengths keep apart what would read the same when it is strung together.
        digest.update(b"%d,%d:" % (len(name), -1 if value is None else len(value)) + name + (value or b""))
    return Variant(selecting, etag or b"", digest.hexdigest().encode())


def variant_id(selecting: Selecting, request: RequestHead) -> bytes:
    """The id of the variant that `request` would have, going by these fields; empty without any."""
    return new_variant(selecting_like(selecting, request), None).id if selecting else b""


def has_others(index: VariantIndex | None, request: RequestHead) -> bool:
    """Whether there are answers with Vary to other requests: one without it must not hide them (section 4.1)."""
    return index is not None and any(one.selecting and not matches(one.selecting, request) for one in index.variants)


def replaced_by(index: VariantIndex, selecting: Selecting, request: RequestHead) -> tuple[Variant, ...]:
    """Those variants of the index that the answer to `request`, with these selecting fields, takes the place of.

    An answer without Vary is chosen only where no variant matches: those that would have answered its own request must
    go, or it would never be. Among answers with Vary the most recent one is chosen by itself.
    """
    if selecting:
        return ()
    return tuple([one for one in index.variants if one.selecting and matches(one.selecting, request)])


def with_variant(index: VariantIndex, variant: Variant, without: Collection[Variant] = ()) -> VariantIndex:
    """The index with this variant as the most recent one, in place of the one with the same selecting fields.

    `without` are left out. The oldest go when there are more than VARIANTS_MAX, or when they would not fit the metadata
    of one object.
    """
    gone = {variant.selecting, *(other.selecting for other in without)}
    others = [other for other in index.variants if other.selecting not in gone]
    kept = [variant, *others[: VARIANTS_MAX - 1]]
    cost = sum(map(_cost, kept))
    while cost > _INDEX_COST_MAX and len(kept) > 1:
        cost -= _cost(kept.pop())
    return VariantIndex(tuple(kept))


def variant_key(key: bytes, variant_id: bytes) -> bytes:
    """Where the variant of the URL with this key is stored; no URL has a key with NUL in it."""
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
    return value if value is None or name not in _NEGOTIATING else _normalised(name, value)


# Clients of one kind send one value: what most requests bring has been looked at before.
@functools.lru_cache(maxsize=256)
def _normalised(name: bytes, value: bytes) -> bytes:
    members = [member if b'"' in member else _around_semicolons(b";", member) for member in split_list(value)]
    joined = b",".join(members)
    return joined.lower() if name in _CASELESS else joined
