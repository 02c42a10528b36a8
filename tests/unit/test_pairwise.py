"""The choice of cases for the matrix leaves no pair out, and leaves most combinations out."""

import itertools

from tests.support.pairwise import pairs_in, pairwise

PARAMETERS = {"threads": [1, 2, 3], "size": ["a", "b", "c", "d"], "wire": [True, False], "count": [10, 20]}


def test_every_pair_meets():
    cases = pairwise(PARAMETERS)
    met = set().union(*map(pairs_in, cases))
    every = itertools.product(*PARAMETERS.values())
    assert met == set().union(*(pairs_in(dict(zip(PARAMETERS, values, strict=True))) for values in every))


def test_few_cases_are_enough():
    assert 12 <= len(pairwise(PARAMETERS)) <= 16


def test_the_choice_does_not_change():
    assert pairwise(PARAMETERS) == pairwise(PARAMETERS)
