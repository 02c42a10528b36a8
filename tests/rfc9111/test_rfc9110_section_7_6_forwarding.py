"""RFC 9110 section 7.6: what a proxy leaves out of a message, adds to it, and does not forward."""

from dataclasses import replace

import pytest

from tests.support.http_values import fields, request
from webproxy.caching.hop_by_hop import end_to_end
from webproxy.exchange.response_heads import STAYS, ResponseHeads
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.via import Via, counted_down, ends_here

OURS = Via(b"us", b"0123")


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        pytest.param((b"Connection: close", b"A: b"), (b"A: b",), id="Connection itself"),
        pytest.param((b"Connection: A", b"a: 1", b"B: 2"), (b"B: 2",), id="what it lists"),
        pytest.param(
            (b"Keep-Alive: 5", b"TE: trailers", b"Upgrade: x", b"B: 2"), (b"B: 2",), id="without being listed"
        ),
        pytest.param((b"Proxy-Connection: close", b"Transfer-Encoding: chunked"), (), id="those too"),
        pytest.param((b"Connection: Cache-Control", b"Cache-Control: x"), (b"Cache-Control: x",), id="what all need"),
    ],
)
def test_7_6_1_fields_of_one_connection_end_here(lines: tuple[bytes, ...], left: tuple[bytes, ...]) -> None:
    assert end_to_end(fields(*lines)) == fields(*left)


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
def test_7_6_2_options_that_ends_here(method: bytes, target: bytes, lines: list[bytes], ends: bool) -> None:
    assert ends_here(replace(request(*lines, method=method), target=target)) is ends


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
def test_7_6_2_one_hop_less(method: bytes) -> None:
    asked = request(b"Max-Forwards: 5", method=method)
    assert counted_down(asked).get_all(b"max-forwards") == [b"4"]


def test_7_6_2_other_methods_are_not_counted() -> None:
    asked = request(b"Max-Forwards: 5")
    assert counted_down(asked) is asked.fields


@pytest.mark.parametrize("version", [(1, 0), (1, 1)])
def test_7_6_3_via_has_the_version_that_was_received(version: tuple[int, int]) -> None:
    assert OURS.member(version) == b"%d.%d us (0123)" % version
    answer = OriginResponse(status=200, fields=fields(), length=0, http_version=b"%d.%d" % version)
    head = ResponseHeads(b"us").forwarded(answer, STAYS, b"us", b"Content-Length: 0\r\n", 0.0)
    assert b"\r\nVia: %d.%d us\r\n" % version in head


def test_7_6_3_a_request_that_was_here_before() -> None:
    assert OURS.came_round(fields(b"Via: 1.1 a, " + OURS.member((1, 1)) + b", 1.0 b"))
    assert not OURS.came_round(fields(b"Via: 1.1 a, " + Via(b"us", b"4567").member((1, 1))))
