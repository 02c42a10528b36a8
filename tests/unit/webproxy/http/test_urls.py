"""urls: the normal form of what a client asks for, case by case; how it agrees with libcurl is a property test."""

from __future__ import annotations

import pytest

from webproxy.http.urls import (
    BadTarget,
    TargetParts,
    http_path,
    name_and_port,
    normalise_url,
    normalised_authority,
    normalised_path,
    origin_url,
    split_target,
    without_parameters,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"/a//b/", b"/a//b/"),
        (b"/a/../b", b"/b"),
        (b"/../../etc", b"/etc"),
        (b"/a/%2E%2e/b/%2e", b"/b/"),
        (b"/a/.well-known/..a/...", b"/a/.well-known/..a/..."),
        (b"/%41%7e%2f%2f", b"/%41%7E%2F%2F"),
        (b"/a?%2f%7e", b"/a?%2f%7e"),
        (b"/a?b=/../c&d=./", b"/a?b=/../c&d=./"),
        (b"/a?", b"/a?"),
        (b"/a??b", b"/a??b"),
        (b"/\xc3\xa9?\xc3\xa9", b"/%C3%A9?%C3%A9"),
        (b'/"<>\\^`{|}?"<>\\^`{|}', b"/%22%3C%3E%5C%5E%60%7B%7C%7D?%22%3C%3E%5C%5E%60%7B%7C%7D"),
        (b"/100%", b"/100%25"),
        (b"/%4?%zz", b"/%254?%25zz"),
        (b"/a%2f..%2fb", b"/a%2F..%2Fb"),
        (b"/%00", b"/%00"),
        (b"/!$&'()*+,-;=:@_~[]", b"/!$&'()*+,-;=:@_~[]"),
    ],
)
def test_http_paths(path: bytes, expected: bytes) -> None:
    assert http_path(path) == expected


@pytest.mark.parametrize("byte", [*range(0x21), 0x23, 0x7F])
@pytest.mark.parametrize("beginning", [b"/a", b"/a?b"])
def test_controls_blanks_and_fragments_are_refused(byte: int, beginning: bytes) -> None:
    with pytest.raises(BadTarget):
        http_path(beginning + bytes([byte]))


@pytest.mark.parametrize(
    ("target", "host", "parts"),
    [
        (b"/a?b", b"Example.com:80", (b"http", b"example.com", b"/a?b", False)),
        (b"//evil/a", b"h:81", (b"http", b"h:81", b"//evil/a", False)),
        (b"/a", None, (b"http", None, b"/a", False)),
        (b"/a", b"", (b"http", None, b"/a", False)),
        (b"http://h/a/../b", b"other", (b"http", b"h", b"/b", True)),
        (b"HTTP://H:8080", None, (b"http", b"h:8080", b"/", True)),
        (b"http://h?q", None, (b"http", b"h", b"/?q", True)),
        (b"https://h:443/", None, (b"https", b"h", b"/", True)),
        (b"https://h:80/", None, (b"https", b"h:80", b"/", True)),
        (b"http://[::1]:81/x", None, (b"http", b"[::1]:81", b"/x", True)),
    ],
)
def test_targets(target: bytes, host: bytes | None, parts: tuple[bytes, bytes | None, bytes, bool]) -> None:
    assert split_target(target, host) == TargetParts(*parts)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"h:443",
        b"a",
        b"ftp://h/",
        b"http:/h/",
        b"http:///a",
        b"http://user@h/",
        b"http://user:word@h/",
        b"http://h\\@other/",
        b"http://h/#a",
        b"http://h#a",
        b"http://h/a b",
        b"http://h\n/",
        b" http://h/",
        b"http://h:0/",
        b"file:///etc/passwd",
    ],
)
def test_no_targets(target: bytes) -> None:
    with pytest.raises(BadTarget):
        split_target(target, b"h")


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"H", b"h"),
        (b"a-b.C_d.example", b"a-b.c_d.example"),
        (b"h.", b"h."),
        (b"h:", b"h"),
        (b"h:080", b"h"),
        (b"h:65535", b"h:65535"),
        (b"1.2.3.4:1", b"1.2.3.4:1"),
        (b"1.example", b"1.example"),
        (b"[::1]", b"[::1]"),
        (b"[0:0::ABCD]:80", b"[::abcd]"),
        (b".".join([b"a" * 63] * 3) + b":8080", b".".join([b"a" * 63] * 3) + b":8080"),
    ],
)
def test_authorities(authority: bytes, expected: bytes) -> None:
    assert normalised_authority(authority) == expected


