"""curl through the pair to a real nginx: right bytes, and the origin asked as seldom as the rules allow."""

from __future__ import annotations

import gzip
import os
import re
import time
from email.utils import formatdate

import pytest

from tests.clients.curl import Curl
from tests.clients.site import Site
from tests.support.nginx import LIFETIME_S

MEGABYTE = 1 << 20


def test_the_second_of_two_is_a_hit_and_the_origin_has_one_line(site: Site, curl: Curl) -> None:
    """The show of the issue: `curl -sD- http://127.0.0.1:PORT/x` twice."""
    body = site.add("/x", b"what everybody pulls\n")
    first = curl.run("-D-", f"{site.url}/x").split("\r\n\r\n", 1)
    site.wait_stored("/x")
    second = curl.run("-D-", f"{site.url}/x").split("\r\n\r\n", 1)
    assert [first[1], second[1]] == [body.decode()] * 2
    assert "Cache-Status: gfcache; fwd=uri-miss; fwd-status=200; stored" in first[0].split("\r\n")
    lines = second[0].split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert [line for line in lines if re.fullmatch(r"Cache-Status: gfcache; hit; ttl=\d+", line)]
    assert [line for line in lines if re.fullmatch(r"Age: \d+", line)]
    assert "Via: 1.1 gfcache" in lines
    assert site.nginx.count("/x") == {200: 1}


@pytest.mark.parametrize("size", [0, 1, 262_144, 10 * MEGABYTE + 1])
def test_bodies_of_many_sizes(site: Site, curl: Curl, size: int) -> None:
    path = f"/sizes-{size}.bin"
    body = site.add_random(path, size)
    direct = site.nginx.get(path)[1]
    for number in range(3):
        answer = curl(f"{site.url}{path}")
        assert (answer.status, answer.body == body, answer.is_hit) == (200, True, number > 0)
        for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Cache-Control"):
            assert answer.fields[name] == direct[name]
        assert len(answer.fields.get_all("Date", [])) == 1
    assert site.nginx.count(path) == {200: 2}, "one of them asked past the proxy"


def test_age_grows_and_the_lifetime_shrinks(site: Site, curl: Curl) -> None:
    site.add("/age.bin", b"aging")
    curl(f"{site.url}/age.bin")
    answer = curl(f"{site.url}/age.bin")
    remaining = re.search(r"ttl=(\d+)", answer.cache_status)
    assert remaining is not None
    assert int(answer.fields["Age"]) + int(remaining[1]) == LIFETIME_S


def test_a_missing_file_is_what_the_origin_says(site: Site, curl: Curl) -> None:
    answer = curl(f"{site.url}/not/there")
    assert answer.status == 404
    assert b"nginx" in answer.body
    curl.run("-f", "-o", os.devnull, f"{site.url}/not/there", exit_codes=(22,))


# -- parts --------------------------------------------------------------------------------------------------------
def test_ranges_of_a_stored_response(site: Site, curl: Curl) -> None:
    body = site.add_random("/ranges.bin", MEGABYTE)
    curl(f"{site.url}/ranges.bin")
    for wanted, expected in {
        "0-0": body[:1],
        "100-199": body[100:200],
        "1000000-": body[1_000_000:],
        "-77": body[-77:],
        "1048575-9999999": body[-1:],
    }.items():
        answer = curl("-r", wanted, f"{site.url}/ranges.bin")
        assert (answer.status, answer.body) == (206, expected), wanted
        assert answer.is_hit
        assert answer.fields["Content-Range"].endswith(f"/{MEGABYTE}")
    beyond = curl("-r", f"{MEGABYTE}-", f"{site.url}/ranges.bin")
    assert (beyond.status, beyond.fields["Content-Range"]) == (416, f"bytes */{MEGABYTE}")
    assert site.nginx.count("/ranges.bin") == {200: 1}


def test_several_ranges_at_once(site: Site, curl: Curl) -> None:
    body = site.add_random("/several.bin", 300_000)
    curl(f"{site.url}/several.bin")
    answer = curl("-r", "0-9,1000-1009,-10", f"{site.url}/several.bin")
    assert answer.status == 206
    boundary = answer.fields["Content-Type"].partition("boundary=")[2].encode()
    parts = answer.body.split(b"--" + boundary)[1:-1]
    assert [part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts] == [body[:10], body[1000:1010], body[-10:]]
    assert len(answer.body) == int(answer.fields["Content-Length"])


