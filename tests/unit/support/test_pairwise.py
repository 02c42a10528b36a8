"""The choice of cases for the matrix leaves no pair out, and leaves most combinations out."""

import itertools
from collections.abc import Hashable, Sequence

from tests.support.pairwise import pairs_in, pairwise

PARAMETERS: dict[str, Sequence[Hashable]] = {
    "threads": [1, 2, 3],
    "size": ["a", "b", "c", "d"],
    "wire": [True, False],
    "count": [10, 20],
}


def test_every_pair_meets() -> None:
    cases = pairwise(PARAMETERS)
    met = {pair for case in cases for pair in pairs_in(case)}
    every = itertools.product(*PARAMETERS.values())
    assert met == {pair for values in every for pair in pairs_in(dict(zip(PARAMETERS, values, strict=True)))}


def test_few_cases_are_enough() -> None:
    assert 12 <= len(pairwise(PARAMETERS)) <= 16


def test_the_choice_does_not_change() -> None:
    assert pairwise(PARAMETERS) == pairwise(PARAMETERS)
