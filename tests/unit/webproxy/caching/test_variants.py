"""variants: normal forms, the index and its bounds; the rules of section 4.1 are in tests/rfc9111."""

from __future__ import annotations

import pytest

from tests.support.http_values import fields, request
from webproxy.caching.stored_codec import decode_index, encode_index
from webproxy.caching.variants import (
    VARIANTS_MAX,
    VariantIndex,
    choose,
    matches,
    new_variant,
    selecting_fields,
    variant_key,
    with_variant,
)


@pytest.mark.parametrize(
    ("line", "name", "normal"),
    [
        pytest.param(b"Accept-Encoding: gzip, br", b"accept-encoding", b"gzip,br", id="blank-behind-comma"),
        pytest.param(b"Accept-Encoding: gzip ,br\t,", b"accept-encoding", b"gzip,br", id="blanks-and-empty-member"),
        pytest.param(b"Accept-Encoding: br, gzip", b"accept-encoding", b"br,gzip", id="order-stays"),
        pytest.param(b"Accept-Encoding: GZip; Q=0.5", b"accept-encoding", b"gzip;q=0.5", id="codings-have-no-case"),
        pytest.param(b"Accept-Language: de-DE, en;q=0.7", b"accept-language", b"de-de,en;q=0.7", id="languages"),
        pytest.param(b"Accept-Charset: UTF-8", b"accept-charset", b"utf-8", id="charsets"),
        pytest.param(b"Accept: Text/HTML ; a=B, */*", b"accept", b"Text/HTML;a=B,*/*", id="media-types-keep-case"),
        pytest.param(b'Accept: a/b; c="x , ; y" , d/e', b"accept", b'a/b; c="x , ; y",d/e', id="quoted"),
        pytest.param(b"Accept-Encoding:", b"accept-encoding", b"", id="empty-is-not-absent"),
        pytest.param(b"User-Agent: A, B ;  c", b"user-agent", b"A, B ;  c", id="others-stay"),
        pytest.param(b"X: y", b"accept-encoding", None, id="absent"),
    ],
)
def test_values_have_a_normal_form(line: bytes, name: bytes, normal: bytes | None) -> None:
    assert selecting_fields(fields(b"Vary: " + name), request(line)) == ((name, normal),)


def test_lines_of_one_name_are_one_value() -> None:
    several = request(b"Accept-Encoding: gzip", b"accept-encoding: br", b"X-A: 1", b"X-A: 2")
    assert selecting_fields(fields(b"Vary: x-a", b"Vary: Accept-Encoding"), several) == (
        (b"accept-encoding", b"gzip,br"),
        (b"x-a", b"1, 2"),
    )


def test_names_are_sorted_and_counted_once() -> None:
    one = selecting_fields(fields(b"Vary: B, a, b,, A"), request(b"A: 1", b"B: 2"))
    assert one == ((b"a", b"1"), (b"b", b"2"))


@pytest.mark.parametrize("vary", [b"*", b"Accept, *", b"Accept, *, Cookie", b"Acc ept", b'"Accept"'])
def test_a_vary_that_nothing_matches(vary: bytes) -> None:
    assert selecting_fields(fields(b"Vary: " + vary), request(b"Accept: a/b")) is None


@pytest.mark.parametrize("lines", [(), (b"Vary:",), (b"Vary: ,",)], ids=["none", "empty", "only-a-comma"])
def test_without_vary_nothing_selects(lines: tuple[bytes, ...]) -> None:
    assert selecting_fields(fields(*lines), request(b"Accept: a/b")) == ()


def test_ids_are_the_same_everywhere_and_tell_apart_what_reads_the_same() -> None:
    assert new_variant((), None).id == b"e4a6a0577479b2b4"
    assert new_variant(((b"accept", b"a"),), b'"1"').id == b"1608c79c24490bed"
    similar = [
        ((b"a", b"bc"),),
        ((b"ab", b"c"),),
        ((b"a", None),),
        ((b"a", b""),),
        ((b"a", b""), (b"b", b"c")),
        ((b"a", b"b"), (b"c", None)),
    ]
    assert len({new_variant(selecting, None).id for selecting in similar}) == len(similar)


def test_a_variants_key_is_below_the_urls() -> None:
    assert variant_key(b"/a?b", b"0123456789abcdef") == b"/a?b\x000123456789abcdef"


def gzip(value: bytes, etag: bytes = b"") -> VariantIndex:
    return VariantIndex((new_variant(((b"accept-encoding", value),), etag),))


def test_the_same_selecting_fields_take_the_place() -> None:
    index = with_variant(gzip(b"gzip", b'"old"'), new_variant(((b"accept-encoding", b"br"),), None))
    index = with_variant(index, new_variant(((b"accept-encoding", b"gzip"),), b'"new"'))
    assert [(variant.selecting[0][1], variant.etag) for variant in index.variants] == [
        (b"gzip", b'"new"'),
        (b"br", b""),
    ]


def test_the_oldest_go_when_there_are_too_many() -> None:
    index = VariantIndex()
    for number in range(VARIANTS_MAX + 3):
        index = with_variant(index, new_variant(((b"x", b"%d" % number),), None))
    assert [variant.selecting[0][1] for variant in index.variants] == [
        b"%d" % number for number in range(VARIANTS_MAX + 2, 2, -1)
    ]


def test_the_oldest_go_when_an_index_could_not_be_written() -> None:
    index = VariantIndex()
    for number in range(VARIANTS_MAX):
        selecting = tuple((b"n%d" % field, b"%02d" % number + b"v" * 300) for field in range(10))
        index = with_variant(index, new_variant(selecting, b'"e"'))
    assert 2 < len(index.variants) < VARIANTS_MAX
    assert index.variants[0].selecting[0][1][:2] == b"63"
    assert decode_index(encode_index(index)) == index


def test_many_small_fields_can_be_written_too() -> None:
    """The cost of a part covers what the layout adds to it."""
    index = VariantIndex()
    for number in range(VARIANTS_MAX):
        selecting = (*[(b"%d" % field, None) for field in range(100)], (b"x", b"%d" % number))
        index = with_variant(index, new_variant(selecting, None))
    assert decode_index(encode_index(index)) == index


def test_one_variant_stays_however_long_it_is() -> None:
    """It cannot be written then, which is for whoever writes it to see."""
    long = new_variant(((b"cookie", b"c" * 65_000),), None)
    assert with_variant(gzip(b"gzip"), long) == VariantIndex((long,))


def test_matching_is_by_all_fields() -> None:
    selecting = ((b"accept-encoding", b"gzip"), (b"cookie", None))
    assert matches(selecting, request(b"Accept-Encoding: GZIP"))
    assert not matches(selecting, request(b"Accept-Encoding: gzip", b"Cookie: a"))
    assert not matches(selecting, request())


def test_an_empty_index_has_nothing_to_choose() -> None:
    assert choose(VariantIndex(), request()) is None