def test_a_range_of_what_is_not_stored(site: Site, curl: Curl) -> None:
    body = site.add_random("/range-first.bin", MEGABYTE)
    answer = curl("-r", "1000-1999", f"{site.url}/range-first.bin")
    assert (answer.status, answer.body) == (206, body[1000:2000])
    assert curl(f"{site.url}/range-first.bin").body == body


@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
def test_a_resumed_download(site: Site, curl: Curl, stored: bool) -> None:
    path = f"/resume-{stored}.bin"
    body = site.add_random(path, 3 * MEGABYTE)
    if stored:
        curl(f"{site.url}{path}")
    place = curl.home / "half"
    place.write_bytes(body[:MEGABYTE])
    curl.run("-C", "-", "-o", str(place), f"{site.url}{path}")
    assert place.read_bytes() == body


# -- methods and conditions ---------------------------------------------------------------------------------------
def test_head(site: Site, curl: Curl) -> None:
    body = site.add_random("/head.bin", 5000)
    first = curl("-I", f"{site.url}/head.bin")
    assert (first.status, first.fields["Content-Length"], first.is_hit) == (200, "5000", False)
    assert curl(f"{site.url}/head.bin").body == body
    second = curl("-I", f"{site.url}/head.bin")
    assert (second.status, second.fields["Content-Length"], second.is_hit) == (200, "5000", True)
    assert second.fields["ETag"] == first.fields["ETag"]


def test_an_etag_that_curl_has_saved(site: Site, curl: Curl) -> None:
    body = site.add_random("/etag.bin", 5000)
    tag = str(curl.home / "tag")
    assert curl("--etag-save", tag, f"{site.url}/etag.bin").body == body
    answer = curl("--etag-compare", tag, f"{site.url}/etag.bin")
    assert (answer.status, answer.body, answer.is_hit) == (304, b"", True)
    assert answer.fields["ETag"] in (curl.home / "tag").read_text()
    (curl.home / "tag").write_text('"another"\n')
    answer = curl("--etag-compare", tag, f"{site.url}/etag.bin")
    assert (answer.status, answer.body, answer.is_hit) == (200, body, True)
    assert site.nginx.count("/etag.bin") == {200: 1}


def test_only_when_it_is_newer(site: Site, curl: Curl) -> None:
    body = site.add_random("/newer.bin", 5000)
    written = time.time() - 5000
    os.utime(site.files / "newer.bin", (written, written))
    assert curl(f"{site.url}/newer.bin").body == body
    for when, status in ((written + 60, 304), (written - 60, 200)):
        answer = curl("-z", formatdate(when, usegmt=True), f"{site.url}/newer.bin")
        assert (answer.status, answer.body, answer.is_hit) == (status, body if status == 200 else b"", True)
    assert site.nginx.count("/newer.bin") == {200: 1}


def test_what_is_stale_at_once_is_validated_and_not_sent_again(site: Site, curl: Curl) -> None:
    body = site.add_random("/short/stale.bin", 300_000)
    for _ in range(3):
        assert curl(f"{site.url}/short/stale.bin").body == body
    assert site.nginx.count("/short/stale.bin") == {200: 1, 304: 2}
    changed = site.add_random("/short/stale.bin", 300_001)
    assert curl(f"{site.url}/short/stale.bin").body == changed
    assert site.nginx.count("/short/stale.bin") == {200: 2, 304: 2}


def test_a_reload_asks_the_origin_once_more(site: Site, curl: Curl) -> None:
    body = site.add_random("/reload.bin", 5000)
    curl(f"{site.url}/reload.bin")
    answer = curl("-H", "Cache-Control: no-cache", f"{site.url}/reload.bin")
    assert (answer.body, "fwd=request" in answer.cache_status) == (body, True)
    assert site.nginx.count("/reload.bin") == {200: 1, 304: 1}


