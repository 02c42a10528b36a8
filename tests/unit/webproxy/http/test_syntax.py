"""syntax: tokens, lists with quoted strings in them, the text of quoted strings, absolute URLs."""

import string

import pytest

from webproxy.http.syntax import has_unclosed_quote, is_structured_token, is_token, match_http_url, split_list, unquote

TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~" + string.ascii_letters.encode() + string.digits.encode())


def test_a_token_is_made_of_certain_bytes() -> None:
    assert {byte for byte in range(256) if is_token(bytes([byte]))} == TOKEN_BYTES


@pytest.mark.parametrize("value", [b"", b"a b", b"a\n", b"\na", b"a:", b'"a"', b"\xc3\xbc"])
def test_no_token(value: bytes) -> None:
    assert not is_token(value)


def test_a_structured_token_begins_with_a_letter_and_may_hold_colons_and_slashes() -> None:
    first = {byte for byte in range(256) if is_structured_token(bytes([byte]))}
    assert first == frozenset(b"*" + string.ascii_letters.encode())
    assert {byte for byte in range(256) if is_structured_token(b"a" + bytes([byte]))} == TOKEN_BYTES | set(b":/")


@pytest.mark.parametrize(
    ("value", "unclosed"),
    [(b"a", False), (b'a="b"', False), (b'"a\\""', False), (b'"', True), (b'a="b', True), (b'"a", "', True)],
)
def test_unclosed_quote(value: bytes, unclosed: bool) -> None:
    assert has_unclosed_quote(value) is unclosed


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (b"http://h", (b"http", b"h", None)),
        (b"HTTPS://u@h:1/p?q#f", (b"HTTPS", b"u@h:1", b"/p?q#f")),
        (b"http://?q", (b"http", b"", b"?q")),
        (b"http://h#\n", (b"http", b"h", b"#\n")),
        (b"ftp://h/", None),
        (b"http:/h", None),
        (b"/http://h", None),
    ],
)
def test_absolute_urls(url: bytes, parts: tuple[bytes, ...] | None) -> None:
    found = match_http_url(url)
    assert (found and found.groups()) == parts


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
