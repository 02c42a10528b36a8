from __future__ import annotations

import pytest

from simplecached.stores.lru import LruIndex


def index_of(*sizes: int, budget_bytes: int = 100, entries_max: int = 10) -> LruIndex[str]:
    index: LruIndex[str] = LruIndex(budget_bytes=budget_bytes, entries_max=entries_max)
    for number, size_bytes in enumerate(sizes):
        index.add("abcdefghij"[number], size_bytes)
    return index


def test_order_is_that_of_use() -> None:
    index = index_of(1, 1, 1)
    index.touch("a")
    index.pin("b")
    assert list(index) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("size_bytes", "victims"),
    [(0, []), (40, []), (41, ["a"]), (60, ["a"]), (61, ["a", "b"]), (100, ["a", "b", "c"]), (101, None)],
)
def test_victims_for_bytes(size_bytes: int, victims: list[str] | None) -> None:
    assert index_of(20, 20, 20).victims_for(size_bytes) == victims


def test_victims_for_count() -> None:
    index = index_of(1, 1, entries_max=2)
    assert index.victims_for(0) == ["a"]
    index.pin("a")
    assert index.victims_for(0) == ["b"]
    index.pin("b")
    assert index.victims_for(0) is None


@pytest.mark.parametrize(
    ("size_bytes", "victims"),
    [(0, []), (40, []), (41, ["b"]), (60, ["b"]), (61, ["b", "c"]), (80, ["b", "c"]), (81, None)],
)
def test_victims_for_growth(size_bytes: int, victims: list[str] | None) -> None:
    index = index_of(20, 20, 20, entries_max=3)
    index.pin("a")
    assert index.victims_for(size_bytes, entry_count=0) == victims


def test_growth_needs_no_entry() -> None:
    index = index_of(1, entries_max=1)
    index.pin("a")
    assert index.victims_for(99, entry_count=0) == []


def test_resize() -> None:
    index = index_of(20, 30)
    index.pin("a")
    index.resize("a", 70)
    index.resize("b", 10)
    assert (index.used_bytes, index.pinned_bytes) == (80, 70)
    with pytest.raises(ValueError, match="no space was made for 21 bytes"):
        index.resize("b", 31)
    index.resize("b", 30)
    index.unpin("a")
    index.discard("a")
    assert (index.used_bytes, index.pinned_bytes) == (30, 0)
    assert list(index) == ["b"]


def test_pinned_entries_are_skipped_or_make_it_impossible() -> None:
    index = index_of(40, 40)
    index.pin("a")
    index.touch("b")
    assert index.victims_for(60) == ["b"]
    assert index.victims_for(61) is None


def test_naming_victims_changes_nothing() -> None:
    index = index_of(40, 40)
    assert index.victims_for(100) == index.victims_for(100) == ["a", "b"]
    assert index.used_bytes == 80


def test_oldest_are_those_that_nobody_uses() -> None:
    index = index_of(1, 1, 1, 1)
    index.pin("b")
    assert index.oldest(2) == ["a", "c"]
    assert index.oldest(9) == ["a", "c", "d"]
    index.unpin("b")
    assert index.oldest(9) == ["a", "c", "d", "b"]
    assert index.oldest(0) == []


def test_pins_are_counted() -> None:
    index = index_of(40)
    index.pin("a")
    index.pin("a")
    assert (index.pins("a"), index.pinned_bytes, index.pinned_count) == (2, 40, 1)
    assert index.unpin("a") == 1
    assert index.unpin("a") == 0
    assert (index.pinned_bytes, index.pinned_count) == (0, 0)


def test_misuse_is_refused() -> None:
    index = index_of(60)
    with pytest.raises(ValueError, match="no space"):
        index.add("b", 41)
    with pytest.raises(ValueError, match="already"):
        index.add("a", 1)
    with pytest.raises(ValueError, match="no pin"):
        index.unpin("a")
    index.pin("a")
    with pytest.raises(ValueError, match="pinned"):
        index.discard("a")
    with pytest.raises(KeyError):
        index.touch("b")
    assert "a" in index
    assert len(index) == 1


@pytest.mark.parametrize(("budget_bytes", "entries_max"), [(-1, 1), (1, 0)])
def test_bounds_must_make_sense(budget_bytes: int, entries_max: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        LruIndex(budget_bytes=budget_bytes, entries_max=entries_max)
