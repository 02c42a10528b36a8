"""The HTTP request parser against its corpus, cut in every way: no cut changes what is read or how it is refused."""

import itertools

import pytest

from tests.support.feeding import pieces, ways_to_cut
from tests.support.http_feeding import Reading, read_connection
from tests.wire.http_corpus import LARGE, READ, REFUSED, HttpCase


def outcome(reading: Reading) -> tuple[object, ...]:
    requests = tuple((head.method, head.target, body) for head, body in reading.requests)
    return requests, reading.refused, reading.unfinished


def expected(case: HttpCase) -> tuple[object, ...]:
    return case.requests, case.refused, case.unfinished


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_requests_are_read_however_they_are_cut(case: HttpCase) -> None:
    for parts in ways_to_cut(case.data):
        assert outcome(read_connection(parts)) == expected(case), parts


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_requests_are_refused_however_they_are_cut(case: HttpCase) -> None:
    for parts in ways_to_cut(case.data):
        assert outcome(read_connection(parts)) == expected(case), parts


@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.name)
def test_limits_are_the_same_however_requests_are_cut(case: HttpCase) -> None:
    marks = range(1, len(case.data), 97)
    for parts in ([case.data], pieces(case.data, marks), *(pieces(case.data, [mark]) for mark in marks)):
        assert outcome(read_connection(parts)) == expected(case)


def test_the_corpus_names_each_case_once() -> None:
    names = [case.name for case in itertools.chain(READ, REFUSED, LARGE)]
    assert len(names) == len(set(names))
