"""http_fetch: what a fetch runs under; what comes of its answers is in tests/http."""

from __future__ import annotations

from tests.support.http_values import request, stored_response
from webproxy.fetch.http_fetch import FetchRequest
from webproxy.origin.routing import OriginRule, Target
from webproxy.store.lookup import StoredHit

RULE = OriginRule(url="http://o")
TARGET = Target(b"/x", RULE, "http://o", b"/x", b"/x")


def test_what_a_fetch_runs_under() -> None:
    orders = [
        FetchRequest(TARGET, request()),
        FetchRequest(TARGET._replace(key=b"/y"), request()),
        FetchRequest(TARGET, request(), variant=b"0123456789abcdef"),
    ]
    assert len({order.fetch_key for order in orders}) == 3
    assert TARGET.key not in {order.fetch_key for order in orders}  # a getfile fetch runs under that


def test_the_validation_of_a_part_is_a_fetch_of_its_own() -> None:
    whole, part = stored_response(), stored_response(incomplete=True)
    keys = [FetchRequest(TARGET, request(), StoredHit(b"/x", stored, 1)).fetch_key for stored in (whole, part)]
    assert keys[0] == FetchRequest(TARGET, request()).fetch_key != keys[1]
