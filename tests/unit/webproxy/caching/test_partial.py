"""partial: what only the values show; the rules of sections 3.3 and 3.4 are in tests/rfc9111."""

from __future__ import annotations

from tests.support.http_values import NOW, fields, request, stored_response
from webproxy.caching.partial import UNSATISFIABLE, WHOLE, RangeKind, answer_range, may_combine


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
