"""Numbers as people read them."""

from __future__ import annotations

import pytest

from webproxy.monitor import quantities


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (1500, "1.5 kB"),
        (2**20, "1.05 MB"),
        (5e18, "5,000 PB"),
    ],
)
def test_sizes(count: float | None, text: str) -> None:
    assert quantities.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 µs"),
        (12e-6, "12.0 µs"),
        (0.0009999, "1 ms"),
        (0.1, "100 ms"),
        (0.9999, "1 s"),
        (7, "7 s"),
        (99.6, "2 min"),
        (3600, "1 h 00 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_times(seconds: float | None, text: str) -> None:
    assert quantities.duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [(None, "-"), (0, "0.0 %"), (0.973, "97.3 %"), (0.99999, "99.9 %"), (1, "100.0 %"), (1.5, "150.0 %")],
)
def test_nothing_less_than_all_is_a_hundred_percent(part: float | None, text: str) -> None:
    assert quantities.share(part) == text


def test_rates_and_counts() -> None:
    assert [quantities.rate(value) for value in (None, 0, 0.25, 12.34, 12_345.6)] == [
        "-",
        "0/s",
        "0.25/s",
        "12.3/s",
        "12,346/s",
    ]
    assert [quantities.count(value) for value in (None, 0, 1234)] == ["-", "0", "1,234"]


def test_bars() -> None:
    """Full for all, empty for nothing only, and never longer than their room."""
    assert quantities.bar(1, 4) == quantities.bar(7, 4) == "████"
    assert (quantities.bar(0, 4), quantities.bar(-1, 4)) == ("", "")
    assert quantities.bar(0.0001, 4) == "▏"
    assert quantities.bar(0.5, 3) == "█▌"
    assert (quantities.level(0), quantities.level(0.0001), quantities.level(1)) == (" ", "▁", "█")


def test_a_curve_shows_the_last_values() -> None:
    assert quantities.spark([8, None, 4, 8], 3) == " ▄█"
    assert quantities.spark([0, 0], 5) == "  "
    assert quantities.spark([], 5) == quantities.spark([1], 0) == ""
