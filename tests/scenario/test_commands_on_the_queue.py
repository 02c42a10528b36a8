"""How many commands a request costs on the cache's queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.client import fetch
from tests.support import client as getfile
from tests.support.counting import CountedPair, counted_pair
from workloads.origin_stub import Route

SMALL, LARGE = os.urandom(8192), os.urandom(3_000_000)
FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"'}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[CountedPair]:
    with counted_pair(tmp_path) as living:
        yield living


def test_a_hit(pair: CountedPair) -> None:
    pair.hold("/x", SMALL)
    assert pair.commands(lambda: fetch(pair.port, "/x")) == ["GET"]
    assert pair.commands(lambda: getfile.ask(pair.port, "/x")) == ["GET"]


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("bytes=0-99", 0, 100), ("bytes=1000000-1999999", 1_000_000, 2_000_000), ("bytes=2900000-", 2_900_000, None),
     ("bytes=-500", -500, None), ("bytes=0-99999999", 0, None)],
)  # fmt: skip
def test_a_range_of_a_hit(pair: CountedPair, asked: str, first: int, end: int | None) -> None:
    pair.hold("/x", LARGE)
    replies = []
    assert pair.commands(lambda: replies.append(fetch(pair.port, "/x", f"Range: {asked}"))) == ["GET"]
    assert (replies[0].status, replies[0].body) == (206, LARGE[first:end])


def test_several_ranges_of_a_hit(pair: CountedPair) -> None:
    """The facts, then each range."""
    pair.hold("/x", LARGE)
    assert pair.commands(lambda: fetch(pair.port, "/x", "Range: bytes=0-9,100-199")) == ["GET"] * 3


def test_a_range_that_cannot_be(pair: CountedPair) -> None:
    pair.hold("/x", SMALL)
    assert pair.commands(lambda: fetch(pair.port, "/x", "Range: bytes=9000-")) == ["GET"]


def test_what_the_facts_answer(pair: CountedPair) -> None:
    pair.hold("/x", LARGE)
    assert pair.commands(lambda: fetch(pair.port, "/x", method="HEAD")) == ["GET"]
    assert pair.commands(lambda: fetch(pair.port, "/x", 'If-None-Match: "1"')) == ["GET"]
    replies = []
    assert pair.commands(lambda: replies.append(fetch(pair.port, "/x", 'If-None-Match: "2"'))) == ["GET", "GET"]
    assert replies[0].body == LARGE


def test_a_validation(pair: CountedPair) -> None:
    pair.hold("/x", SMALL, lifetime_s=0)
    replies = []
    assert pair.commands(lambda: replies.append(fetch(pair.port, "/x"))) == ["GET", "UPDATE"]
    assert replies[0].cache["fwd-status"] == "304"
    assert replies[0].body == SMALL


def test_a_validation_for_who_has_it(pair: CountedPair) -> None:
    pair.hold("/x", LARGE, lifetime_s=0)
    assert pair.commands(lambda: fetch(pair.port, "/x", 'If-None-Match: "1"')) == ["GET", "UPDATE"]


def test_a_validation_of_more_than_a_chunk(pair: CountedPair) -> None:
    """Its body is not held while the origin is asked: no segment waits for an origin."""
    pair.hold("/x", LARGE, lifetime_s=0)
    assert pair.commands(lambda: fetch(pair.port, "/x")) == ["GET", "UPDATE", "GET"]


def test_a_miss(pair: CountedPair) -> None:
    pair.origin.add("/x", [Route(body=SMALL, headers=FRESH)])
    assert pair.commands(lambda: fetch(pair.port, "/x"), lambda: pair.has(b"/x")) == ["GET", "PUT"]


def test_a_miss_of_getfile(pair: CountedPair) -> None:
    pair.origin.add("/x", [Route(body=SMALL, headers=FRESH)])
    assert pair.commands(lambda: getfile.ask(pair.port, "/x"), lambda: pair.has(b"/x")) == ["GET", "PUT"]


def test_a_purge(pair: CountedPair) -> None:
    """Of a key with all that HTTP keeps of it."""
    pair.hold("/x", SMALL)
    for key in (b"/x\0", b"/x\0000123456789abcdef", b"/x\0partial"):
        pair.store.begin(key, 0, b"facts").commit()
    replies = []
    assert pair.commands(lambda: replies.append(fetch(pair.port, "/x", method="PURGE"))) == ["PURGE"]
    assert replies[0].body == b"4 objects removed\n"
    assert not pair.store.records()
