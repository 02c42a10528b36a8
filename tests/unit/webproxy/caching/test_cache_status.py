"""cache_status: each parameter of RFC 9211 section 2, and the quoting of RFC 8941."""

from __future__ import annotations

from typing import Any

import pytest

from webproxy.caching.cache_status import cache_status


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({"hit": True, "ttl": 376}, b"gfcache; hit; ttl=376", id="hit"),
        pytest.param({"hit": True, "ttl": -412}, b"gfcache; hit; ttl=-412", id="stale-hit"),
        pytest.param({"hit": True}, b"gfcache; hit", id="hit-alone"),
        pytest.param({"hit": True, "ttl": 5, "key": b"/x"}, b'gfcache; hit; ttl=5; key="/x"', id="hit-with-key"),
        pytest.param(
            {"hit": True, "ttl": 5, "detail": b"memory"}, b"gfcache; hit; ttl=5; detail=memory", id="hit-detail"
        ),
        pytest.param({"fwd": b"uri-miss"}, b"gfcache; fwd=uri-miss", id="miss"),
        pytest.param({"fwd": b"uri-miss", "stored": True}, b"gfcache; fwd=uri-miss; stored", id="miss-stored"),
        pytest.param({"fwd": b"vary-miss", "collapsed": True}, b"gfcache; fwd=vary-miss; collapsed", id="collapsed"),
        pytest.param(
            {"fwd": b"stale", "fwd_status": 304, "ttl": 60, "stored": True, "collapsed": True, "key": b"k"},
            b'gfcache; fwd=stale; fwd-status=304; ttl=60; stored; collapsed; key="k"',
            id="everything",
        ),
        pytest.param({"detail": b"no such cache"}, b'gfcache; detail="no such cache"', id="detail-alone"),
        pytest.param({}, b"gfcache", id="nothing-to-say"),
        pytest.param(
            {"hit": True, "fwd": b"stale", "fwd_status": 200, "stored": True, "collapsed": True},
            b"gfcache; hit",
            id="hit-excludes-the-rest",
        ),
        pytest.param({"fwd_status": 200, "stored": True, "collapsed": True}, b"gfcache", id="nothing-was-forwarded"),
        pytest.param({"ttl": 10**20}, b"gfcache; ttl=999999999999999", id="integers-are-bounded"),
        pytest.param({"ttl": -(10**20)}, b"gfcache; ttl=-999999999999999", id="below-too"),
    ],
)
def test_parameters(parameters: dict[str, Any], expected: bytes) -> None:
    assert cache_status(b"gfcache", **parameters) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(b"cache.example:80/a", b"cache.example:80/a", id="a-token-may-have-colon-and-slash"),
        pytest.param(b"*", b"*", id="star"),
        pytest.param(b"1st", b'"1st"', id="begins-with-a-digit"),
        pytest.param(b"two words", b'"two words"', id="blank"),
        pytest.param(b"", b'""', id="empty"),
        pytest.param(b'a"b\\c', b'"a\\"b\\\\c"', id="quotes-and-backslashes"),
        pytest.param(b"a\r\nb\xfc", b'"a%0D%0Ab%FC"', id="what-a-string-cannot-hold"),
    ],
)
def test_names_and_details_are_tokens_or_strings(name: bytes, expected: bytes) -> None:
    assert cache_status(name, hit=True, ttl=1) == expected + b"; hit; ttl=1"
    assert cache_status(b"c", detail=name) == b"c; detail=" + expected


def test_a_key_is_always_a_string() -> None:
    assert cache_status(b"c", key=b"token") == b'c; key="token"'
    assert cache_status(b"c", key=b'/a"\\\xfc') == b'c; key="/a\\"\\\\%FC"'
