"""Fetches with a cache beside them: it is filled once, slows nobody, and is never given a part for the whole."""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import cast

import pytest

from tests.support.fetching import FakeFill, FakeFills, opened, read, running, wait_available
from tests.support.waiting import wait_until
from webproxy.caching.stored import Selecting, StoredResponse
from webproxy.errors import BodyCutShort, OriginError
from webproxy.fetch import table
from webproxy.store.getfile_objects import GetfileVariants
from workloads.origin_stub import OriginStub, Route

BODY = os.urandom(400_001)


def test_who_missed_before_the_fill_is_sent_back_to_the_cache() -> None:
    fills = FakeFills()
    with OriginStub({"/x": Route(body=BODY)}) as origin, running(origin, fills=fills) as fetches:
        missed_at = monotonic()
        assert read(opened(fetches, b"/x", missed_at)) == BODY
        wait_until(lambda: not fetches.table.living)
        assert fetches.open(b"/x", missed_at) is None
        assert read(opened(fetches, b"/x", monotonic())) == BODY  # asked after the fill: it left the cache again
        assert origin.count("/x") == len(fills.made) == 2


def test_what_the_cache_did_not_store_is_fetched_again() -> None:
    fills = FakeFills(lambda fill: setattr(fill, "stores", False))
    with OriginStub({"/x": Route(body=BODY)}) as origin, running(origin, fills=fills) as fetches:
        missed_at = monotonic()
        for _ in range(2):
            assert read(opened(fetches, b"/x", missed_at)) == BODY
            wait_until(lambda: not fetches.table.living)
        assert origin.count("/x") == 2


def test_only_so_many_fills_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FILLED_MAX", 3)
    routes = {f"/{n}": Route(body=b"x") for n in range(5)}
    with OriginStub(routes) as origin, running(origin, fills=FakeFills()) as fetches:
        missed_at = monotonic()
        for path in routes:
            read(opened(fetches, path.encode()))
            wait_until(lambda: not fetches.table.living)
        remembered = [path for path in reversed(routes) if fetches.open(path.encode(), missed_at) is None]
        assert remembered == ["/4", "/3", "/2"]


def test_a_fill_goes_on_without_any_client() -> None:
    fills = FakeFills()
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=200_000)
    with OriginStub({"/x": route}) as origin, running(origin, fills=fills) as fetches:
        reader = opened(fetches, b"/x")
        wait_available(reader)
        wait_until(lambda: fills.made[0].position)
        reader.close()
        gate.set()
        wait_until(lambda: fills.made[0].stored)
        assert origin.count("/x") == 1


def test_a_client_is_never_slowed_by_a_cache_that_takes_nothing() -> None:
    body = os.urandom(4 << 20)

    def stuck(fill: FakeFill) -> None:
        fill.takes, fill.position = False, 0

    fills = FakeFills(stuck)
    with (
        OriginStub({"/x": Route(body=body)}) as origin,
        running(origin, window_bytes=65_536, fills=fills) as fetches,
    ):
        assert read(opened(fetches, b"/x")) == body


def test_a_client_that_left_ends_the_fetch_when_no_cache_takes_it() -> None:
    fills = FakeFills(lambda fill: setattr(fill, "takes", False))

    body = os.urandom(4 << 20)
    gate = threading.Event()
    with (
        OriginStub({"/x": Route(body=body, hold=gate, hold_at=1 << 20)}) as origin,
        running(origin, window_bytes=65_536, fills=fills) as fetches,
    ):
        reader = opened(fetches, b"/x")
        wait_available(reader)
        reader.close()
        wait_until(lambda: fills.made[0].cancelled)  # the last of its steps
        assert fetches.table.failed_total == 1
        assert not fills.made[0].stored
        gate.set()
        assert read(opened(fetches, b"/x")) == body


def test_a_failed_fetch_is_never_finished_in_the_cache() -> None:
    fills = FakeFills()
    with (
        OriginStub({"/x": Route(body=BODY, reset_at=300_000)}) as origin,
        running(origin, fills=fills) as fetches,
        pytest.raises((BodyCutShort, OriginError)),
    ):
        read(opened(fetches, b"/x"))
    wait_until(lambda: fills.made[0].cancelled)
    assert not fills.made[0].stored


class Elsewhere:
    """As Places: stores everything in one place, and notes what it is told."""

    def __init__(self, place: bytes | None) -> None:
        self._place = place
        self.entered: list[tuple[bytes, bytes, Selecting]] = []

    def expects(self, key: bytes) -> bool:
        return False

    def place(self, key: bytes, stored: StoredResponse) -> bytes | None:
        return self._place

    def enter(self, key: bytes, place: bytes, stored: StoredResponse) -> None:
        self.entered.append((key, place, stored.selecting))


VARYING = Route(body=BODY, headers={"Cache-Control": "max-age=60", "Vary": "Accept"})


def test_what_varies_is_stored_where_it_is_found_and_entered_when_it_is_whole() -> None:
    fills = FakeFills()
    variants = Elsewhere(b"/x\0id")
    with (
        OriginStub({"/x": VARYING}) as origin,
        running(origin, fills=fills, variants=cast(GetfileVariants, variants)) as fetches,
    ):
        missed_at = monotonic()
        assert read(opened(fetches, b"/x")) == BODY
        wait_until(lambda: not fetches.table.living)
        assert fills.made[0].request.key == b"/x\0id"
        assert variants.entered == [(b"/x", b"/x\0id", ((b"accept", b"*/*"),))]
        assert fetches.open(b"/x", missed_at) is None


def test_what_has_no_place_is_not_stored() -> None:
    fills = FakeFills()
    variants = Elsewhere(None)
    with (
        OriginStub({"/x": VARYING}) as origin,
        running(origin, fills=fills, variants=cast(GetfileVariants, variants)) as fetches,
    ):
        assert read(opened(fetches, b"/x")) == BODY
        wait_until(lambda: not fetches.table.living)
        assert (fills.made, variants.entered) == ([], [])
