"""WidthHints: one segment for what is small or unknown, more for what was large the last time."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from shmchannel.objects.width_hints import WidthHints
from shmchannel.streams.pool import GROWTH_CHUNKS


def test_width_grows_with_the_object() -> None:
    hints = WidthHints()
    assert hints.width_for(b"/unknown") == 1
    hints.remember(b"/small", 2 * GROWTH_CHUNKS - 1)
    hints.remember(b"/large", 5 * GROWTH_CHUNKS)
    assert hints.width_for(b"/small") == 1
    assert hints.width_for(b"/large") == 5
    hints.remember(b"/large", 3 * GROWTH_CHUNKS)
    assert hints.width_for(b"/large") == 3


def test_an_object_that_is_short_now_is_forgotten() -> None:
    hints = WidthHints(keys_max=3)
    for key in (b"/shrunk", b"/large", b"/larger"):
        hints.remember(key, 5 * GROWTH_CHUNKS)
    hints.correct(b"/larger", 6 * GROWTH_CHUNKS)
    hints.correct(b"/shrunk", 2 * GROWTH_CHUNKS - 1)
    hints.correct(b"/unknown", 0)
    hints.remember(b"/new", 4 * GROWTH_CHUNKS)
    widths = [hints.width_for(key) for key in (b"/shrunk", b"/large", b"/larger", b"/unknown", b"/new")]
    assert widths == [1, 5, 6, 1, 4]


def test_width_hints_are_bounded() -> None:
    hints = WidthHints(keys_max=3)
    for number in range(10):
        hints.remember(b"/%d" % number, 4 * GROWTH_CHUNKS)
    assert [number for number in range(10) if hints.width_for(b"/%d" % number) > 1] == [7, 8, 9]


def test_width_hints_of_many_threads() -> None:
    hints = WidthHints(keys_max=8)

    def remember(thread: int) -> None:
        for number in range(300):
            hints.remember(b"/%d" % (number % 20), (4 + thread) * GROWTH_CHUNKS)
            assert hints.width_for(b"/%d" % (number % 20)) >= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(remember, range(4)))
    assert sum(hints.width_for(b"/%d" % number) > 1 for number in range(20)) == 8


def test_a_long_key_costs_no_more_than_a_short_one() -> None:
    hints, key = WidthHints(), bytes(4000)
    references = sys.getrefcount(key)
    hints.remember(key, 5 * GROWTH_CHUNKS)
    assert hints.width_for(key) == 5
    assert sys.getrefcount(key) == references
