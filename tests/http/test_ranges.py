"""RFC 9110 section 14 with whole daemons: parts of what is stored, and of what is on its way."""

from __future__ import annotations

import re

import pytest

from tests.http.site import Site, http_date
from workloads.origin_stub import Framing, Route

BODY = bytes(range(256)) * 1200
SIZE = len(BODY)
MODIFIED = http_date(-10_000)
HEADERS = {"Cache-Control": "max-age=600", "ETag": '"1"', "Last-Modified": MODIFIED, "Content-Type": "text/plain"}


@pytest.fixture
def path(site: Site) -> str:
    """Something that is stored."""
    return site.fill(Route(body=BODY, headers=HEADERS))


RANGES = [
    pytest.param("0-0", 0, 1, id="first byte"),
    pytest.param("100-199", 100, 200, id="middle"),
    pytest.param("-100", SIZE - 100, SIZE, id="suffix"),
    pytest.param("300000-", 300_000, SIZE, id="resume"),
    pytest.param(f"100-{SIZE * 2}", 100, SIZE, id="beyond the end"),
    pytest.param(f"-{SIZE * 2}", 0, SIZE, id="long suffix"),
]


@pytest.mark.parametrize(("asked", "first", "end"), RANGES)
@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
def test_one_range(site: Site, asked: str, first: int, end: int, stored: bool) -> None:
    path = site.put(Route(body=BODY, headers=HEADERS))
    if stored:
        site.get(path)
        site.stored(path)
    reply = site.get(path, f"Range: bytes={asked}")
    assert (reply.status, reply.get("content-range")) == (206, f"bytes {first}-{end - 1}/{SIZE}")
    assert (reply.body == BODY[first:end], reply.whole) == (True, True)
    assert (reply.get("etag"), reply.get("content-type")) == ('"1"', "text/plain")
    if not stored:
        assert site.stored(path).body == BODY
    assert site.count(path) == 1
    assert "range" not in site.last(path).headers


def test_several_ranges(site: Site, path: str) -> None:
    reply = site.get(path, "Range: bytes=0-9,1000-1999,-5")
    assert reply.status == 206
    kind = reply.get("content-type") or ""
    found = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", kind)
    assert found
    parts = reply.body.split(b"--" + found[1].encode())
    assert parts[-1] == b"--\r\n"
    bodies = []
    for part in parts[1:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        assert b"Content-Type: text/plain" in head
        bodies.append((re.findall(rb"Content-Range: bytes (\S+)", head)[0], body.removesuffix(b"\r\n")))
    assert bodies == [
        (b"0-9/%d" % SIZE, BODY[:10]),
        (b"1000-1999/%d" % SIZE, BODY[1000:2000]),
        (b"%d-%d/%d" % (SIZE - 5, SIZE - 1, SIZE), BODY[-5:]),
    ]
    assert site.count(path) == 1


@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
def test_beyond_the_end(site: Site, stored: bool) -> None:
    path = site.put(Route(body=BODY, headers=HEADERS))
    if stored:
        site.get(path)
        site.stored(path)
    reply = site.get(path, f"Range: bytes={SIZE}-")
    assert (reply.status, reply.get("content-range")) == (416, f"bytes */{SIZE}")


@pytest.mark.parametrize("control", ["max-age=60", "no-store"], ids=["stored", "not-stored"])
def test_a_stray_content_range_of_the_origin_reaches_nobody(site: Site, control: str) -> None:
    """RFC 9110 section 14.4: beside that of a part a client could take it for its own."""
    headers = {**HEADERS, "Cache-Control": control, "Content-Range": "bytes 0-1/2"}
    path = site.put(Route(body=BODY, headers=headers))
    assert site.get(path).all("content-range") == []
    if control == "max-age=60":
        assert site.stored(path).all("content-range") == []
        assert site.get(path, method="HEAD").all("content-range") == []
    assert site.get(path, "Range: bytes=10-19").all("content-range") == [f"bytes 10-19/{SIZE}"]


@pytest.mark.parametrize("asked", ["bytes=5-1", "bytes=a-b", "lines=1-2", "bytes=", "5-6"])
def test_what_is_no_range_gets_all(site: Site, path: str, asked: str) -> None:
    reply = site.get(path, f"Range: {asked}")
    assert (reply.status, reply.body == BODY) == (200, True)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"1"', 206),
        ('"2"', 200),
        ('W/"1"', 200),
        (MODIFIED, 206),
        (http_date(-5), 200),
    ],
    ids=["tag", "other tag", "weak tag", "date", "later date"],
)
@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
def test_if_range(site: Site, condition: str, status: int, stored: bool) -> None:
    path = site.put(Route(body=BODY, headers={**HEADERS, "Date": http_date()}))
    if stored:
        site.get(path)
        site.stored(path)
    reply = site.get(path, "Range: bytes=10-19", f"If-Range: {condition}")
    assert (reply.status, reply.body == (BODY[10:20] if status == 206 else BODY)) == (status, True)


def test_a_range_of_a_body_of_unknown_length_on_a_miss(site: Site) -> None:
    path = site.put(Route(body=BODY, headers=HEADERS, framing=Framing.CHUNKED))
    reply = site.get(path, "Range: bytes=10-19")
    assert (reply.status, reply.body == BODY) == (200, True)
    site.stored(path)
    reply = site.get(path, "Range: bytes=10-19")
    assert (reply.status, reply.body) == (206, BODY[10:20])


def test_a_range_of_a_stale_response_is_validated(site: Site) -> None:
    path = site.fill(Route(body=BODY, headers={**HEADERS, "Age": "1000"}))
    reply = site.get(path, "Range: bytes=100-199")
    assert (reply.status, reply.body) == (206, BODY[100:200])
    assert reply.cache["fwd-status"] == "304"


def test_a_range_of_a_head_is_ignored(site: Site, path: str) -> None:
    reply = site.get(path, "Range: bytes=10-19", method="HEAD")
    assert (reply.status, reply.get("content-length")) == (200, str(SIZE))


def test_a_part_from_the_origin_is_passed_on_and_not_stored(site: Site) -> None:
    path = site.put(Route(body=BODY, headers=HEADERS))
    reply = site.get(path, "Range: bytes=10-19", "Cache-Control: no-store")
    assert (reply.status, reply.body) == (206, BODY[10:20])
    assert site.get(path).body == BODY
    assert site.count(path) == 2
