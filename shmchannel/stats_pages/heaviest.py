"""HeaviestRows: the heaviest of keys that anybody can choose, in the rows of a table: the most frequent paths, say.

The rule is *space-saving* (Metwally, Agrawal, El Abbadi, 2005). Each row has a weight. When there is no free one, a key
without a row takes that of the lightest, and inherits its weight: so a key that comes often enough gets a row and keeps
it, whatever number of others comes once each. Any key whose share of the whole is larger than one of the rows is there.

The weight decides only who stays. What a row counts is what its key has brought since it got the row; what the key
before it had counted moves to the last row, so that the sum of all rows is everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmchannel.stats_pages.counting import Counter
from shmchannel.stats_pages.page import StatsPage
from shmchannel.stats_pages.schema import OTHER


@dataclass(slots=True, eq=False)
class _Row:
    label: str
    counters: tuple[Counter, ...]
    weight: int


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

    def add(self, key: str, *amounts: int) -> None:
        """Count these amounts for a key, one for each metric."""
        row = self._rows.get(key) or self._admit(key)
        row.weight += amounts[0]
        for counter, amount in zip(row.counters, amounts, strict=True):
            counter.add(amount)

    def _admit(self, key: str) -> _Row:
        if key == OTHER:
            return self._other
        label = self._page.row(self._table, key)
        if label in self._rows:  # its name was cut
            return self._rows[label]
        weight = 0
        if label == OTHER:
            lightest = min(self._rows.values(), key=lambda row: row.weight)
            for counter, of_others in zip(lightest.counters, self._other.counters, strict=True):
                of_others.add(counter.value)
            label, weight = self._page.rename_row(self._table, lightest.label, key), lightest.weight
            del self._rows[lightest.label]
        row = self._rows[label] = self._row_of(label)
        row.weight = max(row.weight, weight)
        return row

    def _row_of(self, label: str) -> _Row:
        counters = tuple(self._page.counter(metric, label) for metric in self._metrics)
        return _Row(label, counters, counters[0].value)
