"""Which rows count at a start; whole starts after a kill are in tests/faults."""

from __future__ import annotations

from simplecached.stores.directory_recovery import records_to_keep
from simplecached.stores.record import Record


def name_of(key: bytes, version: int) -> str:
    return f"{key.decode()}-{version}"


def row(key: str, version: int, size_bytes: int = 10, metadata: bytes = b"") -> Record:
    return Record(key.encode(), size_bytes, metadata, version)


def kept(rows: list[Record], sizes: dict[str, int], *, budget_bytes: int = 100, entries_max: int = 10) -> list[str]:
    chosen = records_to_keep(rows, sizes, name_of, budget_bytes=budget_bytes, entries_max=entries_max)
    return [name_of(each.key, each.version) for each in chosen]


def test_row_and_file_of_that_size_are_both_needed() -> None:
    rows = [row("a", 1), row("b", 2), row("c", 3)]
    assert kept(rows, {"a-1": 10, "b-2": 9, "d-4": 10}) == ["a-1"]


def test_of_two_versions_the_younger_counts_whatever_the_order_of_use() -> None:
    rows = [row("a", 2), row("a", 1)]
    assert kept(rows, {"a-1": 10, "a-2": 10}) == ["a-2"]


def test_an_older_version_does_not_come_back_when_the_younger_lost_its_file() -> None:
    assert kept([row("a", 1), row("a", 2)], {"a-1": 10}) == []


def test_beyond_the_budget_the_longest_unused_go() -> None:
    rows = [row("a", 1), row("b", 2, metadata=b"12345"), row("c", 3)]
    sizes = {"a-1": 10, "b-2": 10, "c-3": 10}
    assert kept(rows, sizes, budget_bytes=35) == ["a-1", "b-2", "c-3"]
    assert kept(rows, sizes, budget_bytes=34) == ["b-2", "c-3"]
    assert kept(rows, sizes, entries_max=1) == ["c-3"]


def test_one_that_is_too_large_does_not_take_the_others_along() -> None:
    rows = [row("a", 1), row("b", 2, 1000), row("c", 3)]
    assert kept(rows, {"a-1": 10, "b-2": 1000, "c-3": 10}) == ["a-1", "c-3"]
