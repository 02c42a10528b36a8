"""structured: what RFC 8941 calls a dictionary is parsed to the end, anything else is refused as a whole."""

import pytest

from webproxy.caching.structured import FieldType, Item, parse_dictionary

TRUE = Item(FieldType.TRUE)
OTHER = Item(FieldType.OTHER)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", {}),
        (b"  ", {}),
        (b"a", {b"a": TRUE}),
        (b" a ", {b"a": TRUE}),
        (b"a=?1", {b"a": TRUE}),
        (b"a=?0", {b"a": OTHER}),
        (b"a=10", {b"a": Item(FieldType.INTEGER, b"10")}),
        (b"a=-5", {b"a": Item(FieldType.INTEGER, b"-5")}),
        (b"a=007", {b"a": Item(FieldType.INTEGER, b"007")}),
        (b"a=" + b"9" * 15, {b"a": Item(FieldType.INTEGER, b"9" * 15)}),
        (b"a=1.5", {b"a": OTHER}),
        (b'a="x, y"', {b"a": Item(FieldType.STRING, b"x, y")}),
        (b'a=""', {b"a": Item(FieldType.STRING, b"")}),
        (b'a="\\"\\\\"', {b"a": Item(FieldType.STRING, b'"\\')}),
        (b"a=tok/en:1", {b"a": Item(FieldType.TOKEN, b"tok/en:1")}),
        (b"a=*", {b"a": Item(FieldType.TOKEN, b"*")}),
        (b"a=:YQ==:", {b"a": OTHER}),
        (b"a=()", {b"a": OTHER}),
        (b'a=(1 "2"; x  c ); y=1', {b"a": OTHER}),
        (b"max-age=1,no-store", {b"max-age": Item(FieldType.INTEGER, b"1"), b"no-store": TRUE}),
        (b"a \t,\t b", {b"a": TRUE, b"b": TRUE}),
        (b"a=1;x;y=2; z=tok, b;q", {b"a": Item(FieldType.INTEGER, b"1"), b"b": TRUE}),
        (b"a=1, b, a=2", {b"a": Item(FieldType.INTEGER, b"2"), b"b": TRUE}),
        (b"*a_b.c-1*", {b"*a_b.c-1*": TRUE}),
    ],
)
def test_dictionaries(value: bytes, expected: dict[bytes, Item]) -> None:
    assert parse_dictionary(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"a,",
        b",a",
        b"a,,b",
        b"a b",
        b"A",
        b"Max-Age=1",
        b"1a",
        b"a=",
        b"a =1",
        b"a= 1",
        b"a=1 ;x",
        b"a==1",
        b"a=" + b"9" * 16,
        b"a=1.",
        b"a=.5",
        b"a=1.2345",
        b"a=" + b"9" * 13 + b".0",
        b"a=1.2.3",
        b"a=+1",
        b"a=--1",
        b'a="open',
        b'a="\\n"',
        b'a="\xe9"',
        b'a="\x00"',
        b"a='1'",
        b"a=?2",
        b"a=:Y Q:",
        b"a=(1",
        b"a=(1,2)",
        b"a=(1)(2)",
        b'a=("1""2")',
        b"a;X",
        b"a;x=",
        b"&&&&&",
        b"a\x00",
        b"a\n,b",
    ],
)
def test_malformed(value: bytes) -> None:
    assert parse_dictionary(value) is None
