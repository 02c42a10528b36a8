"""RFC 9211 section 2: what Cache-Status says, rule by rule; how its items are written is in the unit test."""

from typing import Any

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, decision_after, kept
from tests.support.http_values import NOW, fields
from webproxy.caching.cache_status import cache_status
from webproxy.exchange.response_heads import STAYS, ResponseHeads
from webproxy.origin.response_head import OriginResponse

REPLIES = ResponseHeads(b"us")
STORED = kept(b"Cache-Control: max-age=60", DATE, ETAG)


def said(head: bytes) -> list[bytes]:
    """The values of the lines of Cache-Status."""
    lines = [line.partition(b": ") for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")]
    return [value for name, _, value in lines if name.lower() == b"cache-status"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({"hit": True}, b"us; hit", id="2.1 hit"),
        pytest.param({"hit": True, "fwd": b"stale"}, b"us; hit", id="2.1 hit, and nothing was forwarded"),
        pytest.param({"fwd": b"uri-miss"}, b"us; fwd=uri-miss", id="2.2 fwd is a token"),
        pytest.param({"fwd": b"stale", "fwd_status": 304}, b"us; fwd=stale; fwd-status=304", id="2.3 fwd-status"),
        pytest.param({"fwd_status": 304}, b"us", id="2.3 only where it was forwarded"),
        pytest.param({"hit": True, "ttl": -5}, b"us; hit; ttl=-5", id="2.4 ttl, below zero when stale"),
        pytest.param({"fwd": b"uri-miss", "stored": True}, b"us; fwd=uri-miss; stored", id="2.5 stored"),
        pytest.param({"hit": True, "stored": True}, b"us; hit", id="2.5 only where it was forwarded"),
        pytest.param({"fwd": b"uri-miss", "collapsed": True}, b"us; fwd=uri-miss; collapsed", id="2.6 collapsed"),
        pytest.param({"fwd": b"uri-miss", "key": b"/x"}, b'us; fwd=uri-miss; key="/x"', id="2.7 key is a string"),
        pytest.param({"fwd": b"uri-miss", "detail": b"no-store"}, b"us; fwd=uri-miss; detail=no-store", id="2.8"),
    ],
)
def test_parameters(parameters: dict[str, Any], expected: bytes) -> None:
    assert cache_status(b"us", **parameters) == expected


@pytest.mark.parametrize(("seconds", "ttl"), [(0, 60), (59.9, 1), (60, 0), (100, -40)])
def test_the_time_that_is_left_of_a_hit(seconds: float, ttl: int) -> None:
    head = REPLIES.hit(STORED, decision_after(seconds, STORED, b"Cache-Control: max-stale").age_s, STAYS)
    assert said(head) == [b"us; hit; ttl=%d" % ttl]


def test_every_cache_on_the_way_has_its_member_the_nearest_to_the_origin_first() -> None:
    answer = OriginResponse(status=200, fields=fields(b"Cache-Status: far; hit", b"A: b"), length=0)
    head = REPLIES.forwarded(answer, STAYS, REPLIES.status(fwd=b"uri-miss"), b"Content-Length: 0\r\n", NOW)
    assert said(head) == [b"far; hit", b"us; fwd=uri-miss"]
    stored = kept(b"Cache-Control: max-age=60", DATE, ETAG, b"Cache-Status: far; hit")
    assert said(REPLIES.hit(stored, 0, STAYS)) == [b"far; hit", b"us; hit; ttl=60"]


def test_what_is_made_of_a_stored_response_has_it_too() -> None:
    hit = [b"us; hit; ttl=60"]
    assert said(REPLIES.not_modified(STORED, 0, STAYS, None)) == hit
    assert said(REPLIES.part(STORED, 0, STAYS, None, 0, 1)) == hit
    assert said(REPLIES.parts(STORED, 0, STAYS, None, b"b", 5)) == hit
    assert said(REPLIES.unsatisfiable(STORED, 0, STAYS, None, NOW)) == hit


def test_answers_of_our_own_have_none_but_about_what_is_stored() -> None:
    assert said(REPLIES.local(502, STAYS, NOW, "no answer")) == []
    lacking = b"Cache-Status: %s\r\n" % REPLIES.status(detail=b"uri-miss")
    assert said(REPLIES.local(504, STAYS, NOW, "x", lacking)) == [b"us; detail=uri-miss"]
