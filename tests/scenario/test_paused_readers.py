"""A client paused in mid-body gets the rest, whatever happens to the object and whatever others request."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from simplecached.descriptors import PAUSED_MAX
from tests.http.client import HttpClient, fetch
from tests.support.counting import CountedPair, counted_pair
from tests.support.waiting import wait_until

BODY = os.urandom(60_000_000)
OTHERS = 300
assert OTHERS > PAUSED_MAX


def purge(pair: CountedPair) -> None:
    assert fetch(pair.port, "/big", method="PURGE").status == 200


def replace(pair: CountedPair) -> None:
    writer = pair.store.begin(b"/big", 3, b"")
    writer.write(memoryview(b"new"))
    writer.commit()


@pytest.mark.parametrize("what_becomes_of_it", [purge, replace])
def test_300_looks_at_other_objects_cut_no_paused_body(
    tmp_path: Path, what_becomes_of_it: Callable[[CountedPair], None]
) -> None:
    """HEADs, conditional requests and ranges leave nothing in the cache that pushes the pin of a paused body out."""
    with counted_pair(tmp_path, "-z", "8192") as pair:
        pair.hold("/big", BODY)
        others = [f"/other/{number}" for number in range(OTHERS)]
        for path in others:
            pair.hold(path, BODY[:40_000])
        with HttpClient(pair.port) as client:
            client.send("/big", "Connection: close")
            wait_until(lambda: b"/big" in pair.handler.paused, what="the pause")
            what_becomes_of_it(pair)
            for path in others:
                assert fetch(pair.port, path, method="HEAD").status == 200
                assert fetch(pair.port, path, 'If-None-Match: "1"').status == 304
                assert fetch(pair.port, path, "Range: bytes=10-19").body == BODY[10:20]
            reply = client.receive()
    assert reply.whole
    assert reply.body == BODY
