"""HeaviestRows: the heaviest of keys that anybody can choose, in the rows of a table: the most frequent paths, say.

The rule is *space-saving* (Metwally, Agrawal, El Abbadi, 2005). Each row has a weight. When there is no free one, a key
without a row takes that of the lightest, and inherits its weight: so a key that comes often enough gets a row and keeps
it, whatever number of others comes once each. Any key whose share of the whole is larger than one of the rows is there.

The weight decides only who stays. What a row counts is what its key has brought since it got the row; what the key
before it had counted moves to the last row, so that the sum of all rows is everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from operator import attrgetter
from typing import NamedTuple

from shmchannel.stats_pages.counting import Counter
from shmchannel.stats_pages.page import StatsPage
from shmchannel.stats_pages.schema import OTHER


@dataclass(slots=True, eq=False)
class _Row:
    label: str
    counters: tuple[Counter, ...]
    weight: int


class _Place(NamedTuple):
    """A row while keys without one take it from each other."""

    weight: int
    number: int
    """Distinguishes places of one weight."""
    label: str
    """Of the row, by the name that it still has."""
    key: str = ""
    """Who would have it now; empty if it is still the one that the label names."""
    amounts: Sequence[int] = ()


_weight_of = attrgetter("weight")


class HeaviestRows:
    """Of a table whose names change. For one thread, which is the only one that names rows of the table."""

    def __init__(self, page: StatsPage, table: str, *metrics: str) -> None:
        """`metrics` are counters of the table; the first one is the weight."""
        self._page = page
        self._table = table
        self._metrics = metrics
        self._other = self._row_of(OTHER)
        labels = (label for label in page.named(table) if label != OTHER)
        self._rows = {label: self._row_of(label) for label in labels}
        self._is_full = False

    def add(self, key: str, *amounts: int) -> None:
        """Count these amounts for a key, one for each metric."""
        row = self._rows.get(key) or self._admit(key)
        row.weight += amounts[0]
        for counter, amount in zip(row.counters, amounts, strict=True):
            counter.add(amount)

    def add_all(self, amounts: Mapping[str, Sequence[int]]) -> None:
        """As add() for each of these keys.

        Most of very many keys come once, and would have a row only until the next one: the page is told of those that
        have one at the end.
        """
        homeless = []
        for key, of_key in amounts.items():
            if key in self._rows or not self._is_full:
                self.add(key, *of_key)
            else:
                homeless.append((key, of_key))
        if homeless:
            self._add_homeless(homeless)

    def _add_homeless(self, homeless: Iterable[tuple[str, Sequence[int]]]) -> None:
        places = [_Place(row.weight, number, row.label) for number, row in enumerate(self._rows.values())]
        heapify(places)
        for number, (key, amounts) in enumerate(homeless, len(places)):
            place = places[0]
            self._count_as_other(place.amounts)
            heapreplace(places, _Place(place.weight + amounts[0], number, place.label, key, amounts))
        for place in places:
            if place.key:
                row = self._admit(place.key, place.label)
                row.weight = max(row.weight, place.weight - place.amounts[0])
                self.add(place.key, *place.amounts)

    def _count_as_other(self, amounts: Sequence[int]) -> None:
        for counter, amount in zip(self._other.counters, amounts, strict=False):
            counter.add(amount)

    def _admit(self, key: str, instead_of: str = "") -> _Row:
        """The row of a key that had none, taken from another one if need be: the lightest unless it is named."""
        if key == OTHER:
            return self._other
        label = self._page.row(self._table, key)
        if label in self._rows:  # its name was cut
            return self._rows[label]
        weight = 0
        if label == OTHER:
            self._is_full = True
            old = self._rows[instead_of] if instead_of else min(self._rows.values(), key=_weight_of)
            self._count_as_other([counter.value for counter in old.counters])
            label, weight = self._page.rename_row(self._table, old.label, key), old.weight
            del self._rows[old.label]
        row = self._rows[label] = self._row_of(label)
        row.weight = max(row.weight, weight)
        return row

    def _row_of(self, label: str) -> _Row:
        counters = tuple(self._page.counter(metric, label) for metric in self._metrics)
        return _Row(label, counters, counters[0].value)
