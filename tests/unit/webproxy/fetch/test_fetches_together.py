"""Fetches with all their threads: does every reader come to an end, with every byte or a failure, whatever happens?"""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.descriptors import open_descriptors
from tests.support.fetching import FakeFill, FakeFills, RunningFetches, opened, read, running, wait_available
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import BodyCutShort, OriginError
from workloads.origin_stub import Framing, OriginStub, Route

BODIES = {f"/{number}": os.urandom(size) for number, size in enumerate((0, 1, 5_000, 300_001, 1_000_003))}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.state.FIRST_PAUSE_SECONDS", 0.002)


def routes(chance: random.Random) -> dict[str, list[Route]]:
    """Each path answers a few times in turn, now and then with a fault."""

    def route(body: bytes) -> Route:
        fault = chance.choice(["", "", "", "truncate", "reset", "busy"])
        framing = chance.choice(list(Framing))
        at = chance.randrange(len(body) + 1)
        return Route(
            body=body,
            framing=framing,
            headers={"ETag": '"v"'},
            truncate_at=at if fault == "truncate" and framing is not Framing.CLOSE else None,
            reset_at=at if fault == "reset" and framing is not Framing.CLOSE else None,
            fail_first=1 if fault == "busy" else 0,
        )

    return {path: [route(body) for _ in range(8)] for path, body in BODIES.items()}


def visit(fetches: RunningFetches, seed: int) -> int:
    """Readers that read all, leave in the middle, or let the fetch run without them; how many read all."""
    chance, whole = random.Random(seed), 0
    for _ in range(12):
        path = chance.choice(list(BODIES))
        reader = opened(fetches, path.encode())
        how = chance.choice(["reads", "reads", "leaves at once", "leaves", "detaches"])
        try:
            if how == "reads":
                assert read(reader) == BODIES[path]
                whole += 1
            elif how == "leaves":
                reader.advance(min(wait_available(reader), 1000))
        except (BodyCutShort, OriginError):
            pass
        finally:
            if how == "detaches":
                reader.detach()
            reader.close()
    return whole


@pytest.mark.parametrize("seed", range(4))
def test_every_reader_comes_to_an_end(seed: int) -> None:
    chance = random.Random(seed)

    def change(fill: FakeFill) -> None:
        fill.takes, fill.stores = chance.random() < 0.7, chance.random() < 0.7
        fill.chunk_bytes = 0

    with (
        OriginStub(routes(chance)) as origin,
        running(origin, threads=2, window_bytes=20_000, fills=FakeFills(change)) as fetches,
    ):
        with ThreadPoolExecutor(8) as crew:
            counts = [crew.submit(visit, fetches, 100 * seed + number) for number in range(8)]
            assert sum(count.result(WATCHDOG_S) for count in counts) > 0
        wait_until(lambda: not fetches.table.living)


def test_stopping_in_the_middle_ends_every_reader_and_leaves_nothing_open() -> None:
    chance = random.Random(7)
    before = open_descriptors()
    with (
        OriginStub(routes(chance)) as origin,
        running(origin, threads=2, window_bytes=20_000, fills=FakeFills()) as fetches,
        ThreadPoolExecutor(4) as crew,
    ):

        def visit_for_ever(seed: int) -> None:
            while True:
                visit(fetches, seed)

        def visit_until_it_stops(seed: int) -> None:
            with pytest.raises(OriginError, match="stops"):
                visit_for_ever(seed)

        visits = [crew.submit(visit_until_it_stops, seed) for seed in range(4)]
        wait_until(lambda: fetches.table.fetched_total > 20)
        fetches.table.stop(WATCHDOG_S)
        assert not fetches.table.living
        for visiting in visits:
            visiting.result(WATCHDOG_S)
    wait_until(lambda: open_descriptors() <= before, what="the end of all descriptors")