@pytest.mark.parametrize(
    "authority",
    [
        b"",
        b":80",
        b".",
        b"a..b",
        b".a",
        b"a b",
        b"a,b",
        b"a/b",
        b"u@h",
        b"h:65536",
        b"h:0",
        b"h:-1",
        b"h:123456",
        b"h:8o",
        b"h:80:80",
        b"%68",
        b"\xc3\xa9",
        b"h\x00",
        b"h\n",
        b"127.1",
        b"1.2.3.4.5",
        b"1.2.3.256",
        b"01.2.3.4",
        b"1.2.3.4.",
        b"0x7f",
        b"2130706433",
        b"::1",
        b"[::1",
        b"[::g]",
        b"[1.2.3.4]",
        b"[fe80::1%25eth0]",
        b"[v1.a]",
        b"a" * 64,
        b".".join([b"a" * 63] * 5),
    ],
)
def test_no_authorities(authority: bytes) -> None:
    with pytest.raises(BadTarget):
        normalised_authority(authority)


def test_the_default_port_is_the_scheme_s() -> None:
    assert normalised_authority(b"h:443", b"https") == b"h"
    assert normalised_authority(b"h:443", b"http") == b"h:443"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [(b"h", (b"h", 80)), (b"h:81", (b"h", 81)), (b"[::1]", (b"[::1]", 80)), (b"[::1]:81", (b"[::1]", 81))],
)
def test_name_and_port(authority: bytes, expected: tuple[bytes, int]) -> None:
    assert name_and_port(authority) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (b"HTTP://Example.COM:80", b"http://example.com/"),
        (b"http://h/a/./b/../%7e?c#d", b"http://h/a/%7E?c"),
        (b"https://h:443/#", b"https://h/"),
    ],
)
def test_urls(url: bytes, expected: bytes) -> None:
    assert normalise_url(url) == expected


@pytest.mark.parametrize("url", [b"/a", b"//h/a", b"h/a", b"", b"#a", b"mailto:a"])
def test_no_urls(url: bytes) -> None:
    with pytest.raises(BadTarget):
        normalise_url(url)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/a", b"/a"),
        (b"/a?", b"/a?"),
        (b"/a?x=1", b"/a"),
        (b"/a?x", b"/a"),
        (b"/a?x=1&b=2", b"/a?b=2"),
        (b"/a?b=2&x=1&a=3&y&x=5", b"/a?b=2&a=3"),
        (b"/a?xx=1&X=2&b=x", b"/a?xx=1&X=2&b=x"),
        (b"/a?&x=1&", b"/a?&"),
        (b"/x=1&y?b", b"/x=1&y?b"),
        (b"/a?b?x=1", b"/a?b?x=1"),
        (b"/a?%78=1", b"/a?%78=1"),
    ],
)
def test_parameters_go_by_their_exact_name(path: bytes, expected: bytes) -> None:
    assert without_parameters(path, frozenset({b"x", b"y"})) == expected


@pytest.mark.parametrize("path", [b"/", b"/a//b", b"/a%2f..%2fb", b"/a?b/../c", b"/%20", b"/a%2eb", b"/\xff", b"/a b"])
def test_a_getfile_path_without_dot_segments_is_left_alone(path: bytes) -> None:
    assert normalised_path(path) == path


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"/a/../b", b"/b"), (b"/../..", b"/"), (b"/a/b/..", b"/a/"), (b"/\xff/%2E%2e/\xfe?/..", b"/\xfe?/..")],
)
def test_a_getfile_path_loses_its_dot_segments_and_keeps_its_bytes(path: bytes, expected: bytes) -> None:
    assert normalised_path(path) == expected


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("http://h", b"/a", "http://h/a"),
        ("http://h:81/base/", b"/a/b?c=d&e", "http://h:81/base/a/b?c=d&e"),
        ("http://h", b"//evil/x", "http://h//evil/x"),
        ("http://h", b"/a b\r\nHost: x\x00", "http://h/a%20b%0D%0AHost:%20x%00"),
        ("http://h", b"/a#b", "http://h/a%23b"),
        ("http://h", b"/%41%zz%", "http://h/%41%25zz%25"),
        ("http://h", b'/"<>\\^`{|}', "http://h/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("http://h", b"/\xe9\xff", "http://h/%E9%FF"),
        ("http://h", b"/@evil:80/", "http://h/@evil:80/"),
    ],
)
def test_a_url_holds_any_path(base: str, path: bytes, expected: str) -> None:
    assert origin_url(base, path) == expected
