"""ForwardedRequest: the parts of a client's request that are sent to an origin, and their limits."""

from __future__ import annotations

import pytest

from tests.support.http_values import fields, request
from tests.support.sinks import origin_client
from webproxy.origin.forwarded_request import ForwardedRequest
from webproxy.origin.routing import OriginRule, Target
from webproxy.origin.via import Via

RULE = OriginRule(url="http://o", connect_s=1.5, stall_s=2.5, tls_verify=False, add_fields=((b"X", b"y"),))
TARGET = Target(b"/x", RULE, "http://o", b"/x", b"/x")


@pytest.fixture
def asker() -> ForwardedRequest:
    return ForwardedRequest(origin_client(), Via(b"us", b"0123"), redirects=3, object_bytes_max=1 << 20)


def test_what_is_forwarded(asker: ForwardedRequest) -> None:
    lines = (b"Host: us", b"X: y", b"Expect: 100-continue", b"Connection: Z", b"Z: 1", b"Via: 1.0 before")
    expected = (b"X: y", b"Via: 1.0 before", b"Via: 1.1 us (0123)")
    assert asker.forwarded(request(*lines), TARGET) == fields(*expected)
    assert asker.forwarded(request(*lines, b"Max-Forwards: 3"), TARGET).get(b"max-forwards") == b"3"
    counted = asker.forwarded(request(*lines, b"Max-Forwards: 3", method=b"OPTIONS"), TARGET)
    assert counted.get_all(b"max-forwards") == [b"2"]


def test_a_host_that_is_preserved(asker: ForwardedRequest) -> None:
    target = TARGET._replace(host=b"shown")
    assert asker.forwarded(request(b"Host: us"), target) == fields(b"Host: shown", b"Via: 1.1 us (0123)")


def test_the_limits_are_the_rules(asker: ForwardedRequest) -> None:
    limits = asker.limits(RULE)
    assert (limits.connect_s, limits.stall_s, limits.redirects, limits.object_bytes_max) == (1.5, 2.5, 3, 1 << 20)
    assert (limits.tls_verify, limits.add_fields) == (False, ((b"X", b"y"),))
    assert asker.limits(RULE) is limits
