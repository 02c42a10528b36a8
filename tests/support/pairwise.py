"""Choosing few cases out of many combinations, so that each pair of values still meets."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

Case = dict[str, Any]
_Pair = frozenset[tuple[str, Hashable]]


def pairwise(parameters: Mapping[str, Sequence[Hashable]]) -> list[Case]:
    """Return cases in which every two values of different parameters occur together at least once.

    Greedy: each case takes the combination that meets most of the pairs still missing; the same input gives the same
    cases. For a handful of parameters with a handful of values each.
    """
    missing = {
        frozenset({(one, left), (two, right)})
        for one, two in itertools.combinations(parameters, 2)
        for left, right in itertools.product(parameters[one], parameters[two])
    }
    combinations = [dict(zip(parameters, values, strict=True)) for values in itertools.product(*parameters.values())]
    cases = []
    while missing:
        best = max(combinations, key=lambda case: len(missing & pairs_in(case)))
        missing -= pairs_in(best)
        cases.append(best)
    return cases


def pairs_in(case: Case) -> set[_Pair]:
    """The pairs that meet in one case."""
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}
