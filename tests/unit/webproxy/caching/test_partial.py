"""partial: what only the values show; the rules of sections 3.3 and 3.4 are in tests/rfc9111."""

from __future__ import annotations

import pytest

from tests.support.http_values import NOW, fields, request, stored_response
from webproxy.caching.partial import (
    PART_BYTES_MIN,
    UNSATISFIABLE,
    WHOLE,
    RangeAnswer,
    RangeKind,
    answer_range,
    as_incomplete,
    is_worth_keeping,
    lies_within,
    may_combine,
)


def test_whole_and_unsatisfiable_are_one_value_each() -> None:
    stored = stored_response(body_bytes=10)
    assert answer_range(request(), stored, NOW) is WHOLE
    assert answer_range(request(b"Range: bytes=99-"), stored, NOW) is UNSATISFIABLE
    assert (WHOLE.ranges, UNSATISFIABLE.ranges) == ((), ())


def test_parts_keep_their_order() -> None:
    answer = answer_range(request(b"Range: bytes=8-9, 0-1"), stored_response(body_bytes=10), NOW)
    assert (answer.kind, answer.ranges) == (RangeKind.SEVERAL, ((8, 10), (0, 2)))


def test_the_validator_of_parts_has_two_sides() -> None:
    tagged, plain = fields(b'ETag: "a"'), fields()
    assert may_combine(tagged, tagged, NOW)
    assert not may_combine(tagged, plain, NOW)
    assert not may_combine(plain, tagged, NOW)


@pytest.mark.parametrize(
    ("answer", "within"),
    [
        (RangeAnswer(RangeKind.ONE, ((0, 10),)), True),
        (RangeAnswer(RangeKind.ONE, ((9, 11),)), False),
        (RangeAnswer(RangeKind.SEVERAL, ((5, 10), (0, 2))), True),
        (RangeAnswer(RangeKind.SEVERAL, ((10, 11), (0, 2))), False),
        (WHOLE, False),
        (UNSATISFIABLE, False),
    ],
)
def test_only_parts_lie_within_a_part(answer: RangeAnswer, within: bool) -> None:
    assert lies_within(answer, 10) is within


@pytest.mark.parametrize(
    ("held", "size", "worth"),
    [
        (PART_BYTES_MIN - 1, 1 << 30, False),
        (PART_BYTES_MIN, 1 << 30, True),
        (PART_BYTES_MIN, PART_BYTES_MIN, False),
        (0, 0, False),
    ],
)
def test_what_is_worth_keeping(held: int, size: int, worth: bool) -> None:
    assert is_worth_keeping(held, size) is worth


def test_an_incomplete_response_is_recorded_as_one() -> None:
    part = as_incomplete(stored_response(body_bytes=3, invalidated=True), 10)
    assert (part.incomplete, part.body_bytes, part.invalidated) == (True, 10, False)
