"""The metadata codecs: what is encoded comes back; any other bytes are metadata or refused, nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.support.examples import examples
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import MetadataError, decode, decode_index, encode, encode_index
from webproxy.caching.variants import VARIANTS_MAX, Variant, VariantIndex
from webproxy.http.fields import Fields

_TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
_VALUE = st.binary(max_size=40).filter(lambda value: not set(value) & set(b"\0\r\n"))
_SECONDS = st.integers(0, 2**32 - 1)
_TIME = st.floats(0, 2**39) | st.integers(0, 2**39)
_SELECTING = st.lists(st.tuples(st.binary(max_size=20), st.none() | st.binary(max_size=40)), max_size=4).map(tuple)
_RESPONSES = st.builds(
    StoredResponse,
    status=st.integers(100, 999),
    fields=st.lists(st.tuples(_TOKEN, _VALUE), max_size=6).map(Fields),
    reason=st.binary(max_size=20),
    request_time=_TIME,
    response_time=_TIME,
    initial_age_s=_SECONDS,
    lifetime_s=_SECONDS,
    heuristic=st.booleans(),
    always_validate=st.booleans(),
    never_stale=st.booleans(),
    incomplete=st.booleans(),
    stale_while_revalidate_s=_SECONDS,
    stale_if_error_s=_SECONDS,
    selecting=_SELECTING,
    body_bytes=st.integers(0, 2**64 - 1),
)
_VARIANTS = st.builds(
    Variant, _SELECTING, st.binary(max_size=20), st.binary(min_size=8, max_size=8).map(lambda raw: raw.hex().encode())
)
_INDEXES = st.lists(_VARIANTS, max_size=5).map(lambda variants: VariantIndex(tuple(variants)))


@given(_RESPONSES, st.booleans())
@examples(200)
def test_responses_come_back(stored: StoredResponse, invalidated: bool) -> None:
    back = decode(encode(stored), invalidated=invalidated)
    assert all(
        getattr(back, name) == getattr(stored, name)
        for name in StoredResponse.__dataclass_fields__
        if name != "invalidated"
    )
    assert back.invalidated is invalidated
    assert back.fields.block == stored.fields.block


@given(_INDEXES)
@example(VariantIndex((Variant((), b"", b"0" * 16),) * VARIANTS_MAX))
@examples(200)
def test_indexes_come_back(index: VariantIndex) -> None:
    assert decode_index(encode_index(index)) == index


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=3))
@example([(b"A", b"b\r\nC: d")])
@examples(200)
def test_no_line_comes_in_by_a_value(lines: list[tuple[bytes, bytes]]) -> None:
    """Fields that cannot be sent as they are cannot be written; whatever is written is read as it was."""
    stored = StoredResponse(
        status=200, fields=Fields(lines), request_time=0.0, response_time=0.0, initial_age_s=0, lifetime_s=0
    )
    try:
        data = encode(stored)
    except MetadataError:
        return
    assert decode(data).fields.lines == tuple(lines)


def decodes_or_refuses(data: bytes) -> None:
    """Nothing else may come out of either; what is taken says the same when it is encoded again."""
    both: list[tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = [(decode, encode), (decode_index, encode_index)]
    for read, write in both:
        try:
            value = read(data)
        except MetadataError:
            continue
        assert write(value) == data


@given(st.binary(max_size=300))
@example(b"")
@examples(150)
def test_any_bytes(data: bytes) -> None:
    decodes_or_refuses(data)


@pytest.mark.parametrize("kind", [b"\x01\x01", b"\x02\x01"], ids=["response", "index"])
@given(rest=st.binary(max_size=200))
@examples(150)
def test_any_bytes_behind_a_right_beginning(kind: bytes, rest: bytes) -> None:
    decodes_or_refuses(kind + rest)


@given(_RESPONSES.map(encode) | _INDEXES.map(encode_index), st.data())
@examples(300)
def test_metadata_with_a_change_in_them(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = draw.draw(
        st.sampled_from(
            [data[:at] + bytes([draw.draw(st.integers(0, 255))]) + data[at + 1 :], data[:at], data + data[at:]]
        )
    )
    assume(changed != data)
    decodes_or_refuses(changed)