def test_what_is_private_is_never_kept(site: Site, curl: Curl) -> None:
    body = site.add_random("/private/mine.bin", 5000)
    for _ in range(2):
        answer = curl(f"{site.url}/private/mine.bin")
        assert (answer.body, answer.is_hit) == (body, False)
    assert site.nginx.count("/private/mine.bin") == {200: 2}


def test_purge(site: Site, curl: Curl) -> None:
    site.add("/purge.bin", b"old")
    assert curl(f"{site.url}/purge.bin").body == b"old"
    site.add("/purge.bin", b"new one")
    assert curl(f"{site.url}/purge.bin").body == b"old"
    assert curl("-X", "PURGE", f"{site.url}/purge.bin").status == 200
    assert curl(f"{site.url}/purge.bin").body == b"new one"


# -- content codings ----------------------------------------------------------------------------------------------
def test_a_compressed_body_is_stored_as_the_origin_sent_it(site: Site, curl: Curl) -> None:
    text = site.add("/prose.txt", b"It says the same again and again. " * 20_000)
    raw = site.nginx.get("/prose.txt", **{"Accept-Encoding": "gzip"})[2]
    assert gzip.decompress(raw) == text
    for is_hit in (False, True):
        answer = curl("-H", "Accept-Encoding: gzip", f"{site.url}/prose.txt")
        assert (answer.body, answer.is_hit) == (raw, is_hit)
        assert (answer.fields["Content-Encoding"], answer.fields["Vary"]) == ("gzip", "Accept-Encoding")
    for is_hit in (False, True):
        answer = curl(f"{site.url}/prose.txt")
        assert (answer.body, answer.is_hit, answer.fields["Content-Encoding"]) == (text, is_hit, None)
    assert site.nginx.count("/prose.txt") == {200: 3}, "one of them asked past the proxy"


def test_parts_and_conditions_of_a_compressed_body(site: Site, curl: Curl) -> None:
    """They are of the bytes as stored; nginx's tag of them is weak."""
    site.add("/tagged.txt", b"Weakly tagged, weakly tagged. " * 10_000)
    tag, accepts = str(curl.home / "tag"), ("-H", "Accept-Encoding: gzip")
    raw = curl(*accepts, "--etag-save", tag, f"{site.url}/tagged.txt").body
    assert (curl.home / "tag").read_text().startswith('W/"')
    part = curl(*accepts, "-r", "10-19", f"{site.url}/tagged.txt")
    assert (part.status, part.body, part.is_hit) == (206, raw[10:20], True)
    assert curl(*accepts, "--etag-compare", tag, f"{site.url}/tagged.txt").status == 304
    assert site.nginx.count("/tagged.txt") == {200: 1}


def test_a_compressed_body_that_is_stale_is_validated(site: Site, curl: Curl) -> None:
    """nginx weakens the tag of what it compresses, but not in the 304 for it."""
    site.add("/short/often.txt", b"Asked for often, asked for often. " * 10_000)
    written = time.time() - 5000
    os.utime(site.files / "short" / "often.txt", (written, written))
    answers = [curl("-H", "Accept-Encoding: gzip", f"{site.url}/short/often.txt") for _ in range(3)]
    assert [answer.body for answer in answers] == [answers[0].body] * 3
    assert answers[0].fields["ETag"].startswith('W/"')
    assert {answer.fields["ETag"] for answer in answers} == {answers[0].fields["ETag"]}
    assert site.nginx.count("/short/often.txt") == {200: 1, 304: 2}


def test_what_curl_decompresses(site: Site, curl: Curl) -> None:
    text = site.add("/compressed.txt", b"Read me, read me. " * 10_000)
    answers = [curl("--compressed", f"{site.url}/compressed.txt") for _ in range(2)]
    assert [answer.body for answer in answers] == [text, text]
    assert [answer.is_hit for answer in answers] == [False, True]
    assert answers[1].fields["Content-Encoding"] == "gzip"
    assert site.nginx.count("/compressed.txt") == {200: 1}


