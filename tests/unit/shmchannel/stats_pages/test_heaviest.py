"""The heaviest keys keep their rows, however many others come; nothing that was counted is lost."""

from __future__ import annotations

import pytest

from shmchannel.errors import UsageError
from shmchannel.stats_pages import OTHER, Schema, StatsPage, Table, read_page
from shmchannel.stats_pages.heaviest import HeaviestRows
from shmchannel.stats_pages.layout import ROW_TEXT_BYTES
from shmchannel.stats_pages.schema import Namespace, decode_schema
from tests.support.stats_pages import open_pages

_NAMES = Namespace("by_key_", labels=("key",), table="keys")
COUNT, AMOUNT = "by_key_count_total", "by_key_amount_total"
SCHEMA = Schema(
    (
        _NAMES.counter("count", "Count."),
        Namespace("fixed_", labels=("key",), table="fixed").counter("c", "C."),
        _NAMES.counter("amount", "Amount."),
    ),
    (
        Table(name="fixed", label="key", rows=3),
        Table(name="keys", label="key", rows=5, names_change=True),
    ),
)


@pytest.fixture
def page() -> StatsPage:
    return StatsPage.private(SCHEMA)


def counted(page: StatsPage) -> dict[str, tuple[int, int]]:
    """Both counts of each row."""
    return {label: (page.value(COUNT, label), page.value(AMOUNT, label)) for label in page.named("keys")}


def test_as_long_as_there_are_rows_each_key_has_one(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT, AMOUNT)
    for key in ("a", "b", "a", "c", "d"):
        rows.add(key, 1, 10)
    assert counted(page) == {"a": (2, 20), "b": (1, 10), "c": (1, 10), "d": (1, 10), OTHER: (0, 0)}


def test_who_comes_often_stays_whatever_comes_once(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT, AMOUNT)
    for number in range(1000):
        rows.add("often", 1, 1)
        rows.add(f"once-{number}", 1, 1)
        rows.add(f"twice-{number // 2}", 1, 1)
    found = counted(page)
    assert len(found) == 5
    assert found["often"] == (1000, 1000)
    assert tuple(map(sum, zip(*found.values(), strict=True))) == (3000, 3000), "nothing is lost"


def test_a_key_that_becomes_heavy_gets_a_row_and_counts_from_then_on(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT)
    for key in ("a", "b", "c", "d"):
        rows.add(key, 5)
    rows.add("late", 1)
    assert counted(page)["late"] == (1, 0)
    rows.add("later", 1)
    rows.add("late", 1)
    found = counted(page)
    assert {"late", "later"} <= set(found), "it inherited the weight of the lightest, and is no longer that"
    assert sum(count for count, _ in found.values()) == 23


def test_others_are_counted_as_others(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT)
    rows.add(OTHER, 3)
    assert counted(page) == {OTHER: (3, 0)}


def test_a_name_that_is_cut_is_one_row(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT)
    long = "x" * (2 * ROW_TEXT_BYTES)
    rows.add(long, 1)
    rows.add(long + "y", 1)
    assert counted(page)["x" * ROW_TEXT_BYTES] == (2, 0)


def test_the_next_writer_and_readers_find_the_names() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        page.begin()
        rows = HeaviestRows(page, "keys", COUNT, AMOUNT)
        for key, count in (("a", 9), ("b", 8), ("c", 7), ("d", 1), ("e", 1)):
            rows.add(key, count, 1)
        again = StatsPage.open(page.name, SCHEMA)
        again.begin()
        HeaviestRows(again, "keys", COUNT, AMOUNT).add("f", 1, 1)
        reading = read_page(page.name)
        assert reading is not None
        values = reading.metrics[COUNT]
        assert values.numbers == {("a",): 9, ("b",): 8, ("c",): 7, ("f",): 1, (OTHER,): 2}
        assert (values.names_change, reading.metrics["fixed_c_total"].names_change) == (True, False)


def test_rows_that_cannot_be_renamed(page: StatsPage) -> None:
    page.row("fixed", "a")
    page.row("keys", "a")
    page.row("keys", "b")
    for wrong in (("fixed", "a", "z"), ("keys", "nobody", "z"), ("keys", OTHER, "z"), ("keys", "a", "b")):
        with pytest.raises(UsageError):
            page.rename_row(*wrong)
    assert page.rename_row("keys", "a", "c") == "c"
    assert page.named("keys") == [OTHER, "b", "c"]


def test_the_text_of_a_schema_says_that_names_change() -> None:
    assert decode_schema(SCHEMA.encoded) == SCHEMA
    assert SCHEMA.encoded.count(b"names_change") == 1


def test_of_many_keys_at_once_the_heavy_ones_get_rows_and_nothing_is_lost(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT, AMOUNT)
    for second in range(10):
        rows.add_all({"often": (100, 200)} | {f"once-{second}-{number}": (1, 2) for number in range(50)})
    found = counted(page)
    assert len(found) == 5
    assert found["often"] == (1000, 2000)
    assert tuple(map(sum, zip(*found.values(), strict=True))) == (1500, 3000)


def test_a_newcomer_among_many_inherits_the_weights_of_those_before_it(page: StatsPage) -> None:
    """So that whoever was there before all of them is lighter than they are, as if each had come by itself."""
    rows = HeaviestRows(page, "keys", COUNT, AMOUNT)
    rows.add_all({"a": (5, 1), "b": (5, 1), "c": (5, 1), "d": (5, 1)})
    rows.add("e", 0, 0)  # there is no row left from now on
    rows.add_all({f"once-{number}": (1, 1) for number in range(20)})
    held = set(counted(page)) - {OTHER}
    rows.add_all({"f": (1, 1)})
    assert len(held & set(counted(page))) == 3, "only one of four equals has made way"
    assert sum(count for count, _ in counted(page).values()) == 41


def test_keys_whose_names_are_cut_alike_share_a_row(page: StatsPage) -> None:
    rows = HeaviestRows(page, "keys", COUNT, AMOUNT)
    rows.add_all(dict.fromkeys("abcd", (1, 1)))
    rows.add_all({"e": (1, 1)})
    long = "x" * ROW_TEXT_BYTES
    rows.add_all({long + "1": (10, 1), long + "2": (10, 1)})
    assert sum(count for count, _ in counted(page).values()) == 25
