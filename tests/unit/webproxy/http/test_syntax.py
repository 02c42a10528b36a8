"""syntax: tokens, lists with quoted strings in them, and what quoted strings say."""

import string

import pytest

from webproxy.http.syntax import is_token, split_list, unquote

TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~" + string.ascii_letters.encode() + string.digits.encode())


def test_a_token_is_made_of_certain_bytes() -> None:
    assert {byte for byte in range(256) if is_token(bytes([byte]))} == TOKEN_BYTES


@pytest.mark.parametrize("value", [b"", b"a b", b"a\n", b"\na", b"a:", b'"a"', b"\xc3\xbc"])
def test_no_token(value: bytes) -> None:
    assert not is_token(value)


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b" , ,\t,", [], id="empty-elements"),
        pytest.param(b"a", [b"a"], id="one"),
        pytest.param(b"a,b , \tc d\t", [b"a", b"b", b"c d"], id="blanks-around"),
        pytest.param(b'a="b,c", d', [b'a="b,c"', b"d"], id="comma-in-quotes"),
        pytest.param(b'"a\\",b",c', [b'"a\\",b"', b"c"], id="escaped-quote"),
        pytest.param(b'"a\\\\",b', [b'"a\\\\"', b"b"], id="escaped-backslash"),
        pytest.param(b'a,"b,c', [b"a", b'"b,c'], id="open-quotation"),
        pytest.param(b'a,"b\\', [b"a", b'"b\\'], id="backslash-at-the-end"),
        pytest.param(b'W/"a", "b"', [b'W/"a"', b'"b"'], id="entity-tags"),
        pytest.param(b'"","",x', [b'""', b'""', b"x"], id="empty-strings"),
        pytest.param(b'"a\nb",c', [b'"a\nb"', b"c"], id="line-end-in-quotes"),
    ],
)
def test_lists_are_parted_at_commas_outside_of_quotes(value: bytes, elements: list[bytes]) -> None:
    assert split_list(value) == elements


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(b'""', b"", id="empty"),
        pytest.param(b'"a b"', b"a b", id="plain"),
        pytest.param(b'"a\\"b\\\\c\\d"', b'a"b\\cd', id="pairs"),
        pytest.param(b"token", b"token", id="token"),
        pytest.param(b'"open', b'"open', id="open"),
        pytest.param(b'"a"b"', b'"a"b"', id="quote-inside"),
        pytest.param(b'"a\\"', b'"a\\"', id="end-escaped"),
        pytest.param(b'"', b'"', id="one-quote"),
    ],
)
def test_unquote(value: bytes, text: bytes) -> None:
    assert unquote(value) == text
