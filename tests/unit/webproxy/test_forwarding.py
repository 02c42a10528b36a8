"""forwarding: Via, requests that have come round, and hops that are counted (RFC 9110 sections 7.6.2 and 7.6.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.http_values import fields, request
from webproxy.forwarding import Via, counted_down, ends_here

VIA = Via(b"us", b"0123")


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
    ("method", "target", "lines", "ends"),
    [
        pytest.param(b"OPTIONS", b"*", [], True, id="the-server-as-such"),
        pytest.param(b"OPTIONS", b"/x", [b"Max-Forwards: 0"], True, id="no-hop-left"),
        pytest.param(b"OPTIONS", b"/x", [b"Max-Forwards: 00"], True, id="no-hop-left-in-two-digits"),
        pytest.param(b"OPTIONS", b"/x", [b"Max-Forwards: 1"], False, id="one-hop-left"),
        pytest.param(b"OPTIONS", b"/x", [b"Max-Forwards: none"], False, id="no-number"),
        pytest.param(b"OPTIONS", b"/x", [b"Max-Forwards: 0", b"Max-Forwards: 0"], False, id="two-numbers"),
        pytest.param(b"OPTIONS", b"/x", [], False, id="a-resource"),
        pytest.param(b"GET", b"/x", [b"Max-Forwards: 0"], False, id="another-method"),
    ],
)
def test_what_ends_here(method: bytes, target: bytes, lines: list[bytes], ends: bool) -> None:
    assert ends_here(replace(request(*lines, method=method), target=target)) is ends


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
