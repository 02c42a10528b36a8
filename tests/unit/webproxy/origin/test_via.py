"""forwarding: odd numbers of hops, and whose mark is ours; the rules of section 7.6 are in tests/rfc9111."""

from __future__ import annotations

import pytest

from tests.support.http_values import fields, request
from webproxy.origin.routing import OriginRule, Target
from webproxy.origin.via import Via, counted_down

VIA = Via(b"us", b"0123")
TARGET = Target(b"/x", OriginRule(url="http://o"), "http://o", b"/x", b"/x")


def test_what_is_forwarded() -> None:
    lines = (b"Host: us", b"X: y", b"Expect: 100-continue", b"Connection: Z", b"Z: 1", b"Via: 1.0 before")
    expected = (b"X: y", b"Via: 1.0 before", b"Via: 1.1 us (0123)")
    assert VIA.forwarded(request(*lines), TARGET) == fields(*expected)
    assert VIA.forwarded(request(*lines, b"Max-Forwards: 3"), TARGET).get(b"max-forwards") == b"3"
    counted = VIA.forwarded(request(*lines, b"Max-Forwards: 3", method=b"OPTIONS"), TARGET)
    assert counted.get_all(b"max-forwards") == [b"2"]


def test_a_host_that_is_preserved() -> None:
    target = TARGET._replace(host=b"shown")
    assert VIA.forwarded(request(b"Host: us"), target) == fields(b"Host: shown", b"Via: 1.1 us (0123)")


def test_via_tells_the_version_that_came() -> None:
    assert VIA.member((1, 1)) == b"1.1 us (0123)"
    assert VIA.member((1, 0)) == b"1.0 us (0123)"


@pytest.mark.parametrize(
    ("lines", "came_round"),
    [
        pytest.param([], False, id="no-Via"),
        pytest.param([b"Via: 1.1 us"], False, id="another-proxy-of-our-name"),
        pytest.param([b"Via: 1.1 us (4567), 1.0 0123"], False, id="our-mark-as-a-name"),
        pytest.param([b"Via: 1.1 a", b"Via: 1.1 us (0123), 1.1 b"], True, id="ours-among-others"),
        pytest.param([b"Via: 1.1 renamed (0123)"], True, id="under-another-name"),
    ],
)
def test_a_request_that_was_here_before(lines: list[bytes], came_round: bool) -> None:
    assert VIA.came_round(fields(*lines)) is came_round


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        (b"OPTIONS", b"5", b"4"),
        (b"TRACE", b"1", b"0"),
        (b"OPTIONS", b"9" * 5000, b"999999"),
        (b"OPTIONS", b"-1", b"-1"),
        (b"GET", b"5", b"5"),
    ],
)
def test_hops_are_counted_for_two_methods(method: bytes, before: bytes, after: bytes) -> None:
    asked = request(b"A: b", b"max-forwards: " + before, method=method)
    assert counted_down(asked).get_all(b"max-forwards") == [after]
    assert counted_down(asked).get(b"a") == b"b"


def test_without_a_number_nothing_is_added() -> None:
    asked = request(method=b"OPTIONS")
    assert counted_down(asked) is asked.fields