# -- connections --------------------------------------------------------------------------------------------------
def test_many_urls_on_one_connection(site: Site, curl: Curl) -> None:
    bodies = {f"many-{number}.bin": site.add_random(f"/many-{number}.bin", number * 3000) for number in range(1, 31)}
    for _ in range(2):
        connects = curl.run(
            "-w", "%{num_connects}\n", "--remote-name-all", *(f"{site.url}/{name}" for name in bodies)
        ).split()
        assert [int(count) for count in connects] == [1] + [0] * (len(bodies) - 1)
        assert {name: (curl.home / name).read_bytes() for name in bodies} == bodies
    assert {name: site.nginx.count(f"/{name}") for name in bodies} == {name: {200: 1} for name in bodies}


def test_many_at_a_time_for_one_url(site: Site, curl: Curl) -> None:
    body = site.add_random("/together.bin", 8 * MEGABYTE)
    words = [word for number in range(20) for word in ("-o", f"together-{number}", f"{site.url}/together.bin")]
    curl.run("-Z", "--parallel-immediate", "--parallel-max", "20", *words)
    for number in range(20):
        assert (curl.home / f"together-{number}").read_bytes() == body
    assert site.nginx.count("/together.bin") == {200: 1}


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_versions_that_curl_can_ask_for(site: Site, curl: Curl, version: str) -> None:
    """--http2 asks in HTTP/1.1 whether it may change over; it may not, and gets its answer."""
    path = f"/version{version}.bin"
    body = site.add_random(path, 300_000)
    for is_hit in (False, True):
        answer = curl(version, f"{site.url}{path}")
        assert (answer.status, answer.body, answer.is_hit) == (200, body, is_hit)
    assert site.nginx.count(path) == {200: 1}


def test_http2_without_asking_is_refused_and_does_not_hang(site: Site, curl: Curl) -> None:
    curl.run("--http2-prior-knowledge", f"{site.url}/x", exit_codes=range(1, 100))
    assert curl(f"{site.url}/nothing").status == 404


def test_the_origin_is_asked_on_connections_that_stay(site: Site, curl: Curl) -> None:
    paths = [f"/reuse-{number}.bin" for number in range(12)]
    for path in paths:
        site.add_random(path, 2000)
    for path in paths:
        curl(f"{site.url}{path}")
    connections = {line.connection for line in site.nginx.log() if line.target in paths}
    assert len(connections) < len(paths)


# -- as a forward proxy -------------------------------------------------------------------------------------------
def test_as_a_proxy_for_a_host_that_is_allowed(site: Site, curl: Curl) -> None:
    body = site.add_random("/forward.bin", 300_000)
    for is_hit in (False, True):
        answer = curl("-x", site.url, f"{site.nginx.url}/forward.bin")
        assert (answer.status, answer.body, answer.is_hit) == (200, body, is_hit)
    assert site.nginx.count("/forward.bin") == {200: 1}


def test_as_a_proxy_for_any_other_host(site: Site, curl: Curl) -> None:
    answer = curl("-x", site.url, "http://example.invalid/x")
    assert answer.status == 403
    tunnel = curl("-x", site.url, "-p", f"{site.nginx.url}/x", exit_codes=(56,))
    assert tunnel.status == 501


# -- names --------------------------------------------------------------------------------------------------------
def test_names_that_have_to_be_escaped(site: Site, curl: Curl) -> None:
    body = site.add_random("/with blank/ünï%code.bin", 5000)
    escaped = "/with%20blank/%C3%BCn%C3%AF%25code.bin"
    for is_hit in (False, True):
        answer = curl(f"{site.url}{escaped}")
        assert (answer.status, answer.body, answer.is_hit) == (200, body, is_hit)
    assert curl(f"{site.url}/with%20blank/%c3%bcn%c3%af%25code.bin").is_hit
    assert curl("--path-as-is", f"{site.url}/gone/../with%20blank/./%C3%BCn%C3%AF%25code.bin").is_hit


def test_a_query_is_part_of_the_name(site: Site, curl: Curl) -> None:
    site.add("/query.bin", b"the same file")
    assert [curl(f"{site.url}/query.bin{query}").is_hit for query in ("?a=1", "?a=2", "?a=1", "", "?a=2", "")] == [
        False, False, True, False, True, True,
    ]  # fmt: skip
