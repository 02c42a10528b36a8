"""Is what we make of a URL what libcurl makes of it, and does libcurl send ours as it is?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pycurl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.rawserver import RawServer
from webproxy.http.urls import BadTarget, http_path, normalise_url, normalised_path, origin_url

EMPTY_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
UNRESERVED = "abzAZ019-._~"
SUB_DELIMITERS = "!$&'()*+,;=:@"

escapes = st.from_regex(r"%[0-9A-Fa-f]{2}", fullmatch=True)
dots = st.sampled_from([".", "..", "%2e", "%2E", ".%2e", "%2E%2e", "..."])
words = st.text(UNRESERVED + SUB_DELIMITERS, max_size=4)
segments = st.lists(words | escapes | dots | st.just("é"), max_size=3).map("".join)
paths = st.lists(segments | dots, max_size=6).map(lambda parts: "/" + "/".join(parts))
queries = st.just("") | st.lists(words | escapes | st.sampled_from(["/", "?", "/../", "&"]), max_size=5).map(
    lambda parts: "?" + "".join(parts)
)
ports = st.sampled_from(["", ":", ":80", ":080", ":81", ":443", ":65535"])
hosts = st.sampled_from(["EXAMPLE.com", "a_b", "a.b-c.", "127.0.0.1", "[::1]", "[0:0:0::1]", "[FE80::0:1]"])
numbers = st.text("0123456789abcfxX.", min_size=1, max_size=12)
checked = examples(120, database=None)


class Sender:
    """libcurl, whose every connection goes to one loopback server."""

    def __init__(self, server: RawServer) -> None:
        self._server = server

    def send(self, url: str | bytes, **options: Any) -> tuple[bytes, bytes]:
        """Return the request target and the Host that a GET of the URL sends; pycurl.error when it sends none."""
        handle = pycurl.Curl()
        try:
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.PROXY, "")
            handle.setopt(pycurl.WRITEFUNCTION, lambda _: None)
            handle.setopt(pycurl.CONNECT_TO, [f"::127.0.0.1:{self._server.port}"])
            handle.setopt(pycurl.URL, url)
            for name, value in options.items():
                handle.setopt(getattr(pycurl, name), value)
            handle.perform()
        finally:
            handle.close()
        line, *fields = self._server.requests[-1].split(b"\r\n")
        (host,) = [field[6:] for field in fields if field.lower().startswith(b"host: ")]
        return line.split(b" ", 1)[1].rpartition(b" ")[0], host


@contextmanager
def sending() -> Iterator[Sender]:
    with RawServer([EMPTY_REPLY]) as server:
        yield Sender(server)


def path_escapes_upper(target: bytes) -> bytes:
    """Newer libcurl writes the path's escapes in capitals, older leaves them: the same path."""
    path, mark, query = target.partition(b"?")
    return re.sub(rb"%[0-9a-fA-F]{2}", lambda escape: escape[0].upper(), path) + mark + query


def test_a_url_means_to_us_what_libcurl_sends() -> None:
    with sending() as curl:

        @checked
        @given(hosts, ports, paths, queries, st.sampled_from(["", "#", "#a?b/.."]))
        @example("EXAMPLE.com", ":80", "", "", "")
        @example("EXAMPLE.com", "", "", "?a/../b", "#c")
        @example("a", ":81", "/a/%2e%2E/b%2fc/.", "?%2f%zz", "")
        def agrees(host: str, port: str, path: str, query: str, fragment: str) -> None:
            url = f"http://{host}{port}{path}{query}{fragment}".encode()
            target, sent_host = curl.send(url)
            expected = b"http://" + sent_host.lower() + path_escapes_upper(target)
            assert normalise_url(url).replace(b"%zz", b"%25zz") == expected.replace(b"%zz", b"%25zz")

        agrees()


def test_a_normal_path_is_sent_as_it_is() -> None:
    with sending() as curl:

        @checked
        @given(st.binary(max_size=30) | (paths | queries).map(str.encode))
        @example(b'a|b"<>{}\\^`?|"<>{}\\^`%')
        @example(b"a//../.?\xff")
        def unchanged(rest: bytes) -> None:
            try:
                path = http_path(b"/" + rest)
            except BadTarget:
                return
            target, host = curl.send(origin_url("http://h/", path), PATH_AS_IS=1)
            assert (target, host) == (path, b"h")

        unchanged()


def test_a_getfile_path_is_sent_with_escapes_only() -> None:
    with sending() as curl:

        @checked
        @given(st.binary(max_size=30).map(lambda raw: bytes(byte for byte in raw if byte > 0x20 and byte != 0x7F)))
        @example(b"a/../%2e%2e/b?c")
        def unchanged(rest: bytes) -> None:
            url = origin_url("http://h", normalised_path(b"/" + rest))
            target, _ = curl.send(url, PATH_AS_IS=1)
            assert path_escapes_upper(target) == path_escapes_upper(url.removeprefix("http://h").encode())

        unchanged()


def test_a_host_is_refused_or_sent_as_it_is() -> None:
    """libcurl reads IPv4 addresses into many numbers; a key with such a host would not name what was asked."""
    with sending() as curl:

        @checked
        @given(numbers)
        @example("127.1")
        @example("0x7f.0.0.1")
        @example("2130706433")
        @example("01.2.3.4")
        @example("1.2.3.4.")
        @example("1.2.3.4")
        def unchanged(host: str) -> None:
            try:
                url = normalise_url(f"http://{host}/".encode())
            except BadTarget:
                return
            assert curl.send(url) == (b"/", host.lower().encode())

        unchanged()


targets = st.binary(max_size=40) | (paths | queries).map(lambda text: text.encode("latin-1"))


@settings(deadline=None)
@given(targets)
def test_normalising_is_final(rest: bytes) -> None:
    try:
        once = http_path(b"/" + rest)
    except BadTarget:
        return
    assert once.startswith(b"/")
    assert http_path(once) == once
    assert re.fullmatch(rb"[!-~]+", once)
    assert not {b".", b"..", b"%2E", b"%2E%2E"} & set(once.partition(b"?")[0].split(b"/"))


@settings(deadline=None)
@given(targets)
def test_getfile_and_http_share_every_path_in_normal_form(rest: bytes) -> None:
    try:
        path = http_path(b"/" + rest)
    except BadTarget:
        return
    assert normalised_path(path) == path
    assert origin_url("http://h", path) == "http://h" + path.decode()


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_url_or_refused(url: bytes) -> None:
    for candidate in (url, b"http://" + url, b"http://h/" + url):
        try:
            normal = normalise_url(candidate)
        except BadTarget:
            continue
        assert normalise_url(normal) == normal
