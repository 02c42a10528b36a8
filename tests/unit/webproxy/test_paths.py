"""paths: is what we make of a path what libcurl would make of it, and does a URL hold it safely?"""

from __future__ import annotations

import itertools
import re

import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rawserver import RawServer
from webproxy.paths import normalised_path, origin_url

EMPTY_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SEGMENTS = (b"a", b"", b".", b"..", b"%2e", b".%2E", b"%2e%2e", b"...", b"%2e%2e%2e")


def paths_to_compare() -> list[bytes]:
    found = [b"/" + b"/".join(parts) for count in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=count)]
    deeper = [b"/a/b/c/../../d", b"/../../../etc/passwd", b"/a/./b/../../../c/", b"/.well-known/..a/b..", b"/a/b/../.."]
    return found + deeper + [b"/a/../b?x=/../y", b"/a/..?q", b"/a/.?", b"/?/../", b"/a?..", b"/%2e%2e?%2e%2e/"]


def escapes_upper(path: bytes) -> bytes:
    """Newer libcurl writes escapes in capitals: the same path."""
    return re.sub(rb"%[0-9a-f]{2}", lambda match: match[0].upper(), path, flags=re.IGNORECASE)


def test_the_path_is_what_libcurl_would_send() -> None:
    expected, sent = [], []
    with RawServer([EMPTY_REPLY]) as server:
        handle = pycurl.Curl()
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.PROXY, "")
        handle.setopt(pycurl.WRITEFUNCTION, lambda _: None)
        for path in paths_to_compare():
            handle.setopt(pycurl.URL, f"http://127.0.0.1:{server.port}{path.decode()}")
            handle.perform()
            expected.append((path, escapes_upper(server.requests[-1].split(b" ")[1])))
            sent.append((path, escapes_upper(normalised_path(path))))
        handle.close()
    assert sent == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/a",
        b"/a/",
        b"/a//b",
        b"/a.b/..c/d..",
        b"/a%2f..%2fb",
        b"/..a",
        b"/a?b/../c",
        b"/%20",
        b"/a%2eb",
        b"/\xff",
    ],
)
def test_a_path_without_dot_segments_is_left_alone(path: bytes) -> None:
    assert normalised_path(path) == path


@given(st.lists(st.sampled_from([*SEGMENTS, b"b?c", b"%", b"\xc3"]), max_size=8))
def test_normalising_is_final_and_stays_below_the_root(parts: list[bytes]) -> None:
    path = b"/" + b"/".join(parts)
    once = normalised_path(path)
    assert once.startswith(b"/")
    assert normalised_path(once) == once
    assert not {b".", b"..", b"%2e", b"%2e%2e"} & set(once.partition(b"?")[0].lower().split(b"/"))


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("http://h", b"/a", "http://h/a"),
        ("http://h/", b"/a", "http://h/a"),
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


@given(st.binary(max_size=40))
def test_any_path_is_one_printable_word(rest: bytes) -> None:
    url = origin_url("http://h", b"/" + rest)
    assert url.startswith("http://h/")
    assert url.isascii()
    assert url.isprintable()
    assert not {" ", "#", "\\"} & set(url)
